"""Records as a tidy pandas frame: a row a trial, a column a field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import tuned
from analysis.labels import Label, keys
from analysis.records import Result, results
from backends.errors import MixlabError
from experiments.design import archive, tune
from experiments.design.ablation import Ablation, GridTrial, load_ablation
from experiments.design.asked import asked
from experiments.results import ceilings, unsealed
from experiments.results.store import Store
from experiments.spec.expand import expand
from experiments.spec.trial import Trial, as_tree

if TYPE_CHECKING:
    import pandas as pd

OWN = ("id", "settings", "status", "why", "trained_on", "added")  # the first columns


def load(store: Store | Path | str, ablation: str | Path, overrides: Sequence[str] = ()) -> pd.DataFrame:
    """The trials of an ablation, finished or not, a row each, in the order of the grid.

    Columns: id; settings, what the grid sets, as text; status: done, running, failed or missing; why; trained_on, the
    backends one after another, of a trial that did not stay on its own; added, the day of a report with test numbers
    that this trial joined the grid after, else empty. Every resolved field by dotted name: model.*,
    data.*, train.*, backend, seed (a field that the grid or the table names: as it was asked for); info.*: what the
    data source holds, in examples and pixels. From the record, with the names of results/metrics.py:
    {last,best}.{train,validation,test}.{accuracy,loss}, accuracy in [0, 1], loss in nats; {last,best}.step;
    seconds.{compile,train,evaluate}, and seconds.wait, for pixels, of a trial that reads them as it trains;
    images_per_s; parameters; forward_flops_per_image; training_flops;
    peak_memory_bytes; commit, of the project, several where a trial went on
    under another one; dirty, whether files differed from it; repeats.{validation,test}, examples that equal one that
    was trained on; right_classes, a hash of those by which `real` was measured, and other_right_classes, where it is
    left out, as `data.labels_real` has others now; host, processor, device, threads, python, packages, of its last
    session; ran_on: the device, of a CPU with the threads, of each session, one after another; replicas, the most
    trials, itself counted, that trained with it as one program; started and finished in seconds since 1970.
    peak_share: of the matrix ceiling of its machine and threads, where `mixlab bench limit` has measured it, that
    training reached, in [0, 1]. tuning: the choice of what is tuned, in words. NaN or None: a trial has no record of
    it. Trials that tune have no row.

    Args:   store: the results directory.    ablation: its name, as it was last run, or its YAML file; in both paths `~`
            and variables are expanded.
            overrides: as on the command line, such as `seed=[0,1]`; with a file alone.
    Raises: MixlabError: there is no such ablation; the file has a mistake.
    """
    held = store if isinstance(store, Store) else Store(Path(expand(str(store), "load: store")))
    if not str(ablation).endswith((".yaml", ".yml")):
        if overrides:
            raise MixlabError(f"load: {overrides[0]!r}: overrides need a YAML file, not the name of an ablation")
        return trials_frame(*archive.recall(held, str(ablation)), held)
    asked = load_ablation(Path(expand(str(ablation), "load: ablation")), overrides)
    return trials_frame(asked, tune.trials(asked, Path(asked.base.get("run.data_cache") or held.data), held), held)


def trials_frame(
    ablation: Ablation, trials: Sequence[GridTrial], store: Store, trial_results: Mapping[str, Result] | None = None
) -> pd.DataFrame:
    """The frame that `load` describes. Args: trial_results: of records.results; None: they are read now."""
    import pandas as pd

    trial_results = results(ablation.name, trials, store) if trial_results is None else trial_results
    measured = ceilings.known(store)
    tuning, trials = tuned.texts(ablation, trials, store), [planned for planned in trials if planned.in_table]
    contents = {planned.trial.id: planned.trial.info.content for planned in trials}
    added = unsealed.added(store, ablation.name, contents)
    report, tuned_fields = ablation.report, ablation.tune.over if ablation.tune else ()
    named = dict.fromkeys((*ablation.axes, *report.rows, *report.columns, *report.baseline, *tuned_fields))
    nothing = dict.fromkeys(OWN, "")
    rows = [
        {
            **nothing,
            "id": planned.trial.id,
            "settings": planned.label,
            "added": added.get(planned.trial.id, ""),
            **resolved_fields(planned.trial),
            **{name: setting(planned, name, ablation) for name in named},
            **trial_results[planned.trial.id].values,
            **({"tuning": tuning[planned.trial.id]} if ablation.tune else {}),
            "peak_share": ceilings.share(
                measured, trial_results[planned.trial.id].values, planned.trial.train.precision
            ),
        }
        for planned in trials
    ]
    columns = dict.fromkeys((*OWN, *(name for row in {frozenset(row): row for row in rows}.values() for name in row)))
    made = {name: [row.get(name) for row in rows] for name in columns}
    return pd.DataFrame({name: objects(made[name]) if name in named else made[name] for name in columns})


def objects(values: Iterable[Any]) -> pd.Series[Any]:
    """A column of settings as they are: pandas would turn the None of a numeric field into NaN."""
    import pandas as pd

    column = list(values)
    return pd.Series(column, dtype=object if None in column or len(set(map(type, column))) > 1 else None)


def setting(planned: GridTrial, name: str, ablation: Ablation) -> Any:
    """The value of a field as the grid or the base gave it, else its default."""
    return asked(name, planned.settings, ablation.base)


def label_of(planned: GridTrial, ablation: Ablation) -> Label:
    """The values that name the cell of a trial."""
    return tuple(setting(planned, name, ablation) for name in keys(ablation))


def resolved_fields(trial: Trial) -> dict[str, Any]:
    """The resolved fields by dotted name."""
    sections = {name: _section(name, getattr(trial, name)) for name in ("model", "data", "train", "info")}
    flat = {name: value for section in sections.values() for name, value in section.items()}
    return {**flat, "backend": trial.backend, "seed": trial.seed}


@lru_cache(maxsize=1000)
def _section(name: str, config: Any) -> dict[str, Any]:
    """A section of a trial as a flat mapping, kept from trial to trial, which share most of their sections."""
    flat: dict[str, Any] = {}
    for key, value in as_tree(config).items():
        flat |= _leaves(f"{name}.{key}", value)
    return flat


def _leaves(name: str, value: Any) -> dict[str, Any]:
    """A value by its dotted name; of a mapping, and of those in it, each value."""
    if not isinstance(value, dict):
        return {name: value}
    return {leaf: part for key, inner in value.items() for leaf, part in _leaves(f"{name}.{key}", inner).items()}
