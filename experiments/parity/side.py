"""One side of the ladder: what a backend computes of each trial, written into the trial's folder file by file."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

import backends
from backends.contract import ArrayDataset, Backend, Program, State
from backends.errors import MixlabError
from experiments import data, streams
from experiments.data import Splits
from experiments.files import replace
from experiments.plan import step_plan
from experiments.spec import Trial, trial_from_json
from experiments.trial import evaluate, initial_state

# Size of the numbers that are added to the initial state for all rungs but the trajectory, so that no bias is zero, no
# scale one and no moment empty: a part that is left out must be seen.
SPREAD = {"params": 0.1, "average": 0.1, "first_moment": 0.01, "second_moment": 1e-4, "momentum": 0.1}
# What is added to the stem's bias in a second forward pass, in float64: far from zero, E[x^2] - E[x]^2 loses digits.
OFFSET = 300.0
CHUNK_STEPS = 10  # trained in one call, as a run trains them
FILE_BYTES = 2**25  # of the parameters of some steps in one file
FILE_STEPS = 100
MAX_WAITING = 3  # such files, and jobs, that may wait to be compared
WAIT_S = 0.01
PARENT = os.getppid()
EVALUATED = 300  # test examples: a batch of spec.PREDICT_BATCH and a part of one


@dataclass(frozen=True)
class Job:
    """trial: its backend and precision are this side's.   num_steps: of the trajectory.   cache: of decoded images."""

    trial: Trial
    num_steps: int
    cache: Path
    folder: Path

    @property
    def first_step(self) -> int:
        """The step that the single-step rungs take: inside the warm-up, where each step has a rate of its own."""
        return max(1, self.trial.train.warmup_steps // 2)


def main(path: Path) -> None:
    """Run the jobs of a JSON file in their order; a mistake is left as `mistake.json` in the job's folder."""
    asked = json.loads(path.read_text())
    os.sched_setaffinity(0, asked["cpus"])  # XLA takes its number of threads from here
    jobs = [
        Job(trial_from_json(fields["trial"]), fields["num_steps"], Path(fields["cache"]), Path(fields["folder"]))
        for fields in asked["jobs"]
    ]
    for i, job in enumerate(jobs):
        while i >= MAX_WAITING and jobs[i - MAX_WAITING].folder.exists():  # until the parent removes it
            _rest()
        try:
            climb(backends.load(job.trial.backend), job)
        except MixlabError as error:
            replace(job.folder / "mistake.json", json.dumps(str(error)).encode())
            return


def climb(backend: Backend, job: Job) -> None:
    """Write `about.json` and one file of arrays for each rung, in the order of ladder.RUNGS."""
    trial = job.trial
    splits = data.load(trial.data, trial.info, job.cache)
    order = data.pixel_order(
        trial.data.permutation, trial.model.image_size, trial.model.patch_size, trial.data.split_seed
    )
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
    run = trial.run_spec(len(os.sched_getaffinity(0)))
    program = backend.open(trial.model, trial.optimizer, dataset, run)
    replace(job.folder / "about.json", json.dumps(backend.about(run)).encode())
    for name, arrays in _single_step(program, job, splits):
        _write(job.folder / f"{name}.safetensors", arrays)
    for first, arrays in _trajectory(program, job, splits):
        while len(list(job.folder.glob("steps-*.safetensors"))) >= MAX_WAITING:
            _rest()
        _write(job.folder / f"steps-{first:06}.safetensors", arrays)


def spread_state(trial: Trial) -> State:
    """The initial state with numbers added that leave no part of it zero or one; second moments stay positive."""
    state = initial_state(trial)
    for name, value in state.items():
        size = SPREAD[name.partition("/")[0]]
        drawn = streams.uniforms(trial.seed, f"parity/{name}", 0, 1, value.shape)[0]
        low = 0.01 if name.startswith("second_moment/") else -1.0
        state[name] = value + size * (low + (1 - low) * drawn)
    return state


def _single_step(program: Program, job: Job, splits: Splits) -> Iterator[tuple[str, State]]:
    trial, first = job.trial, job.first_step
    plan = step_plan(trial, splits.train, first, 1)
    program.load([initial_state(trial)])
    yield "weights", program.states()[0]
    yield "plan", plan.arrays()
    state = spread_state(trial)
    program.load([state])
    yield "activations", program.activations([plan])[0]
    if trial.train.precision == "float64":
        program.load([{**state, "params/stem/bias": state["params/stem/bias"] + OFFSET}])
        yield "offset", program.activations([plan])[0]
        program.load([state])
    yield "gradients", program.gradients([plan])[0]
    metrics = evaluate(program, splits, splits.test[:EVALUATED], trial.train.loss)
    yield "evaluation", {name: np.array(number) for name, number in metrics.items()}
    norm = program.train([plan])[0].gradient_norm
    yield "step", {"gradient_norm": norm, **program.states()[0]}
    program.load([initial_state(trial)])
    program.train([step_plan(trial, splits.train, 0, min(CHUNK_STEPS, job.num_steps))])
    yield "chunk", _parameters(program)


def _trajectory(program: Program, job: Job, splits: Splits) -> Iterator[tuple[int, State]]:
    """Losses and parameters of every step from the initial state, some steps at a time."""
    program.load([initial_state(job.trial)])
    size = sum(value.nbytes for value in _parameters(program).values())
    in_file = min(max(1, FILE_BYTES // size), FILE_STEPS)
    for first in range(0, job.num_steps, in_file):
        rows: list[State] = []
        for step in range(first, min(first + in_file, job.num_steps)):
            _end_if_orphaned()
            metrics = program.train([step_plan(job.trial, splits.train, step, 1)])[0]
            rows.append({"loss": metrics.loss[0], **_parameters(program)})
        yield first, {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _rest() -> None:
    """Let the parent catch up."""
    _end_if_orphaned()
    time.sleep(WAIT_S)


def _end_if_orphaned() -> None:
    if os.getppid() != PARENT:
        sys.exit(1)


def _parameters(program: Program) -> State:
    """The parameters and their average, without moments."""
    return {name: x for name, x in program.states()[0].items() if name.startswith(("params/", "average/"))}


def _write(path: Path, arrays: State) -> None:
    replace(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}), durable=False)


def job_json(job: Job) -> dict[str, Any]:
    return {**asdict(job), "cache": str(job.cache), "folder": str(job.folder)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
