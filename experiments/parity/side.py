"""One side of the ladder: what a backend computes of each trial, written into the trial's folder file by file."""

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

import backends
from backends.arrays import State
from backends.contract import ArrayDataset, Backend, Program
from backends.errors import MixlabError, show_chain
from backends.microbatches import Group
from experiments import data
from experiments.data import Splits
from experiments.files import replace
from experiments.machine.environment import ROOT
from experiments.parity import checks
from experiments.parity.checks import Opened
from experiments.parity.job import (
    CHUNK_STEPS,
    OFFSET,
    OFFSET_BIAS,
    RANKS,
    Job,
    empty_optimizer,
    empty_plan,
    empty_state,
    has_offset,
    rank_prefix,
    read_work,
    spread_state,
)
from experiments.parity.plans import whole_plan
from experiments.training.evaluate import evaluate
from experiments.training.start import initial_state

FILE_BYTES = 2**25  # of the parameters of some steps in one file
FILE_STEPS = 100
MAX_WAITING = 3  # such files, and jobs, that may wait to be compared
WAIT_S = 0.01
EXCHANGE_S = 1800.0  # of one exchange between the processes of a side: the first one waits for what is compared
PARENT = os.getppid()
EVALUATED = 300  # test examples: a batch of contract.PREDICT_BATCH and a part of one


def main(path: Path, rank: int) -> None:
    """Do the work of a JSON file job by job; a mistake is left as `mistake.json` in the job's folder.

    Args: rank: of this process among those of the side, which all take the same steps; the first one writes.
    """
    work = read_work(path)
    cpus, device = work.places[rank]
    os.sched_setaffinity(0, cpus)  # XLA takes its number of threads from here
    jobs = [changed(job, rank=rank) for job in work.jobs]
    if device is not None:
        jobs = [_on_its_device(job, cpus, device) for job in jobs]
    for i, job in enumerate(jobs):
        while i >= MAX_WAITING and jobs[i - MAX_WAITING].folder.exists():  # until the parent removes it
            _rest()
        try:
            backend = backends.load(job.trial.backend)
            if i == 0 and len(work.places) > 1:
                backend.join(Group(rank, len(work.places)), work.address, EXCHANGE_S)
            climb(backend, job)
        except MixlabError as error:
            show_chain(error)
            replace(job.folder / "mistake.json", json.dumps(str(error)).encode())
            return


def _on_its_device(job: Job, cpus: Sequence[int], device: str) -> Job:
    """The job on the one device that this process is for, the others hidden."""
    from experiments.running.opener import WorkerSpec  # other interpreters may lack what it imports
    from experiments.running.place import take_place

    trial = job.trial
    take_place(WorkerSpec(trial.backend, tuple(cpus), job.folder, job.cache, {}, ROOT, time.monotonic(), device))
    run = changed(trial.run, device=device.partition(":")[0])
    return changed(job, trial=changed(trial, run=run))


def climb(backend: Backend, job: Job) -> None:
    """Write `about.json` and the files of arrays that the rungs need, in the order of ladder.RUNGS.

    The processes of a side all call it; the first one writes, and from the others what they have come to.
    """
    trial = job.trial
    splits = data.load(trial.data, trial.info, job.cache)
    order = data.pixel_order(
        trial.data.permutation, trial.model.image_size, trial.model.patch_size, trial.data.split_seed
    )
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
    run = trial.run_spec(len(os.sched_getaffinity(0)), group=job.group)
    opened = Opened(backend, dataset, run)
    program = opened.program(trial)
    if job.rank == 0:
        replace(job.folder / "about.json", json.dumps(backend.about(run)).encode())
    for name, arrays in _files(opened, program, job, splits):
        _end_if_orphaned()
        if name == RANKS and job.rank:
            _write(job.folder / f"{RANKS}-{job.rank}.safetensors", arrays)
        elif job.rank == 0:
            while name.startswith("steps-") and len(list(job.folder.glob("steps-*.safetensors"))) >= MAX_WAITING:
                _rest()
            _write(job.folder / f"{name}.safetensors", _of_all_ranks(job, arrays) if name == RANKS else arrays)


def _files(opened: Opened, program: Program, job: Job, splits: Splits) -> Iterator[tuple[str, State]]:
    """Each file's name and arrays, as this process computes them."""
    yield from _single_step(program, job, splits)
    yield from _empty_step(opened, job, splits)
    for first, arrays in _trajectory(program, job, splits):
        yield f"steps-{first:06}", arrays
    yield from checks.check_arrays(opened, job, splits)


def _of_all_ranks(job: Job, own: State) -> State:
    """What the processes of a side have come to; the names begin with the rank. Of one process, nothing."""
    arrays = {f"{rank_prefix(0)}{name}": x for name, x in own.items()} if job.group.size > 1 else {}
    for rank in range(1, job.group.size):
        path = job.folder / f"{RANKS}-{rank}.safetensors"
        while not path.exists():
            _rest()
        arrays |= {f"{rank_prefix(rank)}{name}": x for name, x in load_file(path).items()}
        path.unlink()
    return arrays


def _single_step(program: Program, job: Job, splits: Splits) -> Iterator[tuple[str, State]]:
    """The files of one step from the spread state, of an evaluation there, and of some steps in one call."""
    trial, first = job.trial, job.first_step
    plan = whole_plan(trial, splits, first, 1, job.group)
    program.load([initial_state(trial)])
    yield "weights", program.states()[0]
    yield "plan", whole_plan(trial, splits, first, 1).arrays()  # with the pixels of all rows
    state = spread_state(trial)
    program.load([state])
    values = program.activations([plan])[0]
    yield "activations", values
    if trial.train.precision == "float64" and has_offset(trial.model):
        bias = f"params/{OFFSET_BIAS}"
        program.load([{**state, bias: state[bias] + OFFSET * _power(values["stem"].std())}])
        yield "offset", program.activations([plan])[0]
        program.load([state])
    # Before the step, which changes the state: all of these are of the same parameters.
    yield "gradients", program.gradients([plan])[0]
    metrics = evaluate(program, splits, splits.test[:EVALUATED], trial.train.loss)
    yield "evaluation", {name: np.array(number) for name, number in metrics.items()}
    norm = program.train([plan])[0].gradient_norm
    yield "step", {"gradient_norm": norm, **program.states()[0]}
    program.load([initial_state(trial)])
    program.train([whole_plan(trial, splits, 0, min(CHUNK_STEPS, job.num_steps), job.group)])
    yield "chunk", _parameters(program)
    yield RANKS, program.states()[0]


def _power(number: float) -> float:
    """The next power of two, which rounding does not change: each side measures its own number."""
    return 2.0 ** round(math.log2(number))


def _empty_step(opened: Opened, job: Job, splits: Splits) -> Iterator[tuple[str, State]]:
    """The step from empty slots, in a program of its own, as its optimizer has other numbers."""
    program = opened.program(job.trial, empty_optimizer(job.trial.optimizer))
    program.load([empty_state(job.trial)])
    program.train([empty_plan(whole_plan(job.trial, splits, job.first_step, 1, job.group))])
    yield "empty", program.states()[0]


def _trajectory(program: Program, job: Job, splits: Splits) -> Iterator[tuple[int, State]]:
    """Losses and parameters of every step from the initial state, some steps at a time."""
    program.load([initial_state(job.trial)])
    size = sum(value.nbytes for value in _parameters(program).values())
    in_file = min(max(1, FILE_BYTES // size), FILE_STEPS)
    for first in range(0, job.num_steps, in_file):
        rows: list[State] = []
        for step in range(first, min(first + in_file, job.num_steps)):
            _end_if_orphaned()
            metrics = program.train([whole_plan(job.trial, splits, step, 1, job.group)])[0]
            rows.append({"loss": metrics.loss[0], **_parameters(program)})
        yield first, {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _rest() -> None:
    """Let the parent catch up."""
    _end_if_orphaned()
    time.sleep(WAIT_S)


def _end_if_orphaned() -> None:
    """End where the parent has died: nobody would compare or remove what this process writes."""
    if os.getppid() != PARENT:
        os._exit(1)  # at once: at its usual end, JAX waits for the other processes of its group


def _parameters(program: Program) -> State:
    """The parameters and their average, without moments."""
    return {name: x for name, x in program.states()[0].items() if name.startswith(("params/", "average/"))}


def _write(path: Path, arrays: State) -> None:
    """Write a file that appears whole; it need not outlive a crash of the machine."""
    replace(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}), durable=False)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # see _end_if_orphaned; the others wait for this one
