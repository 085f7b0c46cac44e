"""Trials that are done and have kept weights of any model, made without training: the record is one of the fixtures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.arrays import State
from backends.models import folds
from experiments import streams
from experiments.files import write_json, write_whole
from experiments.results import checkpoint
from experiments.results.kept import FILE
from experiments.results.store import Store
from experiments.spec.trial import Trial, as_tree, trial_from_json

RECORD = Path(__file__).parent / "fixtures" / "store_of_2026_11" / "trials" / "1b86502b4c9c" / "record.json"
CLASSES = [f"class {number}" for number in range(10)]


def trial(data: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **model: Any) -> Trial:
    """The fixture's trial on digits, with fields replaced."""
    spec = json.loads(RECORD.read_text())["spec"]
    for name, fields in {
        "model": model,
        "data": data or {},
        "train": {"precision": "float32", **(train or {})},
    }.items():
        spec[name] |= fields
    for name in ("image_size", "image_channels", "num_classes"):
        spec["info"][name] = spec["model"][name]
    return trial_from_json(spec)


def random_params(of: Trial) -> State:
    """Numbers of order 1 and of no symmetry, so that each parameter matters."""
    return {
        name: (2 * streams.uniforms(0, name, 0, 1, shape)[0] - 1).astype("float32")
        for name, shape in folds.shapes(of.model).items()
    }


def keep(store: Store, of: Trial, params: State | None, kept: dict[str, Any] | None = None, **fields: Any) -> str:
    """Record a trial as done, with these weights, or with none; returns its id.

    Args:   kept: which evaluation's weights they are; none: the last one's.   fields: of the record, replaced.
    """
    record = {**json.loads(RECORD.read_text()), "id": of.id, "spec": as_tree(of), **fields}
    write_json(store.folder(of.id) / "record.json", record)
    if params is not None:
        about = {"kept": "last", "step": of.num_steps, "trial": of.id, "model": asdict(of.model), **(kept or {})}
        classes = {"classes": CLASSES} if of.model.num_classes == len(CLASSES) else {}
        write_whole(store.folder(of.id) / FILE, checkpoint.pack(params, {**about, **classes}))
    return of.id
