"""One trial of a store as it is now, done or not: its fields, its code and environment, its data and its curve."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.results import checkpoint, curves
from experiments.results.states import TrialState, state
from experiments.results.store import Store
from experiments.spec.trial import with_later_fields

Fields = Mapping[str, Any]  # by dotted name
CODE = ("commit", "dirty", "snapshot")  # of an environment
OF_SESSIONS = ("commit", "dirty", "host", "backend", "replicas")  # what may be another in each process that went on
THEN = ", then "
COMMIT_DIGITS = 12


@dataclass(frozen=True)
class OneTrial:
    """A trial; what is not there, or damaged, is empty.

    damage: why a file cannot be read.   curve: its evaluations in order, as the record has them.
    """

    id: str
    folder: Path
    state: TrialState
    spec: Fields = field(default_factory=dict)
    code: Fields = field(default_factory=dict)
    environment: Fields = field(default_factory=dict)
    data: Fields = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()
    damage: tuple[str, ...] = ()


def read(store: Store, trial_id: str) -> OneTrial:
    """Read what a store has of a trial."""
    folder, now, damage = store.folder(trial_id), state(store, trial_id), list[str]()
    record = now.record or {}
    spec = _mapping(_json(folder / "spec.json", damage) or record.get("spec"))
    environment = _mapping(_json(folder / "env.json", damage) or record.get("environment"))
    progress = checkpoint.newest_progress(store.checkpoint(trial_id)) or {}
    own = [{name: environment.get(name) for name in OF_SESSIONS if name in environment}] if environment else []
    told = record.get("sessions") or progress.get("sessions") or own  # a trial that has saved nothing yet has none
    sessions = [one for one in told if isinstance(one, dict)]
    around = {**dict(flat(environment, "")), **_of_sessions(environment, sessions)}
    fields = dict(flat(with_later_fields(spec), ""))
    is_data = {name: name.startswith(("data.", "info.")) for name in fields}
    return OneTrial(
        trial_id,
        folder,
        now,
        {name: value for name, value in fields.items() if not is_data[name]},
        {name: around[name] for name in CODE if name in around},
        {name: value for name, value in around.items() if name not in CODE},
        {name: value for name, value in fields.items() if is_data[name]} | _source(record),
        _curve(folder / curves.FILE, damage),
        tuple(damage),
    )


def _of_sessions(environment: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each session of a trial ran under, one value after another where it is not the same in all."""
    found: dict[str, list[Any]] = {}
    for session in sessions:
        own = {name: session.get(name, environment.get(name)) for name in OF_SESSIONS}
        for name, value in flat(own, ""):
            found.setdefault(name, []).append(value)
    found |= {"commit": [str(value)[:COMMIT_DIGITS] for value in found["commit"]]} if "commit" in found else {}
    return {name: values[0] if _is_one(values) else THEN.join(map(str, values)) for name, values in found.items()}


def _is_one(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _source(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says of how the data was read."""
    about = {name: value for name, value in _mapping(record.get("data")).items() if name != "source"}
    return {f"read.{name}": value for name, value in flat(about, "")}


def flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Values of a tree by dotted name."""
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from flat(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _curve(path: Path, damage: list[str]) -> tuple[Mapping[str, Any], ...]:
    """The evaluations of a trial so far. Args: damage: why the file cannot be read is added."""
    try:
        return tuple(curves.read(path)) if path.exists() else ()
    except (OSError, ValueError) as error:
        damage.append(f"{path} is corrupt: {error}")
        return ()


def _json(path: Path, damage: list[str]) -> Any:
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except (OSError, ValueError) as error:
        damage.append(f"{path} is corrupt: {error}")
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
