"""ViT, gMLP and ResMLP compute in each backend what public code computed of the same weights, in float64.

big_vision's ViT with learned and with sine-cosine positions, timm's ViT, gMLP and ResMLP: see tests/golden_blocks.py.
A wrong epsilon moves logits by 1e-5, and the other form of GELU by 1e-4: float64 alone shows them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import backends
from backends.arrays import State
from backends.contract import ArrayDataset, Program
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from backends.state import slots
from tests import golden_blocks
from tests.golden_blocks import SPECS, TAPS, Golden, probes

OPTIMIZER = OptimizerSpec(weight_decay=0.1, decay="all", clip_norm=1.0)
NUM_STEPS = 5
TRAINED = ("vit_learn_small", "vit_sincos2d_small")  # their files have five steps of AdamW
# A program of JAX takes seconds to compile: beside logits, a run of all tests has these, and `make test-golden` all.
LONG = os.environ.get("MIXLAB_GOLDEN") == "long"
IN_JAX = {"gradients": ("vit_sincos2d_small", "gmlp_small"), "values": (), "steps": ("vit_learn_small",)}

# Both sides compute in float64, and differ in the order of sums. Numbers are of order 1, probes of order 10.
# Seen: logits 5.0e-16, features 1.1e-15, gradients 3.3e-16, values inside 2.2e-15, losses 4.4e-16; parameters after
# five steps 1.5e-12, as AdamW divides the gradient of a key's bias, which is rounding alone, by its own size.
TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Loaded:
    """A fixture in a backend."""

    golden: Golden
    backend: str
    program: Program

    def needs(self, what: str) -> None:
        """Skip the test where that is for the long form; see IN_JAX."""
        if not LONG and self.backend == "jax" and self.golden.name not in IN_JAX[what]:
            pytest.skip("make test-golden")

    def fresh(self) -> Program:
        """The program with the fixture's weights, its moments zero."""
        zeros = {f"{slot}/{name}": 0 * x for slot in slots(OPTIMIZER) for name, x in self.golden.params.items()}
        self.program.load([{f"params/{name}": x for name, x in self.golden.params.items()} | zeros])
        return self.program


@pytest.fixture(scope="module", params=[(name, one) for name in SPECS for one in backends.names()], ids="-".join)
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    name, backend = request.param
    golden = golden_blocks.load(name)
    labels = golden.arrays["labels"].astype(np.int32)
    dataset = ArrayDataset(golden.arrays["images"].astype(float), labels)
    run = RunSpec(precision="float64")
    yield Loaded(golden, backend, backends.load(backend).open(golden.spec, OPTIMIZER, dataset, run))


def plan(num_steps: int) -> StepPlan:
    """Each step takes all four examples in their order, at a constant rate."""
    t = np.arange(1, num_steps + 1)[:, None]
    examples = np.tile(np.arange(4, dtype=np.int32), (num_steps, 1))
    return StepPlan(0, np.full(num_steps, 1e-3), 1 / (1 - np.array([[0.9, 0.999]]) ** t), examples)


def furthest(found: State, expected: State) -> float:
    """The largest difference of any probe; of the same names on both sides."""
    assert set(found) == set(expected)
    return max(float(np.abs(probes(x) - expected[name]).max()) for name, x in found.items())


def test_logits_and_features_are_those_of_public_code(loaded: Loaded) -> None:
    arrays = loaded.golden.arrays
    predicted = loaded.fresh().predict(arrays["images"].astype(float))[0]
    np.testing.assert_allclose(predicted.logits, arrays["logits"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(predicted.features, arrays["features"], rtol=0, atol=TOLERANCE)


def test_gradients_are_those_of_public_code(loaded: Loaded) -> None:
    """The gradient of a key's bias is zero in exact arithmetic, and is compared as a number like all others."""
    loaded.needs("gradients")
    assert furthest(loaded.fresh().gradients([plan(1)])[0], loaded.golden.probes("grads")) < TOLERANCE


def test_the_loss_and_values_inside_are_those_of_public_code(loaded: Loaded) -> None:
    loaded.needs("values")
    arrays, taps = loaded.golden.arrays, loaded.fresh().activations([plan(1)])[0]
    assert float(taps["loss"]) == pytest.approx(float(arrays["loss"]), abs=TOLERANCE)
    for name, theirs in TAPS.items():
        if f"intermediates/{theirs}" in arrays:
            np.testing.assert_allclose(taps[name], arrays[f"intermediates/{theirs}"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "loaded", [(name, one) for name in TRAINED for one in backends.names()], indirect=True, ids="-".join
)
def test_five_steps_of_adamw_are_those_of_optax(loaded: Loaded) -> None:
    loaded.needs("steps")
    golden, program = loaded.golden, loaded.fresh()
    metrics = program.train([plan(NUM_STEPS)])[0]
    np.testing.assert_allclose(metrics.loss, golden.arrays["losses_5"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(metrics.gradient_norm, golden.arrays["grad_norms_5"], rtol=0, atol=TOLERANCE)
    assert np.all(metrics.gradient_norm > OPTIMIZER.clip_norm)  # so that the clipping is seen
    after = {n.removeprefix("params/"): x for n, x in program.states()[0].items() if n.startswith("params/")}
    assert furthest(after, golden.probes("params_after_5")) < TOLERANCE


def test_probes_see_a_number_that_is_wrong_and_two_that_are_exchanged() -> None:
    x = golden_blocks.load("gmlp_small").params["MixerBlock_0/token_mixing/gate/kernel"]
    wrong = x.copy()
    wrong[3, 5] += 100 * TOLERANCE
    for other in (wrong, x.T, x[::-1], np.roll(x, 1)):
        assert furthest({"gate": other}, {"gate": probes(x)}) > TOLERANCE
