"""Programs compiled for a device that is not here, for the terminal."""

from collections.abc import Sequence

from analysis.table.layout import aligned
from backends.models import folds
from backends.targets import GIB, Program, Target
from experiments.bench.targets import Compiled, remedy

NOT_GIVEN = "not given"
NOTE = (
    "Compiled on this machine; nothing ran on a device. Model GFLOP are 6 a multiply-accumulate; GFLOP, GB and cycles "
    "are the compiler's own estimates of one step, with what it does once in a chunk of steps."
)


def lines(target: Target, programs: Sequence[Compiled]) -> list[str]:
    """A line a program, then a sentence for each that does not fit."""
    of_step = ["model GFLOP/step", "GFLOP/step", "GB/step", "Mcycles/step"]
    rows = [["settings", "trials", "compile s", "peak GiB", "of memory", *of_step]]
    rows += [_row(one, target.memory_bytes) for one in programs]
    fits = f"{target}: {target.memory_bytes / GIB:.1f} GiB a device"
    return [fits, "", *aligned(rows), "", *_too_large(target, programs), NOTE]


def _row(one: Compiled, memory_bytes: int) -> list[str]:
    program = one.program
    return [
        one.label or one.trial.id,
        str(one.num_trials),
        f"{program.compile_s:.0f}",
        _number(program.peak_bytes, GIB, ".2f") + _of_evaluation(program),
        "too large" if _is_too_large(one, memory_bytes) else f"{(program.peak_bytes or 0) / memory_bytes:.0%}",
        _number(6 * folds.forward_macs(one.trial.model) * one.trial.train.batch_size, 1e9, ",.1f"),
        _number(program.flops, 1e9, ",.1f"),
        _number(program.bytes_accessed, 1e9, ",.1f"),
        _number(program.cycles, 1e6, ",.1f"),
    ]


def _of_evaluation(program: Program) -> str:
    is_higher = program.step_bytes is not None and program.step_bytes < (program.peak_bytes or 0)
    return " (evaluation)" if is_higher else ""


def _number(value: float | None, unit: float, form: str) -> str:
    return NOT_GIVEN if value is None else format(value / unit, form)


def _is_too_large(one: Compiled, memory_bytes: int) -> bool:
    peak = one.program.peak_bytes
    return bool(one.program.refusal) or peak is None or peak > memory_bytes


def _too_large(target: Target, programs: Sequence[Compiled]) -> list[str]:
    return [
        f"{one.label or one.trial.id}: does not fit into {target.memory_bytes / GIB:.1f} GiB; "
        f"set {remedy(one, target.memory_bytes)}"
        for one in programs
        if _is_too_large(one, target.memory_bytes)
    ]
