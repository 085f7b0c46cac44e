"""From what a user writes to what runs: ranges, values left out, and fields that must fit each other and the data."""

import dataclasses
import math
import re
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, cast

from backends.errors import MixlabError, choices
from backends.specs import ModelSpec
from experiments.spec.config import AUTO, SIZES, VARIANTS, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.trial import DataInfo, Trial
from experiments.spec.values import shown

DEFAULT_SIZES = (None, 64, 4, None, None)
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1, ...")
DEFAULT_EPOCHS = 20
DEFAULT_EVALUATIONS = 10  # over a run, where train.evaluate_every is not given

# Fields that change nothing while another has a certain value; they are set to their defaults then, so that they make
# no second trial of the same run.
IDLE = (
    ("optimizer", "sgd", ("b1", "b2", "epsilon")),
    ("optimizer", "adamw", ("momentum", "nesterov")),
    ("momentum", 0.0, ("nesterov",)),
    ("weight_decay", 0.0, ("decay",)),
)


def check_ranges(config: Any, where: str, prefix: str = "") -> None:
    """Hold every field against its range.

    Raises: MixlabError: names the field, what came and what is allowed.
    """
    for f in dataclasses.fields(config):
        value, name, limits = getattr(config, f.name), f"{prefix}{f.name}", f.metadata
        if dataclasses.is_dataclass(value):
            _check_section(cast(Hashable, value), where, f"{name}.")
        elif value is None or not limits:
            continue
        elif limits["allowed"] and value not in limits["allowed"]:
            raise MixlabError(f"{where}: {name}: {shown(value)} is not known; {choices(value, limits['allowed'])}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise MixlabError(f"{where}: {name}: {value} is not a finite number")
        elif limits["low"] is not None and value < limits["low"]:
            raise MixlabError(f"{where}: {name}: {value} is too small; at least {limits['low']}")
        elif limits["high"] is not None and value > limits["high"]:
            raise MixlabError(f"{where}: {name}: {value} is too large; at most {limits['high']}")


@lru_cache(maxsize=1024)
def _check_section(section: Hashable, where: str, prefix: str) -> None:
    """The trials of a grid have most sections in common."""
    check_ranges(section, where, prefix)


def resolve(config: TrialConfig, info: DataInfo, where: str) -> Trial:
    """Fill in every value that was left out, and check the fields against each other and the data.

    Raises: MixlabError: names the fields that do not fit.
    """
    model = _resolve_model(config.model, info, config.data.source, where)
    train = _resolve_train(config.train, info, where)
    data = dataclasses.replace(config.data, image_size=info.image_size, image_channels=info.image_channels)
    check_device(config.run.device, f"{where}: run.device")
    _check_replicas(config.run.replicas, f"{where}: run.replicas")
    if data.augment.crop > info.image_size:
        raise MixlabError(
            f"{where}: data.augment.crop: {data.augment.crop} pixels of padding exceed "
            f"the image of {info.image_size} pixels"
        )
    return Trial(model, data, train, info, config.backend, config.seed, config.run)


def check_device(name: str, where: str) -> None:
    """Raises: MixlabError: no device has a name of this form."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise MixlabError(f"{where}: {shown(name)} is not known; {choices(name, DEVICES)}")


def _check_replicas(text: str, where: str) -> None:
    """Raises: MixlabError: it is neither `auto` nor a number of trials."""
    if text != AUTO and not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise MixlabError(f"{where}: expected auto or a whole number from 1 to 9999, got {shown(text)}")


def variant_of(model: ModelSpec) -> str | None:
    """The variant that has all sizes of a model; None: none has."""
    sizes = tuple(getattr(model, name) for name in SIZES)
    return next((variant for variant, its_sizes in VARIANTS.items() if its_sizes == sizes), None)


@lru_cache(maxsize=1024)
def _resolve_model(model: ModelConfig, info: DataInfo, source: str, where: str) -> ModelSpec:
    sizes = VARIANTS[model.variant] if model.variant else DEFAULT_SIZES
    patch, hidden, blocks, tokens_dim, channels_dim = (
        size if getattr(model, name) is None else getattr(model, name) for name, size in zip(SIZES, sizes, strict=True)
    )
    assert hidden is not None and blocks is not None  # DEFAULT_SIZES and VARIANTS give both
    options = [f.name for f in dataclasses.fields(ModelSpec) if f.default is not dataclasses.MISSING]
    spec = ModelSpec(
        image_size=info.image_size,
        image_channels=info.image_channels,
        num_classes=model.num_classes or info.num_classes,
        patch_size=patch or _default_patch_size(info.image_size),
        hidden_dim=hidden,
        num_blocks=blocks,
        tokens_mlp_dim=tokens_dim or max(1, hidden // 2),
        channels_mlp_dim=channels_dim or 4 * hidden,
        **{name: getattr(model, name) for name in options if name != "token_groups"},
        token_groups=model.token_groups or 1,
    )
    if model.token_mixing.startswith("grouped") and model.token_groups is None:
        raise MixlabError(
            f"{where}: model.token_groups: model.token_mixing {model.token_mixing!r} needs a number of groups; "
            f"allowed: {_divisors(hidden)}"
        )
    _check_model(spec, info, source, where)
    return _plain_model(spec)


def _plain_model(spec: ModelSpec) -> ModelSpec:
    """The same model in its plainest words, where several say the same; see IDLE.

    One group is the tied MLP; its learned views are weights of their own. Without `rescale` the rate of stochastic
    depth rises from 0 at the first block, so that the only block is never dropped.
    """
    same: dict[str, Any] = {}
    if spec.token_mixing == "grouped" and spec.token_groups == 1:
        same["token_mixing"] = "tied"
    if spec.num_blocks == 1:
        same["share_blocks"] = False
    if not spec.stochastic_depth or (spec.num_blocks == 1 and not spec.rescale):
        same |= {"stochastic_depth": 0.0, "rescale": False}
    return dataclasses.replace(spec, **same)


def _check_model(model: ModelSpec, info: DataInfo, source: str, where: str) -> None:
    """Raises: MixlabError: fields that do not fit each other or the data."""
    if model.image_size % model.patch_size:
        raise MixlabError(
            f"{where}: model.patch_size: {model.patch_size} does not divide the image of {info.image_size} pixels "
            f"(data.image_size); allowed: {_divisors(info.image_size)}"
        )
    grouped = model.token_mixing.startswith("grouped")
    if grouped and model.hidden_dim % model.token_groups:
        raise MixlabError(
            f"{where}: model.token_groups: {model.token_groups} does not divide model.hidden_dim {model.hidden_dim}; "
            f"allowed: {_divisors(model.hidden_dim)}"
        )
    if not grouped and model.token_groups != 1:
        raise MixlabError(
            f"{where}: model.token_groups: {model.token_groups} groups need model.token_mixing grouped or "
            f"grouped_views, not {model.token_mixing!r}; allowed with it: 1"
        )
    if model.num_classes < info.num_classes:
        raise MixlabError(
            f"{where}: model.num_classes: {model.num_classes} is less than the {info.num_classes} classes of "
            f"data.source {source!r}; allowed: {info.num_classes} or more, or none to take that of the data"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(divisor) for divisor in range(1, number + 1) if number % divisor == 0)


def _default_patch_size(image_size: int) -> int:
    """The divisor of the image's side that is nearest to an eighth of it, and to 2 in small images."""
    divisors = [size for size in range(1, image_size + 1) if image_size % size == 0]
    return min(divisors, key=lambda size: abs(size - max(2.0, image_size / 8)))


@lru_cache(maxsize=1024)
def _resolve_train(train: TrainConfig, info: DataInfo, where: str) -> TrainConfig:
    if train.steps is not None and train.epochs is not None:
        raise MixlabError(f"{where}: train.steps and train.epochs: give one of them, not both")
    if train.batch_size > info.num_train:
        raise MixlabError(
            f"{where}: train.batch_size: {train.batch_size} exceeds the {info.num_train} training examples; "
            f"lower it or raise data.fraction"
        )
    epochs = DEFAULT_EPOCHS if train.epochs is None else train.epochs
    steps = train.steps or max(1, round(epochs * (info.num_train // train.batch_size)))
    if train.warmup_steps > steps:
        raise MixlabError(f"{where}: train.warmup_steps: {train.warmup_steps} exceeds the {steps} steps of the run")
    every = min(steps, train.evaluate_every or -(-steps // DEFAULT_EVALUATIONS))
    train = dataclasses.replace(train, steps=steps, epochs=None, evaluate_every=every)
    return _plain_train(train, info.num_train)


def _plain_train(train: TrainConfig, num_train: int) -> TrainConfig:
    """The same training with the defaults where these do the same; see IDLE."""
    defaults = TrainConfig()
    same = {name: getattr(defaults, name) for f, value, names in IDLE for name in names if getattr(train, f) == value}
    if train.evaluate_train_examples >= num_train:  # no more can be evaluated than there are
        same["evaluate_train_examples"] = max(num_train, defaults.evaluate_train_examples)
    return dataclasses.replace(train, **same, **_plain_rates(train, defaults))


def _plain_rates(train: TrainConfig, defaults: TrainConfig) -> dict[str, Any]:
    """Schedule and warm-up in their plainest words, where others give the same rate in every step; see plan.py.

    A warm-up of one step begins with the whole rate. In the first step after a warm-up no schedule has begun to fall,
    and in the second of two the line and the half cosine are both at a half.
    """
    steps = train.steps or 0
    falling = steps - train.warmup_steps  # steps that the schedule speaks of
    if train.warmup_steps <= 1 and (falling <= 1 or train.schedule == "constant"):
        return {"warmup_steps": 0, "schedule": defaults.schedule if steps == 1 else "constant"}
    if falling <= 1 or (falling == 2 and train.schedule == "linear"):
        return {"schedule": defaults.schedule}
    return {}
