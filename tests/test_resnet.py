"""ResNets compute what the public code of BiT computes, have its counts, and say what does not fit.

The fixtures hold weights of eight binary digits, images and labels, and what big_vision's bit.py (V1) and bit_paper.py
(V2) made of them in float64: logits, features, loss, and for each parameter two numbers of its gradient and one of its
value after five steps of AdamW (rate 1e-3, decay 0.1 on all parameters, clipped at 1). A tensor x is told by its norm
and by the sum of x.ravel() * cos(arange(size)), which any error of it would change.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program
from backends.errors import MixlabError
from backends.models import FAMILIES, folds, resnet
from backends.models.config import ModelConfig
from backends.models.convolution import Window
from backends.models.resnet_spec import ResnetSpec
from backends.models.variants import VARIANTS
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from backends.state import draw_state, slots
from experiments import streams
from experiments.spec.config import TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo

FIXTURES = Path(__file__).parent / "fixtures"
OPTIMIZER = OptimizerSpec(weight_decay=0.1, decay="all", clip_norm=1.0)
NUM_STEPS = 5
# Both sides compute in float64; what is left is the order of sums. Seen: logits 4.4e-16, features 1.8e-15, losses
# 1.8e-15, and of the sums over a tensor, whose norm is at most 30, 1.3e-14 in gradients and 4e-13 after five steps.
TOLERANCE = 1e-11

# At 224 pixels and 1000 classes.  Source: see facts of big_vision's own models; of others the formulas below.
COUNTS = {
    "BiT-R26x1": 15_987_496,
    "BiT-R50x1": 25_549_352,
    "BiT-R50x3": 217_319_080,
    "BiT-R101x1": 44_541_480,
    "BiT-R101x3": 387_934_888,
    "BiT-R152x2": 236_335_208,
    "BiT-R152x4": 936_533_224,
    "BiT-V1-R26x1": 15_995_176,
    "BiT-V1-R50x1": 25_557_032,
    "ResNet-18": 11_681_832,
    "ResNet-20": 336_824,
}
OTHER_CLASSES = {  # at 32 pixels; those for CIFAR are as many as with batch norm and projections in public code
    ("BiT-R50x1", 10): 23_520_842,
    ("BiT-R50x1", 100): 23_705_252,
    ("BiT-V1-R50x1", 10): 23_528_522,
    ("BiT-V1-R50x1", 100): 23_712_932,
    ("ResNet-18", 10): 11_173_962,
    ("ResNet-20", 10): 272_474,
}


def made(image_size: int = 32, num_classes: int = 10, **fields: Any) -> ResnetSpec:
    return resnet.make(ModelConfig(family="resnet", **fields), image_size, 3, num_classes)


def variant(name: str, image_size: int, num_classes: int) -> ResnetSpec:
    return resnet.make(ModelConfig(**VARIANTS[name]), image_size, 3, num_classes)


# What public code computes


@pytest.fixture(scope="module", params=("v1", "v2"))
def public(request: pytest.FixtureRequest) -> dict[str, Array]:
    with np.load(FIXTURES / f"bit_{request.param}_small.npz") as file:
        return {**file, "version": np.array(request.param)}


@pytest.fixture(scope="module", params=backends.names())
def program(request: pytest.FixtureRequest, public: dict[str, Array]) -> Iterator[Program]:
    model = made(version=str(public["version"]), depth=(2, 1), width=32, root="imagenet", num_classes=7)
    dataset = ArrayDataset(public["images"], public["labels"].astype(np.int32))
    program = backends.load(request.param).open(model, OPTIMIZER, dataset, RunSpec(precision="float64"))
    params = {name.removeprefix("params/"): x for name, x in public.items() if name.startswith("params/")}
    assert {name: x.shape for name, x in params.items()} == folds.shapes(model)
    zeros = {f"{slot}/{name}": 0 * x for slot in slots(OPTIMIZER) for name, x in params.items()}
    program.load([{f"params/{name}": x for name, x in params.items()} | zeros])
    yield program


def plan(num_steps: int) -> StepPlan:
    t = np.arange(1, num_steps + 1)[:, None]
    corrections = 1 / (1 - np.array([[OPTIMIZER.b1, OPTIMIZER.b2]]) ** t)
    examples = np.tile(np.arange(4, dtype=np.int32), (num_steps, 1))
    return StepPlan(0, np.full(num_steps, 1e-3), corrections, examples)


def along(tensors: State, public: dict[str, Array]) -> Array:
    """A number of each tensor that any error would change, in the fixture's order."""
    chosen = [tensors[str(name)].ravel() for name in public["names"]]
    return np.array([float(x @ np.cos(np.arange(x.size))) for x in chosen])


def test_logits_gradients_and_steps_are_those_of_the_public_code(program: Program, public: dict[str, Array]) -> None:
    def near(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)

    predicted = program.predict(public["images"])[0]
    near(predicted.logits, public["logits"])
    near(predicted.features, public["features"])
    gradients = program.gradients([plan(1)])[0]
    near(along(gradients, public), public["grads_along"])
    near([np.linalg.norm(gradients[str(name)]) for name in public["names"]], public["grads_norm"])
    if (type(program).__name__, str(public["version"])) == ("JaxProgram", "v2"):
        return  # the steps are the same program as those of v1 behind the gradient, and take seconds to compile
    metrics = program.train([plan(NUM_STEPS)])[0]
    near(metrics.loss[0], public["loss"])
    near(metrics.loss, public["losses_5"])
    near(metrics.gradient_norm, public["grad_norms_5"])
    after = {name.removeprefix("params/"): x for name, x in program.states()[0].items()}
    near(along(after, public), public["params_after_5_along"])


# Counts


def test_every_variant_is_counted_here() -> None:
    assert set(COUNTS) == {name for name, own in VARIANTS.items() if own.get("family") == "resnet"}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_in_public_code(name: str) -> None:
    spec = variant(name, 224, 1000)
    assert folds.count(spec) == COUNTS[name]
    assert resnet.variant_of(spec) == name
    assert resnet.variant_of(dataclasses.replace(spec, width=2 * spec.width)) != name
    for (own, num_classes), count in OTHER_CLASSES.items():
        assert own != name or folds.count(variant(name, 32, num_classes)) == count


def bottleneck_macs(depth: tuple[int, ...], width: int, image_size: int, num_classes: int) -> int:
    """By hand: of each unit 1 x 1, 3 x 3 and 1 x 1 convolutions; the stride is that of the second one."""
    side = image_size // 2
    macs, side, inputs = side * side * 49 * 3 * width, side // 2, width
    for i, units in enumerate(depth):
        inner, before = width * 2**i, side
        side = side // 2 if i else side
        for unit in range(units):
            macs += (before if not unit else side) ** 2 * inputs * inner + side**2 * (9 * inner * inner + 4 * inner**2)
            macs += side**2 * inputs * 4 * inner if not unit else 0
            inputs = 4 * inner
    return macs + inputs * num_classes


@pytest.mark.parametrize("name", ["BiT-R26x1", "BiT-R50x1", "BiT-V1-R50x1", "BiT-R101x3", "BiT-R152x2"])
def test_multiply_accumulates_are_those_of_the_formula(name: str) -> None:
    spec = variant(name, 224, 1000)
    assert folds.forward_macs(spec) == bottleneck_macs(spec.depth, spec.width, 224, 1000)


def test_multiply_accumulates_of_basic_units_are_those_known_of_networks_for_cifar() -> None:
    # Source: 41 and 555 millions, as public tables of models for CIFAR have them, projections counted.
    assert folds.forward_macs(variant("ResNet-20", 32, 10)) == 40_813_184
    assert folds.forward_macs(variant("ResNet-18", 32, 10)) == 555_422_720


# Shapes, names, and first values


@pytest.mark.parametrize(
    ("window", "side", "pads", "output"),
    [
        (Window(7, 2), 32, (2, 3), 16),
        (Window(3, 2), 32, (0, 1), 16),
        (Window(7, 2), 27, (3, 3), 14),
        (Window(3, 2), 7, (1, 1), 4),
        (Window(7, 2, 3), 32, (3, 3), 16),
        (Window(1, 2, 0), 7, (0, 0), 4),
    ],
)
def test_padding_is_that_of_xla_or_even(window: Window, side: int, pads: tuple[int, int], output: int) -> None:
    assert window.pads(side) == pads
    assert window.output(side) == output


def test_only_the_last_norm_of_each_branch_of_v1_begins_at_zero() -> None:
    for version in ("v1", "v2"):
        spec = made(version=version, depth=(2, 1), width=8)
        state = draw_state(spec, OPTIMIZER, lambda name, shape: streams.uniforms(0, name, 0, 1, shape)[0])
        empty = {
            name for name, x in state.items() if name.endswith("scale") and name.startswith("params/") and not x.any()
        }
        units = [unit.name for units in spec.stages for unit in units]
        assert empty == ({f"params/{unit}/gn3/scale" for unit in units} if version == "v1" else set())


def test_stochastic_depth_acts_once_a_unit_and_rises_over_all_of_them() -> None:
    spec = made(depth=(2, 1))
    assert folds.branches(spec) == tuple(f"block{i}/stochastic_depth" for i in ("1/unit01", "1/unit02", "2/unit01"))
    assert folds.branch_depths(spec) == (0, 0.5, 1)
    assert not folds.dropout_sites(spec)


def test_a_shallow_model_has_the_first_unit_of_each_stage_before_a_second_one() -> None:
    spec = made(depth=(3, 2), width=8)
    assert [resnet.shallow(spec, num).depth for num in (1, 2, 3, 9)] == [(1,), (1, 1), (2, 1), (3, 2)]


# What is left out, and what does not fit


def test_small_images_take_the_small_root_and_a_depth_says_its_units() -> None:
    small, large = made(), made(image_size=224)
    assert (small.root, small.unit, small.depth, small.width, small.norm_groups) == (
        "cifar",
        "basic",
        (3, 3, 3),
        16,
        16,
    )
    assert (large.root, large.unit, large.depth, large.width) == ("imagenet", "bottleneck", (3, 4, 6, 3), 64)
    assert [made(image_size=side).root for side in (63, 64)] == ["cifar", "imagenet"]
    assert made(depth=18).unit == "basic" and made(depth=(1, 1)).unit == "bottleneck"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_heads": 3}, "model.num_heads: model.family 'resnet' has no such field; leave it out"),
        ({"dropout": 0.1}, "model.dropout: model.family 'resnet' has no such field"),
        ({"depth": 51}, "model.depth: no table has a ResNet of 51 layers; expected one of 18, 20, 26, 32"),
        ({"depth": ()}, "model.depth: expected a number of units for each stage"),
        ({"depth": 50, "unit": "basic"}, "model.unit: a ResNet of 50 layers has bottleneck units, got 'basic'"),
        (
            {"width": 48},
            "model.norm_groups: 32 groups of each norm do not divide model.width 48; allowed with it: 1, 2",
        ),
        ({"width": 9, "norm_groups": 4}, "do not divide model.width 9; allowed with it: 1, 3, 9; or make the width a"),
        ({"patch_size": 5}, "model.patch_size: 5 does not divide the image of 32 pixels"),
        ({"family": "mixer", "width": 8}, "model.width: model.family 'mixer' has no such field"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(fields: dict[str, Any], words: str) -> None:
    config = TrialConfig(ModelConfig(**{"family": "resnet"} | fields))
    with pytest.raises(MixlabError) as caught:
        resolve(config, DataInfo("", 32, 3, 10, 1000, 100, 100), "a.yaml")
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_rate_that_never_acts_makes_no_second_trial() -> None:
    one = made(depth=(1,), stochastic_depth=0.3)
    assert FAMILIES["resnet"].plain(one) == made(depth=(1,))
    assert FAMILIES["resnet"].plain(made(depth=(2,), rescale=True)) == made(depth=(2,))
    for acts in (made(depth=(1,), stochastic_depth=0.3, rescale=True), made(depth=(2,), stochastic_depth=0.3)):
        assert FAMILIES["resnet"].plain(acts) == acts
