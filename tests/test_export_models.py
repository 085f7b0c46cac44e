"""Models as other programs read them: ONNX by onnxruntime, and folders for the hub by its library, timm and Mixlab.

What timm itself makes of a folder is in test_export_timm.py.
"""

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

import backends
from analysis.export import card, hf
from analysis.export import onnx as onnx_export
from analysis.export.weights import Model, Selection, read
from backends.arrays import Array, State
from backends.errors import MixlabError
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from backends.weights import timm
from experiments import data
from experiments.data import hub
from experiments.results import kept
from experiments.results.store import Store
from experiments.spec.trial import Trial
from experiments.weights import weight_files
from experiments.weights.weight_files import Weights
from tests import test_weights
from tests.conftest import Ended
from tests.kept_models import CLASSES, keep, random_params, trial
from tests.test_store_of_before import DONE, INTERRUPTED, STORE
from tests.test_weights import assert_same_bits, fixture

Run = Callable[..., Ended]

# Each operator, and beside it each other option of the model, of training and of data that a graph must hold.
VARIANTS: dict[str, dict[str, Any]] = {
    "tied": {"channel_mixing": "untied", "activation": "relu"},
    "untied": {"position_embedding": "learned", "data": {"permutation": "pixels"}},
    "grouped": {"token_groups": 2, "share_blocks": True, "num_blocks": 2},
    "grouped_views": {"token_groups": 2, "activation": "gelu", "norm_epsilon": 0.1},
    "pooling": {"pre_head_norm": False, "image_size": 12, "image_channels": 3, "num_classes": 3},
    "identity": {"data": {"permutation": "patches"}, "train": {"ema_decay": 0.0, "precision": "bfloat16"}},
    "attention": {"num_heads": 2, "pool": "cls"},
    "gating": {},
    "linear": {"norm": "affine", "layer_scale": 0.1},
    "fourier": {"norm_place": "post"},
    "random": {"norm": "rms"},
    "depthwise": {"position_embedding": "sincos2d"},
    "shift": {"channel_mixing": "none"},
}
# float32 against float64, on logits of order 1; seen: 1.4e-6. The nearest wrong graph, without the permutation or with
# the other GELU, is off by more than 1e-4.
TOLERANCE = 1e-5
# Arguments of timm.models.mlp_mixer.MlpMixer.__init__ that are numbers; huggingface/pytorch-image-models 1.0.31.
TIMM_ARGUMENTS = {"num_classes", "img_size", "in_chans", "patch_size", "num_blocks", "embed_dim", "mlp_ratio"}
HOSTILE = "Is `a` | b\n---\n# <script>alert(1)</script> *better*?\n```"


def variant(token_mixing: str, **more: Any) -> Trial:
    """A trial of the operator, with what VARIANTS puts beside it."""
    return trial(**{"num_blocks": 1, "token_mixing": token_mixing, **VARIANTS[token_mixing], **more})


def single(key: str, **more: Any) -> Selection:
    return Selection({key: ""}, is_one=True, **more)


def logits(of: Trial, params: State, images: Array) -> Array:
    """By the PyTorch backend in float64."""
    order = data.pixel_order(of.data.permutation, of.model.image_size, of.model.patch_size, of.data.split_seed)
    return test_weights.logits("torch", of.model, params, images, order)


def pixels(of: Trial, number: int) -> Array:
    shape = (number, of.model.image_size, of.model.image_size, of.model.image_channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """A trial of each variant, and the folder of their ONNX files."""
    folder = tmp_path_factory.mktemp("graphs")
    made = Store(folder / "runs")
    keys = [keep(made, one, random_params(one)) for one in map(variant, TOKEN_MIXING)]
    onnx_export.export(made, Selection(dict.fromkeys(keys, ""), "all"), folder / "onnx")
    return made, folder / "onnx"


# --- ONNX -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_mixing", TOKEN_MIXING)
def test_onnxruntime_gives_the_logits_of_the_model(graphs: tuple[Store, Path], token_mixing: str) -> None:
    of = variant(token_mixing)
    session = onnxruntime.InferenceSession(graphs[1] / f"{of.id}.onnx", providers=["CPUExecutionProvider"])
    for number in (1, 5):
        images = pixels(of, number)
        (made,) = session.run(None, {"images": images})
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, logits(of, random_params(of), images), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("token_mixing", ["untied", "identity"])
def test_another_order_of_pixels_would_be_seen(token_mixing: str) -> None:
    of, plain = variant(token_mixing), variant(token_mixing, data={"permutation": "none"})
    params, images = random_params(of), pixels(of, 5)
    assert np.abs(logits(of, params, images) - logits(plain, params, images)).max() > 10 * TOLERANCE


def test_a_graph_says_what_it_takes_and_what_it_is_of(graphs: tuple[Store, Path]) -> None:
    of = variant("untied")
    path = graphs[1] / f"{of.id}.onnx"
    made = onnx.load(path)
    onnx.checker.check_model(made, full_check=True)
    (images,), (out,) = made.graph.input, made.graph.output
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, images.type.tensor_type.elem_type, dims) == (
        "images",
        onnx.TensorProto.UINT8,
        ["batch", 8, 8, 1],
    )
    assert (out.name, out.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    about = {one.key: one.value for one in made.metadata_props}
    assert about["mixlab.trial"] == of.id and about["mixlab.weights"] == f"last, of step {of.num_steps}"
    assert json.loads(about["mixlab.model"]) == json.loads(json.dumps(dataclasses.asdict(of.model)))
    assert json.loads(about["mixlab.classes"]) == CLASSES
    assert (
        re.fullmatch(r"[0-9a-f]{40}", about["mixlab.commit"])
        and about["mixlab.permutation"] == "pixels, by data.split_seed 0; in the graph"
    )
    assert b".py" not in path.read_bytes()  # no lines of code, whose paths are those of a machine


def test_the_same_export_gives_the_same_bytes_and_leaves_the_file(graphs: tuple[Store, Path]) -> None:
    path = graphs[1] / f"{variant('identity').id}.onnx"
    before = path.stat()
    (line,) = onnx_export.export(graphs[0], single(path.stem), graphs[1])
    assert line.startswith(f"left as it is: {path}") and path.stat() == before


@pytest.mark.parametrize("fault", ["activation", "garbage"])
def test_a_graph_that_computes_something_else_is_never_left(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    of = trial(num_blocks=1, activation="gelu_tanh")
    keep(store, of, random_params(of))
    write = backends.load_graphs("torch").write_graph

    def wrong(model: MixerSpec, *arguments: Any) -> bytes:
        return b"no graph" if fault == "garbage" else write(dataclasses.replace(model, activation="gelu"), *arguments)

    monkeypatch.setattr(backends, "load_graphs", lambda name: SimpleNamespace(write_graph=wrong))
    with pytest.raises(MixlabError, match="refused by onnxruntime" if fault == "garbage" else "rounding explains"):
        onnx_export.export(store, single(of.id), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_too_large_for_one_file_is_a_sentence() -> None:
    spec, huge = trial().model, {"head/kernel": np.broadcast_to(np.float32(0), (2**20, 2**10))}
    with pytest.raises(MixlabError, match=r"at most 2 GiB, and the weights of this model take 4\.0 GiB"):
        backends.load_graphs("torch").write_graph(spec, huge, None, {})


# --- The hub and timm -----------------------------------------------------------------------------------------------


def test_a_folder_holds_what_timm_itself_wrote(store: Store, tmp_path: Path) -> None:
    """The fixture's weights are timm's own, and so are the logits that test_weights.py holds this reading to."""
    theirs = {
        name.removeprefix("state_dict/"): x for name, x in fixture("timm").items() if name.startswith("state_dict/")
    }
    np.savez(tmp_path / "timm.npz", **theirs)  # type: ignore[arg-type]
    weights = weight_files.read(tmp_path / "timm.npz")
    of = trial(**dataclasses.asdict(weights.model))
    hf.export(store, single(keep(store, of, weights.params)), tmp_path / "out")
    assert_same_bits(load_file(tmp_path / "out" / hf.WEIGHTS), theirs)
    model, stem = weights.model, theirs["stem.proj.weight"].shape
    assert isinstance(model, MixerSpec)
    assert json.loads((tmp_path / "out" / hf.CONFIG).read_text())["model_args"] == {
        "num_classes": theirs["head.weight"].shape[0],
        "img_size": model.image_size,
        "in_chans": stem[1],
        "patch_size": stem[2],
        "num_blocks": model.num_blocks,
        "embed_dim": stem[0],
        "mlp_ratio": [model.tokens_mlp_dim / stem[0], model.channels_mlp_dim / stem[0]],
    }


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({}, 'act_layer=partial(nn.GELU, approximate="tanh"),'),
        (
            {"activation": "relu", "norm_epsilon": 1e-3},
            "act_layer=nn.ReLU, norm_layer=partial(nn.LayerNorm, eps=0.001),",
        ),
        ({"activation": "gelu"}, ""),
    ],
)
def test_a_folder_in_timms_names_is_the_same_model_to_mixlab(
    store: Store, tmp_path: Path, options: dict[str, Any], given: str
) -> None:
    of = trial(**options)
    params, images = random_params(of), pixels(of, 5)
    hf.export(store, single(keep(store, of, params)), tmp_path / "out")
    found = weight_files.read(tmp_path / "out" / hf.WEIGHTS)
    assert (found.format, found.classes) == ("timm", tuple(CLASSES))
    assert_same_bits(found.params, params)
    assert found.model == dataclasses.replace(of.model, dropout=0.0, stochastic_depth=0.0)
    text = (tmp_path / "out" / hf.CARD).read_text()
    assert f"embed_dim=8, {given}".strip() + " ).eval()" in " ".join(text.split())
    np.testing.assert_array_equal(logits(of, found.params, images), logits(of, params, images))


def of_sizes(**model: Any) -> Model:
    """A model whose weights are not looked at."""
    of = trial(**model)
    return Model(of, {}, Weights("mixlab", of.model, {}), "last", 60, Path("none"), "")


PAPER = {"image_size": 32, "image_channels": 3, "activation": "gelu"}
S32 = {**PAPER, "patch_size": 32, "hidden_dim": 512, "num_blocks": 8, "tokens_mlp_dim": 256, "channels_mlp_dim": 2048}


def test_a_name_of_timm_is_told_no_size_that_it_sets_itself() -> None:
    """`timm.create_model` raises a TypeError where such a size is an argument too."""
    config = hf.config(of_sizes(**S32))
    assert config["architecture"] == "mixer_s32_224"
    assert config["model_args"] == {"num_classes": 10, "img_size": 32, "in_chans": 3, "mlp_ratio": (0.5, 4.0)}
    assert set(timm.arguments(trial(**S32).model)) == TIMM_ARGUMENTS  # type: ignore[arg-type]
    assert config["pretrained_cfg"]["mean"] == config["pretrained_cfg"]["std"] == [0.5] * 3
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]


@pytest.mark.parametrize(
    "other", [{"hidden_dim": 256}, {"num_blocks": 7}, {"activation": "gelu_tanh"}, {"norm_epsilon": 1e-5}]
)
def test_a_model_that_no_name_of_timm_stands_for_gets_none(other: dict[str, Any]) -> None:
    model = of_sizes(**{**S32, **other})
    assert hf.config(model)["architecture"] == hf.TIMM_CLASS
    assert not card.loading(model, hf.unlike(model)).in_timm


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"token_mixing": "untied"}, "token_mixing 'untied'"),
        ({"channel_mixing": "untied"}, "channel_mixing 'untied'"),
        ({"share_blocks": True}, "share_blocks True"),
        ({"position_embedding": "learned"}, "position_embedding 'learned'"),
        ({"pre_head_norm": False}, "pre_head_norm False"),
        ({"data": {"permutation": "patches", "split_seed": 3}}, "images are permuted"),
    ],
)
def test_a_model_that_timm_has_not_stays_in_mixlabs_names_and_the_card_says_why(
    store: Store, tmp_path: Path, options: dict[str, Any], why: str
) -> None:
    of = trial(**options)
    (line,) = hf.export(store, single(keep(store, of, random_params(of))), tmp_path / "out")
    text, config = (tmp_path / "out" / hf.CARD).read_text(), json.loads((tmp_path / "out" / hf.CONFIG).read_text())
    assert why in line and why in text and "timm cannot load it: " in text and "import timm" not in text
    assert config["architecture"] == hf.OWN_CLASS and "pretrained_cfg" not in config
    assert (tmp_path / "out" / hf.WEIGHTS).read_bytes() == (store.folder(of.id) / kept.FILE).read_bytes()
    if "data" in options:
        assert "data.split_seed=3 data.permutation=patches" in text


@pytest.mark.parametrize(
    ("shorter_side", "share", "mode"), [(None, 1.0, "squash"), (40, 0.8, "center"), (32, 1.0, "center")]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_timm_frames_images_as_the_trial_did(
    shorter_side: int | None, share: float, mode: str, interpolation: str
) -> None:
    """`center` cuts out the middle of the shorter side, `squash` takes the whole image whatever its shape is."""
    told = hf.config(of_sizes(**S32, data={"shorter_side": shorter_side, "interpolation": interpolation}))
    framed = told["pretrained_cfg"]
    assert (framed["crop_pct"], framed["crop_mode"], framed["interpolation"]) == (share, mode, interpolation)


def test_widths_and_crops_come_out_of_timms_own_arithmetic() -> None:
    """Timm cuts a product or a quotient of floats to a whole number: 29 of 49 would be 28 by the plain ratio."""
    for dim in range(1, 300):
        for width in range(1, 300):
            assert int(timm._ratio(width, dim) * dim) == width
        assert [math.floor(dim / hf._crop(dim, side)) for side in range(dim, 600)] == list(range(dim, 600))


def test_the_hub_reads_the_numbers_of_the_record_from_the_card(store: Store, tmp_path: Path) -> None:
    key = keep(store, of := trial(), random_params(of))
    hf.export(store, Selection({key: "seed=0"}, "an-ablation", HOSTILE), tmp_path / "sealed")
    hf.export(store, single(key, test=True), tmp_path / "unsealed")
    measured = (store.record(key) or {})["metrics"]["last"]
    for path, splits in ((tmp_path / "sealed" / key, ["validation"]), (tmp_path / "unsealed", ["validation", "test"])):
        found = ModelCard.load(path / hf.CARD, ignore_metadata_errors=False)
        told = {(one.dataset_split, one.metric_type): one.metric_value for one in found.data.eval_results}
        assert told == {(split, name): measured[split][name] for split in splits for name in ("accuracy", "loss")}
        assert {one.dataset_name for one in found.data.eval_results} == {"digits"}
        assert found.data.license is None and found.data.pipeline_tag == "image-classification"
        shown = f"{100 * measured['test']['accuracy']:.2f} %" in found.text
        assert shown == (splits == ["validation", "test"]) and "n = 1" in found.text and key in found.text


def test_the_numbers_are_those_of_the_evaluation_whose_weights_were_kept(store: Store, tmp_path: Path) -> None:
    key = keep(store, of := trial(), random_params(of), kept={"kept": "best", "step": 30})
    hf.export(store, single(key), tmp_path / "out")
    found = ModelCard.load(tmp_path / "out" / hf.CARD)
    best = (store.record(key) or {})["metrics"]["best"]
    told = {one.metric_type: one.metric_value for one in found.data.eval_results}
    assert best["step"] == 30 and told == best["validation"] and "best evaluation, at step 30 of 60" in found.text


@pytest.mark.parametrize(("kind", "data_sets"), [(hub.KIND, ["of/somebody"]), ("a folder of images", None)])
def test_data_of_the_hub_is_named_and_other_data_by_its_last_part(
    store: Store, tmp_path: Path, kind: str, data_sets: list[str] | None
) -> None:
    of = trial(data={"source": "of/somebody"})
    hf.export(store, single(keep(store, of, random_params(of), data={"kind": kind})), tmp_path / "out")
    found = ModelCard.load(tmp_path / "out" / hf.CARD)
    assert found.data.datasets == data_sets
    assert {one.dataset_name for one in found.data.eval_results} == {"of/somebody" if data_sets else "somebody"}


def test_what_users_wrote_cannot_end_a_part_of_the_card(store: Store, tmp_path: Path) -> None:
    source = "pictures ```\n---\nlicense: mit"
    key = keep(store, of := trial(data={"source": source}), random_params(of))
    hf.export(store, Selection({key: HOSTILE}, HOSTILE, HOSTILE), tmp_path)
    found = ModelCard.load(tmp_path / key / hf.CARD)
    assert found.data.license is None and "<script>" not in found.text
    heads = [line for line in found.text.splitlines() if line.startswith("#")]
    assert len(heads) == 4 and heads[1:] == ["## Load", "## Numbers", "## Training"]
    (block,) = re.findall(r"^(`{4,})yaml\n(.*?)^\1$", found.text, re.M | re.S)
    assert yaml.safe_load(block[1])["data"]["source"] == source


# --- Which trials, and which files ----------------------------------------------------------------------------------


def test_trials_without_weights_are_counted_and_named(store: Store, tmp_path: Path) -> None:
    some = keep(store, one := trial(), random_params(one))
    none = keep(store, trial(hidden_dim=16), None)
    lines = hf.export(store, Selection({some: "", none: "", "f" * 12: ""}, "all"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [some] and len(lines) == 3
    assert f"left out 1 trial: its weights are gone: {none}" in lines
    assert f"left out 1 trial: missing, not done: {'f' * 12}" in lines
    with pytest.raises(MixlabError, match=r"no trial of 'all' has weights: 1 trial: .*; run\.keep=last keeps them"):
        hf.export(store, Selection({none: ""}, "all"), tmp_path / "out")


def test_weights_of_another_trial_are_refused(store: Store, tmp_path: Path) -> None:
    one, other = trial(), trial(hidden_dim=16)
    for of in (one, other):
        keep(store, of, random_params(of))
    (store.folder(one.id) / kept.FILE).write_bytes((store.folder(other.id) / kept.FILE).read_bytes())
    with pytest.raises(MixlabError, match=f"holds weights of trial {other.id}"):
        read(store, one.id, "")


def test_a_file_that_was_there_is_never_changed(store: Store, tmp_path: Path) -> None:
    key, out = keep(store, of := trial(), random_params(of)), tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(MixlabError, match="expected a folder, which may not exist yet, got the file"):
        hf.export(store, single(key), out)
    out.unlink()
    hf.export(store, single(key), out)
    (out / hf.CARD).write_text("my own words")
    (out / hf.WEIGHTS).unlink()
    with pytest.raises(MixlabError, match=r"README\.md is there already and is not what this export would write"):
        hf.export(store, single(key), out)
    assert (out / hf.CARD).read_text() == "my own words" and not (out / hf.WEIGHTS).exists()
    (out / hf.CARD).unlink()
    assert hf.export(store, single(key), out)[0].startswith("wrote")
    before = {path: written(path) for path in out.iterdir()}
    assert hf.export(store, single(key), out)[0].startswith("left as it is")
    assert before == {path: written(path) for path in out.iterdir()} and len(before) == 3


def written(path: Path) -> tuple[int, int]:
    """Another pair once a file is written anew; that it is read changes the times of its stat too."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def test_the_command_takes_a_trial_or_an_ablation_and_notes_what_it_unseals(run: Run, tmp_path: Path) -> None:
    shutil.copytree(STORE, tmp_path / "runs")
    ended = run("export", "old", "--to", "hf", "all")
    assert ended.code == 0 and f"left out 1 trial: missing, not done: {INTERRUPTED}" in ended.out, ended.err
    unsealed = tmp_path / "runs" / "ablations" / "old" / "unsealed"
    assert "| test |" not in (tmp_path / "all" / DONE / hf.CARD).read_text() and not unsealed.exists()
    ended = run("export", DONE[:4], "--to", "hf", "one", "--test")
    assert ended.code == 0 and "| test |" in (tmp_path / "one" / hf.CARD).read_text(), ended.err
    assert "which asks: Is a store of an earlier version read?" in (tmp_path / "one" / hf.CARD).read_text()
    (noted,) = unsealed.iterdir()
    assert set(json.loads(noted.read_text())["contents"]) == {DONE, INTERRUPTED}
    said = (tmp_path / "one" / hf.CARD).read_text()
    command = re.search(r"^mixlab (evaluate .*)$", said, re.M)
    assert command
    words = command[1].replace("model.safetensors", "one/model.safetensors").split()
    shown = run(*words, "--precision", "float64").out
    assert all(number in shown for number in ("10.03 %", "2.301756"))
    assert run(*words, "--precision", "float64", "--recipe", "timm").out.splitlines()[-2:] == shown.splitlines()[-2:]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((INTERRUPTED,), ("not done", "kept when it is done")),
        ((DONE, "seed=1"), ("'seed=1'", "a trial has no field to set")),
        (("nothing",), ("no ablation 'nothing'", "allowed: old")),
        ((DONE, "--to", "onnx", "--test"), ("--test", "--to onnx has no use for it", "leave it out")),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(
    run: Run, tmp_path: Path, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    shutil.copytree(STORE, tmp_path / "runs")
    ended = run("export", words[0], "--to", "hf", "out", *words[1:])
    assert ended.code == 2 and ended.err.count("\n") == 1 and len(ended.err) < 300
    assert all(part in ended.err for part in parts) and not (tmp_path / "out").exists()
