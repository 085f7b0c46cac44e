"""Each backend computes what timm computed of PoolFormer, a MetaFormer baseline and ConvMixer, tensor by tensor."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program
from backends.models import folds
from backends.models.convmixer_spec import ConvMixerSpec
from backends.models.metaformer_spec import MetaFormerSpec
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from tests import timm_stages as timm

SGD = OptimizerSpec("sgd")
# Both sides compute in float64; what is left is the order of sums. Seen: logits 7.2e-16,
# features 1.9e-15, loss 4.4e-16, gradients 5.8e-16, of numbers of order 1.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Public:
    """The spec of a fixture's model, and its weights and gradients under our names."""

    spec: ModelSpec
    weights: Callable[[State], State]
    gradients: Callable[[State, State], State]


CASES = {
    "poolformer_v1_small": Public(
        MetaFormerSpec(32, 3, 7, 4, depths=(1, 2, 1), dims=(12, 16, 24), layer_scale=1e-5),
        timm.metaformer,
        lambda gradients, _: timm.metaformer(gradients),
    ),
    "metaformer_pool_small": Public(
        MetaFormerSpec(
            32,
            3,
            7,
            4,
            metaformer="baseline",
            depths=(1, 1, 2),
            dims=(12, 16, 24),
            token_mixers=("identity", "pooling", "pooling"),
            scaled_stages=(2,),
        ),
        timm.metaformer,
        lambda gradients, _: timm.metaformer(gradients),
    ),
    "convmixer_small": Public(ConvMixerSpec(32, 3, 7, 4, 16, 3, 5), timm.convmixer, timm.convmixer_gradients),
}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A program with a fixture's weights, and the fixture."""

    case: Public
    file: dict[str, Array]
    program: Program

    @property
    def plan(self) -> StepPlan:
        """One step over all images in their order."""
        examples = np.arange(len(self.file["labels"]), dtype=np.int32)[None]
        return StepPlan(0, np.ones(1), np.ones((1, 2)), examples)


@pytest.fixture(scope="module", params=CASES)
def file(request: pytest.FixtureRequest) -> tuple[Public, dict[str, Array]]:
    with np.load(Path(__file__).parent / "fixtures" / f"{request.param}.npz") as arrays:
        return CASES[request.param], dict(arrays)


@pytest.fixture(scope="module", params=backends.names())
def loaded(request: pytest.FixtureRequest, file: tuple[Public, dict[str, Array]]) -> Iterator[Loaded]:
    case, arrays = file
    dataset = ArrayDataset(arrays["images"].astype(float), arrays["labels"].astype(np.int32))
    program = backends.load(request.param).open(case.spec, SGD, dataset, RunSpec(precision="float64"))
    params = case.weights(timm.below(arrays, "state_dict"))
    program.load([{f"{group}/{name}": x for group in ("params", "momentum") for name, x in params.items()}])
    yield Loaded(case, arrays, program)


def test_every_weight_has_a_place(file: tuple[Public, dict[str, Array]]) -> None:
    case, arrays = file
    weights = case.weights(timm.below(arrays, "state_dict"))
    assert {name: x.shape for name, x in weights.items()} == folds.shapes(case.spec)


def test_logits_and_features_are_timms(loaded: Loaded) -> None:
    (found,) = loaded.program.predict(loaded.file["images"].astype(float))
    np.testing.assert_allclose(found.logits, loaded.file["logits"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found.features, loaded.file["features"], rtol=0, atol=TOLERANCE)


def test_the_loss_is_timms_and_every_layer_has_a_value_of_its_shape(loaded: Loaded) -> None:
    (values,) = loaded.program.activations([loaded.plan])
    np.testing.assert_allclose(values["loss"], loaded.file["loss"], rtol=0, atol=TOLERANCE)
    assert set(values) == set(folds.operations(loaded.case.spec, stochastic_depth=False))
    for layer in folds.layers(loaded.case.spec):
        if not layer.branch:
            assert values[layer.name].shape[1:] == layer.output, layer.name


def test_gradients_are_timms(loaded: Loaded) -> None:
    (found,) = loaded.program.gradients([loaded.plan])
    expected = loaded.case.gradients(timm.below(loaded.file, "grads"), timm.below(loaded.file, "state_dict"))
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=TOLERANCE, err_msg=name)


def test_a_batch_norm_folded_without_its_epsilon_is_seen(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(loaded.case.spec, ConvMixerSpec):
        return
    monkeypatch.setattr(timm, "EPSILON", 0.0)
    weights = timm.convmixer(timm.below(loaded.file, "state_dict"))
    loaded.program.load([{f"{group}/{name}": x for group in ("params", "momentum") for name, x in weights.items()}])
    (found,) = loaded.program.predict(loaded.file["images"].astype(float))
    assert np.abs(found.logits - loaded.file["logits"]).max() > 1e-6
