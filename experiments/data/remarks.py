"""Remarks on a trial's data: for whoever plans it, and in its record."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.data import real
from experiments.data.splits import facts, repeats, right_classes
from experiments.spec.config import DataConfig
from experiments.spec.trial import DataInfo, Trial


def notes(config: DataConfig, info: DataInfo, cache: Path) -> list[str]:
    """Sentences without a stop: what was ignored or understood in its own way, and examples that repeat."""
    equal = repeats(config, info, cache)
    last = equal.note() if equal else None
    right = right_classes(config, info, "this trial")
    counted = [] if right is None else [real.note(right)]
    return [*facts(config, info, cache).notes, *([last] if last else []), *counted]


def right_fingerprint(config: DataConfig, info: DataInfo) -> str | None:
    """The fingerprint of all right classes of the test examples; None: `data.labels_real` is not given.

    Raises: MixlabError: the file or the names of the examples cannot be read.
    """
    right = right_classes(config, info, "this trial")
    return None if right is None else real.fingerprint(right)


def in_record(config: DataConfig, info: DataInfo, cache: Path) -> dict[str, Any]:
    """The part of a record that tells of the data; the classes stand in the order of their numbers."""
    source_facts, equal = facts(config, info, cache), repeats(config, info, cache)
    return {
        "source": config.source,
        "kind": source_facts.kind,
        "classes": list(source_facts.classes),
        "notes": notes(config, info, cache),
        "right_classes": right_fingerprint(config, info),
        "repeats": dataclasses.asdict(equal) if equal else None,
    }


def of_trials(trials: Iterable[Trial], cache: Path) -> list[str]:
    """The notes on the data of many trials, each once, with the source that it is on."""
    lines: dict[str, None] = {}
    for trial in {(trial.data, trial.info): trial for trial in trials}.values():
        for note in notes(trial.data, trial.info, cache):
            lines[f"data {trial.data.source}: {note}"] = None
    return list(lines)
