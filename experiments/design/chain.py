"""`stages:` of an ablation: trials that begin from the weights of others, such as pretrain, fine-tune, probe.

    grid: {model.token_mixing: [tied, attention], seed: [0, 1]}   # over all stages
    stages:
      pretrain: {data.source: cifar10, train.steps: 1000}         # its fields, over those of the ablation
      finetune: {from: pretrain, base: ../bases/finetune.yaml, grid: {data.fraction: [0.1, 1]}}

A stage's trial begins from that of the stage which `from` names, at the same point of the grid, and so of the same
seed. A grid of a stage's own multiplies its trials, and those that begin from them; later stages know its fields as
axes called `STAGE.field`. The table is of the last stage, or of `report.stage`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import grid, names
from experiments.design.axes import Point
from experiments.design.base import laid_over, read_base
from experiments.design.names import AXIS
from experiments.design.starts import FIELD as INIT_FROM
from experiments.spec import fields
from experiments.spec.values import shown

STAGES, FROM, GRID, STAGE = "stages", "from", "grid", "stage"


@dataclass(frozen=True)
class Stage:
    """A stage and its trials."""

    name: str
    start: str | None  # the stage whose trials it begins from
    base: Point  # fields of all of its trials
    points: tuple[Point, ...]
    starts: tuple[int, ...] = ()  # the place of each one's start among the points of that stage
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # its axes of mappings, beside the grid's


@dataclass(frozen=True)
class Shared:
    """What stages have in common."""

    base: Point
    points: Sequence[Point]
    overrides: Point  # single values of the command line, which win over those of stages
    folder: Path  # of the ablation's file


def read(tree: Any, shared: Shared, where: str) -> tuple[Stage, ...]:
    """The stages of an ablation, in their order; none where it has no such key.

    Raises: MixlabError: a stage begins from none above it, or sets what the grid sets.
    """
    if tree is None:
        return ()
    where = f"{where}: {STAGES}"
    if not isinstance(tree, dict) or not tree:
        raise MixlabError(f"{where}: expected a mapping of names to fields, got {shown(tree)}")
    found: dict[str, Stage] = {}
    for name, own in tree.items():
        if not isinstance(own, dict):
            raise MixlabError(f"{where}: {name}: expected a mapping of fields, got {shown(own)}")
        found[str(name)] = _stage(str(name), own, shared, found, f"{where}: {name}")
    return tuple(found.values())


def _stage(name: str, tree: Mapping[str, Any], shared: Shared, above: Mapping[str, Stage], where: str) -> Stage:
    start = tree.get(FROM)
    if start is not None and start not in above:
        raise MixlabError(f"{where}: {FROM}: expected a stage above it, got {shown(start)}; {choices(start, above)}")
    told = {key: value for key, value in tree.items() if key not in (FROM, GRID)}
    below = read_base(told, shared.folder, where)
    check_alone({STAGES: name}, below.matched, where)
    own = below.fields
    if twice := [key for key in own if any(key in point for point in shared.points)]:
        raise MixlabError(f"{where}: {twice[0]} is an axis of the grid, which is over all stages; leave it out of one")
    base = laid_over(laid_over(shared.base, own), shared.overrides)
    axes = grid.read_axes(tree[GRID], where) if GRID in tree else [{}]
    is_told = base.get(INIT_FROM) is not None or any(INIT_FROM in point for point in grid.products(axes, where))
    if start is not None and is_told:
        raise MixlabError(f"{where}: {INIT_FROM}: its trials begin from those of {start!r}; leave it out")
    if over := [
        key for key in shared.overrides if any(key in point for ax in axes for ps in ax.values() for point in ps)
    ]:
        raise MixlabError(f"command line: {over[0]} is an axis of the stage {name!r} alone; change it in the YAML")
    before = above[start] if start else None
    points, starts = _points(grid.products(axes, where), before, shared, where)
    return Stage(name, start, base, points, starts, {**_inherited_axes(before, shared), **names.named(axes)})


def _points(
    own: Sequence[Point], before: Stage | None, shared: Shared, where: str
) -> tuple[tuple[Point, ...], tuple[int, ...]]:
    """The points of a stage, and of each the place of its start."""
    inherited = list(_inherited(before, shared)) if before else list(shared.points)
    pairs = list(itertools.product(enumerate(inherited), own))
    for (_, point), more in pairs[:1]:
        if twice := [key for key in more if key in point]:
            raise MixlabError(
                f"{where}: {GRID}: {twice[0]} is an axis of the grid, which is over all stages; leave it out"
            )
    points = tuple(point | more for (_, point), more in pairs)
    return points, tuple(place for (place, _), _ in pairs) if before else ()


def _inherited(before: Stage, shared: Shared) -> Iterator[Point]:
    """What the points of the stage before say of those that begin from them: the names of its own axes' values."""
    implied = {name for own in before.named.values() for name in own}
    for point in before.points:
        yield {
            _inherited_key(before, key, shared): value if _is_common(key, shared, before) else fields.text(value)
            for key, value in point.items()
            if key not in implied or _is_common(key, shared, before)
        }


def _is_common(key: str, shared: Shared, before: Stage) -> bool:
    """Whether a key means the same in the next stage: it is of the grid over all, or comes from a stage before."""
    return any(key in point for point in shared.points) or before.named.get(key) == ()


def _inherited_key(before: Stage, key: str, shared: Shared) -> str:
    return key if _is_common(key, shared, before) else f"{AXIS}{before.name}.{key.removeprefix(AXIS)}"


def _inherited_axes(before: Stage | None, shared: Shared) -> dict[str, tuple[str, ...]]:
    """The axes that points have from stages before; they set no fields."""
    points = _inherited(before, shared) if before else ()
    keys = dict.fromkeys(key for point in points for key in point if key.startswith(AXIS))
    return {key: () for key in keys if not any(key in point for point in shared.points)}


def of_table(stages: Sequence[Stage], report: Any, where: str) -> Stage | None:
    """The stage that the table is of; None: there are none.  Args: report: the tree of `report:`."""
    asked = report.get(STAGE) if isinstance(report, dict) else None
    if not stages:
        if asked is not None:
            raise MixlabError(f"{where}: report: {STAGE}: the ablation has no {STAGES}; leave it out")
        return None
    by_name = {stage.name: stage for stage in stages}
    if asked is not None and asked not in by_name:
        raise MixlabError(f"{where}: report: {STAGE}: expected a stage, got {shown(asked)}; {choices(asked, by_name)}")
    return by_name[asked] if asked is not None else stages[-1]


def check_alone(tree: Mapping[str, Any], matched: Any, where: str) -> None:
    """Raises: MixlabError: beside stages stands what chooses or solves values for one table."""
    if tree.get(STAGES) is None:
        return
    for key, value in (("tune", tree.get("tune")), ("matched", matched)):
        if value is not None:
            raise MixlabError(
                f"{where}: {key}: it cannot stand beside {STAGES}; write the values that it finds into the stages, or "
                f"leave one of them out"
            )
