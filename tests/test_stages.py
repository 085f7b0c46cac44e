"""MetaFormers and ConvMixers as they are declared: counts and products of published sizes, defaults, and refusals."""

import dataclasses
from itertools import pairwise
from typing import Any

import pytest

from backends.errors import MixlabError
from backends.models import FAMILIES, family_of, folds
from backends.models.config import ModelConfig, with_variant
from backends.models.convmixer_spec import ConvMixerSpec
from backends.models.metaformer_spec import MetaFormerSpec
from backends.models.variants import VARIANTS
from backends.specs import ModelSpec
from experiments.spec import fields
from experiments.spec.config import TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo, Trial, as_tree, trial_from_json

IMAGENET = DataInfo(
    "", image_size=224, image_channels=3, num_classes=1000, num_train=1000, num_validation=0, num_test=9
)
DIGITS = DataInfo("", image_size=8, image_channels=1, num_classes=10, num_train=1000, num_validation=0, num_test=9)
# Millions of trained numbers.  Source: huggingface/pytorch-image-models, results/results-imagenet.csv, param_count.
MILLIONS = {
    "PoolFormer-S12": 11.92,
    "PoolFormer-S24": 21.39,
    "PoolFormer-S36": 30.86,
    "PoolFormer-M36": 56.17,
    "PoolFormer-M48": 73.47,
    "PoolFormerV2-S12": 11.89,
    "PoolFormerV2-S24": 21.34,
    "PoolFormerV2-S36": 30.79,
    "PoolFormerV2-M36": 56.08,
    "PoolFormerV2-M48": 73.35,
    "ConvMixer-1536/20": 51.63,
    "ConvMixer-1024/20": 24.38,
    "ConvMixer-768/32": 21.11,
}


def resolved(info: DataInfo = DIGITS, **model: Any) -> Trial:
    """The trial of these fields of a model, set as YAML sets them."""
    settings = fields.typed({f"model.{name}": value for name, value in model.items()}, "t")
    settings |= {"train.batch_size": 8, "train.steps": 10}
    trial: Trial = resolve(fields.set_fields(TrialConfig(), settings), info, "t")
    return trial


def counted(name: str) -> int:
    """The number of weights of a variant at 1000 classes, written apart from the layers."""
    of = VARIANTS[name]
    if of["family"] == "convmixer":
        c, k, p = of["hidden_dim"], of["kernel_size"], of["patch_size"]
        stem, head = p * p * 3 * c + 3 * c, 1000 * c + 1000
        return int(stem + of["num_blocks"] * (k * k * c + 3 * c + c * c + 3 * c) + head)
    dims, depths, is_v1 = of["dims"], of["depths"], of["metaformer"] == "poolformer"
    stem = 7 * 7 * 3 * dims[0] + dims[0]
    between = sum(9 * a * b + b for a, b in pairwise(dims))
    between += 0 if is_v1 else dims[0] + sum(dims[:-1])  # norms, weight only
    blocks = 0
    for stage, (depth, c) in enumerate(zip(depths, dims, strict=True)):
        mlp = 8 * c * c + (5 * c if is_v1 else 2)  # two biases, or two scalars
        scales = 2 * c if is_v1 or stage >= 2 else 0  # layer scale, or residual scale
        blocks += depth * (mlp + (4 if is_v1 else 2) * c + scales)
    return int(stem + between + blocks + 2 * dims[-1] + 1000 * dims[-1] + 1000)


def multiplied(name: str) -> int:
    """Multiply-accumulates of a variant for one image of 224 pixels, written apart from the layers."""
    of = VARIANTS[name]
    if of["family"] == "convmixer":
        c, places = of["hidden_dim"], (224 // of["patch_size"]) ** 2
        block = of["kernel_size"] ** 2 * c + c * c
        return int(224 * 224 * 3 * c + places * of["num_blocks"] * block + 1000 * c)
    total, side = 56 * 56 * 147 * of["dims"][0], 56
    for stage, (depth, c) in enumerate(zip(of["depths"], of["dims"], strict=True)):
        if stage:
            side //= 2
            total += side * side * 9 * of["dims"][stage - 1] * c
        total += depth * side * side * 8 * c * c
    return int(total + 1000 * of["dims"][-1])


def named(name: str) -> ModelSpec:
    config = ModelConfig(**with_variant({"variant": name}))
    return FAMILIES[config.family].make(config, 224, 3, 1000)


@pytest.mark.parametrize("name", [*MILLIONS, "ConvMixer-256/8"])
def test_a_variant_has_the_published_number_of_weights(name: str) -> None:
    spec = named(name)
    assert folds.count(spec) == counted(name)
    assert round(folds.count(spec) / 1e6, 2) == MILLIONS.get(name, 0.85)
    assert family_of(spec).variant_of(spec) == name
    assert not list(family_of(spec).faults(spec, ModelConfig()))


@pytest.mark.parametrize("name", [*MILLIONS, "ConvMixer-256/8"])
def test_products_are_those_of_a_formula(name: str) -> None:
    assert folds.forward_macs(named(name)) == multiplied(name)


def test_a_convmixer_for_cifar_has_the_count_of_its_sum() -> None:
    spec = ConvMixerSpec(32, 3, 10, 2, 256, 8, 5)
    assert folds.count(spec) == (12 * 256 + 3 * 256) + 8 * (25 * 256 + 256 * 256 + 6 * 256) + 2570 == 594_186


def test_what_is_left_out_is_as_in_public_code() -> None:
    pool: Any = resolved(family="metaformer").model
    assert (pool.patch_size, pool.layer_scale, pool.scaled_stages, pool.token_mixers) == (4, 1e-5, (), "pooling")
    assert (pool.depths, pool.dims) == ((2, 2, 6, 2), (64, 128, 320, 512))
    baseline: Any = resolved(family="metaformer", metaformer="baseline").model
    assert (baseline.layer_scale, baseline.scaled_stages) == (0.0, (2, 3))
    conv: Any = resolved(family="convmixer").model
    assert (conv.activation, conv.kernel_size, conv.patch_size) == ("gelu", 9, 2)
    mixer: Any = resolved().model
    assert (mixer.activation, mixer.kernel_size, mixer.layer_scale) == ("gelu_tanh", 3, 0.0)


def test_what_is_set_beside_a_variant_wins() -> None:
    model: Any = resolved(IMAGENET, variant="PoolFormer-S12", depths=[1, 1, 1, 1], layer_scale=0.0).model
    assert (model.depths, model.dims, model.layer_scale) == ((1, 1, 1, 1), (64, 128, 320, 512), 0.0)
    assert family_of(model).variant_of(model) is None


@pytest.mark.parametrize("side", [28, 32, 224])
def test_sides_are_those_of_public_code(side: int) -> None:
    """By PyTorch's rule: 7 x 7 pixels at stride 4 with padding 2, then 3 x 3 at stride 2 with padding 1."""
    spec = MetaFormerSpec(side, 3, 7, 4, depths=(1, 1, 1), dims=(4, 6, 8))
    outputs = {layer.name: layer.output for layer in folds.layers(spec)}
    first = (side + 2 * 2 - 7) // 4 + 1
    second = (first + 2 - 3) // 2 + 1
    assert outputs["stem"] == (first, first, 4) and first == side // 4
    assert outputs["Stage_1/downsampling"] == (second, second, 6)
    assert outputs["Stage_2/MetaFormerBlock_0/channel_mixing"][:2] == ((second + 2 - 3) // 2 + 1,) * 2


def test_a_stage_as_wide_as_the_one_before_halves_nothing() -> None:
    spec = MetaFormerSpec(32, 3, 7, 4, depths=(1, 1), dims=(8, 8))
    assert "Stage_1/downsampling" not in {layer.name for layer in folds.layers(spec)}


def test_few_blocks_are_taken_from_the_stages_in_turn() -> None:
    spec = MetaFormerSpec(32, 3, 7, 4, depths=(1, 3, 2), dims=(4, 6, 8), scaled_stages=(1, 2))
    family = FAMILIES["metaformer"]
    given = [family.shallow(spec, num) for num in (1, 2, 4, 99)]
    assert [one.depths for one in given] == [(1,), (1, 1), (1, 2, 1), (1, 3, 2)]  # type: ignore[attr-defined]
    assert [one.scaled_stages for one in given] == [(), (1,), (1, 2), (1, 2)]  # type: ignore[attr-defined]
    assert [len(folds.branches(one)) for one in given] == [2, 4, 8, 12]


def test_few_blocks_of_a_convmixer_are_its_first() -> None:
    spec = ConvMixerSpec(32, 3, 7, 4, 16, 3, 5)
    given = [FAMILIES["convmixer"].shallow(spec, num) for num in (1, 2, 9)]
    assert [len(folds.branches(one)) for one in given] == [1, 2, 3]


@pytest.mark.parametrize("kernel_size", [1, 4, 5])
def test_a_convmixer_has_as_many_places_behind_a_kernel_of_any_size(kernel_size: int) -> None:
    spec = ConvMixerSpec(32, 3, 7, 4, 16, 1, kernel_size)
    outputs = {layer.name: layer.output for layer in folds.layers(spec)}
    assert outputs["ConvMixerBlock_0/token_mixing/depthwise"] == outputs["stem"] == (8, 8, 16)


@pytest.mark.parametrize(
    ("spec", "of_more"),
    [
        (ConvMixerSpec(32, 3, 7, 4, 16, 1, 5), {"num_blocks": 2}),
        (MetaFormerSpec(32, 3, 7, 4, depths=(1,), dims=(8,)), {"depths": (2,)}),
    ],
    ids=["convmixer", "metaformer"],
)
def test_a_rate_that_never_acts_makes_no_second_trial(spec: ModelSpec, of_more: dict[str, Any]) -> None:
    plain, dropped = family_of(spec).plain, dataclasses.replace(spec, stochastic_depth=0.3)
    assert plain(dropped) == plain(dataclasses.replace(spec, rescale=True)) == spec
    for acts in (dataclasses.replace(dropped, rescale=True), dataclasses.replace(dropped, **of_more)):
        assert plain(acts) == acts


def test_depth_of_a_branch_rises_over_all_stages() -> None:
    spec = MetaFormerSpec(32, 3, 7, 4, depths=(1, 2), dims=(4, 6))
    assert folds.branch_depths(spec) == (0.0, 0.0, 0.5, 0.5, 1.0, 1.0)


def test_words_that_say_the_same_are_one_trial() -> None:
    one = resolved(family="metaformer", metaformer="baseline", token_mixers=["pooling"] * 4, scaled_stages=[3, 2])
    same = resolved(family="metaformer", metaformer="baseline")
    assert one.id == same.id
    assert trial_from_json(as_tree(one)).id == one.id
    assert one.id != resolved(family="metaformer").id


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"patch_size": 3}, "model.patch_size: 3 does not divide the image of 8 pixels"),
        ({"dims": [4, 8]}, "model.dims: expected as many numbers as there are stages: 4, one a stage"),
        ({"depths": []}, "model.depths: expected the number of blocks of each stage"),
        ({"depths": [1, 0, 1, 1]}, "model.depths: expected "),
        ({"token_mixers": ["pooling", "identity"]}, "model.token_mixers: expected one word for all stages, or 4"),
        ({"token_mixers": "pool"}, "did you mean 'pooling'?"),
        ({"scaled_stages": [4]}, "model.scaled_stages: expected numbers of stages from 0 to 3, each once, got [4]"),
        ({"scaled_stages": [1, 1]}, "each once, got [1, 1]"),
        ({"hidden_dim": 64}, "model.hidden_dim: model.family 'metaformer' has no such field"),
        ({"activation": "relu"}, "model.activation: model.family 'metaformer' has no such field"),
        ({"family": "convmixer", "layer_scale": 0.1}, "model.layer_scale: model.family 'convmixer' has no such field"),
        ({"family": "convmixer", "patch_size": 5}, "model.patch_size: 5 does not divide"),
        ({"family": "mixer", "depths": [1]}, "model.depths: model.family 'mixer' has no such field"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_does_not_fit_is_one_sentence(model: dict[str, Any], said: str) -> None:
    with pytest.raises(MixlabError) as caught:
        resolved(**{"family": "metaformer", **model})
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1
