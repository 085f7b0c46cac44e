"""Weights of ViT, gMLP, ResMLP, PoolFormer, ConvMixer and BiT: read, predicted as their own code does, written back.

The fixtures are those of tests/fixtures; those of BiT have our names there, and get their owner's here.
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array
from backends.errors import MixlabError
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.specs import RunSpec
from backends.weights import convert, convmixers, metaformers, recognition
from backends.weights.form import NotAModel
from backends.weights.formats import FORMATS
from experiments import evaluation, prediction
from experiments.weights import weight_files
from experiments.weights.image_files import Images
from experiments.weights.weight_files import Weights

FIXTURES = Path(__file__).parent / "fixtures"
MIXERS = ("identity", "pooling", "pooling")
# Of each file: its format, and what its arrays do not tell.
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_learn_small": ("big_vision-vit", {}),
    "vit_sincos2d_small": ("big_vision-vit", {"image_size": 20}),
    "timm_vit_small": ("timm-vit", {"num_heads": 4}),
    "gmlp_small": ("timm-gmlp", {}),
    "resmlp_small": ("timm-resmlp", {}),
    "poolformer_v1_small": ("timm-poolformer", {"image_size": 32}),
    "metaformer_pool_small": (
        "timm-metaformer",
        {"image_size": 32, "token_mixers": MIXERS},
    ),
    "convmixer_small": ("timm-convmixer", {"image_size": 32}),
    "bit_v1_small": ("big_vision-bit", {"image_size": 32}),
    "bit_v2_small": ("big_vision-bit_paper", {"image_size": 32}),
}
# Both sides compute in float64; what is left is the order of sums. Seen: 1.9e-15, on numbers of order 1.
TOLERANCE = 1e-10


@functools.cache
def fixture(name: str) -> dict[str, Array]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return dict(file)


@functools.cache
def own(name: str) -> dict[str, Array]:
    """The weights of a fixture, by the names and in the shapes of their owner."""
    arrays = fixture(name)
    if not name.startswith("bit_"):
        return recognition.select(arrays)[0]
    ours = {key.removeprefix("params/"): x for key, x in arrays.items() if key.startswith("params/")}
    if name == "bit_v1_small":
        return {key.replace("/unit0", "/unit"): x for key, x in ours.items()}
    theirs = {"pre_head_group_norm": "norm-pre-head", "conv_root": "root_block/conv_root"}
    named = {theirs.get(layer := key.rpartition("/")[0], layer) + key[len(layer) :]: x for key, x in ours.items()}
    is_norm = re.compile(r".*/gn\d/.*|norm-pre-head/.*")
    return {key: x.reshape(1, 1, 1, -1) if is_norm.fullmatch(key) else x for key, x in named.items()}


@functools.cache
def read(name: str) -> Weights:
    found, params = convert.to_canonical(own(name), FILES[name][1])
    return Weights(FILES[name][0], found.model, params, assumed=found.assumed)


def changed(name: str, **changes: Array | None) -> dict[str, Array]:
    """The weights of a fixture with arrays replaced, or taken out; `__` stands for a dot."""
    arrays = dict(own(name))
    for key, x in changes.items():
        key = key.replace("__", ".")
        arrays.pop(key, None)
        if x is not None:
            arrays[key] = x
    return arrays


def test_every_format_that_is_no_mixers_has_a_fixture_or_is_a_renaming_of_one() -> None:
    renamed = {"vision_transformer-vit", "vision_transformer-linen", "big_transfer-bit"}
    mixers = {"official", "timm", "lucidrains", "lavish619", "einops", "jeonsworld", "rishikksh20"}
    assert {form for form, _ in FILES.values()} | renamed | mixers == set(FORMATS)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("backend", backends.names())
def test_logits_and_features_are_those_of_the_source(backend: str, name: str) -> None:
    arrays = fixture(name)
    made = prediction.predict(read(name), Images(arrays["images"]), None, backend, RunSpec(precision="float64"), 4)
    for part in ("logits", "features"):
        np.testing.assert_allclose(made[part], arrays[part], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FILES)
def test_what_is_read_is_written_with_the_same_bits(name: str) -> None:
    form, told = FORMATS[FILES[name][0]], FILES[name][1]
    assert recognition.recognise(own(name)) is form
    weights = read(name)
    arrays = convert.from_canonical(weights.model, weights.params, form)
    assert convert.written_as(weights.model, form.code) is form and set(arrays) == set(own(name))
    if form.name == "timm-convmixer":  # its statistics are folded: what is written has others, and is the same affine
        found, params = convert.to_canonical(arrays, told)
        assert found.model == weights.model
        assert {key: x.tobytes() for key, x in params.items()} == {k: x.tobytes() for k, x in weights.params.items()}
    else:
        assert {key: x.tobytes() for key, x in arrays.items()} == {k: x.tobytes() for k, x in own(name).items()}


@pytest.mark.parametrize("name", ["vision_transformer-vit", "vision_transformer-linen", "timm-vit"])
def test_a_class_token_with_a_position_of_its_own_goes_into_the_formats_that_have_it(name: str) -> None:
    weights = read("vit_learn_small")
    assert isinstance(weights.model, MixerSpec)
    model = dataclasses.replace(weights.model, pool="cls")
    params = {**weights.params, "cls_token": np.arange(32, dtype=np.float32)}
    table = np.concatenate([np.ones((1, 32), np.float32), weights.params["position_embedding"]])
    arrays = convert.from_canonical(model, {**params, "position_embedding": table}, FORMATS[name])
    told = {"num_heads": 4} if name == "timm-vit" else {}
    noted = {"activation": "gelu_tanh"}
    found, back = convert.to_canonical(arrays, told, noted)
    assert found.model == model and back["position_embedding"].tobytes() == table.tobytes()
    assert "position" in convert.unlike(model, FORMATS["big_vision-vit"])  # where it has none
    assert convert.written_as(model, "official").name == "vision_transformer-vit"


def test_the_papers_files_of_bit_are_those_of_big_vision_by_other_names() -> None:
    weights = read("bit_v2_small")
    arrays = convert.from_canonical(weights.model, weights.params, FORMATS["big_transfer-bit"])
    np.testing.assert_array_equal(
        arrays["resnet/block1/unit01/a/proj/standardized_conv2d/kernel"],
        own("bit_v2_small")["block1/unit01/conv_proj/kernel"],
    )
    np.testing.assert_array_equal(arrays["resnet/head/conv2d/kernel"][0, 0], own("bit_v2_small")["head/kernel"])
    assert recognition.recognise(arrays).name == "big_transfer-bit"
    assert convert.to_canonical(arrays, {"image_size": 32})[0].model == weights.model


@pytest.mark.parametrize(
    ("arrays", "told", "parts"),
    [
        (changed("timm_vit_small"), {}, ("do not tell the number of heads", "--num-heads N")),
        (changed("timm_vit_small"), {"num_heads": 5}, ("--num-heads: expected a divisor of its 32 channels, got 5",)),
        (changed("timm_vit_small"), {"num_heads": -4}, ("--num-heads: expected 1 or more, got -4",)),
        (changed("convmixer_small"), {"image_size": -32}, ("--image-size: expected 1 or more, got -32",)),
        (changed("convmixer_small"), {"activation": "gelo"}, ("--activation: expected one of", "did you mean 'gelu'?")),
        (
            changed("poolformer_v1_small"),
            {"token_mixers": MIXERS},
            ("--token-mixers: its arrays say pooling, got identity,pooling,pooling; leave it out",),
        ),
        (changed("vit_learn_small"), {"num_heads": 8}, ("--num-heads: its arrays say 4, got 8; leave it out",)),
        (changed("timm_vit_small", reg_token=np.ones((1, 4, 32))), {"num_heads": 4}, ("'timm-vit'", "has 'reg_token'")),
        (changed("timm_vit_small", norm__bias=None), {"num_heads": 4}, ("'timm-vit'", "lacks 'norm.bias'")),
        (
            changed("timm_vit_small", blocks__1__attn__qkv__weight=np.ones((32, 96))),
            {"num_heads": 4},
            ("'blocks.1.attn.qkv.weight' has shape (32, 96)", "3 divides"),
        ),
        (
            changed("resmlp_small", blocks__1__mlp_channels__fc1__weight=np.ones((24, 96))),
            {},
            ("expected 'blocks.1.mlp_channels.fc1.weight' of (96, 24), got (24, 96)",),
        ),
        (
            changed("resmlp_small", blocks__0__norm1__alpha=np.ones((1, 2, 24))),
            {},
            ("'blocks.0.norm1.alpha'",),
        ),
        (changed("gmlp_small", blocks__0__norm2__weight=np.ones(24)), {}, ("'timm-gmlp'", "besides")),
        (changed("metaformer_pool_small"), {}, ("no weights; say it with --token-mixers: pooling or identity",)),
        (changed("metaformer_pool_small"), {"token_mixers": ("pool",)}, ("--token-mixers: expected", "got pool")),
        (
            changed("convmixer_small", stem__2__running_var=np.full(16, -1.0)),
            {},
            ("'stem.2.running_var'", "a variance is not negative"),
        ),
        (
            changed("convmixer_small"),
            {"image_size": 30},
            ("--image-size: expected a multiple", "got 30"),
        ),
        (
            {**own("bit_v2_small"), "block1/unit02/conv_proj/kernel": np.ones((1, 1, 128, 128), np.float32)},
            {},
            ("has 'block1/unit02/conv_proj/kernel' besides",),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_nearly_right_is_refused(
    arrays: dict[str, Array], told: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(NotAModel) as refused:
        convert.to_canonical(recognition.select(arrays)[0], told)
    assert all(part in str(refused.value) for part in parts), str(refused.value)
    assert "\n" not in str(refused.value)


def test_heads_of_a_fused_product_are_those_of_public_models_of_its_width_and_it_is_said() -> None:
    base = read("timm_vit_small").model
    assert isinstance(base, MixerSpec)
    for width, heads in ((1280, 16), (192, 3), (448, 7)):
        model = dataclasses.replace(base, hidden_dim=width, tokens_mlp_dim=width // 2, num_heads=1, num_blocks=1)
        params = {key: np.zeros(shape, np.float32) for key, shape in folds.shapes(model).items()}
        arrays = convert.from_canonical(model, params, FORMATS["timm-vit"])
        found, _ = convert.to_canonical(arrays)
        assert found.model == dataclasses.replace(model, num_heads=heads)
        assert "--num-heads" in found.assumed["num_heads"]


def test_a_class_token_and_one_patch_are_two_positions() -> None:
    base = read("timm_vit_small").model
    assert isinstance(base, MixerSpec)
    model = dataclasses.replace(base, image_size=base.patch_size, pool="cls", cls_position=True, num_blocks=1)
    params = {key: np.zeros(shape, np.float32) for key, shape in folds.shapes(model).items()}
    arrays = convert.from_canonical(model, params, FORMATS["timm-vit"])
    assert arrays["pos_embed"].shape == (1, 2, 32)
    assert convert.to_canonical(arrays, {"num_heads": 4})[0].model == model


def test_what_published_models_of_these_sizes_have_is_taken_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    convmixer, poolformer = read("convmixer_small").model, read("poolformer_v1_small").model
    sizes = (convmixer.hidden_dim, convmixer.num_blocks, convmixer.patch_size, convmixer.kernel_size)  # type: ignore[attr-defined]
    monkeypatch.setattr(convmixers, "ACTIVATIONS", {sizes: "relu"})
    found, _ = convert.to_canonical(own("convmixer_small"))
    assert found.model == dataclasses.replace(convmixer, image_size=224, activation="relu")  # type: ignore[call-arg]
    assert "published model" in found.assumed["activation"]
    small = {"depths": poolformer.depths, "dims": poolformer.dims, "layer_scale": 1e-6}  # type: ignore[attr-defined]
    monkeypatch.setattr(metaformers, "VARIANTS", {"small": small})
    found, _ = convert.to_canonical(own("poolformer_v1_small"), {"image_size": 32})
    assert found.model == dataclasses.replace(poolformer, layer_scale=1e-6)  # type: ignore[call-arg]


def test_a_convmixer_of_float32_comes_back_as_it_was_written() -> None:
    weights, form = read("convmixer_small"), FORMATS["timm-convmixer"]
    params = {key: x.astype(np.float32) for key, x in weights.params.items()}
    arrays = convert.from_canonical(weights.model, params, form)
    _, back = convert.to_canonical(arrays, {"image_size": 32})
    assert {key: (x.dtype, x.tobytes()) for key, x in back.items()} == {
        key: (x.dtype, x.tobytes()) for key, x in params.items()
    }


def test_weights_without_a_size_take_that_of_the_images_and_others_keep_theirs() -> None:
    found, params = convert.to_canonical(own("convmixer_small"))
    weights = Weights("timm-convmixer", found.model, params, assumed=found.assumed)
    assert weights.model.image_size == 224 and evaluation.sized(weights, 32).model.image_size == 32
    resnet, params = convert.to_canonical(own("bit_v1_small"))
    small = evaluation.sized(Weights("big_vision-bit", resnet.model, params, assumed=resnet.assumed), 50)
    assert small.model.image_size == 50 and 50 % small.model.patch_size == 0  # its patches are no part of it
    with pytest.raises(MixlabError, match="4 does not divide the image of 30 pixels"):
        evaluation.sized(weights, 30)
    assert evaluation.sized(read("gmlp_small"), 32).model.image_size == 16


def test_a_target_without_such_a_model_refuses_it_by_name(tmp_path: Path) -> None:
    for name, target, part in (
        ("gmlp_small", "official", "'gating'"),
        ("poolformer_v1_small", "official", "'metaformer'"),
        ("bit_v1_small", "timm", "'resnet'"),
    ):
        with pytest.raises(MixlabError, match=part):
            weight_files.write(tmp_path / "out.npz", read(name), target)
    assert not list(tmp_path.iterdir())
    written = weight_files.write(tmp_path / "vit.safetensors", read("vit_learn_small"), "timm")
    assert written == ("timm-vit", ["activation gelu, here gelu_tanh"])
