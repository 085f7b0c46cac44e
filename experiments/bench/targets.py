"""The training programs of trials, compiled for a device that is not here, each in a process of its own."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.contract import DataSize
from backends.errors import MixlabError, first_line
from backends.models import folds
from backends.plan import StepPlan
from backends.targets import Program, Target
from experiments.bench import process
from experiments.design.ablation import GridTrial
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan

TIMEOUT_S = 1800.0  # of one program; the largest took 5 minutes on two cores


@dataclass(frozen=True)
class Compiled:
    """A program, and the trials that would run it."""

    trial: Trial  # the first of them
    label: str
    num_trials: int
    program: Program


def check(target: Target, trials: Sequence[GridTrial]) -> None:
    """Check that the trials can be compiled for the target here; imports no framework.  Raises: MixlabError."""
    if others := sorted({planned.trial.backend for planned in trials} - {"jax"}):
        raise MixlabError(
            f"command line: --target: only jax compiles for a device that is not here, and trials have backend "
            f"{others[0]}; add backend=jax"
        )
    lacking = sorted({planned.trial.train.precision for planned in trials} & set(target.lacks))
    if lacking:
        raise MixlabError(
            f"command line: --target: {target} has no {lacking[0]}, which no trial would be begun in there; add "
            f"train.precision=float32"
        )
    backends.check_installed("jax")
    if not _is_there(target.package):
        raise MixlabError(
            f"command line: --target: {target} needs the package {target.package.replace('.', '/')}, which is not "
            f"installed; install it with: pip install -c constraints.txt -e '.[{target.extra}]'"
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is not there
        return False


def distinct(trials: Sequence[GridTrial]) -> list[tuple[GridTrial, int]]:
    """The first trial of each program, and how many trials it would run."""
    programs: dict[Any, list[GridTrial]] = {}
    for planned in trials:
        programs.setdefault(_structure(planned.trial), []).append(planned)
    return [(same[0], len(same)) for same in programs.values()]


def _structure(trial: Trial) -> Any:
    """What a program depends on."""
    plan = _plan(trial)
    arrays = tuple((name, array.shape) for name, array in plan.arrays().items())
    structures = (trial.model.structure(), trial.optimizer.structure())
    pixels = (trial.info.content, trial.data.permutation != "none")
    return *structures, trial.train.precision, trial.run.remat, arrays, pixels


def _plan(trial: Trial) -> StepPlan:
    """The plan of a step of any examples: only its shapes count."""
    return step_plan(trial, np.arange(trial.train.batch_size, dtype=np.int32), 0, 1)


def _data_size(trial: Trial) -> DataSize:
    info = trial.info
    # With a fraction, the source's own number up to the rounding of it: a few images of memory.
    source = round(info.num_train / trial.data.fraction) + info.num_validation + info.num_test
    return DataSize(source, "uint8", trial.data.permutation != "none")


def compiled(target: Target, trials: Sequence[GridTrial], say: Callable[[str], None]) -> Iterator[Compiled]:
    """Each distinct program, as it is compiled.

    Raises: MixlabError: the compiler does not know the target, dies, or does not end.
    """
    programs = distinct(trials)
    for i, (planned, number) in enumerate(programs):
        say(f"compiles program {i + 1} of {len(programs)} for {target}: {planned.label or planned.trial.id}")
        yield Compiled(planned.trial, planned.label, number, _in_process(target, planned.trial))


def _in_process(target: Target, trial: Trial, timeout_s: float = TIMEOUT_S) -> Program:
    """Compile in a process of its own, which begins with the target's variables."""
    where = f"command line: --target: the compiler for {target}"
    with tempfile.NamedTemporaryFile("w+", errors="replace") as log:
        try:
            program = process.answer(_compile, target, trial, Path(log.name), timeout_s=timeout_s)
        except TimeoutError as error:
            raise MixlabError(f"{where} did not end in {timeout_s:.0f} s") from error
        except process.Died as error:
            last = (Path(log.name).read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise MixlabError(f"{where} {error}: {last[:200]}") from error
    assert isinstance(program, Program)
    return program


def _compile(target: Target, trial: Trial, log: Path) -> Program:
    """What the compiler says; what it prints goes to the log.  Raises: MixlabError."""
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.update(target.variables)
    run = replace(trial.run_spec(1), device="cpu", compile_cache=None)
    try:
        jax = backends.load_targets(trial.backend)
        return jax.compile_for(target, trial.model, trial.optimizer, _data_size(trial), _plan(trial), run)
    except MixlabError as error:
        raise MixlabError(f"command line: --target: {error}") from error
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)[:200]}"
        raise MixlabError(f"command line: --target: compiling for {target} failed: {what}") from error


def remedy(one: Compiled, memory_bytes: int) -> str:
    """The smallest change that would let a program fit that does not: settings, in words."""
    trial, program = one.trial, one.program
    if program.step_bytes is not None and program.step_bytes <= memory_bytes:
        return "a smaller model: a step fits, the evaluation of its images does not"
    if not trial.run.remat:
        return "run.remat=true, or a smaller train.batch_size"
    if program.peak_bytes is None or program.argument_bytes is None:
        return "a smaller train.batch_size"
    left = memory_bytes - program.argument_bytes
    if left <= 0:
        return f"a smaller model ({folds.count(trial.model):,} parameters) or data set: these alone do not fit"
    batch = int(trial.train.batch_size * left / (program.peak_bytes - program.argument_bytes))
    return f"train.batch_size={2 ** (batch.bit_length() - 1)}" if batch else "a smaller model"
