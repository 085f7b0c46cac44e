"""What `train.init_from` says, looked up: `FILE`, `trial:ID`, `trial:ID/best`, or `ablation:NAME(seed=0 ...)`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design.names import AXIS
from experiments.results import starts
from experiments.results.starts import TRIAL
from experiments.results.store import RESOLVED, Store
from experiments.spec import fields
from experiments.spec.overrides import read_override
from experiments.spec.trial import Start, Trial, trial_from_json
from experiments.weights import start_file

FIELD = "train.init_from"
ABLATION = "ablation"
SEED, STAGE = "seed", "stage"
OF_TRIAL = re.compile(r"([0-9a-f]+)(?:/(last|best))?")
OF_ABLATION = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)(?:\((.*)\))?", re.S)
Archived = tuple[dict[str, Any], Trial]  # a trial of an ablation, with what the grid sets


def look_up(text: str, seed: int, store: Store | None, where: str) -> Start:
    """What a trial begins from.

    Args:   text: the field's.   seed: the trial's own.   store: None: there is none, only files can be looked up.
    Raises: MixlabError: there are no such weights, in one sentence.
    """
    where, (kind, colon, name) = f"{where}: {FIELD}: {text}", text.partition(":")
    try:
        if not colon or kind not in (TRIAL, ABLATION):
            return start_file.start(Path(text))
        if store is None:
            raise MixlabError("no store is given here; name a file of weights")
        if kind == TRIAL:
            return _of_trial(name, store)
        return starts.of_trial(store, _of_ablation(name, seed, store))
    except MixlabError as error:
        raise MixlabError(f"{where}: {error}") from error


def follows_seed(text: str | None) -> bool:
    """Whether each trial begins from another one, that of its own seed."""
    return text is not None and text.startswith(f"{ABLATION}:") and not re.search(r"[( ]seed=", text)


def _of_trial(name: str, store: Store) -> Start:
    if not (match := OF_TRIAL.fullmatch(name)):
        raise MixlabError(
            f"expected the digits of an id, and /last or /best behind them where it matters, got {name!r}"
        )
    return starts.of_trial(store, store.find(match[1]), match[2])


def _of_ablation(name: str, seed: int, store: Store) -> str:
    """The id of the one trial of an archived ablation that has some settings."""
    if not (match := OF_ABLATION.fullmatch(name)):
        raise MixlabError(
            f"expected the name of an ablation and settings, such as demo(model.num_blocks=4), got {name!r}"
        )
    trials = _archived(store, match[1])
    asked = _settings(match[2] or "", trials)
    if SEED not in asked:
        asked = {**asked, SEED: seed}
    found = [one for one in trials if _num_same(one, asked) == len(asked)]
    if len(found) == 1:
        return found[0][1].id
    if not found:
        near = max(trials, key=lambda one: _num_same(one, asked))
        raise MixlabError(f"no trial of it has {_told(asked)}; the nearest is {_label(near)}")
    apart = [key for key in found[0][0] if len({repr(one[0].get(key)) for one in found}) > 1]
    more = f"; add {' or '.join(key.removeprefix(AXIS) for key in apart)}" if apart else ""
    raise MixlabError(f"{len(found)} trials of it have {_told(asked)}, such as {_label(found[0])}{more}")


def _archived(store: Store, name: str) -> list[Archived]:
    """The trials of an archived ablation's table, and those of its other stages by their stage's name."""
    path = store.ablation(name) / RESOLVED
    if not path.exists():
        raise MixlabError(f"store: {store.root} has no ablation {name!r}; {choices(name, store.ablations())}")
    try:
        told = [one for one in json.loads(path.read_text())["trials"] if not one.get("tunes")]
        trials = [({**_stage(one), **fields.of_json(one["settings"])}, trial_from_json(one["spec"])) for one in told]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MixlabError(f"store: {path} is damaged ({error}); run or submit the ablation's YAML again") from error
    if not trials:
        raise MixlabError(f"ablation {name} has no trials in its table yet; run it first")
    return trials


def _stage(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {STAGE: tree[STAGE]} if STAGE in tree else {}


def _settings(text: str, trials: list[Archived]) -> dict[str, Any]:
    """The settings that stand in brackets, parted by spaces, with their types."""
    axes = {key.removeprefix(AXIS) for own, _ in trials for key in own if key not in fields.names()}
    asked: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise MixlabError(f"expected settings such as model.num_blocks=4, parted by spaces, got {word!r}")
        if name in axes:
            asked[name] = value
        else:
            asked |= fields.typed(dict([read_override(word, "settings", axes=False)]), "settings")
    return asked


def _num_same(one: Archived, asked: Mapping[str, Any]) -> int:
    """How many of the settings a trial has, by the grid or by what it resolves to."""
    settings, trial = one

    def has(name: str, value: Any) -> bool:
        given = [settings[key] for key in (name, f"{AXIS}{name}") if key in settings]
        return value in (*given, _resolved(trial, name))

    return sum(has(name, value) for name, value in asked.items())


def _resolved(trial: Trial, name: str) -> Any:
    try:
        return fields.get_field(trial, name)
    except AttributeError:  # a field that others replace as it is resolved, or an axis
        return None


def _told(asked: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={fields.text(value)}" for name, value in asked.items())


def _label(one: Archived) -> str:
    settings, trial = one
    told = {key.removeprefix(AXIS): value for key, value in settings.items()}
    return f"{trial.id} ({_told({**told, SEED: trial.seed})})"
