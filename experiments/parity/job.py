"""What one side is asked to compute, and the trials and states that single rungs take in place of the trial's own."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array, State
from backends.microbatches import Group
from backends.models import family_of, folds
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec
from experiments import files, streams
from experiments.spec.trial import Trial, trial_from_json
from experiments.training.start import initial_state

# Checks that a job names, each for one rung or several: many steps in one call; other sizes than those of the other
# rungs; several trials as one program; blocks computed again for the gradient; a compiled forward pass, which takes a
# minute.
LONG, WIDE, REPLICAS, REMAT, COMPILE = CHECKS = ("long", "wide", "replicas", "remat", "compile")
ON_ASKING = (COMPILE,)
EACH_VALUE = (WIDE,)  # made for each value of each setting of an ablation; the others once, as they depend on it least
# Size of the numbers that are added to the initial state for all rungs but the trajectory, so that no bias is zero, no
# scale one and no moment empty: a part that is left out must be seen.
SPREAD = {"params": 0.1, "average": 0.1, "first_moment": 0.01, "second_moment": 1e-4, "momentum": 0.1}
# The numbers of the step from empty slots. There 1 - decay is all that is seen of a decay, and at 0.9999 float32 has
# three digits of it; a rate of 1 shows a weight decay beside the rounding of a parameter; and no norm is clipped.
EMPTY: dict[str, Any] = {"ema_decay": 0.9999, "clip_norm": 1e6}
EMPTY_RATE = 1.0
RANKS = "ranks"  # the file of the states that the processes of a side have come to
CHUNK_STEPS = 10  # trained in one call, as a run trains them, on both sides alike
# Steps of one call, against the same one by one: more than two of JAX's compiled chunks of 32, and no multiple of them.
LONG_STEPS = 70
LONG_BLOCKS = 1  # of the model that takes them, and of replicas: what these rungs look at lies around the model
WIDE_BLOCKS = 2
# Of the wide rungs: more than a byte counts, and no multiple of anything.
WIDE_CLASSES = 1001
NUM_REPLICAS = 2
REPLICA_STEPS = 3  # another number than that of the replicas, so that exchanged axes are seen
REPLICA_RATES = (1.0, 1.5)  # times the plan's rate
# What is added to this bias in a second forward pass, in float64, in deviations of what the stem gives: far from zero,
# E[x^2] - E[x]^2 loses digits. A constant in place of deviations would take more digits of a model with a small stem.
OFFSET, OFFSET_BIAS = 300.0, "stem/bias"


@dataclass(frozen=True)
class Job:
    """One trial, and what a side computes of it.

    trial: its backend and precision are this side's.   num_steps: of the trajectory.   cache: folder of decoded images.
    folder: where the side writes.   wide_batch: batch size of the wide rungs.   checks: those of CHECKS that are made.
    rank: of the process that computes, where the side has run.devices of them.
    """

    trial: Trial
    num_steps: int
    cache: Path
    folder: Path
    wide_batch: int = 1
    checks: tuple[str, ...] = ()
    rank: int = 0

    @property
    def group(self) -> Group:
        """The processes of the side."""
        return Group(self.rank, self.trial.run.devices)

    @property
    def first_step(self) -> int:
        """The step that the single-step rungs take: inside the warm-up, where each step has a rate of its own."""
        return max(1, self.trial.train.warmup_steps // 2)

    @property
    def short(self) -> Trial:
        """The trial with one block, and a schedule in which each step of the long call has a rate."""
        model = family_of(self.trial.model).shallow(self.trial.model, LONG_BLOCKS)
        warmup = min(self.trial.train.warmup_steps, LONG_STEPS // 2)
        return replace(self.trial, model=model, train=replace(self.trial.train, steps=LONG_STEPS, warmup_steps=warmup))

    @property
    def wide(self) -> Trial:
        """The trial at another batch size and number of classes, with as many blocks as differ from each other."""
        model = family_of(self.trial.model).shallow(self.trial.model, WIDE_BLOCKS)
        model = replace(model, num_classes=WIDE_CLASSES)
        return replace(self.trial, model=model, train=replace(self.trial.train, batch_size=self.wide_batch))


def rank_prefix(rank: int) -> str:
    """What the names of a process's arrays begin with in the file RANKS."""
    return f"rank {rank} "


def has_offset(model: ModelSpec) -> bool:
    """Whether a constant that is added behind the stem reaches a norm: through standardised kernels none does."""
    return OFFSET_BIAS in folds.shapes(model)


def job_json(job: Job) -> dict[str, Any]:
    """A job in JSON's types; see read_work."""
    return {**asdict(job), "cache": str(job.cache), "folder": str(job.folder)}


@dataclass(frozen=True)
class Work:
    """What the processes of a side do.

    places: CPUs and device of each process; None: the device of the trials.    address: where they meet.
    """

    places: Sequence[tuple[Sequence[int], str | None]]
    address: str
    jobs: Sequence[Job]

    def write(self, path: Path) -> None:
        """Write it to a file; see read_work."""
        asked = {"places": self.places, "address": self.address, "jobs": [job_json(job) for job in self.jobs]}
        files.replace(path, json.dumps(asked).encode())


def read_work(path: Path) -> Work:
    """The work of a side, as it was written."""
    asked = json.loads(path.read_text())
    jobs = [
        Job(
            trial_from_json(fields["trial"]),
            fields["num_steps"],
            Path(fields["cache"]),
            Path(fields["folder"]),
            fields["wide_batch"],
            tuple(fields["checks"]),
        )
        for fields in asked["jobs"]
    ]
    return Work([(cpus, device) for cpus, device in asked["places"]], asked["address"], jobs)


def spread_state(trial: Trial) -> State:
    """The initial state with numbers added that leave no part of it zero or one; second moments stay positive."""
    state = initial_state(trial)
    for name, value in state.items():
        size = SPREAD[name.partition("/")[0]]
        drawn = streams.uniforms(trial.seed, f"parity/{name}", 0, 1, value.shape)[0]
        low = 0.01 if name.startswith("second_moment/") else -1.0
        state[name] = value + size * (low + (1 - low) * drawn)
    return state


def empty_state(trial: Trial) -> State:
    """The parameters of the spread state, with every slot zero."""
    return {n: x if n.startswith("params/") else np.zeros_like(x) for n, x in spread_state(trial).items()}


def empty_optimizer(optimizer: OptimizerSpec) -> OptimizerSpec:
    """The optimizer of the step from empty slots; a part that is off stays off."""
    return replace(optimizer, **{name: value for name, value in EMPTY.items() if getattr(optimizer, name)})


def empty_plan(plan: StepPlan) -> StepPlan:
    """The plan of the step from empty slots: another rate alone."""
    return replace(plan, learning_rate=np.full_like(plan.learning_rate, EMPTY_RATE))


def wide_labels(labels: Array) -> Array:
    """Labels of WIDE_CLASSES classes, drawn from no stream: neighbours are far apart, as are those of one label."""
    return ((labels.astype(np.int64) * 97 + np.arange(len(labels)) * 389) % WIDE_CLASSES).astype(np.int32)
