"""Augmentation of a trial: fields that must fit each other, and those that change nothing."""

from dataclasses import replace
from functools import lru_cache

from backends.errors import MixlabError
from experiments.spec.config import INCEPTION_AREA, AugmentConfig, RandAugmentConfig


@lru_cache(maxsize=1024)
def resolve_augment(augment: AugmentConfig, size: tuple[int, int], batch_size: int, where: str) -> AugmentConfig:
    """The augmentation in its plainest words: fields that change nothing have their defaults.

    Args:   size: pixels a side and channels of the images.
    Raises: MixlabError: names the fields that do not fit.
    """
    for fault in _faults(augment, *size, batch_size):
        raise MixlabError(f"{where}: data.augment.{fault}")
    same: dict[str, object] = {}
    if not augment.randaugment.num:
        same["randaugment"] = RandAugmentConfig()
    if not augment.mixup:
        same["mixup_style"] = AugmentConfig.mixup_style
    if augment.inception is None or augment.inception_area == INCEPTION_AREA[augment.inception]:
        same["inception_area"] = None
    return replace(augment, **same)  # type: ignore[arg-type]


def _faults(augment: AugmentConfig, image_size: int, channels: int, batch_size: int) -> list[str]:
    """What does not fit, each behind the name of its field."""
    faults = []
    if augment.crop > image_size:
        faults.append(f"crop: {augment.crop} pixels of padding exceed the image of {image_size} pixels; lower it")
    if augment.crop and augment.inception:
        faults.append(
            f"crop and inception: expected one of them, got {augment.crop} and {augment.inception!r}; remove one"
        )
    if augment.on_host and channels == 2:
        faults.append(
            "inception, randaugment, color_jitter, three_augment, erasing: expected images of 1 channel or 3, got 2; "
            "set data.image_channels, or leave them off"
        )
    if augment.inception_area == 0:
        faults.append("inception_area: expected a share above 0, got 0; leave it out for that of the form")
    if batch_size % augment.repeat:
        faults.append(
            f"repeat: {augment.repeat} does not divide train.batch_size {batch_size}; a batch holds each of its "
            f"examples so many times, so take {batch_size + -batch_size % augment.repeat} examples a batch"
        )
    return faults
