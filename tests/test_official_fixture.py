"""Each backend computes what the authors' own Flax and Optax code computed, tensor by tensor.

The fixture holds weights, images and labels, and what google-research/vision_transformer's Mixer made of them in
float64: logits, loss, gradients, and five steps of AdamW (rate 1e-3, decay 0.1 on all parameters, clipped at 1).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from backends.state import slots

FIXTURE = Path(__file__).parent / "fixtures" / "official_mixer_small.npz"
OPTIMIZER = OptimizerSpec(weight_decay=0.1, decay="all", clip_norm=1.0)
NUM_STEPS = 5

# Both sides compute in float64; what is left is the order of sums. Seen: logits 5.6e-16, loss 4.4e-16, gradients
# 1.2e-16. The largest numbers compared are of order 1.
TOLERANCE = 1e-11
# AdamW divides by sqrt(v) + 1e-8, which raises the rounding of a small gradient. Seen: parameters 4.9e-13.
STEPS_TOLERANCE = 1e-11


@pytest.fixture(scope="module")
def official() -> dict[str, Array]:
    with np.load(FIXTURE) as file:
        return dict(file)


def group(official: dict[str, Array], name: str) -> State:
    """The arrays below `name/`, as float64."""
    return {key.removeprefix(f"{name}/"): x.astype(float) for key, x in official.items() if key.startswith(f"{name}/")}


def model_spec(official: dict[str, Array]) -> MixerSpec:
    image, patch, hidden, blocks, tokens_dim, channels_dim, classes, channels = map(int, official["config"])
    return MixerSpec(image, channels, classes, patch, hidden, blocks, tokens_dim, channels_dim)


@pytest.fixture(scope="module", params=backends.names())
def program(request: pytest.FixtureRequest, official: dict[str, Array]) -> Iterator[Program]:
    dataset = ArrayDataset(official["images"].astype(float), official["labels"].astype(np.int32))
    run = RunSpec(precision="float64")
    yield backends.load(request.param).open(model_spec(official), OPTIMIZER, dataset, run)


@pytest.fixture
def loaded(program: Program, official: dict[str, Array]) -> Program:
    """The program with the fixture's weights, its moments zero."""
    params = group(official, "params")
    zeros = {f"{slot}/{name}": 0 * x for slot in slots(OPTIMIZER) for name, x in params.items()}
    program.load([{f"params/{name}": x for name, x in params.items()} | zeros])
    return program


@pytest.fixture(scope="module")
def plan(official: dict[str, Array]) -> StepPlan:
    """Each step takes all examples in their order, at a constant rate."""
    t = np.arange(1, NUM_STEPS + 1)[:, None]
    examples = np.tile(np.arange(len(official["labels"]), dtype=np.int32), (NUM_STEPS, 1))
    return StepPlan(0, np.full(NUM_STEPS, 1e-3), 1 / (1 - np.array([[0.9, 0.999]]) ** t), examples)


def assert_equal_by_name(actual: State, expected: State, tolerance: float) -> None:
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].shape == array.shape, name
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=tolerance, err_msg=name)


def test_names_and_shapes_are_those_of_the_authors(official: dict[str, Array]) -> None:
    expected = {name: array.shape for name, array in group(official, "params").items()}
    assert folds.shapes(model_spec(official)) == expected


def test_fixture_trains_from_the_loss_of_its_weights(official: dict[str, Array]) -> None:
    """The five steps begin with what `loss` is the loss of, and go down."""
    assert official["losses_5"].shape == (NUM_STEPS,)
    assert official["losses_5"][0] == pytest.approx(float(official["loss"]), abs=TOLERANCE)
    assert np.all(np.diff(official["losses_5"]) < 0)


def test_logits_are_the_authors(loaded: Program, official: dict[str, Array]) -> None:
    logits = loaded.predict(official["images"].astype(float))[0].logits
    np.testing.assert_allclose(logits, official["logits"], rtol=0, atol=TOLERANCE)


def test_gradients_are_the_authors(loaded: Program, official: dict[str, Array], plan: StepPlan) -> None:
    assert_equal_by_name(loaded.gradients([plan])[0], group(official, "grads"), TOLERANCE)


def test_five_steps_are_the_authors(loaded: Program, official: dict[str, Array], plan: StepPlan) -> None:
    metrics = loaded.train([plan])[0]
    assert np.all(metrics.gradient_norm > OPTIMIZER.clip_norm)  # so that the clipping is seen
    params = {name: x for name, x in loaded.states()[0].items() if name.startswith("params/")}
    assert metrics.loss[0] == pytest.approx(float(official["loss"]), abs=TOLERANCE)
    np.testing.assert_allclose(metrics.loss, official["losses_5"], rtol=0, atol=STEPS_TOLERANCE)
    assert_equal_by_name(group(params, "params"), group(official, "params_after_5"), STEPS_TOLERANCE)


def test_comparison_by_name_fails_on_a_wrong_tensor(official: dict[str, Array]) -> None:
    gradients = group(official, "grads")
    nudged = gradients["stem/bias"].copy()
    nudged[3] += 10 * TOLERANCE
    for wrong in ({"stem/bias": nudged}, {"stem/bias": nudged[:1]}, {"stem/other": nudged}):
        with pytest.raises(AssertionError):
            assert_equal_by_name(gradients | wrong, gradients, TOLERANCE)
