"""What the bench found, for the terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from analysis.table.layout import aligned
from backends.models import family_of, folds
from experiments.bench.grid import GridTime
from experiments.bench.limit import Limit
from experiments.bench.step import Measurement
from experiments.machine.environment import environment
from experiments.spec.trial import trial_from_json


def machine_line() -> str:
    about = environment()
    return f"{about['processor']}, {about['cores']} cores, {about['memory_bytes'] / 2**30:.0f} GiB"


def limit_lines(found: Sequence[Limit]) -> list[str]:
    """A line for each size of product, and one for the copy."""
    rows = [["backend", "what", "median [least, most]", ""]]
    for limit in found:
        for size, spread in limit.product_gflops.items():
            mark = "the ceiling" if size == limit.best_rows else ""
            rows.append([limit.backend, f"{limit.precision} product of {size} rows, GFLOP/s", _whole(spread), mark])
        rows.append([limit.backend, "copy of 256 MiB, GB/s read and written", _whole(limit.copy_gb_per_s), ""])
    return aligned(rows)


def step_lines(name: str, found: Sequence[Measurement]) -> list[str]:
    """A line a side and kind of work."""
    trial = trial_from_json(found[0].spec)
    model = trial.model
    title = (
        f"{name}: {model.image_size} px, {family_of(model).sizes(model)}, {folds.count(model):,} parameters, "
        f"{family_of(model).options(model)[0]}, batch {trial.train.batch_size}, {trial.train.precision}, "
        f"{found[0].about.get('device')}"
    )
    rows = [["", "", "images/s", "GFLOP/s", "share of ceiling", "step takes", "first step s", "MiB"]]
    for work in ("train", "predict"):
        for i, one in enumerate(found):
            rows.append(
                [
                    work,
                    one.label,
                    _whole(one.images_per_s[work]),
                    f"{one.gflops[work].median:,.0f}",
                    f"{one.share[work].median:.0%} [{one.share[work].low:.0%}, {one.share[work].high:.0%}]",
                    f"{one.relative[work]} of {one.against}" if i else "",
                    f"{one.first_step_s:.1f}" if work == "train" else "",
                    f"{one.about['peak_memory_bytes'] / 2**20:,.0f}" if work == "train" else "",
                ]
            )
    return [title, "", *aligned(rows)]


def grid_lines(name: str, found: GridTime) -> list[str]:
    """A line a phase, with its share of the workers' wall time."""
    whole = found.jobs * found.wall_s
    title = (
        f"{name}: {found.num_trials} trials, {found.jobs} at a time, {found.wall_s:.1f} s; {found.training_share:.1%} "
        f"of it in compile, train and evaluate; at most {found.peak_bytes / 2**20:,.0f} MiB a trial"
    )
    rows = [["phase", "s", "share"]]
    for phase, seconds in [*found.seconds.items(), ("idle", found.idle_s)]:
        rows.append([phase, f"{seconds:.2f}", f"{seconds / whole:.1%}"])
    return [title, "", *aligned(rows)]


def _whole(spread: Any) -> str:
    return f"{spread.median:,.0f} [{spread.low:,.0f}, {spread.high:,.0f}]"


def as_json(what: str, found: Sequence[Any]) -> dict[str, Any]:
    """What was found, and the machine that it was found on. Args: what: step, limit or grid."""
    return {"bench": what, "machine": environment(), "found": [asdict(one) for one in found]}
