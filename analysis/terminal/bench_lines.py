"""Results of the bench, for the terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from analysis.table.layout import aligned
from backends.errors import counted
from backends.models import family_of, folds
from experiments.bench.data import Reading
from experiments.bench.grid import GridTime
from experiments.bench.limit import Limit
from experiments.bench.step import Measurement
from experiments.bench.tokens import Scaling
from experiments.machine.environment import environment
from experiments.spec.trial import trial_from_json


def machine_line() -> str:
    about = environment()
    return f"{about['processor']}, {about['cores']} cores, {about['memory_bytes'] / 2**30:.0f} GiB"


def limit_lines(limits: Sequence[Limit]) -> list[str]:
    """A line for each size of product, and one for the copy."""
    rows = [["backend", "what", "median [least, most]", ""]]
    for limit in limits:
        for size, spread in limit.product_gflops.items():
            mark = "the ceiling" if size == limit.best_rows else ""
            rows.append([limit.backend, f"{limit.precision} product of {size} rows, GFLOP/s", _whole(spread), mark])
        rows.append([limit.backend, "copy of 256 MiB, GB/s read and written", _whole(limit.copy_gb_per_s), ""])
    return aligned(rows)


def step_lines(name: str, measurements: Sequence[Measurement]) -> list[str]:
    """A line for each side and kind of work, then a sentence for each pair of sides that is compared."""
    trial = trial_from_json(measurements[0].spec)
    model = trial.model
    title = (
        f"{name}: {model.image_size} px, {family_of(model).sizes(model)}, {folds.count(model):,} parameters, "
        f"{family_of(model).options(model)[0]}, batch {trial.train.batch_size}, {trial.train.precision}, "
        f"{measurements[0].about.get('device')}"
    )
    rows = [["", "", "images/s", "GFLOP/s", "share of ceiling", "first step s", "MiB"]]
    for work in ("train", "predict"):
        for one in measurements:
            rows.append(
                [
                    work,
                    one.label,
                    _whole(one.images_per_s[work]),
                    f"{one.gflops[work].median:,.0f}",
                    f"{one.share[work].median:.0%} [{one.share[work].low:.0%}, {one.share[work].high:.0%}]",
                    f"{one.first_step_s:.1f}" if work == "train" else "",
                    f"{one.about['peak_memory_bytes'] / 2**20:,.0f}" if work == "train" else "",
                ]
            )
    return [title, "", *aligned(rows), *_ratio_lines(measurements)]


def _ratio_lines(measurements: Sequence[Measurement]) -> list[str]:
    """`timm's step takes 1.27 [1.21, 1.34] times as long as torch's`, of training and of inference."""
    sentences = [
        f"{one.label}'s {name} takes {one.relative[work]} times as long as {one.against}'s"
        for work, name in (("train", "step"), ("predict", "forward pass"))
        for one in measurements[1:]
    ]
    return ["", *sentences] if sentences else []


def tokens_lines(found: Sequence[Scaling]) -> list[str]:
    """A line for each image size of each side, then a sentence on the exponents of each side."""
    rows = [["", "px", "tokens", "ms a step", "MiB", "GFLOP a step"]]
    for one in found:
        for i, size in enumerate(one.image_sizes):
            step = "{:,.1f} [{:,.1f}, {:,.1f}]".format(*(1e3 * x for x in astuple(one.step_s[i])))
            numbers = [f"{one.tokens[i]:,}", step, f"{one.memory_bytes[i] / 2**20:,.0f}", f"{one.gflops[i]:,.2f}"]
            rows.append([f"{one.backend} {one.mixing}" * (i == 0), str(size), *numbers])
    sentences = [
        f"{one.backend} {one.mixing}: over the tokens S the step's time grows as S^{one.time}, at the end as "
        f"S^{one.time_at_end}, its memory as "
        f"{'no power' if one.memory is None else f'S^{one.memory:.2f}'}, its FLOPs as S^{one.work:.2f}"
        for one in found
    ]
    return [*aligned(rows), "", *sentences]


def grid_lines(name: str, times: GridTime) -> list[str]:
    """A line a phase, with its share of the workers' wall time."""
    whole = times.jobs * times.wall_s
    title = (
        f"{name}: {times.num_trials} trials, {times.jobs} at a time, {times.wall_s:.1f} s; {times.training_share:.1%} "
        f"of it in compile, train and evaluate; at most {times.peak_bytes / 2**20:,.0f} MiB a trial"
    )
    rows = [["phase", "s", "share"]]
    for phase, seconds in [*times.seconds.items(), ("idle", times.idle_s)]:
        rows.append([phase, f"{seconds:.2f}", f"{seconds / whole:.1%}"])
    return [title, "", *aligned(rows)]


def data_lines(readings: Sequence[Reading]) -> list[str]:
    """A line for each side, then a sentence for each that is compared with the feed."""
    trial, feed = trial_from_json(readings[0].spec), readings[0]
    augment, default = trial.data.augment, type(trial.data.augment)()
    changed = {one.name: getattr(augment, one.name) for one in fields(augment)}
    told = ", ".join(f"{name} {value}" for name, value in changed.items() if value != getattr(default, name))
    title = (
        f"{trial.data.source}: storage {trial.data.storage}, {trial.info.image_size} px, batch "
        f"{trial.train.batch_size}, {told or 'no augmentation'}; {counted(feed.num_threads, 'thread')}"
    )
    rows = [["", "images/s"], *([one.label, _whole(one.images_per_s)] for one in readings)]
    sentences = [f"{one.label} takes {one.relative} times as long as the feed for an image" for one in readings[1:]]
    return [title, "", *aligned(rows), "", *sentences]


def _whole(spread: Any) -> str:
    return f"{spread.median:,.0f} [{spread.low:,.0f}, {spread.high:,.0f}]"


def as_json(what: str, results: Sequence[Any]) -> dict[str, Any]:
    """The results, and the machine that they were measured on. Args: what: step, tokens, limit, grid or data."""
    return {"bench": what, "machine": environment(), "found": [asdict(one) for one in results]}
