"""The keys of a record, each once, and what each may hold.

Readers refuse a record by it and take their names from it; tests hold the writer to all of it. What is declared later
is not `needed`, so that records which were written before stay readable.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from experiments.results import metrics
from experiments.results.metrics import BEST, LAST, Metric

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Part:
    """The declaration of what one key may hold. A number is not below 0.

    needed: by readers, in records of these statuses; other damage leaves the rest of a record readable.
    null: whether null is a value, as for NaN; elsewhere it says that there is nothing, as does a key that is missing.
    parts: the keys of a mapping; without any it may hold all keys, with values as `item`.
    item: what each one of a list, or of such a mapping, may be.
    """

    kinds: tuple[type, ...]
    needed: tuple[str, ...] = ()
    null: bool = False
    most: float = math.inf
    allowed: tuple[str, ...] = ()
    parts: Mapping[str, "Part"] = field(default_factory=dict)
    item: "Part | None" = None

    def holds(self, value: Any) -> bool:
        """Tell whether a value is of a right type and in range; the keys of a mapping are not looked at."""
        if value is None:
            return self.null
        if type(value) not in self.kinds or (self.allowed and value not in self.allowed):
            return False
        if type(value) in (int, float):
            return bool(0 <= value <= self.most)
        inner = value.values() if type(value) is dict else value if type(value) is list else ()
        return self.item is None or all(map(self.item.holds, inner))


TEXT, WHOLE, FLAG, TREE = Part((str,)), Part((int,)), Part((bool,)), Part((dict,))
SHARES = Part((list,), item=Part((int, float), most=1.0))
TEXTS, SAID = Part((list,), item=TEXT), Part((dict,), item=Part((str, int, float, bool)))
NUMBER = Part((int, float), (DONE,), null=True)
ENVIRONMENT = {
    **dict.fromkeys(("commit", "snapshot", "python", "platform", "host", "processor"), TEXT),
    **dict.fromkeys(("cores", "memory_bytes"), WHOLE),
    "dirty": FLAG,
    "packages": Part((dict,), item=TEXT),
    "backend": SAID,  # by the backend of itself
}
NUMBERS = dict.fromkeys(("first_step", "replicas", "devices", "nodes"), WHOLE)
SESSION = {**NUMBERS, "commit": TEXT, "dirty": FLAG, "host": TEXT, "backend": SAID}
LATER_SECONDS = dict.fromkeys((metrics.WAIT_SECONDS, metrics.EXCHANGE_SECONDS), Part((int, float)))
SECONDS = {**dict.fromkeys(metrics.SECONDS, NUMBER), **LATER_SECONDS}
PROBE = {"shots": Part((list,), item=WHOLE), "seeds": Part((list,), item=WHOLE), "l2": Part((float,))}
REPEATS = dict.fromkeys(("test", "validation", "num_test", "num_validation"), WHOLE)
DATA = {
    "source": TEXT,
    "kind": TEXT,
    "storage": TEXT,
    "classes": TEXTS,
    "notes": TEXTS,
    "right_classes": TEXT,  # a hash of those by which `real` was measured
    "repeats": Part((dict,), parts=REPEATS),
}


def record_parts() -> Mapping[str, Part]:
    """The keys of a record."""
    return _record_parts(tuple(metrics.every().values()))


@lru_cache(maxsize=8)
def _record_parts(measured: tuple[Metric, ...]) -> dict[str, Part]:
    point = _point(measured)
    return {
        "status": Part((str,), (DONE, FAILED), allowed=(DONE, FAILED)),
        "notes": Part((list,), (DONE, FAILED), item=TEXT),
        "reason": Part((str,), (FAILED,)),
        **dict.fromkeys(("cause", "traceback", "id"), TEXT),
        "schema": WHOLE,
        "spec": TREE,
        "environment": Part((dict,), parts=ENVIRONMENT),
        **dict.fromkeys(("started", "finished"), Part((int, float))),
        "data": Part((dict,), parts=DATA),
        "replicas": WHOLE,
        "bits": TEXT,  # CRC-32 of the last state, see crc.py
        "start": TEXT,  # what the weights of elsewhere are that it began from, and what became of them
        "sessions": Part((list,), (DONE,), item=Part((dict,), parts=SESSION)),
        **dict.fromkeys((metrics.STEPS, *metrics.COSTS), NUMBER),
        "seconds": Part((dict,), (DONE,), parts=SECONDS),
        "metrics": Part((dict,), (DONE,), parts=dict.fromkeys((LAST, BEST), Part((dict,), (DONE,), parts=point))),
        "probe": Part((dict,), parts=PROBE),
        "curve": Part((list,), item=Part((dict,), parts=point)),
    }


def _point(measured: tuple[Metric, ...]) -> dict[str, Part]:
    """The keys of one evaluation; a split without examples is null."""
    numbers = {
        one.name: Part((int, float), (DONE,) if one.in_all_records else (), null=True, most=one.most)
        for one in measured
    }
    return {
        metrics.STEP: NUMBER,
        **dict.fromkeys((metrics.STEP_LOSS, metrics.LEARNING_RATE), Part((int, float), null=True)),
        **dict.fromkeys(metrics.SPLITS, Part((dict,), (DONE,), null=True, parts=numbers)),
        metrics.EACH_SEED: Part((dict,), parts=dict.fromkeys(metrics.SPLITS, Part((dict,), item=SHARES))),
    }


def faults(record: Mapping[str, Any], whole: bool = False) -> Iterator[str]:
    """Names of the parts that readers need, and that are missing, of a wrong type or out of range.

    Args: whole: also of the other parts, and of keys that are not declared.
    """
    status = record.get("status")
    if status not in (DONE, FAILED):
        yield "status"
    else:
        yield from _faults(record, record_parts(), str(status), whole, "")


def _faults(tree: Any, parts: Mapping[str, Part], status: str, whole: bool, where: str) -> Iterator[str]:
    held = tree if type(tree) is dict else {}
    for name, part in parts.items():
        value, is_needed = held.get(name), status in part.needed
        if value is None and (not is_needed or (part.null and name in held)):
            continue
        if not is_needed and not whole:
            continue
        if part.parts and (is_needed or type(value) is dict):
            yield from _faults(value, part.parts, status, whole, f"{where}{name}.")
        elif value is None or not part.holds(value):
            yield f"{where}{name}"
        elif whole and part.item and part.item.parts:
            for place, one in enumerate(value):
                yield from _faults(one, part.item.parts, status, whole, f"{where}{name}.{place}.")
    if whole:
        yield from (f"{where}{name}" for name in held if name not in parts)


def sound(record: Mapping[str, Any], path: str | Sequence[str]) -> Any:
    """The value of a record at a path of declared keys, such as `environment.host`; None if it is not as declared.

    Args:   path: as keys one by one, where one of them has a dot in it.

    Raises: KeyError: no such key is declared.
    """
    tree: Any = {**record}
    part = Part((dict,), parts=record_parts())
    for name in path.split(".") if isinstance(path, str) else path:
        part = part.parts[name] if part.parts else part.item or TREE
        tree = tree.get(name)
        if tree is None or not part.holds(tree):
            return None
    return tree
