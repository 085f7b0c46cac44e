"""From what a user writes to what runs: values that are left out, and fields that must fit each other and the data."""

import dataclasses
import re
from functools import lru_cache
from typing import Any

from backends import devices
from backends.errors import MixlabError
from backends.models import FAMILIES
from backends.models.config import ModelConfig, foreign
from backends.models.family import Misfit
from backends.models.transfer import transfer
from backends.specs import ModelSpec
from experiments.spec.augmentation import resolve_augment
from experiments.spec.config import AUTO, RunConfig, TrainConfig, TrainOptions, TrialConfig
from experiments.spec.shots import SHOTS
from experiments.spec.trial import DataInfo, Start, TrainSpec, Trial
from experiments.spec.values import shown

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


def resolve(config: TrialConfig, info: DataInfo, where: str, start: Start | None = None) -> Trial:
    """Fill in every value that was left out, and check the fields against each other and the data.

    Args:   start: what train.init_from leads to.
    Raises: MixlabError: names the fields that do not fit.
    """
    model = _resolve_model(config.model, info, config.data.source, where)
    train = _begun(_resolve_train(config.train, info, where), model, start, where)
    augment = resolve_augment(config.data.augment, (info.image_size, info.image_channels), train.batch_size, where)
    data = dataclasses.replace(
        config.data, image_size=info.image_size, image_channels=info.image_channels, augment=augment
    )
    devices.check_backend(config.run.device, config.backend, f"{where}: run.device")
    _check_replicas(config.run.replicas, f"{where}: run.replicas")
    _check_parts(train, config.run, where)
    _check_shots(config.run.shots, info, f"{where}: run.probe_shots")
    file = start.file if start else None
    return Trial(model, data, train, info, config.backend, config.seed, config.run, file)


def _begun(train: TrainSpec, model: ModelSpec, start: Start | None, where: str) -> TrainSpec:
    """The training with the name of what it begins from.

    Raises: MixlabError: the model cannot begin from these weights, or nothing is looked up here.
    """
    if start is None and train.init_from is not None:
        raise MixlabError(f"{where}: train.init_from: {train.init_from!r} is not looked up here; leave it out")
    if start is None:
        return train
    try:
        transfer(start.model, model)
    except Misfit as error:
        raise MixlabError(f"{where}: train.init_from: {start.name}: {error}") from error
    return dataclasses.replace(train, init_from=start.name)


def _check_shots(shots: tuple[int, ...], info: DataInfo, where: str) -> None:
    """Raises: MixlabError: there is no probe of that name, or there are too few examples to train on."""
    if strange := [one for one in shots if one not in SHOTS]:
        raise MixlabError(f"{where}: expected some of {', '.join(map(str, SHOTS))}, got {strange[0]}")
    if shots and shots[-1] * info.num_classes > info.num_train:
        raise MixlabError(
            f"{where}: {shots[-1]} examples of each of {info.num_classes} classes exceed the {info.num_train} training "
            f"examples; take fewer shots or raise data.fraction"
        )


def _check_parts(train: TrainSpec, run: RunConfig, where: str) -> None:
    """Raises: MixlabError: the batch has no such parts, or they cannot be dealt out to the devices."""
    parts, devices = train.microbatches, run.devices
    if parts & (parts - 1) or train.batch_size % parts:
        raise MixlabError(
            f"{where}: train.microbatches: expected a power of two that divides train.batch_size {train.batch_size} "
            f"({', '.join(map(str, _powers_in(train.batch_size)))}), got {parts}"
        )
    if parts % devices:
        raise MixlabError(
            f"{where}: run.devices: expected a number that divides train.microbatches {parts} "
            f"({', '.join(map(str, _powers_in(parts)))}), got {devices}; more devices need more microbatches"
        )
    if devices > 1 and run.replicas not in (AUTO, "1"):
        raise MixlabError(
            f"{where}: run.replicas: expected 1 or auto where run.devices is {devices}, got {run.replicas}: a trial on "
            f"several devices is alone in its program"
        )


def _powers_in(number: int) -> list[int]:
    """The powers of two that divide a number."""
    return [2**i for i in range(number.bit_length()) if number % 2**i == 0]


def _check_replicas(text: str, where: str) -> None:
    """Raises: MixlabError: it is neither `auto` nor a number of trials."""
    if text != AUTO and not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise MixlabError(f"{where}: expected auto or a whole number from 1 to 9999, got {shown(text)}")


@lru_cache(maxsize=1024)
def _resolve_model(model: ModelConfig, info: DataInfo, source: str, where: str) -> ModelSpec:
    family = FAMILIES[model.family]
    for name in foreign(model, family.Config):
        raise MixlabError(f"{where}: model.{name}: model.family {model.family!r} has no such field; leave it out")
    spec = family.make(model, info.image_size, info.image_channels, info.num_classes)
    for fault in family.faults(spec, model):
        raise MixlabError(f"{where}: {fault}")
    if spec.num_classes < info.num_classes:
        raise MixlabError(
            f"{where}: model.num_classes: {spec.num_classes} is less than the {info.num_classes} classes of "
            f"data.source {source!r}; allowed: {info.num_classes} or more, or null for as many as the data has"
        )
    return family.plain(spec)


@lru_cache(maxsize=1024)
def _resolve_train(train: TrainConfig, info: DataInfo, where: str) -> TrainSpec:
    if train.steps is not None and train.epochs is not None:
        raise MixlabError(f"{where}: train.steps and train.epochs: expected one of them, got both; remove one")
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
    options = {f.name: getattr(train, f.name) for f in dataclasses.fields(TrainOptions)}
    return _plain_train(TrainSpec(**options, steps=steps, evaluate_every=every), info.num_train)


def _plain_train(train: TrainSpec, num_train: int) -> TrainSpec:
    """The same training, with the defaults of fields that change nothing; see IDLE."""
    defaults = TrainOptions()
    same = {name: getattr(defaults, name) for f, value, names in IDLE for name in names if getattr(train, f) == value}
    if train.evaluate_train_examples >= num_train:  # no more can be evaluated than there are
        same["evaluate_train_examples"] = max(num_train, defaults.evaluate_train_examples)
    return dataclasses.replace(train, **same, **_plain_rates(train, defaults))


def _plain_rates(train: TrainSpec, defaults: TrainOptions) -> dict[str, Any]:
    """Schedule and warm-up in their plainest words, where others give the same rate in every step; see plan.py.

    A warm-up of one step begins with the whole rate. In the first step after a warm-up no schedule has begun to fall,
    and in the second of two the line and the half cosine are both at a half.
    """
    falling = train.steps - train.warmup_steps  # steps that the schedule speaks of
    if train.warmup_steps <= 1 and (falling <= 1 or train.schedule == "constant"):
        return {"warmup_steps": 0, "schedule": defaults.schedule if train.steps == 1 else "constant"}
    if falling <= 1 or (falling == 2 and train.schedule == "linear"):
        return {"schedule": defaults.schedule}
    return {}
