"""Which trials are compared, with everything on that can differ, and what their comparison does not cover."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.contract import MAX_PIXEL_STEPS
from backends.errors import MixlabError, choices
from backends.models import FAMILIES, folds
from backends.specs import ModelSpec
from experiments.design import names
from experiments.design.ablation import COMMAND_LINE, Ablation, GridTrial
from experiments.design.trials import configs, resolved
from experiments.parity.job import (
    CHECKS,
    CHUNK_STEPS,
    EACH_VALUE,
    LONG,
    LONG_STEPS,
    NUM_REPLICAS,
    ON_ASKING,
    REMAT,
    REPLICAS,
    WIDE,
    WIDE_CLASSES,
)
from experiments.spec.config import AugmentConfig, TrialConfig
from experiments.spec.trial import Trial
from experiments.training import host

# What the ladder switches on where a trial leaves it off: a part that is off cannot be seen to differ.
CHANCE = {"dropout": 0.1, "stochastic_depth": 0.5}
AUGMENT = {"crop": 1, "mixup": 1.0}
CLIP_NORM = 0.1  # at most: below the norm of any gradient, so that clipping acts
WARMUP_STEPS = 10
BATCH_SIZE = 8  # at most: more examples make no operation more visible


@dataclass(frozen=True)
class Planned:
    """A trial to compare.

    grid: with every part on that can differ.   batch_size: the trial's own, before it was made small.
    checks: those of job.CHECKS that are made of it.
    """

    grid: GridTrial
    batch_size: int
    checks: tuple[str, ...]

    @property
    def trial(self) -> Trial:
        return self.grid.trial

    @property
    def label(self) -> str:
        return self.grid.label

    @property
    def wide_batch(self) -> int:
        size = wide_batch(self.trial.model, self.batch_size)
        multiple = math.lcm(self.trial.data.augment.repeat, self.trial.train.microbatches)
        return max(size - size % multiple, multiple)


def read_checks(names: Sequence[str]) -> tuple[str, ...]:
    """The checks of `--with`.  Raises: MixlabError: one is not made on asking."""
    for check in names:
        if check not in ON_ASKING:
            raise MixlabError(f"{COMMAND_LINE}: --with: expected a check, got {check!r}; {choices(check, ON_ASKING)}")
    return tuple(names)


def whole(config: TrialConfig, num_steps: int) -> TrialConfig:
    """A trial's config with every part that can differ switched on, and a run of so many steps of small batches.

    The learning rate follows the square root of the batch size: at the rate of a large batch, the noise of a small one
    makes a trajectory chaotic, and rounding alone would part the two sides within 200 steps.
    """
    given = config.data.augment
    multiple = math.lcm(given.repeat, config.train.microbatches)  # whole repeats, equal microbatches
    batch_size = min(config.train.batch_size, max(BATCH_SIZE // multiple, 1) * multiple)
    own = {f.name for f in dataclasses.fields(FAMILIES[config.model.family].Config)}
    model: dict[str, Any] = {n: value for n, value in CHANCE.items() if n in own and not getattr(config.model, n)}
    augment: dict[str, Any] = {n: value for n, value in AUGMENT.items() if not getattr(given, n)}
    augment["flip"] = True
    # An inception crop is in place of one with padding; beside cutmix, mixup would leave it half of the steps.
    for name in [n for n, other in (("crop", given.inception), ("mixup", given.cutmix)) if other]:
        augment.pop(name, None)
    train: dict[str, Any] = {
        "steps": num_steps,
        "epochs": None,
        "batch_size": batch_size,
        "learning_rate": config.train.learning_rate * math.sqrt(batch_size / config.train.batch_size),
        "warmup_steps": min(config.train.warmup_steps or WARMUP_STEPS, num_steps // 2),
        "clip_norm": min(config.train.clip_norm or 1.0, CLIP_NORM),
        "weight_decay": config.train.weight_decay or 0.05,
        "label_smoothing": config.train.label_smoothing or 0.1,
        "ema_decay": config.train.ema_decay or 0.9,
        "evaluate_every": None,
        "init_from": None,  # drawn weights show every fault that others would, and are there on every machine
    }
    data = dataclasses.replace(config.data, augment=dataclasses.replace(given, **augment))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **model),
        data=data,
        train=dataclasses.replace(config.train, **train),
    )


def conditions(trial: Trial) -> str:
    """How the sides train a trial, in words: its numbers that the ladder may have changed."""
    train, augment = trial.train, trial.data.augment
    parts = f" in {train.microbatches} microbatches" if train.microbatches > 1 else ""
    crop = f"inception crop ({augment.inception})" if augment.inception else f"crop {augment.crop}"
    return (
        f"batches of {train.batch_size}{parts}, learning rate {train.learning_rate:.3g}, "
        f"clipped to {train.clip_norm:g}, dropout {trial.model.dropout:g}, "
        f"stochastic depth {trial.model.stochastic_depth:g}, flip, {crop}, "
        f"mixup {augment.mixup:g}, weight decay {train.weight_decay:g}, "
        f"average {train.ema_decay:g}"
    )


def trials(ablation: Ablation, num_steps: int, cache: Path, asked: Sequence[str] = ()) -> list[Planned]:
    """A trial for each model, optimizer and kind of data of an ablation, whatever seeds and backends it has.

    Args: asked: checks beside the usual ones.
    """
    chosen: dict[Any, GridTrial] = {}
    batches: dict[Any, int] = {}
    for point, config in configs(ablation):
        trial = resolved(whole(config, num_steps), cache, ablation.where)
        # Two trials with this key run the same operations: other images or numbers show no other fault.
        info = dataclasses.replace(trial.info, content="", num_train=0, num_validation=0, num_test=0)
        data = (trial.data.permutation, *augmented(trial.data.augment))
        train = (trial.optimizer.structure(), trial.train.precision, trial.train.microbatches)
        key = (trial.model, *train, info, *data)
        own = names.settings(point)
        settings = {name: value for name, value in own.items() if name not in ("seed", "backend")}
        chosen.setdefault(key, GridTrial(trial, settings))
        batches[key] = max(batches.get(key, 0), config.train.batch_size)
    planned: list[Planned] = []
    seen: set[tuple[str, str]] = set()
    for key, one in chosen.items():
        values = {(name, repr(value)) for name, value in one.settings.items()}
        wanted = [check for check in ON_ASKING if check in asked or one.trial.run.compile]
        usual = [check for check in CHECKS if check not in ON_ASKING and (check in EACH_VALUE or not planned)]
        if not planned or values - seen:
            wanted += usual
        planned.append(Planned(one, batches[key], tuple(wanted)))
        seen |= values
    return planned


def augmented(augment: AugmentConfig) -> tuple[Any, ...]:
    """What of an augmentation is another operation: which of its parts are on, without their numbers."""
    style = augment.randaugment.style if augment.randaugment.num else None
    on = (augment.cutmix > 0, augment.color_jitter > 0, augment.three_augment, augment.erasing > 0)
    return (augment.mixup_style, augment.inception, style, *on, augment.repeat)


def wide_batch(model: ModelSpec, batch_size: int) -> int:
    """Batch size of the wide rungs: the trial's own, or what takes dropout's smallest site beyond 16 bits."""
    sites = [math.prod(layer.output) for layer in folds.layers(model) if layer.drops]
    return min(batch_size, max(2 * BATCH_SIZE, 2**16 // min(sites, default=2**16) + 1))


def _steps_of_a_call(one: Planned) -> int:
    """The most steps that one call takes in a trial's rungs."""
    most = LONG_STEPS if LONG in one.checks else min(CHUNK_STEPS, one.trial.num_steps)
    return min(most, MAX_PIXEL_STEPS) if host.needed(one.trial.data.augment) else most


def not_covered(one: Planned) -> list[str]:
    """What the rungs of a trial do not cover, in words."""
    trial, words = one.trial, []
    batch = one.wide_batch if WIDE in one.checks else trial.train.batch_size
    if batch < one.batch_size:
        words.append(f"batches above {batch}")
    words += [f"more than {trial.num_steps} steps", f"more than {_steps_of_a_call(one)} in one call"]
    classes = f"{trial.model.num_classes}{f' and {WIDE_CLASSES}' if WIDE in one.checks else ''}"
    words.append(f"other class counts than {classes}")
    words.append(f"more than {NUM_REPLICAS} replicas" if REPLICAS in one.checks else "replicas")
    words += [f"run.{check}" for check in (REMAT,) if check not in one.checks]
    words += [f"run.{check} (--with {check})" for check in ON_ASKING if check not in one.checks]
    return [*words, "other devices and threads"]
