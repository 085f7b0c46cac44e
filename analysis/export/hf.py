"""Models as folders for the Hugging Face hub: weights, config.json and a model card, which timm loads where it can."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.export import card
from analysis.export import weights as kept_weights
from analysis.export.weights import Model, Selection
from backends.models.mixer_spec import MixerSpec
from backends.weights import convert, timm
from backends.weights.formats import FORMATS
from experiments.files import as_json
from experiments.results.store import Store
from experiments.weights import weight_files

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"  # names that the hub and timm look for
OWN_CLASS, TIMM_CLASS = "mixlab_mixer", "mlp_mixer"  # stand for what timm.create_model does not build; no names of its


def export(store: Store, selection: Selection, out: Path) -> list[str]:
    """Write a folder for each trial that has weights, named by its id (a single trial: `out` itself).

    Returns: sentences on what was written, and how it is loaded.
    Raises: MixlabError: no trial has weights, or another file is there.
    """
    found = kept_weights.find(store, selection)
    return [*_written(store, selection, found, out), *found.lines()]


def _written(store: Store, selection: Selection, found: kept_weights.Kept, out: Path) -> Iterator[str]:
    for model in kept_weights.models(store, selection, found):
        folder = out if selection.is_one else out / model.trial.id
        loading = card.loading(model, unlike(model))
        contents = {
            WEIGHTS: _weights(model),
            CONFIG: as_json(config(model)),
            CARD: card.text(model, selection, loading).encode(),
        }
        verb = "wrote" if kept_weights.put(folder, contents) else "left as it is:"
        yield f"{verb} {folder}: {loading.summary}"


def unlike(model: Model) -> str:
    """Why timm has no such model, in words; empty if it has."""
    if model.trial.data.permutation != "none":
        return "its images are permuted before they reach the model, which timm does not do"
    return convert.unlike(model.weights.model, FORMATS["timm"])


def _weights(model: Model) -> bytes:
    """In timm's names where it has the model; else the file that the trial kept, in Mixlab's."""
    if unlike(model):
        return model.file.read_bytes()
    return weight_files.noted_content(model.weights, FORMATS["timm"])


def config(model: Model) -> dict[str, Any]:
    """The content of config.json: timm's keys, and below `mixlab` what Mixlab knows."""
    spec, classes = model.weights.model, model.weights.classes
    names = {} if classes is None else {"label_names": list(classes)}
    own = {"trial": model.trial.id, "model": asdict(spec), "data": _scaling(model)}
    if unlike(model):
        return {"architecture": OWN_CLASS, "num_classes": spec.num_classes, **names, "mixlab": own}
    assert isinstance(spec, MixerSpec)  # which is all that the format has
    name = timm.architecture(spec)
    return {
        "architecture": name or TIMM_CLASS,
        "num_classes": spec.num_classes,
        "num_features": spec.hidden_dim,
        "global_pool": "avg",
        **names,
        "model_args": timm.handed_on(spec) if name else {**timm.arguments(spec), **timm.functions(spec)},
        "pretrained_cfg": _pretrained(model),
        "mixlab": own,
    }


def _scaling(model: Model) -> dict[str, Any]:
    """What happens to pixels from 0 to 255 before the model."""
    chosen = model.trial.data
    return {"scaled_to": [-1, 1], "permutation": chosen.permutation, "split_seed": chosen.split_seed}


def _pretrained(model: Model) -> dict[str, Any]:
    """What timm calls pretrained_cfg: how images are framed and scaled, and the names of the first and last layer.

    Mixlab scales pixels to [-1, 1]: with a mean and a deviation of 0.5, of pixels in [0, 1].
    """
    spec, chosen = model.weights.model, model.trial.data
    half = [0.5] * spec.image_channels
    return {
        "custom_load": False,
        "input_size": [spec.image_channels, spec.image_size, spec.image_size],
        "fixed_input_size": True,
        "interpolation": chosen.interpolation,
        "crop_pct": _crop(spec.image_size, chosen.shorter_side) if chosen.shorter_side else 1.0,
        "crop_mode": "center" if chosen.shorter_side else "squash",
        "mean": half,
        "std": half,
        "num_classes": spec.num_classes,
        "pool_size": None,
        "first_conv": "stem.proj",
        "classifier": "head",
    }


def _crop(size: int, shorter_side: int) -> float:
    """The share by which timm divides the size, and cuts to the whole number `shorter_side`."""
    share = size / shorter_side
    return share if math.floor(size / share) == shorter_side else math.nextafter(share, 0.0)
