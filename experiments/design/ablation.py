"""An ablation: a question in YAML, and the trials that answer it.

    name: tying
    question: Does untying the token-mixing MLP help?
    base: ../bases/small.yaml            # or fields, which may stand on a `base` of their own; or nothing: the defaults
    train: {steps: 300}                  # fields may stand here too, and win over the base; see base.py
    grid:                                # axes; their product
      model.num_blocks: [2, 4]
      mixing:                            # an axis whose values are mappings: fields that change together
        - {model.token_mixing: tied}
        - {model.token_mixing: grouped, model.token_groups: 4}   # its name: grouped 4, or `name: ...` in the mapping
      train.learning_rate: log(1e-4, 1e-2, 5)                    # or drawn; see axes.py
      seed: [0, 1, 2]
    exclude:                             # trials that match all fields, or names, of one of these
      - {model.num_blocks: 4, mixing: grouped 4}
    matched: {parameters: model.tokens_mlp_dim}   # D_S is solved, so that all settings have as many; see matched.py;
                                         # a base may say it too, and null takes that back
    labels: {mixing: {grouped 4: "grouped by four"}}   # words for reports; see labels.py
    report: {rows: [model.num_blocks], columns: [mixing, backend], metric: last.test.accuracy}
    tune: ...                            # fields whose value is chosen for each setting; see tune_spec.py
    stages: ...                          # trials that begin from the weights of others; see chain.py

A grid may also be a list of such mappings: the trials of each, one after the other.
"""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import backends
from backends.errors import MixlabError, choices
from experiments import data
from experiments.data import Purpose
from experiments.design import grid, labels, matched, names, overridden, starts
from experiments.design.axes import Point
from experiments.design.base import MATCHED, fields_at_the_top, is_field, laid_over, matched_over, read_base
from experiments.design.chain import STAGES, Shared, Stage, check_alone, of_table
from experiments.design.chain import read as read_stages
from experiments.design.grid import Sampling
from experiments.design.names import Axes
from experiments.design.report_spec import Grid, ReportSpec, read_report
from experiments.design.tune_spec import TuneSpec, check_places, read_tune
from experiments.results.starts import name_of, why_never, will_keep
from experiments.results.store import Store
from experiments.spec import fields
from experiments.spec.config import DataConfig, TrialConfig
from experiments.spec.expand import as_typed
from experiments.spec.resolve import resolve
from experiments.spec.scalars import SHOWN
from experiments.spec.trial import DataInfo, Start, Trial
from experiments.spec.values import shown
from experiments.spec.yaml_files import parse_mapping, read_mapping, read_text

COMMAND_LINE = "command line"
KEYS = (
    *("name", "question", "base", "grid", "samples", "samples_seed", "exclude", "matched", "labels", "report", "tune"),
    STAGES,
)


@dataclass(frozen=True)
class Ablation:
    """A question and its trials; where it has stages, `base` and `points` are those of the table's."""

    name: str
    question: str
    text: str  # the YAML as it was read, and the overrides
    base: Mapping[str, Any]  # field -> value
    points: tuple[Point, ...]
    report: ReportSpec
    where: str  # the file, for error sentences
    overrides: tuple[str, ...] = ()  # of the command line
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # axes of mappings, with the fields they set
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # field or axis -> value -> words; see labels
    matched: Mapping[str, str] = field(default_factory=dict)  # parameters or flops -> the width that is solved
    tune: TuneSpec | None = None
    stages: tuple[Stage, ...] = ()  # all of them, with the table's

    @cached_property
    def varying(self) -> frozenset[str]:
        """The fields that are not the same in all trials."""
        return frozenset(grid.varying(self.points))

    @property
    def file(self) -> str:
        """Path of the YAML file."""
        return self.where.removesuffix(_shown_overrides(self.overrides))

    def implied(self, point: Point) -> tuple[str, ...]:
        """The fields of a point that the names of its axes stand for."""
        return tuple(name for axis, own in self.named.items() if axis in point for name in own if name in point)

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
    implied: tuple[str, ...] = ()  # fields that the name of an axis stands for
    tunes: bool = False  # it chooses the value of tuned fields, and is not in the table
    until: int | None = None  # the step to which it is trained for now, where tuning is by halving; None: to its end
    pruned: bool = False  # it is trained no further than this, and its value is not chosen
    stage: str = ""  # of the ablation's stages, where it has some
    aside: bool = False  # it is of another stage than the table

    @property
    def in_table(self) -> bool:
        """Whether the table has a number of it, or will have."""
        return not self.tunes and not self.aside

    @property
    def label(self) -> str:
        words = _label(self.settings, self.implied)
        return ": ".join(filter(None, ("tuning" if self.tunes else self.stage, words))) if words else self.stage


def _label(point: Point, implied: Sequence[str]) -> str:
    told = [(name, value) for name, value in point.items() if name not in implied]
    return " ".join(f"{fields.short(name)}={fields.text(value)}" for name, value in told)


def load_ablation(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read an ablation.

    Args:   overrides: `key=value`; a list of values makes an axis, a field of the grid is replaced there.
    Raises: MixlabError: names the file, the key, what was expected and what was found.
    """
    where, text = str(path), read_text(path)
    tree = overridden.with_samples(parse_mapping(text, where), overrides)
    _check_keys(tree, where)
    name = path.stem if tree.get("name") is None else str(tree["name"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        written = shown(tree.get("name", name))
        raise MixlabError(
            f"{where}: name: expected a name for a folder, of letters, digits, '.', '_' and '-', got {written}"
        )
    below = matched_over(read_base(tree.get("base"), path.parent, f"{where}: base"), tree, where)
    base = laid_over(below.fields, fields_at_the_top(tree, where))
    check_alone(tree, below.matched, where)
    sampling = grid.read_sampling(tree, Sampling(), where)
    is_chain = tree.get(STAGES) is not None and not tree.get("grid")  # then the grid may be empty
    axes: list[Axes] = [{}] if is_chain else grid.read_axes(tree.get("grid"), where, sampling)
    named, written_points = names.named(axes), grid.products(axes, where)
    rules = grid.read_rules(tree.get("exclude") or [], written_points, named, where)
    words = labels.read(tree.get("labels"), base, written_points, f"{where}: labels")
    _check_words(overrides, axes)
    single = overridden.apply(axes, overrides)
    where = _with(path, overrides)
    points = grid.exclude(grid.products(axes, where), rules, where)
    stages = read_stages(tree.get(STAGES), Shared(base, points, single, path.parent), where)
    base, table = (
        laid_over(base, single),
        of_table(stages, overridden.with_report(tree.get("report"), overrides), where),
    )
    if table:
        base, points, named = dict(table.base), list(table.points), {**named, **table.named}
    text += "".join(f"# override: {override}\n" for override in overrides)
    grid_read = Grid(tuple(points), base, named, tuple(overridden.names_of(overrides, tuple(named))))
    report = read_report(overridden.with_report(tree.get("report"), overrides), grid_read, where)
    question = _question(tree.get("question"), f"{path}: question")
    solved = matched.read(below.matched, points, report, below.matched_where)
    tune = read_tune(tree.get("tune"), base, points, where)
    check_places(tune, grid_read.overridden, report, solved, where)
    report = replace(report, stage=table.name if table else "")
    whole = (tuple(overrides), named, words, solved, tune, stages)
    return Ablation(name, question, text, base, tuple(points), report, where, *whole)


def _check_keys(tree: Mapping[str, Any], where: str) -> None:
    if unknown := [key for key in tree if key not in KEYS and not is_field(key)]:
        sections = dict.fromkeys(name.partition(".")[0] for name in fields.names())
        whole = next((name for name in fields.names() if fields.short(name) == unknown[0]), "")
        hint = f"did you mean {whole!r}?" if whole else choices(unknown[0], (*KEYS, *sections))
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of an ablation; {hint}")


def _check_words(overrides: Sequence[str], axes: Sequence[Axes]) -> None:
    """Raises: MixlabError: a word of the command line would set a part of the ablation that is no field and no axis."""
    for word in overridden.of_fields(overrides):
        key = re.split(r"[.=]", word, maxsplit=1)[0]
        if key in KEYS and not any(key in mapping for mapping in axes):
            raise MixlabError(
                f"{COMMAND_LINE}: {shown(key)} stands in the YAML alone; change it there; here one sets fields, "
                f"samples, samples_seed, and parts of the report such as report.metric"
            )


def load_base(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Read a base as an ablation of one trial; a file with a grid as the ablation that it is.

    What a base says is matched means settings of a grid, and so nothing here.

    Raises: as `load_ablation`.
    """
    keys = read_mapping(path)
    if "grid" in keys or STAGES in keys:
        return load_ablation(path, overrides)
    if extra := [key for key in keys if key in KEYS and key not in ("base", MATCHED)]:
        raise MixlabError(f"{path}: expected a base, or an ablation with its 'grid', got {extra[0]!r} without a grid")
    if others := [word for word in overrides if word not in overridden.of_fields(overrides)]:
        raise MixlabError(f"{path}: {shown(others[0])} changes an ablation with its 'grid', and this is a base")
    mappings: list[Axes] = [{}]
    base = laid_over(read_base(path.name, path.parent, str(path)).fields, overridden.apply(mappings, overrides))
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


def trials(
    ablation: Ablation, cache: Path, purpose: Purpose = Purpose.PLANNING, store: Store | None = None
) -> list[GridTrial]:
    """Every trial of the grid, resolved against its data.

    Args:   cache: folder of decoded images.   purpose: decides how much data may be decoded for it.
            store: with the trials whose weights others begin from.
    Raises: MixlabError: fields that do not fit each other or the data, a trial that repeats,
            data that must be prepared first, weights that are not there.
    """
    by_id: dict[str, GridTrial] = {}
    for planned in resolved_points(ablation, cache, purpose, store):
        if (key := planned.trial.id) in by_id:
            raise MixlabError(
                f"{ablation.where}: grid: the trial ({planned.label}) repeats the trial ({by_id[key].label}): "
                f"both resolve to {key}; leave one of them out, as with 'exclude'"
            )
        by_id[key] = planned
    return list(by_id.values())


def resolved_points(
    ablation: Ablation, cache: Path, purpose: Purpose = Purpose.PLANNING, store: Store | None = None
) -> list[GridTrial]:
    """The trial of each point, also where two of them resolve to one. Raises: MixlabError: as `trials`."""
    try:
        return list(_resolved_points(ablation, cache, purpose, store))
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


def _resolved_points(ablation: Ablation, cache: Path, purpose: Purpose, store: Store | None) -> Iterator[GridTrial]:
    if ablation.stages:
        yield from _of_stages(ablation, cache, purpose, store)
        return
    baselines = _baselines(ablation)
    for (point, config), baseline in zip(configs(ablation), baselines, strict=True):
        width: Point = {}
        if baseline is not None:
            start = start_of(_config(ablation, baseline), store, ablation.where)
            target = resolved(_config(ablation, baseline), cache, ablation.where, purpose, start).model
            info = _describe(config.data, cache, ablation.where, purpose)
            told = f"{ablation.where}: matched: ({_label(point, ablation.implied(point))})"
            width = matched.solved(config, info, target, ablation.matched, told)
        start = start_of(config, store, ablation.where)
        trial = resolved(fields.set_fields(config, width), cache, ablation.where, purpose, start)
        yield GridTrial(trial, point | width, ablation.implied(point))


def _of_stages(ablation: Ablation, cache: Path, purpose: Purpose, store: Store | None) -> Iterator[GridTrial]:
    """The trials of each stage; those that begin from others say so in their ids."""
    found: dict[str, list[Trial]] = {}
    for stage in ablation.stages:
        alone = replace(
            ablation, base=stage.base, points=stage.points, stages=(), named={**ablation.named, **stage.named}
        )
        own = found.setdefault(stage.name, [])
        for (point, config), place in itertools.zip_longest(configs(alone), stage.starts):
            begun = found[stage.start][place] if stage.start else None
            where = f"{ablation.where}: {STAGES}: {stage.name}"
            start = _kept(begun, stage, where) if begun else start_of(config, store, where)
            trial = resolved(config, cache, where, purpose, start)
            if begun and store and (why := why_never(trial, store)):
                raise MixlabError(f"{where}: ({_label(point, alone.implied(point))}): {why}")
            own.append(trial)
            aside = stage.name != ablation.report.stage
            yield GridTrial(trial, point, alone.implied(point), stage=stage.name, aside=aside)


def _kept(begun: Trial, stage: Stage, where: str) -> Start:
    """The weights that a trial of a stage will keep, for one that begins from them."""
    if (which := will_keep(begun)) is None:
        raise MixlabError(f"{where}: from: the trials of {stage.start!r} keep no weights; set run.keep there to last")
    return Start(name_of(begun.id, which), begun.model)


def _baselines(ablation: Ablation) -> Sequence[Point | None]:
    """The point that each point is matched to, if to any."""
    if not ablation.matched:
        return [None] * len(ablation.points)
    return matched.baselines(ablation.points, dict(ablation.base), ablation.report, ablation.where)


def configs(ablation: Ablation) -> Iterator[tuple[Point, TrialConfig]]:
    """Points of the grid, each with the config that it leads to; widths that are matched are not solved in it."""
    for point in ablation.points:
        yield point, _config(ablation, point)


def _config(ablation: Ablation, point: Point) -> TrialConfig:
    settings = laid_over(dict(ablation.base), names.settings(point))
    config: TrialConfig = fields.set_fields(TrialConfig(), settings)
    return config


def data_configs(ablation: Ablation) -> list[DataConfig]:
    """The data of its trials, each once."""
    return list(dict.fromkeys(config.data for _, config in configs(ablation)))


def resolved(
    config: TrialConfig, cache: Path, where: str, purpose: Purpose = Purpose.TRAINING, start: Start | None = None
) -> Trial:
    """The trial of a config.  Args: start: what its train.init_from leads to.

    Raises: MixlabError: fields that do not fit each other, the data, or the weights that it begins from.
    """
    try:
        backends.check(config.backend)
    except MixlabError as error:
        raise MixlabError(f"{where}: {error}") from error
    return resolve(config, _describe(config.data, cache, where, purpose), where, start)


def start_of(config: TrialConfig, store: Store | None, where: str) -> Start | None:
    """The weights that a trial begins from; None: drawn ones. Raises: MixlabError: they are not there."""
    text = config.train.init_from
    return None if text is None else starts.look_up(text, config.seed, store, where)


@lru_cache(maxsize=256)
def _describe(config: DataConfig, cache: Path, where: str, purpose: Purpose) -> DataInfo:
    return data.describe(config, cache, where, purpose)
