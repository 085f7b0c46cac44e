"""Contents of one trial, or of one file of weights, as lines for the terminal."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from analysis.table.layout import aligned
from analysis.terminal import fits_lines
from analysis.terminal.class_lines import class_lines
from analysis.terminal.fits_lines import Memory
from backends.errors import MixlabError, choices
from backends.models import family_of, folds, name_of, read_spec
from backends.models.summary import model_summary
from backends.specs import ModelSpec
from backends.weights.formats import FORMATS
from backends.weights.recognition import some
from experiments.results import curves, kept
from experiments.results.metrics import LEARNING_RATE, PREDICTED, SPLITS, STEP, STEP_LOSS, TEST, measured
from experiments.results.shape import sound
from experiments.results.states import TrialState, state
from experiments.results.store import Store
from experiments.running.failures import OUT_OF_MEMORY
from experiments.spec.trial import trial_from_json
from experiments.weights.weight_files import Weights


def show_lines(
    prefix: str, store: Store, predicted: str = PREDICTED[0], test: bool = True, device: Memory | None = None
) -> list[str]:
    """A trial's spec, environment, memory, layers, result, accuracy by class and curve, as far as they are there.

    Args:   predicted: of PREDICTED, whose accuracy by class is shown.    test: whether the curve shows test numbers.
            device: its memory, of which it is said what fits.
    Raises: MixlabError: no trial's id begins with `prefix`, or several do; there are no such predictions.
    """
    if predicted not in PREDICTED:
        raise MixlabError(
            f"command line: --predictions: expected an evaluation and a split, got {predicted!r}; "
            f"{choices(predicted, PREDICTED)}"
        )
    trial_id = store.find(prefix)
    folder = store.folder(trial_id)
    now = state(store, trial_id)
    record = now.record
    lines = [f"trial {trial_id}: {now.status}{': ' if now.why else ''}{now.why}", f"folder {folder}"]
    if now.status == "done":
        lines.append(kept.line(folder, _asked_to_keep(record)))
    # A trial that did not begin has its spec in its record alone.
    spec, environment = (_read_json(folder / file) for file in ("spec.json", "env.json"))
    spec = spec or (record or {}).get("spec")
    lines += _memory(spec, now, device)
    for title, tree in (("spec", spec), ("environment", environment)):
        if tree is not None:
            lines += ["", f"{title}:", *_yaml(tree)]
    lines += ["", "layers:", *_layers(spec)]
    if record is not None:
        omitted = ("spec", "environment", "curve", "metrics")
        lines += ["", "result:", *_yaml({key: value for key, value in record.items() if key not in omitted})]
    if now.status == "done":
        names = sound(record or {}, "data.classes") or []
        lines += [
            "",
            "predictions:",
            *(f"  {line}".rstrip() for line in class_lines(folder, names, *predicted.split("."))),
        ]
    curve = folder / curves.FILE
    try:
        points = curves.read(curve) if curve.exists() else []
        return [*lines, "", "curve:", *_curve(points, [split for split in SPLITS if test or split != TEST])]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return [*lines, "", "curve:", f"  {curve} is corrupt: {error}"]


def _memory(spec: Any, now: TrialState, device: Memory | None) -> list[str]:
    """What the trial needs as it is set; if a device is told, or memory was out, what fits."""
    try:
        trial = trial_from_json(spec)
    except (AttributeError, TypeError, KeyError, ValueError, ArithmeticError):
        return []  # the layers say it
    lines = [fits_lines.head(trial)]
    if now.status == "failed" and (now.record or {}).get("cause") == OUT_OF_MEMORY and device is None:
        ran_on = (sound(now.record or {}, "environment.backend") or {}).get("device", "cpu")  # unless it did not begin
        device = Memory.here(trial) if ran_on == "cpu" else None
        if device is None:
            return [*lines, "memory was out on a device; --memory GIB says what fits into one"]
    told = fits_lines.lines(trial, device) if device else []
    return [*lines, *(["", f"what fits into {device}:"] if told else []), *(f"  {line}" for line in told)]


def _asked_to_keep(record: dict[str, Any] | None) -> str | None:
    try:
        return str((record or {})["spec"]["run"]["keep"])
    except (KeyError, TypeError):
        return None


def _read_json(path: Path) -> Any:
    """What a file holds; None: it is not there."""
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except ValueError as error:
        return {"corrupt": f"{path} is not JSON ({error})"}


def _yaml(tree: Any) -> list[str]:
    return ["  " + line for line in yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).splitlines()]


def _curve(points: list[dict[str, Any]], splits: Sequence[str]) -> list[str]:
    names = measured(points)
    heads = (STEP, LEARNING_RATE, STEP_LOSS, *(f"{split} {name}" for split in splits for name in names))
    layout = [[head.replace("_", " ") for head in heads]]
    for point in points:
        numbers = [(point[split] or {}).get(name) for split in splits for name in names]
        cells = ["—" if number is None else f"{number:.4f}" for number in (point[STEP_LOSS], *numbers)]
        layout.append([str(point[STEP]), f"{point[LEARNING_RATE]:.3g}", *cells])
    return ["  " + line for line in aligned(layout)] if points else ["  no evaluation yet"]


def _layers(spec: Any) -> list[str]:
    try:
        return ["  " + line for line in layer_lines(read_spec(spec["model"]))]
    except (TypeError, KeyError, ValueError, ArithmeticError):
        return ["  the spec names no model that can be read"]


def layer_lines(model: ModelSpec) -> list[str]:
    """A line a layer: its output for one image, and its parameters, with their sum."""
    layout = [["layer", "output", "parameters"]]
    for layer in model_summary(model):
        layout.append([layer.name, " x ".join(map(str, layer.shape)), f"{layer.parameters:,}"])
    return aligned([*layout, ["total", "", f"{folds.count(model):,}"]])


def weights_lines(weights: Weights) -> list[str]:
    """The format, model, options and number of parameters of a file of weights."""
    model, layout = weights.model, FORMATS.get(weights.format)
    family = family_of(model)
    variant = f"{name}: " if (name := family.variant_of(model)) else ""
    types = sorted({str(x.dtype) for x in weights.params.values()})
    return [
        f"format      {weights.format}" + (f" ({layout.source})" if layout else ""),
        f"family      {name_of(model)}",
        f"model       {variant}{family.sizes(model)}",
        f"input       {model.image_size} x {model.image_size} x {model.image_channels}, {model.num_classes} classes",
        f"options     {', '.join(family.options(model))}",
        f"parameters  {folds.count(model):,} ({', '.join(types)})",
        *([f"note        {layout.note}"] if layout and layout.note else []),
        *(f"assumed     {name} {getattr(model, name)}: {why}" for name, why in weights.assumed.items()),
        *origin_lines(weights),
    ]


def origin_lines(weights: Weights) -> list[str]:
    """The group of a file that holds the model, and what of the file is not taken."""
    origin, lines = weights.origin, []
    if origin.taken or origin.beside:
        group = f"{origin.taken or 'those without a prefix'}{', an average of weights' * origin.average}"
        averages, others = origin.beside[: origin.averages], origin.beside[origin.averages :]
        for names, option in ((averages, "--ema"), (others, "--group NAME")):
            lies = "lies" if len(names) == 1 else "lie"
            takes = "" if origin.average else f": {option if len(names) == 1 else '--group NAME'} takes it"
            group += f"; {', '.join(names) or 'one'} {lies} beside it{takes}" * bool(names)
        lines.append(f"group       {group}")
    if origin.left_out:
        own = origin.taken.partition("/")[0]
        heads = Counter(name if name.startswith(f"{own}/") else name.partition("/")[0] for name in origin.left_out)
        lines.append(
            f"left out    {some([head if num == 1 else f'{head} ({num} arrays)' for head, num in heads.items()])}"
        )
    if weights.skipped:
        counted = [f"{num} of {name}" for name, num in weights.skipped.items()]
        lines.append(f"skipped     objects, none of which was created: {some(counted)}")
    return lines
