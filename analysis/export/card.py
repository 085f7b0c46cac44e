"""The model card of one trial: metadata that the hub reads, and what a reader must know of training and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

import yaml

from analysis.export.weights import Model, Selection
from analysis.table.layout import markdown, paragraph, plain
from backends.models import family_of, folds, name_of
from backends.models.mixer_spec import MixerSpec
from backends.models.variants import MIXER
from backends.weights import timm
from experiments.data import hub
from experiments.results.metrics import TEST, VALIDATION, every, measured
from experiments.spec import fields
from experiments.spec.config import DataConfig
from experiments.spec.expand import as_typed
from experiments.spec.trial import as_tree

TASK = "image-classification"
# What a model is, and the hub's word for it: by its family, of blocks with token mixing by the one that all have.
FAMILIES = {
    "resnet": ("A ResNet as in BiT (arXiv 1912.11370)", "resnet"),
    "metaformer": ("A MetaFormer (arXiv 2111.11418)", "metaformer"),
    "convmixer": ("A ConvMixer (arXiv 2201.09792)", "convmixer"),
}
MIXERS = ("An MLP-Mixer (arXiv 2105.01601)", "mlp-mixer")
OPERATORS = dict.fromkeys(("tied", "untied", "grouped", "grouped_views"), MIXERS) | {
    "attention": ("A ViT (arXiv 2010.11929)", "vit"),
    "gating": ("A model of gMLP's blocks (arXiv 2105.08050)", "gmlp"),
    "linear": ("A model of ResMLP's token mixing (arXiv 2105.03404)", "resmlp"),
}


@dataclass(frozen=True)
class Loading:
    """How a folder is loaded.

    in_timm: whether `timm.create_model` builds it.   summary: for the terminal.   text: paragraphs of Markdown.
    """

    in_timm: bool
    summary: str
    text: str


def loading(model: Model, unlike: str) -> Loading:
    """How the weights are loaded. Args: unlike: why timm has no such model; empty if it has."""
    spec = model.weights.model
    own = _block("bash", [_evaluation(model)])
    if unlike:
        why = f"timm cannot load it: {unlike}"
        return Loading(False, f"{why}; mixlab evaluate loads it", f"{paragraph(f'{why}.')}\n{own}")
    images = paragraph(
        f"Images are float, batch x {spec.image_channels} x {spec.image_size} x {spec.image_size}: pixels in [0, 1], "
        f"minus 0.5, divided by 0.5. Mixlab reads the same file:"
    )
    assert isinstance(spec, MixerSpec)
    if name := timm.architecture(spec):
        lines = ["import timm", "", 'model = timm.create_model("local-dir:.", pretrained=True).eval()']
        return Loading(True, f"timm.create_model loads it as {name}", "\n".join([_block("python", lines), images, own]))
    why = "No name that timm.create_model knows has its sizes, activation and norm; timm's class builds it:"
    parts = [paragraph(why), _block("python", _construction(spec)), images, own]
    return Loading(False, "timm's class MlpMixer loads it, as its card says", "\n".join(parts))


def text(model: Model, selection: Selection, how: Loading) -> str:
    """The content of the card."""
    parts = ("---", _metadata(model, selection, how), "---", "", *_body(model, selection, how))
    return "\n".join(parts).rstrip() + "\n"


def _metadata(model: Model, selection: Selection, how: Loading) -> str:
    """The block of YAML at the top, by the library that reads it. Without a license: it is its owner's to choose."""
    from huggingface_hub import EvalResult, ModelCardData

    source, is_on_hub = _source(model)
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=source,
            dataset_name=source,
            dataset_split=split,
            metric_type=name,
            metric_value=value,
            metric_name=f"{name}, {model.when} evaluation, n = 1",
        )
        for split, numbers in _numbers(model, selection).items()
        for name, value in numbers.items()
    ]
    data = ModelCardData(
        library_name="timm" if how.in_timm else "mixlab",
        pipeline_tag=TASK,
        tags=[TASK, _kind(model)[1], "mixlab", *(["timm"] * how.in_timm)],
        datasets=[source] if is_on_hub else None,
        model_name=_name(model, selection),
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _body(model: Model, selection: Selection, how: Loading) -> Iterator[str]:
    spec, family = model.weights.model, family_of(model.weights.model)
    name = family.variant_of(spec)
    variant = f"{name if name not in MIXER else f'Mixer-{name}'}, " if name else ""
    yield f"# {plain(_name(model, selection))}\n"
    yield paragraph(
        f"{_kind(model)[0]}: {variant}{family.sizes(spec)}, {', '.join(family.options(spec))}; "
        f"{folds.count(spec):,} parameters. Mixlab trained it as trial {model.trial.id}; these are the weights of its "
        f"{model.when} evaluation, at step {model.step:,} of {model.trial.num_steps:,}{_averaged(model)}."
    )
    if selection.question:
        yield paragraph(f"It is a part of the ablation {selection.name}, which asks: {selection.question}")
    if model.label:
        yield paragraph(f"In that ablation this trial has {model.label}.")
    yield "## Load\n"
    yield paragraph("In the folder of these files:")
    yield how.text
    yield from _measured(model, selection)
    yield from _training(model)


def _measured(model: Model, selection: Selection) -> Iterator[str]:
    yield "## Numbers\n"
    numbers, info = _numbers(model, selection), model.trial.info
    sizes, names = {VALIDATION: info.num_validation, TEST: info.num_test}, measured([numbers])
    rows = [
        [split, f"{sizes[split]:,}", *(_text(name, numbers[split].get(name)) for name in names)] for split in numbers
    ]
    if not rows:
        yield paragraph("The trial had no validation examples.")
        return
    yield "\n".join(markdown([["split", "examples", *names], *rows])) + "\n"
    yield paragraph(
        "These are numbers of one run (n = 1): they say nothing about how another seed would do. Validation examples "
        "are a part of the training split that was not trained on."
        + (" Test numbers are not told here." if TEST not in numbers else "")
    )


def _training(model: Model) -> Iterator[str]:
    record, trial = model.record, model.trial
    about, seconds = record.get("environment") or {}, record["seconds"]["train"]
    versions = ", ".join(f"{name} {value}" for name, value in about.get("backend", {}).items() if name != "name")
    took = "" if seconds is None else f", in {seconds:,.0f} s"
    code = f"commit {about.get('commit') or 'unknown'}{' and changes' if about.get('dirty') else ''}"
    yield "## Training\n"
    yield paragraph(
        f"Trained by the backend {trial.backend} with products in {trial.train.precision}{took}, with the code of "
        f"{code}; {versions}."
    )
    yield paragraph(f"The trial, resolved; its id {trial.id} is a hash of what of this can change the result:")
    settings = {name: part for name, part in as_tree(trial).items() if name != "run"}
    yield _block("yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).splitlines())


def _numbers(model: Model, selection: Selection) -> dict[str, dict[str, float]]:
    """The metrics by split, as far as they are there and may be told."""
    splits = (VALIDATION, TEST) if selection.test else (VALIDATION,)
    found = {split: model.metrics.get(split) or {} for split in splits}
    return {
        split: {name: numbers[name] for name in every() if numbers.get(name) is not None}
        for split, numbers in found.items()
        if numbers
    }


def _text(name: str, value: float | None) -> str:
    metric = every()[name]
    return "—" if value is None else f"{metric.text(value, more=1)} {metric.unit}"


def _name(model: Model, selection: Selection) -> str:
    return f"{selection.name or 'mixer'}-{model.trial.id}"


def _kind(model: Model) -> tuple[str, str]:
    """What the model is, and the hub's word for it."""
    spec = model.weights.model
    if not isinstance(spec, MixerSpec):
        return FAMILIES[name_of(spec)]
    kinds = {OPERATORS.get(one, (f"A MetaFormer with token mixing {one} (arXiv 2111.11418)", "metaformer"))
             for one in spec.operators}  # fmt: skip
    mixed = f"A hybrid of token mixing {fields.text(spec.token_mixing)} (arXiv 2111.11418)", "metaformer"
    return kinds.pop() if len(kinds) == 1 else mixed


def _averaged(model: Model) -> str:
    decay = model.trial.train.ema_decay
    return f", averaged over steps with decay {decay:g}" if decay else ""


def _source(model: Model) -> tuple[str, bool]:
    """The name of the data, and whether it is one of the hub; of a folder its last part, since others lack the rest."""
    source, kind = model.trial.data.source, (model.record.get("data") or {}).get("kind")
    return (source, True) if kind == hub.KIND else (PurePath(source).name, False)


def _construction(spec: MixerSpec) -> list[str]:
    """Lines of Python that build the model with timm's class."""
    given = {name: repr(value) for name, value in timm.arguments(spec).items()} | timm.functions(spec)
    lines = [f"    {name}={value}," for name, value in given.items()]
    partial = ["from functools import partial", ""] if any("partial(" in value for value in given.values()) else []
    nn = ["from torch import nn"] if any("nn." in value for value in given.values()) else []
    imports = [*partial, "from safetensors.torch import load_file", "from timm.models.mlp_mixer import MlpMixer", *nn]
    load = 'model.load_state_dict(load_file("model.safetensors"))'
    return [*imports, "", "model = MlpMixer(", *lines, ").eval()", load]


def _evaluation(model: Model) -> str:
    """The command that evaluates the weights on the test examples of the trial's data."""
    chosen, default = as_tree(model.trial.data), as_tree(DataConfig())
    skipped = ("source", "image_size", "augment", "fraction", "validation_fraction")  # which test examples do not need
    fields = [
        f"data.{name}={as_typed(str(value).lower() if isinstance(value, bool) else str(value))}"
        for name, value in chosen.items()
        if name not in skipped and value != default[name]
    ]
    words = " ".join([as_typed(chosen["source"]), *fields])
    return f"mixlab evaluate --weights model.safetensors {words}"


def _block(language: str, lines: list[str]) -> str:
    """A block of code that its content cannot end."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *lines, fence]) + "\n"
