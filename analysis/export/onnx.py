"""Models as ONNX files, each held against the framework's own logits by onnxruntime before it is written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

import backends
from analysis.export import weights as kept_weights
from analysis.export.weights import Model, Selection
from backends.arrays import Array
from backends.errors import MixlabError, first_line
from backends.graphs import IMAGES, LOGITS
from backends.specs import RunSpec
from experiments import data, evaluation, streams
from experiments.results.store import Store

WRITER = "torch"  # the backend that writes graphs; weights of every backend have the same names and meaning
NUM_EXAMPLES = 16
# onnxruntime and PyTorch round the same float32 products in another order. What PyTorch itself loses against float64 on
# the same images is the measure. Seen: 0.8 to 1.7 times as much, for each operator and for S/16; with the other GELU
# 450 times, with an epsilon of 1e-5 in place of 1e-6 14 times.
TIMES = 10
LEAST = 2.0**-23  # of the largest logit: where PyTorch's own rounding happens to vanish


def export(store: Store, selection: Selection, out: Path) -> list[str]:
    """Write `<trial>.onnx` for each trial that has weights; returns sentences on what was written.

    Raises: MixlabError: no trial has weights, a graph does not give the framework's logits, another file is there.
    """
    found = kept_weights.find(store, selection)
    return [*_written(store, selection, found, out), *found.lines()]


def _written(store: Store, selection: Selection, found: kept_weights.Kept, out: Path) -> Iterator[str]:
    for model in kept_weights.models(store, selection, found):
        order = _pixel_order(model)
        content = backends.load_graphs(WRITER).write_graph(
            model.weights.model, model.weights.params, order, _about(model)
        )
        images, whose = _examples(model, Path(model.trial.run.data_cache or store.data))
        apart, tolerance = check(content, model, images)
        name = f"{model.trial.id}.onnx"
        verb = "wrote" if kept_weights.put(out, {name: content}) else "left as it is:"
        yield (
            f"{verb} {out / name}: {IMAGES} uint8 (batch, {', '.join(map(str, images.shape[1:]))}) -> {LOGITS} float32 "
            f"(batch, {model.weights.model.num_classes}); onnxruntime differs from {WRITER} by at most {apart:.1e} on "
            f"{len(images)} {whose} (allowed: {tolerance:.1e})"
        )


def check(content: bytes, model: Model, images: Array) -> tuple[float, float]:
    """The largest difference of logits between onnxruntime and the framework in float32, and what is allowed.

    Raises: MixlabError: the content is no valid graph, or the difference is larger than what is allowed.
    """
    where = f"command line: --to onnx: the graph of trial {model.trial.id}"
    try:
        made = _run(content, images)
    except Exception as error:  # onnx and onnxruntime document no common type
        why = first_line(error)[:150]
        raise MixlabError(f"{where} is refused by onnxruntime ({why}); nothing was written") from error
    own, exact = (_logits(model, images, precision) for precision in ("float32", "float64"))
    apart = float(np.abs(made - own).max())
    tolerance = TIMES * float(max(np.abs(own - exact).max(), LEAST * np.abs(exact).max()))
    if not apart <= tolerance:  # NaN is not
        raise MixlabError(
            f"{where} gives logits that differ by {apart:.1e} from those of {WRITER}, and rounding explains "
            f"{tolerance:.1e}; nothing was written"
        )
    return apart, tolerance


def _run(content: bytes, images: Array) -> Array:
    """The logits of onnxruntime; a batch of one and the rest, so that both lengths are seen to work."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    parts = [session.run([LOGITS], {IMAGES: part})[0] for part in (images[:1], images[1:])]
    return np.concatenate(parts)


def _logits(model: Model, images: Array, precision: str) -> Array:
    run = RunSpec("cpu", precision, threads=len(os.sched_getaffinity(0)))
    program = evaluation.opened(backends.load(WRITER), model.weights, images, _pixel_order(model), run)
    return np.asarray(program.predict(images)[0].logits, np.float64)


def _pixel_order(model: Model) -> Array | None:
    spec, chosen = model.trial.model, model.trial.data
    return data.pixel_order(chosen.permutation, spec.image_size, spec.patch_size, chosen.split_seed)


def _examples(model: Model, cache: Path) -> tuple[Array, str]:
    """Images to compare the logits on, and a word for them."""
    info = model.trial.info
    with contextlib.suppress(MixlabError):  # data that is damaged is in no need of a sentence here
        if (images := data.first_images(model.trial.data, info, cache, NUM_EXAMPLES)) is not None:
            return images, "images of its data"
    shape = (NUM_EXAMPLES, info.image_size, info.image_size, info.image_channels)
    noise = streams.integers(0, "export", 0, NUM_EXAMPLES, shape[1:], 256)
    return noise.astype(np.uint8), "images of noise, since those of its data are not there"


def _about(model: Model) -> dict[str, str]:
    """What the file says of itself."""
    import onnxscript

    trial, environment = model.trial, model.record.get("environment") or {}
    chosen, seed = trial.data.permutation, trial.data.split_seed
    return {
        "mixlab.trial": trial.id,
        "mixlab.weights": f"{model.when}, of step {model.step}",
        "mixlab.commit": environment.get("commit") or "unknown",
        "mixlab.trained_by": f"{trial.backend}, products in {trial.train.precision}",
        "mixlab.model": json.dumps(asdict(trial.model)),
        "mixlab.classes": json.dumps(list(model.weights.classes or ()), ensure_ascii=False),
        "mixlab.input": "pixels from 0 to 255, batch x height x width x channels; the graph scales them to [-1, 1]",
        "mixlab.permutation": "none" if chosen == "none" else f"{chosen}, by data.split_seed {seed}; in the graph",
        "mixlab.output": "logits in the order of mixlab.classes, computed in float32",
        "mixlab.exporter": f"onnxscript {onnxscript.__version__}",
    }
