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

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import grid, labels, matched, names, overridden
from experiments.design.axes import Point
from experiments.design.base import MATCHED, fields_at_the_top, is_field, laid_over, matched_over, read_base
from experiments.design.chain import STAGES, Shared, Stage, check_alone, of_table
from experiments.design.chain import read as read_stages
from experiments.design.grid import Sampling
from experiments.design.names import Axes
from experiments.design.report_spec import Grid, ReportSpec, read_report
from experiments.design.tune_spec import TuneSpec, check_places, read_tune
from experiments.spec import fields
from experiments.spec.scalars import SHOWN
from experiments.spec.trial import Trial
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

    def label(self, point: Point) -> str:
        """The settings of a point in a line."""
        return _label(point, self.implied(point))

    def of_stage(self, stage: Stage) -> "Ablation":
        """The grid of a stage, as an ablation without stages."""
        return replace(self, base=stage.base, points=stage.points, stages=(), named={**self.named, **stage.named})

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
