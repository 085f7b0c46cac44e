"""Named variants beyond the Mixer have as many parameters and multiply-accumulates as their sources say.

Beside published counts stand formulas that are written from the papers, and not from the declared layers.
"""

import math
from typing import Any

import pytest

from backends.models import folds, mixer
from backends.models.config import ModelConfig, with_variant
from backends.models.mixer_spec import MixerSpec
from backends.models.variants import GMLP, RESMLP, VARIANTS, VIT

CLASSES = 1000
CLS: dict[str, Any] = {"pool": "cls"}  # google-research/vision_transformer
TOK: dict[str, Any] = {"pool": "cls", "cls_position": False}  # big_vision, pool_type "tok"
REPRESENTED: dict[str, Any] = {"position_embedding": "sincos2d", "representation": True}  # big_vision, vit_s16_gap
# Parameters at 224 pixels and 1000 classes.
# Source: the authors' counts, vision_transformer's of CLS and of {}; big_vision's of TOK and REPRESENTED.
PUBLISHED: list[tuple[str, dict[str, Any], int]] = [
    ("ViT-Ti/16", CLS, 5_717_416),
    ("ViT-S/16", CLS, 22_050_664),
    ("ViT-B/16", CLS, 86_567_656),
    ("ViT-S/32", CLS, 22_878_952),
    ("ViT-B/32", CLS, 88_224_232),
    ("ViT-L/16", CLS, 304_326_632),
    ("ViT-H/14", CLS, 632_045_800),
    ("ViT-S/16", {}, 22_049_896),
    ("ViT-B/16", {}, 86_566_120),
    ("ViT-Ti/16", TOK, 5_717_224),
    ("ViT-S/16", TOK, 22_050_280),
    ("ViT-B/16", TOK, 86_566_888),
    ("ViT-S/16", REPRESENTED, 22_122_472),
]
# Millions of parameters and thousands of millions of multiply-accumulates, as timm prints them.
# Source: huggingface/pytorch-image-models, results/benchmark-infer-amp-nchw-pt110-cu113-rtx3090.csv.
TIMM: dict[str, tuple[str, str]] = {
    "ViT-Ti/16": ("5.72", "1.26"),
    "ViT-S/16": ("22.05", "4.61"),
    "ViT-B/16": ("86.57", "17.58"),
    "ViT-S/32": ("22.88", "1.15"),
    "ViT-B/32": ("88.22", "4.41"),
    "ViT-L/16": ("304.33", "61.60"),
    "ViT-H/14": ("632.05", "167.40"),
    "gMLP-Ti/16": ("5.87", "1.34"),
    "gMLP-S/16": ("19.42", "4.42"),
    "gMLP-B/16": ("73.08", "15.78"),
    "ResMLP-S12": ("15.35", "3.01"),
    "ResMLP-S24": ("30.02", "5.96"),
    "ResMLP-S36": ("44.69", "8.91"),
    "ResMLP-B24/8": ("129.14", "100.23"),
}
OF_A_NORM = 5  # what its counter, fvcore's, adds for each number that a LayerNorm takes


def variant(name: str, **fields: Any) -> MixerSpec:
    """The spec of a variant at 224 pixels, with fields of its own."""
    return mixer.make(ModelConfig(**with_variant({"variant": name, **fields})), 224, 3, CLASSES)


def head_and_stem(patch: int, c: int) -> int:
    """Parameters of a patch convolution and of the last layer."""
    return 3 * patch**2 * c + c + c * CLASSES + CLASSES


def vit(patch: int, sizes: tuple[int, ...], pool: str = "mean", cls_position: bool = True, **fields: Any) -> int:
    """Parameters of a ViT, from its paper."""
    c, blocks, d, _ = sizes
    patches, token = (224 // patch) ** 2, int(pool == "cls")
    block = 4 * (c * c + c) + (c * d + d + d * c + c) + 2 * 2 * c
    table = 0 if fields.get("position_embedding") == "sincos2d" else (patches + token * cls_position) * c
    representation = (c * c + c) * fields.get("representation", 0)
    return head_and_stem(patch, c) + token * c + table + blocks * block + 2 * c + representation


def gmlp(c: int) -> int:
    """Parameters of a gMLP, from its paper: the gate acts on half of 6 C units of 196 tokens."""
    d, s = 6 * c, 196
    block = 2 * c + (c * d + d) + 2 * (d // 2) + (s * s + s) + (d // 2 * c + c)
    return head_and_stem(16, c) + 30 * block + 2 * c


def resmlp(patch: int, c: int, blocks: int, scale: float) -> int:
    """Parameters of a ResMLP, from its paper."""
    s = (224 // patch) ** 2
    block = 2 * 2 * c + 2 * c + (s * s + s) + (c * 4 * c + 4 * c + 4 * c * c + c)
    return head_and_stem(patch, c) + blocks * block + 2 * c


@pytest.mark.parametrize(("name", "fields", "count"), PUBLISHED)
def test_parameters_of_a_vit_are_as_many_as_published(name: str, fields: dict[str, Any], count: int) -> None:
    assert folds.count(variant(name, **fields)) == count
    size, _, patch = name.removeprefix("ViT-").partition("/")
    assert vit(int(patch), VIT[size], **fields) == count


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith(("ViT", "gMLP", "ResMLP"))])
def test_every_variant_has_as_many_parameters_as_the_formula_of_its_paper(name: str) -> None:
    kind, _, size = name.partition("-")
    if kind == "ViT":
        size, _, patch = size.partition("/")
        expected = vit(int(patch), VIT[size])
    else:
        expected = gmlp(GMLP[size]) if kind == "gMLP" else resmlp(*RESMLP[size])
    assert folds.count(variant(name)) == expected
    assert mixer.variant_of(variant(name)) == name
    assert not list(mixer.faults(variant(name), ModelConfig(**with_variant({"variant": name}))))


@pytest.mark.parametrize("name", TIMM)
def test_a_variant_is_of_the_size_and_the_cost_that_timm_prints(name: str) -> None:
    spec = variant(name, **CLS if name.startswith("ViT") else {})
    normed = sum(math.prod(layer.output) for layer in folds.layers(spec) if "norm" in layer.name.lower())
    macs = folds.forward_macs(spec) + OF_A_NORM * normed
    assert (f"{folds.count(spec) / 1e6:.2f}", f"{macs / 1e9:.2f}") == TIMM[name]
