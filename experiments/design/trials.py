"""From an ablation to its trials: each point of the grid, or of its stages, resolved against its data."""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import backends
from backends.errors import MixlabError
from experiments import data
from experiments.data import Purpose
from experiments.design import matched, names, starts
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.axes import Point
from experiments.design.base import laid_over
from experiments.design.chain import STAGES, Stage
from experiments.results.starts import name_of, why_never, will_keep
from experiments.results.store import Store
from experiments.spec import fields
from experiments.spec.config import DataConfig, TrialConfig
from experiments.spec.expand import as_typed
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo, Start, Trial


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
            told = f"{ablation.where}: matched: ({ablation.label(point)})"
            width = matched.solved(config, info, target, ablation.matched, told)
        start = start_of(config, store, ablation.where)
        trial = resolved(fields.set_fields(config, width), cache, ablation.where, purpose, start)
        yield GridTrial(trial, point | width, ablation.implied(point))


def _of_stages(ablation: Ablation, cache: Path, purpose: Purpose, store: Store | None) -> Iterator[GridTrial]:
    """The trials of each stage; those that begin from others say so in their ids."""
    found: dict[str, list[Trial]] = {}
    for stage in ablation.stages:
        alone = ablation.of_stage(stage)
        own = found.setdefault(stage.name, [])
        for (point, config), place in itertools.zip_longest(configs(alone), stage.starts):
            begun = found[stage.start][place] if stage.start else None
            where = f"{ablation.where}: {STAGES}: {stage.name}"
            start = _kept(begun, stage, where) if begun else start_of(config, store, where)
            trial = resolved(config, cache, where, purpose, start)
            if begun and store and (why := why_never(trial, store)):
                raise MixlabError(f"{where}: ({alone.label(point)}): {why}")
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
    """The data of its trials, of all stages, each once."""
    parts = [ablation.of_stage(stage) for stage in ablation.stages] or [ablation]
    return list(dict.fromkeys(config.data for part in parts for _, config in configs(part)))


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
