"""Trials that differ in their seed run as one program, and each gets what it gets alone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program
from backends.plan import StepPlan
from backends.specs import RunSpec
from experiments import data
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan
from experiments.training.start import initial_state

SEEDS = (0, 1, 7)
STEPS = 6

# The same sums in float64 in another order, as a batched product may take them, over 6 steps of AdamW, relative to the
# largest element of each tensor. Seen: 2e-14.
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Bench:
    """One trial for each seed, and the programs that run them."""

    backend: str
    trials: list[Trial]
    plans: list[StepPlan]
    dataset: ArrayDataset

    def open(self, replicas: list[int], remat: bool = False) -> Program:
        """A program of the replicas named, at their first states."""
        trial = self.trials[0]
        run = RunSpec(precision="float64", remat=remat)
        program = backends.load(self.backend).open(trial.model, trial.optimizer, self.dataset, run)
        program.load([self.state(i) for i in replicas])
        return program

    def state(self, i: int) -> State:
        """What a trial starts from, but with a head that is not zero, so that every gradient is seen."""
        state = initial_state(self.trials[i])
        kernel = np.random.default_rng(i).normal(size=state["params/head/kernel"].shape)
        return state | {"params/head/kernel": kernel}


def make_bench(backend: str, cache: Path, **model_fields: Any) -> Bench:
    augment = AugmentConfig(flip=True, crop=2, mixup=0.4)
    source = DataConfig(source="synthetic", num_examples=60, image_size=8, num_classes=4, augment=augment)
    model = ModelConfig(**{"patch_size": 4, "hidden_dim": 16, "num_blocks": 2, **model_fields})
    train = TrainConfig(batch_size=8, steps=STEPS, weight_decay=0.1, ema_decay=0.9, clip_norm=0.1)
    info = data.describe(source, cache, "test")
    trials = [resolve(TrialConfig(model, source, train, seed=seed), info, "test") for seed in SEEDS]
    splits = data.load(trials[0].data, info, cache)
    plans = [step_plan(trial, splits.train, 0, STEPS) for trial in trials]
    return Bench(backend, trials, plans, ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels)))


@pytest.fixture(scope="module", params=backends.names())
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(request.param, tmp_path_factory.mktemp("cache"), dropout=0.1, stochastic_depth=0.5)


EACH = list(range(len(SEEDS)))


def assert_same(actual: State, expected: State) -> None:
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].shape == array.shape, name
        atol = TOLERANCE * np.abs(array).max()
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=atol, err_msg=name)


def differ(values: list[Array]) -> bool:
    return all(not np.allclose(values[i], values[j]) for i in EACH for j in range(i))


def test_each_replica_trains_as_it_does_alone(bench: Bench) -> None:
    program = bench.open(EACH)
    metrics, states = program.train(bench.plans), program.states()
    assert len(metrics) == len(states) == len(SEEDS) and differ([m.loss for m in metrics])
    for i in EACH:
        alone = bench.open([i])
        expected = alone.train([bench.plans[i]])[0]
        np.testing.assert_allclose(metrics[i].loss, expected.loss, rtol=TOLERANCE)
        np.testing.assert_allclose(metrics[i].gradient_norm, expected.gradient_norm, rtol=TOLERANCE)
        assert_same(states[i], alone.states()[0])


def test_each_replica_trains_alike_where_its_blocks_are_computed_again(bench: Bench) -> None:
    programs = [bench.open(EACH), bench.open(EACH, remat=True), bench.open([1], remat=True)]
    metrics = [
        program.train([bench.plans[i] for i in ([1] if len(program.states()) == 1 else EACH)]) for program in programs
    ]
    states = [program.states() for program in programs]
    for i in EACH:
        np.testing.assert_allclose(metrics[1][i].loss, metrics[0][i].loss, rtol=TOLERANCE)
        assert_same(states[1][i], states[0][i])
    assert_same(states[2][0], states[0][1])


@pytest.mark.parametrize("backend", backends.names())
def test_untied_replicas_have_the_gradient_they_have_alone(backend: str, tmp_path: Path) -> None:
    untied = make_bench(backend, tmp_path, num_blocks=1, token_mixing="untied")
    gradients = untied.open(EACH).gradients(untied.plans)
    assert_same(gradients[1], untied.open([1]).gradients([untied.plans[1]])[0])


def test_each_replica_has_the_gradient_it_has_alone(bench: Bench) -> None:
    gradients = bench.open(EACH).gradients(bench.plans)
    assert len(gradients) == len(SEEDS) and differ([g["stem/kernel"] for g in gradients])
    for i in EACH:
        assert_same(gradients[i], bench.open([i]).gradients([bench.plans[i]])[0])


def test_gradients_leave_the_state_as_it_is(bench: Bench) -> None:
    program = bench.open(EACH)
    program.gradients(bench.plans)
    for i, state in enumerate(program.states()):
        for name, array in bench.state(i).items():
            np.testing.assert_array_equal(state[name], array, err_msg=name)


def test_each_replica_predicts_as_it_does_alone(bench: Bench) -> None:
    images = np.array(bench.dataset.images[:9])
    predictions = bench.open(EACH).predict(images)
    assert len(predictions) == len(SEEDS) and differ([p.features for p in predictions])
    for i in EACH:
        expected = bench.open([i]).predict(images)[0]
        for name in ("logits", "features"):
            np.testing.assert_allclose(getattr(predictions[i], name), getattr(expected, name), rtol=0, atol=TOLERANCE)


def test_each_replica_follows_its_own_learning_rate(bench: Bench) -> None:
    """The rate is an array of the plan like the others."""
    plans = [replace(plan, learning_rate=plan.learning_rate * 2**i) for i, plan in enumerate(bench.plans)]
    program = bench.open(EACH)
    program.train(plans)
    for i, state in enumerate(program.states()):
        alone = bench.open([i])
        alone.train([plans[i]])
        assert_same(state, alone.states()[0])
