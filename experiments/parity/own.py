"""The rungs that hold each side to itself: its steps to the formula, and one way of computing to another."""

from collections.abc import Callable
from dataclasses import replace

from backends.arrays import State
from backends.models import folds
from backends.state import decayed_params, state_shapes
from experiments.parity import terms
from experiments.parity.checks import BEFORE, EXPECTED, FOUND
from experiments.parity.formula import Step
from experiments.parity.job import (
    COMPILE,
    EMPTY_RATE,
    LONG,
    RANKS,
    REMAT,
    REPLICA_STEPS,
    REPLICAS,
    Job,
    empty_optimizer,
    empty_state,
    rank_prefix,
    spread_state,
)
from experiments.parity.rungs import Difference, Rung, compare, gradient_scales, moves, size
from experiments.parity.terms import Case
from experiments.parity.tolerances import KEPT, OF_RANKS, ONE_WAY, ROUNDOFF, tolerance
from experiments.training.plan import learning_rates

Sides = tuple[State, State]
FROM_EMPTY = "from empty slots:"
WORDS = {
    LONG: "the loop over the steps of one call, against the same steps one by one",
    REPLICAS: "several trials as one program, against each alone",
    REMAT: "run.remat on against off",
    COMPILE: "run.compile on against off",
}


def case(job: Job, plan: State, gradient: State, after: State) -> Case:
    """The single step of a side from the spread state.

    Args: plan: of the step.    gradient: the side's own, before clipping.    after: the state that the side came to.
    """
    rates = learning_rates(job.trial.train, job.first_step - 1, 3)  # of the step before, of the step, of the step after
    kernels = frozenset(name for name, decays in decayed_params(job.trial.model, "kernels").items() if decays)
    before, after = (_trained(job, state) for state in (spread_state(job.trial), after))
    right = Step(job.trial.optimizer, float(rates[1]), plan["moment_corrections"][0], job.first_step + 1, kernels)
    around = float(rates[0]), float(rates[2])
    return Case(right, around, job.trial.train.precision, before, gradient, after)


def _trained(job: Job, state: State) -> State:
    """A state without its constants, which no step moves."""
    names = state_shapes(job.trial.model, job.trial.optimizer)
    constants = {f"params/{name}" for name in folds.constant_shapes(job.trial.model)}
    return {name: state[name] for name in names if name not in constants}


def moved(jobs: tuple[Job, Job], after: Sides, name: str) -> str:
    """The backends whose step has changed an array of the spread state, in words."""
    before = spread_state(jobs[0].trial)[name]
    rounding = 2 * max(ROUNDOFF[KEPT[job.trial.train.precision]] for job in jobs) * size(before)
    sides = zip(jobs, after, strict=True)
    return " and ".join(job.trial.backend for job, state in sides if size(state[name] - before) > rounding)


def empty_case(job: Job, plan: State, gradient: State, after: State) -> Case:
    """The single step of a side from empty slots; the gradient is the same, as the parameters are."""
    usual = case(job, plan, gradient, after)
    right = replace(usual.right, spec=empty_optimizer(job.trial.optimizer), rate=EMPTY_RATE)
    # The neighbours' rates keep their ratio to the step's own: a side that takes one of them is known by that ratio.
    before, after_it = (EMPTY_RATE * rate / usual.right.rate for rate in usual.rates)
    return replace(usual, right=right, rates=(before, after_it), before=_trained(job, empty_state(job.trial)))


def formula(jobs: tuple[Job, Job], read: Callable[[Job, str], State]) -> tuple[Rung, Rung]:
    """The rungs of first moments and of everything else, over both single steps of each side.

    First moments are held to the side's gradient, everything else to the side's first moments.

    Args: read: the arrays of a side by file; one state at a time, as those of a large model take much memory.
    """
    precisions = tuple(job.trial.train.precision for job in jobs)
    rungs = [Rung(name, tolerance(name, precisions, jobs[0].trial.model)) for name in ("moments", "formula")]
    for job in jobs:
        # Neither step shows every term. From the spread state, gradients are clipped and old moments decay; from empty
        # slots, 1 - decay is all that is seen of a decay, and the rate of 1 shows weight decay beside rounding.
        plan, gradient = read(job, "plan"), read(job, "gradients")
        for words, file, make_case in (("", "step", case), (FROM_EMPTY, "empty", empty_case)):
            one = make_case(job, plan, gradient, read(job, file))
            for rung, deviations in zip(rungs, terms.deviations(one), strict=True):
                for difference in deviations:
                    _note(rung, job, one, words, difference)
    return rungs[0], rungs[1]


def _note(rung: Rung, job: Job, one: Case, words: str, difference: Difference) -> None:
    """Note a tensor's deviation; the term at fault is searched for only where it is the place."""
    name = " ".join(filter(None, (job.trial.backend, words, difference.name)))
    rung.note(replace(difference, name=name), name, lambda: f"{name}: {job.trial.backend} {terms.explain(one)}")


def ranks(jobs: tuple[Job, Job], sides: Sides) -> Rung:
    """The rung of sides with several processes: each of them has come to the same state."""
    rung = Rung(RANKS, OF_RANKS)
    for job, side in zip(jobs, sides, strict=True):
        first = part(side, rank_prefix(0))
        for rank in range(1, job.group.size):
            other, who = part(side, rank_prefix(rank)), f"{job.trial.backend} rank {rank} of {job.group.size}"
            for tensor, expected in first.items():
                label = f"{who}: {tensor}"
                words = "another state than that of rank 0 after the chunk: load, the exchange, or the update"
                rung.note(compare(label, expected, other[tensor]), label, f"{label}: {words}")
    return rung


def twice(name: str, check: str, jobs: tuple[Job, Job], sides: Sides) -> Rung:
    """The rung of a check, for which each side has computed the same in two ways; free where neither has two ways."""
    if not any(sides):
        return Rung(name, ONE_WAY)
    precisions, deterministic = (
        [job.trial.train.precision for job in jobs],
        all(job.trial.run.deterministic for job in jobs),
    )
    kind = "trajectory" if check == LONG and not deterministic else name  # then no two runs have the same bits
    rung = Rung(name, tolerance(kind, tuple(precisions), jobs[0].trial.model))
    for job, side in zip(jobs, sides, strict=True):
        expected, second, before = (part(side, prefix) for prefix in (EXPECTED, FOUND, BEFORE))
        scales = _scales(check, rung, job, (expected, second), before)
        for tensor in expected:
            label = f"{job.trial.backend} {tensor}"
            difference = compare(label, expected[tensor], second[tensor], scales.get(tensor))
            rung.note(difference, label, f"{label}: {WORDS[check]}")
    return rung


def _scales(check: str, rung: Rung, job: Job, sides: Sides, before: State) -> dict[str, float]:
    """Sizes that differences are set against, by tensor; one that is absent is set against its own size."""
    precisions = [job.trial.train.precision]
    if check == REPLICAS:  # trained states among losses, which have no state before
        states = {n: sides[0][n] for n in before}, {n: sides[1][n] for n in before}
        return moves(states, before, precisions, rung.tolerance.limit, REPLICA_STEPS)
    return {} if check == LONG else gradient_scales(sides, sides[0], precisions)


def part(side: State, prefix: str) -> State:
    """The arrays below a prefix, without it."""
    return {name.removeprefix(prefix): x for name, x in side.items() if name.startswith(prefix)}
