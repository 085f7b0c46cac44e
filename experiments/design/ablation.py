"""An ablation: a question in YAML, and the trials that answer it.

    name: tying
    question: Does untying the token-mixing MLP help?
    base: ../bases/small.yaml            # or fields, which may stand on a `base` of their own; or nothing: the defaults
    grid:                                # axes; their product
      model.num_blocks: [2, 4]
      setting:                           # an axis whose values are mappings: fields that change together
        - {model.token_mixing: tied}
        - {model.token_mixing: grouped, model.token_groups: 4}
      seed: [0, 1, 2]
    exclude:                             # trials that match all fields of one of these
      - {model.num_blocks: 4, model.token_mixing: grouped}
    report: {rows: [model.num_blocks], columns: [model.token_mixing, backend], metric: last.test.accuracy}
    tune: ...                            # fields whose value is chosen for each setting; see tune_spec.py

A grid may also be a list of such mappings: the trials of each, one after the other.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import backends
from backends.errors import MixlabError, choices
from backends.models.mixer_spec import SIZES
from experiments import data
from experiments.data import Purpose
from experiments.design import grid
from experiments.design.axes import Point
from experiments.design.grid import Axes
from experiments.design.report_spec import ReportSpec, read_report
from experiments.design.tune_spec import TuneSpec, check_layout, read_tune
from experiments.spec import fields
from experiments.spec.config import DataConfig, TrialConfig
from experiments.spec.expand import as_typed, expand
from experiments.spec.overrides import read_override
from experiments.spec.resolve import resolve
from experiments.spec.scalars import SHOWN
from experiments.spec.trial import DataInfo, Trial
from experiments.spec.values import shown
from experiments.spec.yaml_files import parse_mapping, read_mapping, read_text

KEYS = ("name", "question", "base", "grid", "exclude", "report", "tune")
COMMAND_LINE = "command line"
# A setting takes back what it stands in place of, where a base, of any depth, has set that.
IN_PLACE_OF = {
    "train.steps": ("train.epochs",),
    "train.epochs": ("train.steps",),
    "model.variant": tuple(f"model.{size}" for size in SIZES),
}


@dataclass(frozen=True)
class Ablation:
    """A question and its trials."""

    name: str
    question: str
    text: str  # the YAML as it was read, and the overrides
    base: Mapping[str, Any]  # field -> value
    points: tuple[Point, ...]
    report: ReportSpec
    where: str  # the file, for error sentences
    overrides: tuple[str, ...] = ()  # of the command line
    tune: TuneSpec | None = None

    @cached_property
    def varying(self) -> frozenset[str]:
        """The fields that are not the same in all trials."""
        return frozenset(grid.varying(self.points))

    @property
    def file(self) -> str:
        """Path of the YAML file."""
        return self.where.removesuffix(_shown_overrides(self.overrides))

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Fields that the grid sets, with their values in order of appearance."""
        values: dict[str, list[Any]] = {}
        for point in self.points:
            for name, value in point.items():
                seen = values.setdefault(name, [])
                if value not in seen:
                    seen.append(value)
        return values


@dataclass(frozen=True)
class GridTrial:
    """A trial and the grid's settings that lead to it."""

    trial: Trial
    settings: Point
    tunes: bool = False  # it chooses the value of tuned fields, and is not in the table

    @property
    def label(self) -> str:
        words = " ".join(f"{fields.short(name)}={fields.text(value)}" for name, value in self.settings.items())
        return f"tuning: {words}" if self.tunes else words


def load_ablation(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read an ablation.

    Args:   overrides: `key=value`; a list of values makes an axis, a field of the grid is replaced there.
    Raises: MixlabError: names the file, the key, what was expected and what was found.
    """
    where, text = str(path), read_text(path)
    tree = parse_mapping(text, where)
    if unknown := [key for key in tree if key not in KEYS]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of an ablation; {choices(unknown[0], KEYS)}")
    name = path.stem if tree.get("name") is None else str(tree["name"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        written = shown(tree.get("name", name))
        raise MixlabError(
            f"{where}: name: expected a name for a folder, of letters, digits, '.', '_' and '-', got {written}"
        )
    base = _base(tree.get("base"), path.parent, f"{where}: base")
    axes = grid.read_axes(tree.get("grid"), where)
    rules = grid.read_rules(tree.get("exclude") or [], grid.products(axes, where), where)
    base = _laid_over(base, _apply_overrides(axes, overrides))
    where = _with(path, overrides)
    points = grid.exclude(grid.products(axes, where), rules, where)
    text += "".join(f"# override: {override}\n" for override in overrides)
    overridden = [override.partition("=")[0] for override in overrides]
    report = read_report(tree.get("report"), base, points, overridden, where)
    if tune := read_tune(tree.get("tune"), base, points, where):
        check_layout(tune, (*report.rows, *report.columns), overridden, where)
    question = _question(tree.get("question"), f"{path}: question")
    return Ablation(name, question, text, base, tuple(points), report, where, tuple(overrides), tune)


def load_base(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read a base as an ablation of one trial; a file with a grid as the ablation that it is.

    Raises: as `load_ablation`.
    """
    keys = read_mapping(path)
    if "grid" in keys:
        return load_ablation(path, overrides)
    if extra := [key for key in keys if key in ("name", "question", "report", "exclude")]:
        raise MixlabError(f"{path}: expected a base, or an ablation with its 'grid', got {extra[0]!r} without a grid")
    mappings: list[Axes] = [{}]
    base = _laid_over(_base(path.name, path.parent, str(path)), _apply_overrides(mappings, overrides))
    where = _with(path, overrides)
    points = grid.products(mappings, where)
    return Ablation(path.stem, "", read_text(path), base, tuple(points), ReportSpec((), ()), where)


def _with(path: Path, overrides: Sequence[str]) -> str:
    """The beginning of error sentences on the file and its overrides."""
    return f"{path}{_shown_overrides(overrides)}"


def _shown_overrides(overrides: Sequence[str]) -> str:
    words = " ".join(overrides)
    return f" with {words if len(words) < SHOWN else words[:SHOWN] + '...'}" if words else ""


def _question(question: Any, where: str) -> str:
    if question is not None and not isinstance(question, str):
        raise MixlabError(f"{where}: expected text, got {shown(question)}; put it in quotes")
    return question or ""


def trials(ablation: Ablation, cache: Path, purpose: Purpose = Purpose.PLANNING) -> list[GridTrial]:
    """Every trial of the grid, resolved against its data.

    Args:   cache: folder of decoded images.   purpose: decides how much data may be decoded for it.
    Raises: MixlabError: fields that do not fit each other or the data, a trial that repeats,
            data that must be prepared first.
    """
    by_id: dict[str, GridTrial] = {}
    for planned in resolved_points(ablation, cache, purpose):
        if (key := planned.trial.id) in by_id:
            raise MixlabError(
                f"{ablation.where}: grid: the trial ({planned.label}) repeats the trial ({by_id[key].label}): "
                f"both resolve to {key}; leave one of them out, as with 'exclude'"
            )
        by_id[key] = planned
    return list(by_id.values())


def resolved_points(ablation: Ablation, cache: Path, purpose: Purpose = Purpose.PLANNING) -> list[GridTrial]:
    """The trial of each point, also where two of them resolve to one. Raises: MixlabError: as `trials`."""
    try:
        return [
            GridTrial(resolved(config, cache, ablation.where, purpose), point) for point, config in configs(ablation)
        ]
    except data.NotPrepared as error:
        raise error.prepared_by(prepare_command(ablation, cache)) from error


def prepare_command(ablation: Ablation, cache: Path) -> str:
    """What decodes the data of an ablation into this cache."""
    words = shlex.join(["mixlab", "data", "prepare", ablation.file, *ablation.overrides])
    if ablation.base.get("run.data_cache") or cache == Path("runs", "data"):
        return words
    if cache.name == "data":
        return f"{words} --store {as_typed(cache.parent)}"
    return f"{words} run.data_cache={as_typed(cache)}"


def configs(ablation: Ablation) -> Iterator[tuple[Point, TrialConfig]]:
    """Points of the grid, each with the config that it leads to."""
    base = fields.set_fields(TrialConfig(), ablation.base)
    for point in ablation.points:
        yield point, fields.set_fields(base, _laid_over({}, point))


def data_configs(ablation: Ablation) -> list[DataConfig]:
    """The data of its trials, each once."""
    return list(dict.fromkeys(config.data for _, config in configs(ablation)))


def resolved(config: TrialConfig, cache: Path, where: str, purpose: Purpose = Purpose.TRAINING) -> Trial:
    """Raises: MixlabError: fields that do not fit each other or the data."""
    try:
        backends.check(config.backend)
    except MixlabError as error:
        raise MixlabError(f"{where}: {error}") from error
    return resolve(config, _describe(config.data, cache, where, purpose), where)


@lru_cache(maxsize=256)
def _describe(config: DataConfig, cache: Path, where: str, purpose: Purpose) -> DataInfo:
    return data.describe(config, cache, where, purpose)


def _base(base: Any, folder: Path, where: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Fields of a base: a file name, or a mapping that may itself stand on a base."""
    if base is None:
        return {}
    if isinstance(base, str):
        file = folder / expand(base, where)
        if file.resolve() in above:
            raise MixlabError(f"{where}: {shown(base)} is a base of itself; name another file")
        return _base(read_mapping(file), file.parent, str(file), (*above, file.resolve()))
    if not isinstance(base, dict):
        raise MixlabError(f"{where}: expected a file name or a mapping of fields, got {shown(base)}")
    own = {key: value for key, value in base.items() if key != "base"}
    typed = fields.typed(fields.flatten(own, where), where)
    return _laid_over(_base(base.get("base"), folder, where, above), typed)


def _laid_over(base: Point, values: Point) -> Point:
    """The base with some values set; settings that these replace are taken back."""
    set_here = [name for name, value in values.items() if value is not None]
    taken_back = [other for name in set_here for other in IN_PLACE_OF.get(name, ()) if other not in values]
    return base | dict.fromkeys(taken_back) | values


def _apply_overrides(mappings: list[Axes], overrides: Sequence[str]) -> Point:
    """Put lists of values, and values of fields that the grid sets, into its mappings; returns the single values."""
    single: Point = {}
    for override in overrides:
        name, value = read_override(override, COMMAND_LINE)
        holders = [mapping for mapping in mappings if name in mapping]
        for mapping in mappings:
            for axis, points in mapping.items():
                if axis != name and any(name in point for point in points):
                    raise MixlabError(
                        f"{COMMAND_LINE}: the axis {axis!r} of the grid sets {name} together with other fields; change "
                        f"it in the YAML"
                    )
        for mapping in mappings if isinstance(value, list) else holders:
            mapping[name] = grid.axis_points(name, value, COMMAND_LINE)
        if not isinstance(value, list):
            single |= fields.typed({name: value}, COMMAND_LINE)
    return single
