"""What an ablation tunes: nuisance fields, of which each setting gets the value that is best on validation.

    tune:
      over:                              # fields with their values, whose product is tried for each setting
        train.learning_rate: log(1e-4, 1e-2, 5)
        train.weight_decay: [0.0, 0.1]
      by: best.validation.accuracy       # the default; the mean over the seeds; of equal ones the first in the list
      seeds: [100, 101]                  # of the tuning trials alone: none of them is in the grid
      each: backend                      # each framework is tuned; without it the first one of the grid, for all
      halving: {steps: [100, 300], keep: 1/2}   # at these steps the worse values are trained no further; see halving.py

A setting is a point of the grid without its seed and, unless each framework is tuned, without its backend. The seeds of
the table are trained at the value that is chosen. Test metrics never choose. All are ordinary trials: `run` goes on
from the first ones to the others by itself, on Slurm a job does.

A value that diverged with some seed stands behind those that did not. A setting whose values all diverged has no number
in the table, and an error says so. A trial may also fail for another reason, such as full memory, and end well the next
time: until it has, nothing is chosen for its setting, so that everybody finds the same choice. Inside of braces
log(...) stands in quotes, since a comma ends a value there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import MixlabError, choices, nearest
from experiments.design import axes
from experiments.design.asked import default
from experiments.design.axes import Point
from experiments.design.halving import Halving, read_halving
from experiments.design.report_spec import BACKEND, SEED, ReportSpec
from experiments.results import metrics
from experiments.spec import fields
from experiments.spec.values import shown

KEYS = ("over", "by", "seeds", "each", "halving")
SPLIT = "validation"  # what a choice is made on
DEFAULT_BY = f"{metrics.BEST}.{SPLIT}.{metrics.CHOOSES.name}"


@dataclass(frozen=True)
class TuneSpec:
    """What is tuned, and by what."""

    over: Mapping[str, tuple[Any, ...]]  # field -> the values that are tried
    by: str  # a metric of validation
    seeds: tuple[int, ...]
    each: str | None = None  # backend; None: the first one of the grid is tuned, for all
    halving: Halving | None = None  # None: each value is trained to its end


def read_tune(tree: Any, base: Point, points: Sequence[Point], where: str) -> TuneSpec | None:
    """Read the part of the YAML; None: there is none.

    Raises: MixlabError: a key is unknown or missing, a field cannot be tuned, the metric is not one of validation, a
            seed is one of the grid's.
    """
    if tree is None:
        return None
    where = f"{where}: tune"
    if not isinstance(tree, dict):
        raise MixlabError(f"{where}: expected a mapping with 'over' and 'seeds', got {shown(tree)}")
    if unknown := [key for key in tree if key not in KEYS]:
        raise MixlabError(
            f"{where}: {shown(unknown[0])} is not a key of it; fields stand under 'over'; {choices(unknown[0], KEYS)}"
        )
    over = _over(tree.get("over"), points, f"{where}: over")
    seeds = _seeds(tree.get("seeds"), base, points, f"{where}: seeds")
    halving = read_halving(tree.get("halving"), f"{where}: halving")
    by, each = _by(tree.get("by", DEFAULT_BY), f"{where}: by"), _each(tree.get("each"), where)
    return TuneSpec(over, by, seeds, each, halving)


def check_places(
    tune: TuneSpec | None, overridden: Sequence[str], report: ReportSpec, solved: Mapping[str, str], where: str
) -> None:
    """Check that no tuned field has a place in the table, is solved, or is set on the command line.

    Args:   solved: quantity -> width, of matched.py.
    Raises: MixlabError.
    """
    over = tune.over if tune else {}
    if placed := [name for name in (*report.rows, *report.columns) if name in over]:
        raise MixlabError(
            f"{where}: report: {placed[0]} is tuned, so that each setting has one value of it; leave it out of rows "
            f"and columns, the notes under the table name the values"
        )
    if matched := [name for name in solved.values() if name in over]:
        raise MixlabError(f"{where}: tune: over: {matched[0]} is solved by 'matched'; leave it out of one of them")
    if fixed := [name for name in overridden if name in over]:
        raise MixlabError(f"{where}: {fixed[0]} is tuned; change its values under tune: over: in the YAML")


def _over(tree: Any, points: Sequence[Point], where: str) -> dict[str, tuple[Any, ...]]:
    if not isinstance(tree, dict) or not tree:
        raise MixlabError(f"{where}: expected a mapping of fields to lists of values, got {shown(tree)}")
    over = {}
    for name, values in fields.flatten(tree, where).items():
        _check_field(name, points, where)
        typed = tuple(axes.values(values, name, where))
        if len(set(typed)) < max(2, len(typed)):
            raise MixlabError(f"{where}: {name}: expected two values or more, each once, got {shown(values)}")
        over[name] = typed
    return over


def _check_field(name: str, points: Sequence[Point], where: str) -> None:
    """Raises: MixlabError: the field cannot be tuned."""
    if name in (SEED, BACKEND) or name.startswith("run."):
        raise MixlabError(f"{where}: {name} cannot be tuned: no setting is better by it; leave it out")
    if name.startswith("data.") and not name.startswith("data.augment."):
        raise MixlabError(
            f"{where}: {name} cannot be tuned: it changes the examples that a choice is made on; make it an axis of "
            f"the grid"
        )
    if any(name in point for point in points):
        raise MixlabError(f"{where}: {name} is set by the grid too; leave it out of one of them")


def _by(name: Any, where: str) -> str:
    allowed = [one for one in metrics.names() if metrics.parse(one).split == SPLIT]
    if name in allowed:
        return str(name)
    why = "; what is not validation must not choose" if name in metrics.names() else ""
    raise MixlabError(
        f"{where}: expected a metric of validation, got {shown(name)}{why}; {choices(str(name), allowed)}"
    )


def _seeds(values: Any, base: Point, points: Sequence[Point], where: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not values:
        raise MixlabError(f"{where}: expected a list of seeds that the grid does not have, got {shown(values)}")
    seeds = tuple(int(fields.typed({SEED: value}, where)[SEED]) for value in values)
    own: set[int] = {point.get(SEED, default(SEED, base)) for point in points}
    if shared := [seed for seed in seeds if seed in own]:
        raise MixlabError(
            f"{where}: {shared[0]} is a seed of the grid, whose trials must not choose the value that they are trained "
            f"at; give another one, such as {max((*own, *seeds)) + 1}"
        )
    if len(set(seeds)) < len(seeds):
        raise MixlabError(f"{where}: expected each seed once, got {shown(values)}")
    return seeds


def _each(name: Any, where: str) -> str | None:
    if name is None or name == BACKEND:
        return BACKEND if name else None
    raise MixlabError(f"{where}: each: expected {BACKEND}, or nothing, got {shown(name)}{nearest(name, [BACKEND])}")
