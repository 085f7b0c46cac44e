"""What a side computes twice, in two ways that must agree; and the rungs at other sizes."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backends.arrays import State
from backends.contract import MAX_PIXEL_STEPS, ArrayDataset, Backend, Program
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from experiments.data import Splits
from experiments.parity.job import (
    COMPILE,
    LONG,
    LONG_STEPS,
    NUM_REPLICAS,
    REMAT,
    REPLICA_RATES,
    REPLICA_STEPS,
    REPLICAS,
    WIDE,
    Job,
    spread_state,
    wide_labels,
)
from experiments.parity.plans import whole_plan
from experiments.spec.trial import Trial
from experiments.training import host
from experiments.training.start import initial_state

# Prefixes of names: what the first way of computing gives, what the second gives, and the state that both begin with.
EXPECTED, FOUND, BEFORE = "expected/", "found/", "before/"
GRADIENT = "gradient/"  # prefix of the wide sizes' gradients, which lie beside activations of the same names


@dataclass(frozen=True, eq=False)
class Opened:
    """A backend, the data, and how a program runs."""

    backend: Backend
    dataset: ArrayDataset
    run: RunSpec

    def program(self, trial: Trial, optimizer: OptimizerSpec | None = None) -> Program:
        """The program of a trial.  Args: optimizer: in place of the trial's own."""
        return self.backend.open(trial.model, optimizer or trial.optimizer, self.dataset, self.run)


def check_arrays(opened: Opened, job: Job, splits: Splits) -> Iterator[tuple[str, State]]:
    """The name and the arrays of each file that the job's checks need."""
    program = opened.program(job.short)
    if LONG in job.checks:
        yield LONG, _long_call(program, job, splits)
    if REPLICAS in job.checks:
        yield REPLICAS, _replicas(program, job, splits)
    if {WIDE, REMAT, COMPILE} & set(job.checks):
        yield from _wide(opened, job, splits)


def _both(first: State, second: State) -> State:
    """What two ways of computing give, in one mapping."""
    return {EXPECTED + name: x for name, x in first.items()} | {FOUND + name: x for name, x in second.items()}


def _long_call(program: Program, job: Job, splits: Splits) -> State:
    """The state and the metrics of LONG_STEPS steps, taken one by one and in one call, or as few as pixels allow."""
    trial = job.short
    plans = [whole_plan(trial, splits, step, 1, job.group) for step in range(LONG_STEPS)]
    program.load([initial_state(trial)])
    metrics = [program.train([plan])[0] for plan in plans]
    losses, norms = (np.concatenate([getattr(m, name) for m in metrics]) for name in ("loss", "gradient_norm"))
    expected = {"loss": losses, "gradient_norm": norms, **program.states()[0]}
    program.load([initial_state(trial)])
    most = MAX_PIXEL_STEPS if host.needed(trial.data.augment) else LONG_STEPS
    calls = [(step, min(most, LONG_STEPS - step)) for step in range(0, LONG_STEPS, most)]
    together = [program.train([whole_plan(trial, splits, *call, job.group)])[0] for call in calls]
    found = {"loss": [m.loss for m in together], "gradient_norm": [m.gradient_norm for m in together]}
    return _both(expected, {**{name: np.concatenate(x) for name, x in found.items()}, **program.states()[0]})


def _replicas(program: Program, job: Job, splits: Splits) -> State:
    """The states of two trials after some steps, each alone and as one program."""
    trials = [dataclasses.replace(job.short, seed=job.trial.seed + i) for i in range(NUM_REPLICAS)]
    before = [spread_state(trial) for trial in trials]
    # Seeds and rates differ: replicas that exchange their states or their plans would else agree.
    plans = [_replica_plan(trial, rate, job, splits) for trial, rate in zip(trials, REPLICA_RATES, strict=True)]
    alone, losses = [], []
    for state, plan in zip(before, plans, strict=True):
        program.load([state])
        losses.append(program.train([plan])[0].loss)
        alone += program.states()
    program.load(before)
    metrics = program.train(plans)
    expected = {f"loss/replica {i}": loss for i, loss in enumerate(losses)} | _named(alone)
    together = {f"loss/replica {i}": one.loss for i, one in enumerate(metrics)} | _named(program.states())
    return _both(expected, together) | {BEFORE + name: x for name, x in _named(before).items()}


def _replica_plan(trial: Trial, rate: float, job: Job, splits: Splits) -> StepPlan:
    """The plan of one replica's steps, at `rate` times its learning rate."""
    plan = whole_plan(trial, splits, job.first_step, REPLICA_STEPS, job.group)
    return dataclasses.replace(plan, learning_rate=rate * plan.learning_rate)


def _named(states: list[State]) -> State:
    """The arrays of all replicas; the names begin with the group, as `moves` reads it there."""
    return {f"{name}/replica {i}": x for i, state in enumerate(states) for name, x in state.items()}


def _wide(opened: Opened, job: Job, splits: Splits) -> Iterator[tuple[str, State]]:
    """Forward pass and gradients at other sizes, and the gradients again with remat or compiled, or without."""
    trial = job.wide
    plan = whole_plan(trial, splits, job.first_step, 1, job.group)
    indices, order = plan.examples[0], opened.dataset.pixel_order
    # The batch's own examples and no more, with labels of as many classes as the wide sizes have.
    few = ArrayDataset(np.asarray(splits.images[indices]), wide_labels(splits.labels[indices]), order)
    plan = dataclasses.replace(plan, examples=np.arange(len(indices), dtype=np.int32)[None])

    def gradients(run: RunSpec) -> tuple[Program, State]:
        program = Opened(opened.backend, few, run).program(trial)
        program.load([spread_state(trial)])
        return program, program.gradients([plan])[0]

    program, expected = gradients(opened.run)
    if WIDE in job.checks:
        yield WIDE, {**program.activations([plan])[0], **{GRADIENT + n: x for n, x in expected.items()}}
    if REMAT in job.checks:
        yield REMAT, _both(expected, gradients(dataclasses.replace(opened.run, remat=not opened.run.remat))[1])
    if COMPILE in job.checks:
        other = dataclasses.replace(opened.run, compile=not opened.run.compile)
        # A backend that compiles whatever run.compile says has one way alone, and nothing to compare.
        ways = {opened.backend.about(run).get("compile") for run in (opened.run, other)}
        yield COMPILE, _both(expected, gradients(other)[1]) if len(ways) == 2 else {}
