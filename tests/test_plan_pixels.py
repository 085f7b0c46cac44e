"""Steps whose images come in the plan are those of the same images on the device, bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import backends
from backends.arrays import State
from backends.contract import ArrayDataset, DataSize, Program
from backends.plan import StepPlan
from backends.specs import RunSpec
from tests.test_replicas import EACH, SEEDS, Bench, make_bench

ROOM = 9  # steps that a plan has room for: more than are taken


@pytest.fixture(scope="module", params=backends.names())
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(request.param, tmp_path_factory.mktemp("cache"), num_blocks=1, hidden_dim=8)


def with_pixels(plan: StepPlan, dataset: ArrayDataset, room: int = ROOM) -> StepPlan:
    """The plan with its examples' images; what is beyond its steps is noise."""
    images = dataset.images[plan.examples]
    noise = np.random.default_rng(0).integers(0, 256, (room - len(images), *images.shape[1:]), np.uint8)
    return replace(plan, pixels=np.concatenate([images, noise]))


def without_images(dataset: ArrayDataset) -> ArrayDataset:
    return replace(dataset, images=dataset.images[:0])


def opened(bench: Bench, dataset: ArrayDataset, replicas: Sequence[int], precision: str) -> Program:
    trial = bench.trials[0]
    program = backends.load(bench.backend).open(trial.model, trial.optimizer, dataset, RunSpec(precision=precision))
    program.load([bench.state(i) for i in replicas])
    return program


def assert_equal(found: list[State], expected: list[State]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, array in other.items():
            np.testing.assert_array_equal(one[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("precision", "replicas", "permuted"),
    [("float64", [1], True), ("float32", EACH, False)],
    ids=["float64, permuted", "float32, replicas"],
)
def test_images_in_the_plan_give_the_bits_of_those_on_the_device(
    bench: Bench, precision: str, replicas: list[int], permuted: bool
) -> None:
    """Activations, gradients, losses and states, with flips, crops and mixup."""
    order = np.random.default_rng(3).permutation(64).astype(np.int32) if permuted else None
    dataset = replace(bench.dataset, pixel_order=order)
    plans = [bench.plans[i] for i in replicas]
    brought = [with_pixels(plan, dataset) for plan in plans]
    own = opened(bench, dataset, replicas, precision)
    fed = opened(bench, without_images(dataset), replicas, precision)
    assert_equal(fed.activations(brought), own.activations(plans))
    assert_equal(fed.gradients(brought), own.gradients(plans))
    found, expected = fed.train(brought), own.train(plans)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.loss, other.loss)
        np.testing.assert_array_equal(one.gradient_norm, other.gradient_norm)
    assert_equal(fed.states(), own.states())


def test_each_replica_has_images_of_its_own(bench: Bench) -> None:
    brought = [with_pixels(plan, bench.dataset) for plan in bench.plans]
    dark = replace(brought[1], pixels=np.zeros_like(brought[1].pixels))
    fed = opened(bench, without_images(bench.dataset), EACH, "float64")
    seen, changed = fed.gradients(brought), fed.gradients([brought[0], dark, brought[2]])
    same = [np.array_equal(one["stem/kernel"], other["stem/kernel"]) for one, other in zip(seen, changed, strict=True)]
    assert same == [True, False, True] and len(SEEDS) == 3


def test_a_program_of_one_room_serves_any_number_of_steps(bench: Bench) -> None:
    fed = opened(bench, without_images(bench.dataset), [0], "float64")
    plan = with_pixels(bench.plans[0], bench.dataset)
    fed.train([plan])
    before = fed.compile_s
    fed.train([replace(part(plan, 2), pixels=plan.pixels)])
    assert fed.compile_s == before


def part(plan: StepPlan, num: int) -> StepPlan:
    """The first steps of a plan."""
    return replace(plan, **{name: array[:num] for name, array in plan.arrays().items()})


def test_memory_of_images_in_the_plan_is_that_of_the_room_and_not_of_the_set(cache: Path) -> None:
    bench, num_replicas = make_bench("jax", cache, num_blocks=1, hidden_dim=8), 2
    trial, plan = bench.trials[0], part(bench.plans[0], 1)

    def needed(num_examples: int, steps: int) -> int:
        size = DataSize(num_examples, "uint8", False, pixel_steps=steps)
        memory_bytes = backends.load("jax").memory_bytes
        known = memory_bytes(trial.model, trial.optimizer, size, plan, RunSpec(), num_replicas)
        assert known is not None
        return known

    # An example takes its label, and its image where the set has it; labels alone decide no peak.
    many, room = 10**6, 2**15
    step_bytes = num_replicas * plan.examples.size * 8 * 8 * 3
    assert needed(many, 0) > many * (8 * 8 * 3 + 4) > 8 * needed(many, 1)
    assert needed(many, 2 * room) - needed(many, room) >= room * step_bytes


def test_what_is_compiled_for_sizes_is_what_images_in_the_plan_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bench.backend != "jax":
        pytest.skip("jax alone compiles for sizes")
    from backends.jax import ahead
    from backends.jax.traced import DTYPES

    monkeypatch.setattr(ahead, "_compiled", {})
    trial = bench.trials[0]
    fed = opened(bench, without_images(bench.dataset), [0], "float32")
    size = DataSize(len(bench.dataset.labels), "uint8", False, pixel_steps=ROOM)
    sizes = ahead.Sizes(trial.model, trial.optimizer, size, part(bench.plans[0], 1), DTYPES["float32"][0], RunSpec())
    ahead.compiled_form(fed.traced.train, sizes.train(fed.device), fed.device, False)  # type: ignore[attr-defined]
    fed.train([with_pixels(bench.plans[0], bench.dataset)])
    assert fed.compile_s == 0
