"""An ablation: a question in YAML, and the trials that answer it.

    name: tying
    question: Does untying the token-mixing MLP help?
    base: ../bases/small.yaml            # or the fields themselves, or nothing: the defaults
    grid:                                # axes; their product
      model.num_blocks: [2, 4]
      setting:                           # an axis whose values are mappings: fields that change together
        - {model.token_mixing: tied}
        - {model.token_mixing: grouped, model.token_groups: 4}
      seed: [0, 1, 2]
    exclude:                             # trials that match all fields of one of these
      - {model.num_blocks: 4, model.token_mixing: grouped}
    report: {rows: [model.num_blocks], columns: [model.token_mixing, backend], metric: last.test.accuracy}

A grid may also be a list of such mappings: the trials of each, one after the other.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import backends
from backends.errors import MixlabError, choices
from experiments import data, fields
from experiments.spec import DataConfig, DataInfo, Trial, TrialConfig, check_ranges, resolve

KEYS = ("name", "question", "base", "grid", "exclude", "report")
METRICS = tuple(
    f"{when}.{split}.{value}"
    for when in ("last", "best")
    for split in ("test", "validation", "train")
    for value in ("accuracy", "loss")
)
COMMAND_LINE = "command line"
ONE_OF = {"train.steps": "train.epochs", "train.epochs": "train.steps"}  # an override of one takes the other back

Point = dict[str, Any]  # field -> value, what one trial of a grid sets


@dataclass(frozen=True)
class ReportSpec:
    """How the table is laid out. Fields that vary and are neither rows nor columns must be the seed."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metric: str = METRICS[0]
    baseline: Mapping[str, Any] = field(default_factory=dict)


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

    @property
    def label(self) -> str:
        return " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in self.settings.items())


def load_ablation(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read an ablation.

    Args:   overrides: OmegaConf dot-list; a list of values makes an axis, a field of the grid is replaced there.
    Raises: MixlabError: names the file, the key, what came and what is allowed.
    """
    where = str(path)
    tree = _read_yaml(path)
    if unknown := [key for key in tree if key not in KEYS]:
        raise MixlabError(f"{where}: {unknown[0]!r} is not a key of an ablation; {choices(unknown[0], KEYS)}")
    name = str(tree.get("name", path.stem))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise MixlabError(f"{where}: name: {name!r} cannot name a folder; allowed: letters, digits, '.', '_' and '-'")
    base = _base(tree.get("base"), path)
    grid = _grid(tree.get("grid"), where)
    _apply_overrides(base, grid, overrides)
    points = _points(grid, where)
    points = _exclude(points, tree.get("exclude"), where)
    text = path.read_text() + "".join(f"# override: {override}\n" for override in overrides)
    typed_base = fields.typed(base, where)
    report = _report(tree.get("report"), points, where)
    return Ablation(name, str(tree.get("question", "")), text, typed_base, tuple(points), report, where)


def trials(ablation: Ablation, cache: Path) -> list[GridTrial]:
    """Every trial of the grid, resolved against its data.

    Raises: MixlabError: a field out of range, fields that do not fit each other or the data, a trial that repeats.
    """
    config = fields.set_fields(TrialConfig(), ablation.base)
    check_ranges(config, ablation.where)
    found: dict[str, GridTrial] = {}
    for point in ablation.points:
        trial = _trial(fields.set_fields(config, point), cache, ablation.where)
        planned = GridTrial(trial, point)
        if trial.id in found:
            raise MixlabError(
                f"{ablation.where}: grid: the trial ({planned.label}) repeats the trial ({found[trial.id].label}): "
                f"both resolve to {trial.id}"
            )
        found[trial.id] = planned
    return list(found.values())


def _trial(config: TrialConfig, cache: Path, where: str) -> Trial:
    check_ranges(config, where)
    try:
        backends.check(config.backend)
    except MixlabError as error:
        raise MixlabError(f"{where}: {error}") from error
    return resolve(config, _describe(config.data, cache, where), where)


@lru_cache(maxsize=256)
def _describe(config: DataConfig, cache: Path, where: str) -> DataInfo:
    return data.describe(config, cache, where)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError as error:
        near = sorted(other.name for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise MixlabError(f"{path}: there is no such file; {choices(path.name, near)}") from error
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise MixlabError(f"{path}: it cannot be read as text ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise MixlabError(f"{path}{place}: it is not YAML: {problem}") from error
    except OmegaConfBaseException as error:
        raise MixlabError(f"{path}: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict):
        raise MixlabError(f"{path}: {type(tree).__name__} came where a mapping is allowed")
    return {str(key): value for key, value in tree.items()}


def _base(given: Any, path: Path) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, str):
        file = path.parent / given
        return fields.flatten(_read_yaml(file), str(file))
    if isinstance(given, dict):
        return fields.flatten(given, f"{path}: base")
    raise MixlabError(f"{path}: base: {given!r} came where a file name or a mapping of fields is allowed")


def _grid(given: Any, where: str) -> list[dict[str, list[Point]]]:
    """Each mapping of the grid as axis -> points of that axis."""
    if not given:
        raise MixlabError(f"{where}: grid: it is empty; allowed: a mapping of fields to lists of values")
    mappings = given if isinstance(given, list) else [given]
    return [_axes(mapping, f"{where}: grid") for mapping in mappings]


def _axes(mapping: Any, where: str) -> dict[str, list[Point]]:
    if not isinstance(mapping, dict):
        raise MixlabError(f"{where}: {mapping!r} came where a mapping of fields to lists of values is allowed")
    return {str(axis): _axis(str(axis), given, where) for axis, given in mapping.items()}


def _axis(axis: str, given: Any, where: str) -> list[Point]:
    values = given if isinstance(given, list) else [given]
    if not values:
        raise MixlabError(f"{where}: {axis}: it has no values")
    if all(isinstance(value, dict) for value in values):
        return [fields.typed(fields.flatten(value, f"{where}: {axis}"), f"{where}: {axis}") for value in values]
    fields.check_name(axis, where)
    return [fields.typed({axis: value}, where) for value in values]


def _apply_overrides(base: Point, grid: list[dict[str, list[Point]]], overrides: Sequence[str]) -> None:
    for override in overrides:
        name, equals, _ = override.partition("=")
        if not equals:
            raise MixlabError(f"{COMMAND_LINE}: {override!r} came where key=value is allowed")
        fields.check_name(name, COMMAND_LINE)
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={override[len(name) + 1 :]}"]))["value"]  # type: ignore[index,call-overload]
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise MixlabError(f"{COMMAND_LINE}: {override!r} is not a YAML value") from error
        if name in ONE_OF:
            base[ONE_OF[name]] = None
        holders = [mapping for mapping in grid if name in mapping]
        for mapping in grid:
            for axis, points in mapping.items():
                if axis != name and any(name in point for point in points):
                    raise MixlabError(f"{COMMAND_LINE}: {name} is set by the axis {axis!r} of the grid, with other fields")
        if holders or isinstance(value, list):
            for mapping in holders or grid:
                mapping[name] = _axis(name, value, COMMAND_LINE)
        else:
            base[name] = fields.typed({name: value}, COMMAND_LINE)[name]


def _points(grid: list[dict[str, list[Point]]], where: str) -> list[Point]:
    points = []
    for axes in grid:
        for parts in itertools.product(*axes.values()):
            names = [name for part in parts for name in part]
            if twice := {name for name in names if names.count(name) > 1}:
                raise MixlabError(f"{where}: grid: {sorted(twice)[0]} is set by two axes")
            points.append({name: value for part in parts for name, value in part.items()})
    return points


def _exclude(points: list[Point], given: Any, where: str) -> list[Point]:
    for rule in given or []:
        if not isinstance(rule, dict) or not rule:
            raise MixlabError(f"{where}: exclude: {rule!r} came where a mapping of fields to values is allowed")
        match = fields.typed(fields.flatten(rule, f"{where}: exclude"), f"{where}: exclude")
        left = [point for point in points if not _matches(point, match)]
        if len(left) == len(points):
            raise MixlabError(f"{where}: exclude: {rule} matches no trial of the grid")
        points = left
    if not points:
        raise MixlabError(f"{where}: grid: no trial is left after exclude")
    return points


def _matches(point: Point, match: Point) -> bool:
    return all(name in point and point[name] == value for name, value in match.items())


def _report(given: Any, points: Sequence[Point], where: str) -> ReportSpec:
    where = f"{where}: report"
    given = given or {}
    keys = ("rows", "columns", "metric", "baseline")
    if not isinstance(given, dict):
        raise MixlabError(f"{where}: {given!r} came where a mapping is allowed")
    if unknown := [key for key in given if key not in keys]:
        raise MixlabError(f"{where}: {unknown[0]!r} is not a key of a report; {choices(unknown[0], keys)}")
    varying = list(_varying(points))
    columns = _field_list(given.get("columns", [name for name in varying if name == "backend"]), f"{where}: columns")
    default_rows = [name for name in varying if name != "seed" and name not in columns]
    rows = _field_list(given.get("rows", default_rows), f"{where}: rows")
    metric = str(given.get("metric", METRICS[0]))
    if metric not in METRICS:
        raise MixlabError(f"{where}: metric: {metric!r} is not known; {choices(metric, METRICS)}")
    left_out = [name for name in varying if name not in (*rows, *columns, "seed")]
    if left_out:
        raise MixlabError(
            f"{where}: {left_out[0]} varies in the grid and is neither a row nor a column, so that cells would "
            f"average over it; name it in report.rows or report.columns"
        )
    baseline = fields.flatten(given.get("baseline") or {}, f"{where}: baseline")
    if outside := [name for name in baseline if name not in (*rows, *columns)]:
        raise MixlabError(
            f"{where}: baseline: {outside[0]} is neither a row nor a column; {choices(outside[0], (*rows, *columns))}"
        )
    return ReportSpec(rows, columns, metric, fields.typed(baseline, f"{where}: baseline"))


def _varying(points: Sequence[Point]) -> Iterator[str]:
    """Fields that differ between points, or that only some of them set."""
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point.get(name, ...) for point in points]
        if any(value != values[0] for value in values):
            yield name


def _field_list(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise MixlabError(f"{where}: {given!r} came where a list of fields is allowed")
    for name in given:
        fields.check_name(str(name), where)
    return tuple(str(name) for name in given)
