"""Mixup and cutmix: which image of the batch is mixed into each, and how much of it; one choice for a step's batch."""

import numpy as np

from backends.arrays import Array
from experiments import streams
from experiments.spec.trial import Trial

CUTMIX_SHARE = 0.5  # of the steps, where mixup is on too; timm's switch_prob


def mixing(trial: Trial, first: int, num: int) -> dict[str, Array]:
    """The arrays of a plan for mixup and cutmix, by field; without those that are off."""
    augment, seed = trial.data.augment, trial.seed
    if not augment.mixes:
        return {}
    arrays = {"mixup_partners": partners(trial, first, num)}
    if augment.mixup:
        weights = streams.betas(seed, "mixup_weights", first, num, augment.mixup)
        arrays["mixup_weights"] = np.maximum(weights, 1 - weights) if augment.mixup_style == "authors" else weights
    if augment.cutmix:
        boxes, own = _boxes(trial, first, num)
        arrays |= {"cutmix_boxes": boxes, "target_weights": own}
    if augment.mixup and augment.cutmix:
        cut = streams.uniforms(seed, "cutmix_or_mixup", first, num, ()) < CUTMIX_SHARE
        arrays["target_weights"] = np.where(cut, own, arrays["mixup_weights"])
        arrays["mixup_weights"] = np.where(cut, 1.0, arrays["mixup_weights"])
        arrays["cutmix_boxes"] = np.where(cut[:, None], boxes, np.int32(0))
    return arrays


def partners(trial: Trial, first: int, num: int) -> Array:
    """The position in the batch of each example's partner, int32 (num, batch): drawn, or the authors' next one.

    Source: google-research/big_vision, which rolls the batch by one; its order is drawn, so that next and previous are
    the same distribution.
    """
    batch_size = trial.train.batch_size
    if trial.data.augment.mixup_style == "authors":
        return np.tile(np.roll(np.arange(batch_size, dtype=np.int32), -1), (num, 1))
    return streams.permutations(trial.seed, "mixup_partners", first, num, batch_size)


def _boxes(trial: Trial, first: int, num: int) -> tuple[Array, Array]:
    """The boxes of cutmix, int32 (num, 4), and the share of the image that is not in them, float64 (num,).

    A box has the share 1 - Beta(alpha, alpha) of the image before its centre, anywhere in the image, cuts some of it
    off.   Source: arXiv 1905.04899, algorithm 1; timm's rand_bbox and correct_lam.
    """
    size, seed = trial.info.image_size, trial.seed
    kept = streams.betas(seed, "cutmix_weights", first, num, trial.data.augment.cutmix)
    half = ((size * np.sqrt(1 - kept)).astype(np.int32) // 2)[:, None]
    centre = streams.integers(seed, "cutmix_centres", first, num, (2,), size)
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, size)
    boxes = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1).astype(np.int32)
    area = ((high - low)[:, 0] * (high - low)[:, 1]).astype(np.float64)
    return boxes, 1 - area / size**2
