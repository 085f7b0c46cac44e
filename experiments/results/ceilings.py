"""Matrix ceilings of a store's machines: `mixlab bench limit` measures them, reports hold trials against them."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from experiments.files import write_json
from experiments.results.store import Store

Ceilings = Mapping[str, Mapping[str, float]]  # machine -> precision -> GFLOP/s, of a CPU those of one core


def machine(device: Any, processor: Any) -> str:
    """The machine of a trial: its GPU by name, else its processor."""
    return str(processor if device in (None, "cpu") else device)


def keep(store: Store, name: str, precision: str, gflops: float) -> None:
    """Note a ceiling, unless a higher one is known.

    Args:   name: as `machine` gives it.    gflops: GFLOP/s, of a CPU those of one core.
    Raises: StoreError: the store cannot be written.
    """
    measured = {one: dict(by_precision) for one, by_precision in known(store).items()}
    of_machine = measured.setdefault(name, {})
    of_machine[precision] = max(gflops, of_machine.get(precision, 0.0))
    write_json(store.limits, measured)


def known(store: Store) -> Ceilings:
    """The ceilings that were measured; none if the file cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads(store.limits.read_text("utf-8"))
        return {str(one): {str(p): float(g) for p, g in rates.items()} for one, rates in stored.items()}
    return {}


def share(ceilings: Ceilings, values: Mapping[str, Any], precision: str) -> float | None:
    """The share of the ceiling that a trial's training reached; None if its machine was not measured.

    Args: values: of its record, by column of the frame.
    """
    name = machine(values.get("device"), values.get("processor"))
    ceiling, seconds = ceilings.get(name, {}).get(precision), values.get("seconds.train")
    flops, threads = values.get("training_flops"), values.get("threads")
    if not (ceiling and seconds and flops):
        return None
    if values.get("device") == "cpu":
        if not threads:
            return None
        ceiling *= threads
    return float(flops) / float(seconds) / 1e9 / ceiling
