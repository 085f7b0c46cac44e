"""The training programs of trials, compiled for a device that is not here, each in a process of its own."""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.contract import DataSize
from backends.errors import MixlabError, first_line, show_chain
from backends.models import folds
from backends.plan import StepPlan
from backends.targets import Program, Target
from experiments.design.ablation import GridTrial
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan

TIMEOUT_S = 1800.0  # of one program; the largest took 5 minutes on two cores

_CONTEXT = multiprocessing.get_context("spawn")


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
            f"command line: --target: only jax compiles for a device that is not here, and the trials have backend "
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
    connection, theirs = _CONTEXT.Pipe()
    with tempfile.NamedTemporaryFile("w+", errors="replace") as log:
        process = _CONTEXT.Process(target=_main, args=(target, trial, Path(log.name), theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            if not connection.poll(timeout_s):
                raise MixlabError(f"command line: --target: the compiler for {target} did not end in {timeout_s:.0f} s")
            answer = connection.recv()
        except (EOFError, OSError) as error:
            process.join()
            last = (Path(log.name).read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            code = process.exitcode
            raise MixlabError(
                f"command line: --target: the compiler for {target} ended with exit code {code}: {last[:200]}"
            ) from error
        finally:
            process.kill()
            process.join()
    if isinstance(answer, MixlabError):
        raise answer
    assert isinstance(answer, Program)
    return answer


def _main(target: Target, trial: Trial, log: Path, connection: Connection) -> None:
    """Compile, and answer with what the compiler says or a MixlabError; what it prints goes to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and ends this process
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.update(target.variables)
    run = replace(trial.run_spec(1), device="cpu", compile_cache=None)
    try:
        jax = backends.load_targets(trial.backend)
        connection.send(jax.compile_for(target, trial.model, trial.optimizer, _data_size(trial), _plan(trial), run))
    except MixlabError as error:
        show_chain(error)
        connection.send(MixlabError(str(error)))
    except Exception as error:
        show_chain(error)
        what = f"{type(error).__name__}: {first_line(error)[:200]}"
        connection.send(MixlabError(f"command line: --target: compiling for {target} failed: {what}"))


def remedy(one: Compiled, memory_bytes: int) -> str:
    """The smallest change that would let a program fit that does not: settings, in words."""
    trial, program = one.trial, one.program
    if not trial.run.remat:
        return "run.remat=true, or a smaller train.batch_size"
    if program.peak_bytes is None or program.argument_bytes is None:
        return "a smaller train.batch_size"
    left = memory_bytes - program.argument_bytes
    if left <= 0:
        return f"a smaller model ({folds.count(trial.model):,} parameters) or data set: these alone do not fit"
    batch = int(trial.train.batch_size * left / (program.peak_bytes - program.argument_bytes))
    return f"train.batch_size={2 ** (batch.bit_length() - 1)}" if batch else "a smaller model"
