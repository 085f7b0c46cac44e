"""The arrays that describe a chunk of steps: learning rates, data order, augmentation, masks."""

import math
from functools import lru_cache

import numpy as np

from backends.arrays import Array
from backends.microbatches import ALONE, Group, rows_read
from backends.models import folds
from backends.plan import StepPlan
from experiments import streams
from experiments.spec.trial import TrainSpec, Trial
from experiments.training.augment.mixing import mixing, partners

# Examples up to which an epoch's order is sorted as a whole; of more, each step's part is made alone. It is part of
# what an id means.
MAX_SORTED = 2**23


def learning_rates(train: TrainSpec, first_step: int, num_steps: int) -> Array:
    """Rate of each step, float64 (num_steps,).

    Step t counts from 0. It rises as (t + 1) / warmup_steps, then falls from 1 to 0 over the steps that are left, by
    half a cosine or a line, so that the last step is just above 0.
    """
    t = np.arange(first_step, first_step + num_steps)
    progress = np.clip((t - train.warmup_steps) / max(1, train.steps - train.warmup_steps), 0, 1)
    falling = {
        "cosine": (1 + np.cos(math.pi * progress)) / 2,
        "linear": 1 - progress,
        "constant": np.ones(num_steps),
    }[train.schedule]
    rising = np.minimum(1, (t + 1) / max(1, train.warmup_steps))
    return np.asarray(train.learning_rate * rising * falling)


def step_plan(trial: Trial, examples: Array, first_step: int, num_steps: int) -> StepPlan:
    """The plan of steps first_step, ..., first_step + num_steps - 1, the same however a run is cut into chunks.

    Args: examples: int32 (n,), the training examples as indices into the images.
    """
    train, model, augment = trial.train, trial.model, trial.data.augment
    draw = (trial.seed, first_step, num_steps)
    t = np.arange(first_step + 1, first_step + num_steps + 1)[:, None]
    return StepPlan(
        first_step=first_step,
        learning_rate=learning_rates(train, first_step, num_steps),
        moment_corrections=1 / (1 - np.array([[train.b1, train.b2]]) ** t),
        examples=step_examples(trial, examples, first_step, num_steps),
        crops=_crops(*draw, train.batch_size, augment.crop) if augment.crop else None,
        flips=_flips(*draw, train.batch_size) if augment.flip else None,
        **mixing(trial, first_step, num_steps),
        branch_scales=_branch_scales(trial, first_step, num_steps) if model.stochastic_depth else None,
        dropout_keys=_dropout_keys(*draw) if model.dropout else None,
        dropout_rate=model.dropout if model.dropout else None,
    )


def step_examples(trial: Trial, examples: Array, first_step: int, num_steps: int) -> Array:
    """The examples of each step as indices into the images, int32 (num_steps, b)."""
    chosen: Array = examples[_order(trial, len(examples), first_step, num_steps)]
    return chosen


def step_rows(trial: Trial, step: int, group: Group = ALONE) -> Array:
    """The rows of a step's batch whose pixels a process gives to its program, int32 (r,), in their order."""
    if trial.train.microbatches == 1:
        return np.arange(trial.train.batch_size, dtype=np.int32)
    of_mixup = partners(trial, step, 1) if trial.data.augment.mixes else None
    rows: Array = rows_read(trial.train.batch_size, of_mixup, trial.train.microbatches, group)[0].reshape(-1)
    return rows


def _order(trial: Trial, num_examples: int, first_step: int, num_steps: int) -> Array:
    """Positions (num_steps, b) among the training examples; what fills no batch of an epoch is left out of it.

    With `repeat`, a batch holds b / repeat examples, one after the other, and then the same ones again: an epoch of the
    order is `repeat` times as long in steps, and each example is still in it once.
    """
    repeat = trial.data.augment.repeat
    num, steps = trial.train.batch_size // repeat, range(first_step, first_step + num_steps)
    per_epoch = num_examples // num
    rows = []
    for step in steps:
        epoch, i = divmod(step, per_epoch)
        rows.append(np.tile(_part_of_order(trial.seed, epoch, num_examples, range(i * num, (i + 1) * num)), repeat))
    return np.stack(rows)


def _part_of_order(seed: int, epoch: int, num_examples: int, places: range) -> Array:
    """What stands at some places of the order of an epoch."""
    if num_examples > MAX_SORTED:
        return streams.permuted(seed, "order", epoch, num_examples, np.arange(places.start, places.stop))
    return _epoch_order(seed, epoch, num_examples)[places.start : places.stop]


@lru_cache(maxsize=16)  # two of each replica
def _epoch_order(seed: int, epoch: int, num_examples: int) -> Array:
    """The permutation (n,) of the training examples in one epoch."""
    return np.asarray(streams.permutations(seed, "order", epoch, 1, num_examples)[0])


def _crops(seed: int, first: int, num: int, batch: int, padding: int) -> Array:
    """Shifts of rows and columns, int32 (num, batch, 2), from -padding to padding."""
    return streams.integers(seed, "crops", first, num, (batch, 2), 2 * padding + 1) - np.int32(padding)


def _flips(seed: int, first: int, num: int, batch: int) -> Array:
    """Whether each example is mirrored, bool (num, batch)."""
    return np.asarray(streams.uniforms(seed, "flips", first, num, (batch,)) < 0.5)


def _dropout_keys(seed: int, first: int, num: int) -> Array:
    """The key of each step, uint32 (num,)."""
    return (streams.words(seed, "dropout", first, num, 1)[:, 0] >> np.uint64(32)).astype(np.uint32)


def _branch_scales(trial: Trial, first: int, num: int) -> Array:
    """Factors of residual branches, float64 (num, branches, batch): one choice for each example and branch.

    Source: google-research/big_vision, models/mlp_mixer.py: the rate rises linearly from 0 at the first block, and kept
    branches are not rescaled. With `rescale`, timm's form: one rate for all blocks, kept branches divided by keep rate.
    """
    model, depths = trial.model, np.array(folds.branch_depths(trial.model))[:, None]
    shape = (len(depths), trial.train.batch_size)
    rates = model.stochastic_depth * (np.ones_like(depths) if model.rescale else depths)
    kept = streams.uniforms(trial.seed, "stochastic_depth", first, num, shape) >= rates
    return kept / (1 - rates) if model.rescale else kept.astype(np.float64)
