"""Checkpoints as other people's programs leave them: which arrays are the model, and what lies beside it."""

import argparse
import bz2
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from analysis.terminal.details import origin_lines
from backends.arrays import Array, State
from backends.errors import MixlabError
from experiments.weights import weight_files
from experiments.weights.weight_files import Weights
from tests.conftest import Ended
from tests.test_cli import assert_mistake
from tests.test_weights import FILES, FIXTURES, assert_same_bits, bare, random_model, refusal

Run = Callable[..., Ended]
TIMM = {name: torch.tensor(x) for name, x in bare("timm").items()}
AVERAGE = {name: x + 1 for name, x in TIMM.items()}
CRITERION = {"criterion.weight": torch.ones(5)}


def under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: x for name, x in state.items()}


def saved(folder: Path, tree: Any, name: str = "model.pth") -> Path:
    torch.save(tree, folder / name)
    return folder / name


def assert_is(found: Weights, state: dict[str, torch.Tensor], name: str = "timm") -> None:
    """The weights are those of a state dict of the fixture's names."""
    assert found.format == name
    stem = state["stem.proj.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found.params["stem/kernel"], stem)
    np.testing.assert_array_equal(found.params["head/bias"], state["head.bias"].numpy())


def said(found: Weights) -> str:
    return "\n".join(origin_lines(found))


# --- Kinds of files -------------------------------------------------------------------------------------------------

TIMM_SCRIPT = {
    "epoch": 3,
    "arch": "mixer_s16_224",
    "state_dict": TIMM,
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": [{"lr": 0.1}]},
    "args": argparse.Namespace(lr=0.1, output=Path("x")),
    "metric": np.float64(71.2),
}
LIGHTNING = {
    "epoch": 1,
    "pytorch-lightning_version": "2.4.0",
    "state_dict": under("model.", TIMM) | CRITERION,
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": Path("a"), "kth_value": torch.tensor(1.0)}},
    "hyper_parameters": {"lr": 0.1},
}


@pytest.mark.parametrize("name", ["m.ckpt", "m.pth.tar", "m.pt", "m.pth", "m.bin", "m.tar", "m", "m.weights"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("tree", [TIMM_SCRIPT, LIGHTNING], ids=["timm", "lightning"])
def test_a_checkpoint_is_read_whatever_its_ending(tmp_path: Path, name: str, legacy: bool, tree: Any) -> None:
    torch.save(tree, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    assert_is(weight_files.read(tmp_path / name), TIMM)


def flax(tree: Any) -> bytes:
    """As flax.serialization.to_bytes writes it; its own writer is compared with this below."""

    def array(x: Array) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((x.shape, x.dtype.name, x.tobytes()), use_bin_type=True))

    return bytes(msgpack.packb(tree, default=array, strict_types=True))


def nested(state: State) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, x in state.items():
        *folders, last = name.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = x
    return tree


@pytest.mark.parametrize(
    "wrap",
    [
        lambda p: p,
        lambda p: {"params": p, "step": 3, "opt_state": {"0": {"mu": p}}},
        lambda p: {"state": {"params": p}},
    ],
)
def test_msgpack_of_flax_is_read(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    official = bare("official")
    (tmp_path / "m.msgpack").write_bytes(flax(wrap(nested(official))))
    found = weight_files.read(tmp_path / "m.msgpack")
    assert found.format == "official"
    assert_same_bits(found.params, official)


def test_msgpack_is_that_of_flax_itself_with_bfloat16_and_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serialization = pytest.importorskip("flax.serialization")
    jnp = pytest.importorskip("jax.numpy")
    official = bare("official")
    assert flax(nested(official)) == serialization.to_bytes(nested(official))
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 1000)
    rounded = {name: jnp.asarray(x, jnp.bfloat16) for name, x in official.items()}
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize({"params": nested(rounded)}))
    assert b"__msgpack_chunked_array__" in (tmp_path / "m.msgpack").read_bytes()
    expected = {name: np.asarray(x.astype(jnp.float32)) for name, x in rounded.items()}
    assert_same_bits(weight_files.read(tmp_path / "m.msgpack").params, expected)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.9999])
@pytest.mark.parametrize("kind", ["msgpack", "legacy"])
def test_a_truncated_file_without_checksums_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    content = flax(nested(bare("official")))
    if kind == "legacy":
        buffer = io.BytesIO()
        torch.save(TIMM, buffer, _use_new_zipfile_serialization=False)
        content = buffer.getvalue()
    (tmp_path / "m.bin").write_bytes(content[: int(share * len(content))])
    assert "fetch it again" in refusal(tmp_path / "m.bin")


def old_torch(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            file.addfile(tarfile.TarInfo(name))


def archive(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("run/model.pth"))


STRANGERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "torchscript": (lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(str(path)), "program of TorchScript"),
    "torch of 2016": (old_torch, "torch before 0.1.10"),
    "tar": (archive, "a tar of other files ('run/model.pth'); unpack it"),
    "git lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "web page": (lambda path: path.write_text("<!doctype html><title>404"), "web page"),
    "keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08"), "gzip"),
    "bzip2": (lambda path: path.write_bytes(bz2.compress(b"x")), "bzip2"),
    "xz": (lambda path: path.write_bytes(lzma.compress(b"x")), "by xz"),
    "nothing": (lambda path: path.write_bytes(b""), "it is empty"),
    "zeros": (lambda path: path.write_bytes(bytes(9999)), "begins with zeros"),
    "one array": (lambda path: np.save(path.open("wb"), np.ones(2)), "one array without a name"),
    "index": (
        lambda path: path.write_text(json.dumps({"weight_map": {"a": "m-1.bin", "b": "m-2.bin"}})),
        "index of a model in 2 files ('m-1.bin', 'm-2.bin')",
    ),
    "settings": (lambda path: path.write_text('{"architecture": "mixer"}'), "holds no arrays"),
}


class Openers(dict[str, str]):
    """Those of tarfile; notes which of them are asked for."""

    def __init__(self, opened: list[str]):
        super().__init__(tarfile.TarFile.OPEN_METH)
        self.opened = opened

    def __getitem__(self, kind: str) -> str:
        self.opened.append(kind)
        return super().__getitem__(kind)


def test_no_file_is_unpacked_to_see_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    # tarfile looks for its openers in this table; each is given the whole file to unpack
    monkeypatch.setattr(tarfile.TarFile, "OPEN_METH", Openers(opened))
    (tmp_path / "m.bin").write_bytes(b"\x00\x01" * 5000)
    assert "its first bytes are those of no file of arrays" in refusal(tmp_path / "m.bin") and opened == ["tar"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("ending", [".pt", ".npz"])
def test_what_holds_no_weights_is_named(tmp_path: Path, kind: str, ending: str) -> None:
    write, part = STRANGERS[kind]
    write(tmp_path / f"m{ending}")
    text = refusal(tmp_path / f"m{ending}")
    assert part in text and "weights_only" not in text and len(text) - len(str(tmp_path)) < 300


def test_one_part_of_several_is_named_as_such(tmp_path: Path) -> None:
    half = dict(list(bare("timm").items())[:30])
    save_file(half, tmp_path / "model-00001-of-00002.safetensors")
    text = refusal(tmp_path / "model-00001-of-00002.safetensors")
    assert "lacks" in text and "one file of several" in text


# --- Groups and prefixes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["model.", "module.", "_orig_mod.", "net.mixer.", "module._orig_mod.", "a.b.c.", "encoder.", "8."],
)
@pytest.mark.parametrize("group", ["state_dict", "net", "model", "weights", "whatever", None])
def test_any_prefix_and_any_group_is_seen_and_said(tmp_path: Path, group: str | None, prefix: str) -> None:
    state = under(prefix, TIMM)
    found = weight_files.read(saved(tmp_path, {group: state, "acc": 93.1, "epoch": 199} if group else state))
    assert_is(found, TIMM)
    assert said(found) == f"group       {f'{group}/' if group else ''}{prefix[:-1]}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("group", ["opt/target/", "optimizer/target/", "params/", "anything/at/all/", "model."])
def test_every_format_is_found_in_groups(tmp_path: Path, name: str, group: str) -> None:
    arrays = under(group, bare(name)) | {"opt/state/step": np.int32(3), "step": np.int32(4)}
    np.savez(tmp_path / "m.npz", **arrays)
    found = weight_files.read(tmp_path / "m.npz")
    assert found.format == name
    assert_same_bits(found.params, weight_files.read(FIXTURES / FILES[name]).params)
    assert "'step'" in said(found) and "'opt" in said(found)


@pytest.mark.parametrize(
    "moments", ["opt_state/0/mu/", "opt/state/", "optimizer/state/exp_avg/", "grads/", "momentum/"]
)
def test_numbers_of_the_optimizer_with_the_same_names_are_no_model(tmp_path: Path, moments: str) -> None:
    official = bare("official")
    np.savez(
        tmp_path / "m.npz", **under("params/", official), **under(moments, {k: 0 * x for k, x in official.items()})
    )
    found = weight_files.read(tmp_path / "m.npz")
    assert_same_bits(found.params, official)
    assert found.origin.beside == ()


# --- Averages and other models beside -------------------------------------------------------------------------------

BESIDE: dict[str, tuple[dict[str, Any], str, str]] = {  # with the names of the two
    "torchvision": (
        {"model": TIMM, "model_ema": {"n_averaged": torch.tensor(3), **under("module.", AVERAGE)}},
        "model",
        "model_ema/module",
    ),
    "timm": ({"state_dict": TIMM, "state_dict_ema": AVERAGE}, "state_dict", "state_dict_ema"),
    "ema first": ({"ema": AVERAGE, "net": TIMM}, "net", "ema"),
    "ema_state_dict": ({"state_dict": TIMM, "ema_state_dict": AVERAGE}, "state_dict", "ema_state_dict"),
    "lightning": (
        {"state_dict": under("model.", TIMM) | under("ema_model.", AVERAGE)},
        "state_dict/model",
        "state_dict/ema_model",
    ),
    "swa": ({"model": TIMM, "swa_model": AVERAGE}, "model", "swa_model"),
    "unusual names": ({"mixer": TIMM, "mixer-EMA": AVERAGE}, "mixer", "mixer-EMA"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_an_average_beside_the_weights_is_said_and_taken_when_asked_for(tmp_path: Path, kind: str) -> None:
    tree, plain, average = BESIDE[kind]
    path = saved(tmp_path, tree)
    weights, averaged = weight_files.read(path), weight_files.read(path, ema=True)
    assert_is(weights, TIMM)
    assert_is(averaged, AVERAGE)
    assert f"group       {plain}; {average} lies beside it: --ema takes it" in said(weights)
    assert f"group       {average}, an average of weights; {plain} lies beside it" in said(averaged)
    for name, state in ((plain, TIMM), (average, AVERAGE)):
        assert_is(weight_files.read(path, group=name), state)


def test_an_average_alone_is_taken_and_said(tmp_path: Path) -> None:
    found = weight_files.read(saved(tmp_path, {"state_dict_ema": AVERAGE}))
    assert_is(found, AVERAGE)
    assert "an average of weights" in said(found)


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(MixlabError) as error:
        weight_files.read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_average_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": TIMM})
    assert "--ema: no average lies beside the weights; the file holds 'state_dict'" in refused(path, ema=True)
    assert "--group: expected the prefix of a model, got 'net'; allowed: 'state_dict'" in refused(path, group="net")
    model, params = random_model()
    weight_files.write(tmp_path / "own.safetensors", Weights("mixlab", model, params), None)
    assert "--ema: a file of the form 'mixlab' holds one model" in refused(tmp_path / "own.safetensors", ema=True)


def test_of_two_models_none_is_guessed(tmp_path: Path) -> None:
    path = saved(tmp_path, under("student.", TIMM) | under("teacher.", AVERAGE))
    assert "it holds 2 models" in refused(path) and "--group student, --group teacher" in refused(path)
    assert_is(weight_files.read(path, group="student"), TIMM)
    assert_is(weight_files.read(path, group="teacher"), AVERAGE)


def test_the_same_numbers_under_two_names_are_one_model(tmp_path: Path) -> None:
    assert_is(weight_files.read(saved(tmp_path, {"model": TIMM, "state_dict": dict(TIMM)})), TIMM)
    with pytest.raises(MixlabError, match="it holds 2 models"):
        weight_files.read(saved(tmp_path, {"model": TIMM, "state_dict": AVERAGE}))


# --- What is left out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        "criterion.weight",
        "loss_fn.class_weights.table",
        "train_acc.confusion",
        "val_metrics.MulticlassAccuracy.tp",
        "normalize_mean",
        "n_averaged",
        "step",
    ],
)
@pytest.mark.parametrize("prefix", ["model.", "net.mixer."])
def test_arrays_that_are_no_layer_are_left_out_and_said(tmp_path: Path, extra: str, prefix: str) -> None:
    extras = {extra: torch.ones(3) if extra == "normalize_mean" else torch.ones(3, 3)}
    found = weight_files.read(saved(tmp_path, {"state_dict": under(prefix, TIMM) | extras}))
    assert_is(found, TIMM)
    assert f"left out    'state_dict/{extra}'" in said(found)


def test_a_loss_beside_a_model_without_a_prefix_is_left_out(tmp_path: Path) -> None:
    assert "'criterion.weight'" in said(weight_files.read(saved(tmp_path, TIMM | CRITERION)))


def test_counts_and_texts_beside_the_layers_are_left_out_and_said(tmp_path: Path) -> None:
    found = weight_files.read(saved(tmp_path, {**TIMM, "num_updates": torch.tensor(7)}))
    assert_is(found, TIMM)
    assert "'num_updates'" in said(found)
    np.savez(tmp_path / "m.npz", arch=np.array("mixer"), **{name: x.numpy() for name, x in TIMM.items()})
    assert "'arch'" in said(weight_files.read(tmp_path / "m.npz"))


def test_arrays_in_lists_are_left_out_and_said(tmp_path: Path) -> None:
    shadow = {"decay": 0.9, "shadow_params": list(AVERAGE.values())}
    found = weight_files.read(saved(tmp_path, {"model": TIMM, "ema": shadow, "seen": (1, [torch.ones(2)])}))
    assert_is(found, TIMM)
    assert f"'ema ({len(AVERAGE)} arrays)', 'seen'" in said(found)


@pytest.mark.parametrize(
    "name",
    [
        "blocks.1.extra.weight",  # in a block
        "blocks.3.mlp_tokens.fc1.weight",  # of a block that is not whole
        "pos_embed",
        "cls_token",
        "blocks.0.ls1",
        "blocks.0.mlp_tokens.criterion.weight",  # named as a loss, and inside a layer
        "num_batches_tracked",
        "head_dist.weight",
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_an_array_of_another_architecture_is_never_cut_out(tmp_path: Path, name: str, prefix: str) -> None:
    text = refusal(saved(tmp_path, {"state_dict": under(prefix, TIMM | {name: torch.ones(3)})}))
    assert "nearest to those of the format 'timm'" in text and (name in text or "lacks" in text)


def test_a_layer_beside_the_model_is_refused_until_the_model_is_named(tmp_path: Path) -> None:
    further = {"classifier.weight": torch.ones(3, 7), "classifier.bias": torch.ones(3)}
    path = saved(tmp_path, under("backbone.", TIMM) | further)
    text = refusal(path)
    assert "has 'classifier.weight' besides, which may be further layers" in text and "--group backbone" in text
    found = weight_files.read(path, group="backbone")
    assert_is(found, TIMM)
    assert "'classifier.weight', 'classifier.bias'" in said(found)


def test_arrays_of_other_mappings_are_no_layers_of_the_model(tmp_path: Path) -> None:
    beside = {"callbacks": {"best": {"scores": torch.ones(3, 3)}}, "history": {"rates": torch.ones(2, 2)}}
    found = weight_files.read(saved(tmp_path, under("model.", TIMM) | beside))
    assert_is(found, TIMM)
    assert said(found).endswith("left out    'callbacks', 'history'")


def test_an_array_that_the_model_needs_is_never_left_out(tmp_path: Path) -> None:
    for name in TIMM:
        rest = {other: x for other, x in under("model.", TIMM).items() if other != f"model.{name}"}
        elsewhere = saved(tmp_path, {"state_dict": rest | {f"criterion.{name}": TIMM[name]}})
        assert "timm" in refusal(elsewhere)


# --- The command line -----------------------------------------------------------------------------------------------


def test_inspect_convert_and_evaluate_take_what_is_asked_for(run: Run, tmp_path: Path) -> None:
    saved(tmp_path, TIMM_SCRIPT | {"state_dict_ema": AVERAGE}, "m.pth.tar")
    out = run("weights", "inspect", "m.pth.tar").out
    assert "group       state_dict; state_dict_ema lies beside it: --ema takes it" in out
    assert "left out    'optimizer/state/0/exp_avg'" in out or "left out    'optimizer'" in out
    assert "skipped     objects, none of which was created: " in out and "'1 of argparse.Namespace'" in out
    assert "state_dict_ema, an average" in run("weights", "inspect", "m.pth.tar", "--ema").out
    for option, state in (((), TIMM), (("--ema",), AVERAGE), (("--group", "state_dict_ema"), AVERAGE)):
        ended = run("weights", "convert", "m.pth.tar", "out.npz", "--to", "timm", *option)
        assert ended.code == 0 and "group       state_dict" in ended.out
        assert_is(weight_files.read(tmp_path / "out.npz"), state)
    data = ("synthetic", "data.num_classes=7", "data.num_examples=40")
    losses = [run("evaluate", "--weights", "m.pth.tar", *data, *option).out for option in ((), ("--ema",))]
    said = [next(line for line in text.splitlines() if line.startswith("loss")) for text in losses]
    assert said[0] != said[1]
    saved(tmp_path, TIMM, "bare.pth")
    for command in (("weights", "inspect", "bare.pth"), ("evaluate", "--weights", "bare.pth", *data)):
        assert_mistake(run(*command, "--ema"), "bare.pth", "--ema", "no average")


def test_names_of_classes_travel_with_the_own_form(tmp_path: Path) -> None:
    model, params = random_model()
    path = tmp_path / "own.safetensors"
    for classes in (None, ("a", "b", "ü c", "d", "e")):
        weight_files.write(path, Weights("mixlab", model, params, classes), None)
        assert weight_files.read(path).classes == classes
    weight_files.write(path, Weights("mixlab", model, params, ("a",)), None)
    assert "1 names for 5 classes" in refusal(path)
