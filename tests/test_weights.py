"""Weights of public Mixers: recognised by names and shapes, computed as their own code computes, converted exactly.

The fixtures hold weights under `state_dict/` or `params/`, images, and the float64 logits that the code of each source
made of them.
"""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save, save_file

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset
from backends.errors import MixlabError
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.weights import convert, mixers, recognition
from backends.weights.form import NotAModel
from backends.weights.formats import FORMATS
from experiments import streams
from experiments.weights import weight_files
from experiments.weights.weight_files import Weights

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {
    "official": "official_mixer_small.npz",
    "timm": "timm_small.npz",
    "lucidrains": "lucidrains_small.npz",
    "lavish619": "lavish619_small.npz",
    "einops": "einops_blog_small.npz",
    "jeonsworld": "jeonsworld_small.npz",
    "rishikksh20": "rishikksh20_small.npz",
}
# Activation, epsilon, final norm and dropout of each source's code.
OPTIONS = {
    "official": ("gelu_tanh", 1e-6, True, 0.0),
    "timm": ("gelu", 1e-6, True, 0.0),
    "lucidrains": ("gelu", 1e-5, True, 0.0),
    "lavish619": ("gelu", 1e-5, False, 0.5),
    "einops": ("gelu", 1e-5, True, 0.0),
    "jeonsworld": ("gelu", 1e-6, True, 0.0),
    "rishikksh20": ("gelu", 1e-5, True, 0.0),
}
# Both sides compute in float64; what is left is the order of sums. Seen: 1.1e-15, on logits of order 1. The nearest
# wrong model, an epsilon of 1e-6 in place of 1e-5, is off by more than 1e-7.
TOLERANCE = 1e-10
SGD = OptimizerSpec(optimizer="sgd")


def fixture(name: str) -> dict[str, Array]:
    with np.load(FIXTURES / FILES[name]) as file:
        return dict(file)


def bare(name: str) -> dict[str, Array]:
    """The weights of a fixture alone, by the names of its format."""
    return recognition.select(fixture(name))[0]


def assert_same_bits(actual: State, expected: State) -> None:
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype and actual[name].shape == array.shape, name
        assert actual[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


def logits(backend: str, model: ModelSpec, params: State, images: Array, order: Array | None = None) -> Array:
    run, labels = RunSpec(precision="float64"), np.zeros(len(images), np.int32)
    program = backends.load(backend).open(model, SGD, ArrayDataset(images, labels, order), run)
    state = {
        f"{group}/{name}": x * (group == "params") for group in ("params", "momentum") for name, x in params.items()
    }
    program.load([state])
    return program.predict(images)[0].logits


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(MixlabError) as refused:
        weight_files.read(path)
    text = str(refused.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text


# --- The model ------------------------------------------------------------------------------------------------------


def test_every_format_of_mixers_has_a_fixture() -> None:
    assert set(FILES) == {form.name for form in mixers.FORMATS} == set(OPTIONS)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("backend", backends.names())
def test_logits_are_those_of_the_source(backend: str, name: str) -> None:
    found, arrays = weight_files.read(FIXTURES / FILES[name]), fixture(name)
    made = logits(backend, found.model, found.params, arrays["images"].astype(float))
    np.testing.assert_allclose(made, arrays["logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FILES)
def test_another_epsilon_or_activation_would_be_seen(name: str) -> None:
    """So that the tolerance tells the formats' options apart."""
    found, arrays = weight_files.read(FIXTURES / FILES[name]), fixture(name)
    epsilon = {1e-5: 1e-6, 1e-6: 1e-5}[found.model.norm_epsilon]
    activation = {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}[found.model.activation]
    for wrong in ({"norm_epsilon": epsilon}, {"activation": activation}):
        model = dataclasses.replace(found.model, **wrong)
        made = logits("torch", model, found.params, arrays["images"].astype(float))
        assert np.abs(made - arrays["logits"]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", FILES)
def test_format_sizes_and_options_are_recognised(name: str) -> None:
    found, arrays = weight_files.read(FIXTURES / FILES[name]), fixture(name)
    assert found.format == name
    model = found.model
    assert (model.activation, model.norm_epsilon, model.pre_head_norm, model.dropout) == OPTIONS[name]
    if name == "official":
        image, patch, hidden, blocks, tokens, channels, classes, colours = map(int, arrays["config"])
    else:
        keys = ("image_size", "patch_size", "hidden_dim", "depth", "tokens_mlp_dim", "channels_mlp_dim")
        image, patch, hidden, blocks, tokens, channels = (int(arrays[f"config/{key}"]) for key in keys)
        classes, colours = int(arrays["config/num_classes"]), int(arrays["config/channels"])
    assert model == dataclasses.replace(
        MixerSpec(image, colours, classes, patch, hidden, blocks, tokens, channels),
        activation=model.activation,
        norm_epsilon=model.norm_epsilon,
        pre_head_norm=model.pre_head_norm,
        dropout=model.dropout,
    )
    group = "params/" if name == "official" else "state_dict/"
    assert folds.count(model) == sum(x.size for key, x in arrays.items() if key.startswith(group))


def random_model(**fields: object) -> tuple[MixerSpec, State]:
    sizes = {"image_size": 12, "image_channels": 3, "num_classes": 5, "patch_size": 4, "hidden_dim": 8}
    sizes |= {"num_blocks": 2, "tokens_mlp_dim": 6, "channels_mlp_dim": 10}
    model = MixerSpec(**sizes | fields)  # type: ignore[arg-type]
    shapes = folds.shapes(model).items()
    return model, {name: streams.uniforms(1, name, 0, 1, shape)[0].astype(np.float32) for name, shape in shapes}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("num_blocks", [1, 12])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_any_size_goes_into_a_format_and_comes_back(name: str, num_blocks: int, image_channels: int) -> None:
    options = dict(FORMATS[name].options)
    model, params = random_model(num_blocks=num_blocks, image_channels=image_channels, **options)
    arrays = convert.from_canonical(model, params, FORMATS[name])
    assert recognition.recognise(arrays) is FORMATS[name]
    again, back = convert.to_canonical(arrays)
    assert again.model == model and list(back) == list(folds.shapes(model))
    assert_same_bits(back, params)


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_official_to_timm_and_back_is_exact(tmp_path: Path, suffix: str) -> None:
    official = bare("official")
    there, back = tmp_path / f"timm{suffix}", tmp_path / "back.npz"
    target, differences = weight_files.write(there, weight_files.read(FIXTURES / FILES["official"]), "timm")
    assert (target, differences) == ("timm", ["activation gelu, here gelu_tanh"])
    timm = dict(np.load(there)) if suffix == ".npz" else load_file(there)
    assert set(timm) == {key.removeprefix("state_dict/") for key in fixture("timm") if key.startswith("state_dict/")}
    np.testing.assert_array_equal(
        timm["blocks.1.mlp_tokens.fc1.weight"].T, official["MixerBlock_1/token_mixing/Dense_0/kernel"]
    )
    np.testing.assert_array_equal(timm["stem.proj.weight"].transpose(2, 3, 1, 0), official["stem/kernel"])
    assert weight_files.write(back, weight_files.read(there), None)[0] == "official"
    with np.load(back) as file:
        assert_same_bits(dict(file), official)


@pytest.mark.parametrize(
    "options",
    [
        {"token_mixing": "untied"},
        {"token_mixing": "grouped_views", "token_groups": 2},
        {"channel_mixing": "untied", "share_blocks": True},
        {"layer_scale": 0.1},
        {"position_embedding": "learned", "pre_head_norm": False, "activation": "relu", "norm_epsilon": 3e-4},
    ],
    ids=str,
)
def test_own_form_holds_every_model_exactly_and_others_refuse_it(tmp_path: Path, options: dict[str, object]) -> None:
    model, params = random_model(**options)
    own = tmp_path / "own.safetensors"
    assert weight_files.write(own, Weights("mixlab", model, params), None) == ("mixlab", [])
    found = weight_files.read(own)
    assert (found.format, found.model) == ("mixlab", model)
    assert_same_bits(found.params, params)
    for target in ("official", "timm"):
        with pytest.raises(MixlabError, match=f"{next(iter(options))} .* the format '{target}'"):
            weight_files.write(tmp_path / "other.npz", found, target)
    assert not (tmp_path / "other.npz").exists()


def test_float64_and_float16_keep_their_type_and_bfloat16_its_values(tmp_path: Path) -> None:
    official = bare("official")
    for kind in (np.float16, np.float64):
        np.savez(tmp_path / "other.npz", **{name: x.astype(kind) for name, x in official.items()})
        assert {x.dtype for x in weight_files.read(tmp_path / "other.npz").params.values()} == {np.dtype(kind)}
    rounded = {name: torch.tensor(x).bfloat16() for name, x in official.items()}
    bits = {name: x.view(torch.int16).numpy() for name, x in rounded.items()}
    np.savez(tmp_path / "b.npz", **{name: x.view("V2") for name, x in bits.items()})  # as the authors' files hold it
    torch.save(rounded, tmp_path / "b.pth")
    from safetensors.torch import save_file as save_tensors

    save_tensors(rounded, tmp_path / "b.safetensors")
    for suffix in (".npz", ".pth", ".safetensors"):
        found = weight_files.read(tmp_path / f"b{suffix}").params
        assert_same_bits(found, {name: x.float().numpy() for name, x in rounded.items()})


WRAPPERS: dict[str, Callable[[dict[str, object]], object]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: torch.zeros(2)}}},
    "model": lambda state: {"model": state, "args": ["x"], "lr": 0.1},
    "module.": lambda state: {"state_dict": {f"module.{name}": x for name, x in state.items()}},
    "_orig_mod.": lambda state: {f"_orig_mod.{name}": x for name, x in state.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", [name for name in FILES if name != "official"])
def test_pth_files_are_read_through_their_wrappers(tmp_path: Path, name: str, wrapper: str) -> None:
    expected = weight_files.read(FIXTURES / FILES[name])
    state = {key: torch.tensor(x) for key, x in bare(name).items()}
    torch.save(WRAPPERS[wrapper](state), tmp_path / "model.pth")
    found = weight_files.read(tmp_path / "model.pth")
    assert (found.format, found.model) == (name, expected.model)
    assert_same_bits(found.params, expected.params)


def test_safetensors_of_another_project_is_read(tmp_path: Path) -> None:
    save_file(bare("timm"), tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = weight_files.read(tmp_path / "model.safetensors")
    assert found.format == "timm"
    assert_same_bits(found.params, weight_files.read(FIXTURES / FILES["timm"]).params)


# --- Refusals -------------------------------------------------------------------------------------------------------


class Malicious:
    """A pickle of it makes a folder when it is executed."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_no_pickle_is_executed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    tensors = {key: torch.tensor(x) for key, x in bare("timm").items()}
    for legacy in (False, True):
        state = {"model": tensors, "more": Malicious(ran)}
        torch.save(state, tmp_path / "bad.pth", _use_new_zipfile_serialization=not legacy)
        assert "mkdir" in refusal(tmp_path / "bad.pth")
    arrays = {**bare("timm"), "head.bias": np.array([Malicious(ran)], object)}
    np.savez(tmp_path / "bad.npz", **arrays)
    assert "expected arrays of numbers alone, but 'head.bias.npy' is none" in refusal(tmp_path / "bad.npz")
    assert not ran.exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)  # the pickle does what it is here for
    assert ran.exists()


def written(folder: Path, suffix: str) -> Path:
    """A whole file that can tell when it is damaged."""
    path = folder / f"whole{suffix}"
    if suffix == ".safetensors":
        weight_files.write(path, weight_files.read(FIXTURES / FILES["timm"]), "mixlab")
    elif suffix == ".npz":
        np.savez(path, **bare("timm"))
    else:
        torch.save({key: torch.tensor(x) for key, x in bare("timm").items()}, path)
    weight_files.read(path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99, 0.9999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    content = written(tmp_path, suffix).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: int(share * len(content))])
    assert "fetch it again" in refusal(cut)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_a_flipped_byte_never_changes_weights_in_silence(tmp_path: Path, suffix: str) -> None:
    """Each byte either is refused or does not matter; those of the numbers matter."""
    whole = written(tmp_path, suffix)
    content, expected = whole.read_bytes(), weight_files.read(whole)
    changed, refused = tmp_path / f"changed{suffix}", 0
    places = np.random.default_rng(0).integers(0, len(content), 60)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        changed.write_bytes(damaged)
        try:
            found = weight_files.read(changed)
        except MixlabError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert found.model == expected.model
            assert_same_bits(found.params, expected.params)
    assert refused > len(places) / 2


def test_a_flipped_byte_in_a_zip_is_named_as_such(tmp_path: Path) -> None:
    content = bytearray(written(tmp_path, ".pth").read_bytes())
    number = bare("timm")["blocks.1.mlp_channels.fc1.weight"].tobytes()
    content[content.index(number) + 100] ^= 1
    (tmp_path / "changed.pth").write_bytes(content)
    assert "checksum" in refusal(tmp_path / "changed.pth")


def timm(**changes: Array | None) -> dict[str, Array]:
    """The timm fixture with arrays replaced; None: taken out. Names are given with '_' doubled for '.'."""
    arrays = bare("timm")
    for name, array in changes.items():
        name = name.replace("__", ".")
        if array is None:
            del arrays[name]
        else:
            arrays[name] = array
    return arrays


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({}, ("no arrays", "official, timm, lucidrains, lavish619, einops, jeonsworld, rishikksh20, big_vision-vit")),
        ({"layer1.0.conv1.weight": np.ones((2, 2))}, ("'layer1.0.conv1.weight'", "no known format", "official, timm")),
        (timm(norm__bias=None), ("nearest to those of the format 'timm'", "lacks 'norm.bias'")),
        (timm(blocks__1__norm1__weight=None), ("nearest to those of the format 'timm'", "besides")),
        (timm(cls_token=np.ones(3)), ("nearest to those of the format 'timm'", "has 'cls_token' besides")),
        (timm(norm__bias=np.ones(25)), ("do not make one model", "'norm.bias' of (24,), got (25,)")),
        (timm(blocks__2__mlp_tokens__fc1__weight=np.ones((9, 16))), ("blocks.2.mlp_tokens.fc1.weight", "(12, 16)")),
        (timm(blocks__0__mlp_channels__fc2__weight=np.ones((24, 24))), ("mlp_channels.fc2.weight", "(24, 48)")),
        (timm(stem__proj__weight=np.ones((24, 3, 8, 4))), ("do not make one model", "stem.proj.weight")),
        (timm(head__weight=np.ones((7, 24, 1))), ("'head.weight': expected 2 axes", "shape (7, 24, 1)")),
        (timm(head__bias=np.array(1.0)), ("'head.bias': expected 1 axes", "shape ()")),
        (timm(head__bias=np.arange(7)), ("'head.bias': expected floating-point", "int64")),
        (timm(head__bias=np.full(7, np.nan)), ("'head.bias': expected finite numbers, got NaN or infinity",)),
        (timm(blocks__0__mlp_tokens__fc1__weight=np.ones((12, 15))), ("a square number of tokens", "got 15")),
        (
            timm(head__weight=np.ones((0, 24)), head__bias=np.ones(0)),
            ("'head.weight': expected 2 axes, none empty", "shape (0, 24)"),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_not_one_mixer_is_refused(tmp_path: Path, arrays: dict[str, Array], parts: tuple[str, ...]) -> None:
    np.savez(tmp_path / "odd.npz", **arrays)
    text = refusal(tmp_path / "odd.npz")
    for part in parts:
        assert part in text, text


def test_shapes_that_no_layer_of_lucidrains_has_are_refused() -> None:
    arrays = bare("lucidrains")
    for name, shape in (("1.weight", (24, 190)), ("2.0.fn.0.weight", (12, 16, 3))):
        with pytest.raises(NotAModel, match=f"'{name}' has shape .* does not fit its layer"):
            convert.to_canonical(arrays | {name: np.ones(shape)})


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("model.npy", ("expected a file of weights, got '.npy'", "did you mean '.npz'?")),
        ("model", ("expected a file of weights, got ''", ".npz, .safetensors, .msgpack, .pth")),
        ("model.ckpt", ("it cannot be read as .ckpt", "fetch it again")),
        ("empty.npz", ("it is empty", "fetch it again")),
        ("whole.npz", ("there is no such file", "did you mean 'whole.pth'?")),
        ("folder.npz", ("it is a folder",)),
    ],
)
def test_a_path_that_is_no_file_of_weights_is_refused(tmp_path: Path, name: str, parts: tuple[str, ...]) -> None:
    written(tmp_path, ".pth")
    (tmp_path / "folder.npz").mkdir()
    for other in ("model.npy", "model", "model.ckpt"):
        (tmp_path / other).write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    text = refusal(tmp_path / name)
    assert all(part in text for part in parts), text


def test_the_content_says_what_a_file_is_whatever_its_name(tmp_path: Path) -> None:
    for suffix in (".npz", ".safetensors", ".pth"):
        whole = written(tmp_path, suffix)
        expected = weight_files.read(whole)
        for other in {".npz", ".safetensors", ".pth", ".txt", ""} - {suffix}:
            (tmp_path / f"misnamed{other}").write_bytes(whole.read_bytes())
            found = weight_files.read(tmp_path / f"misnamed{other}")
            assert (found.format, found.model) == (expected.format, expected.model)
            assert_same_bits(found.params, expected.params)


def test_own_form_with_metadata_of_no_model_is_refused(tmp_path: Path) -> None:
    _, params = random_model()
    for text in ('{"model": {"hidden_dim": 8}}', '{"model": 3}', "[]", "{"):
        content = save(params, metadata={"mixlab": text, "sha256": ""})
        (tmp_path / "odd.safetensors").write_bytes(content)
        refusal(tmp_path / "odd.safetensors")


def test_integers_in_safetensors_are_refused(tmp_path: Path) -> None:
    save_file(timm(head__bias=np.arange(7)), tmp_path / "odd.safetensors")
    text = refusal(tmp_path / "odd.safetensors")
    assert "'head.bias': expected floating-point numbers, got int64" in text and "floating-point" in text


@pytest.mark.parametrize(
    ("name", "target", "part"),
    [
        ("out.pth", None, "name the file out.safetensors"),
        ("out.txt", "timm", "expected a file that can be written, got '.txt'; allowed: .npz, .safetensors"),
        ("out.npz", "mixlab", "name it out.safetensors"),
        ("file/out.npz", "timm", "there is no folder"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str, target: str | None, part: str) -> None:
    (tmp_path / "file").write_text("")
    found = weight_files.read(FIXTURES / FILES["timm"])
    with pytest.raises(MixlabError) as refused:
        weight_files.write(tmp_path / name, found, target)
    assert part in str(refused.value) and "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_checkpoint_of_a_trial_without_its_spec_is_refused(tmp_path: Path) -> None:
    _, params = random_model()
    content = save(params, metadata={"mixlab": json.dumps({"step": 3}), "sha256": ""})
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    assert "spec.json is not beside it" in refusal(tmp_path / "checkpoint.safetensors")


def test_an_npz_that_is_compressed_or_holds_other_members(tmp_path: Path) -> None:
    arrays = bare("timm")
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    assert_same_bits(weight_files.read(tmp_path / "small.npz").params, convert.to_canonical(arrays)[1])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("readme.txt", "hello")
    (tmp_path / "odd.npz").write_bytes(buffer.getvalue())
    assert "a zip of other files ('readme.txt'); unpack it" in refusal(tmp_path / "odd.npz")
    with zipfile.ZipFile(tmp_path / "small.npz", "a") as file:
        file.writestr("readme.txt", "hello")
    assert "expected arrays of numbers alone, but 'readme.txt' is none" in refusal(tmp_path / "small.npz")
