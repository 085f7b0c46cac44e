"""A training batch on the device: one gather for crop, flip and input permutation, then mixup."""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike


@struct.dataclass
class Data:
    """The data set on the device: images (n, h*w, channels), labels (n,), pixel_order (h*w,) or None."""

    images: Array
    labels: Array
    pixel_order: Array | None


def scale(pixels: Array, dtype: DTypeLike) -> Array:
    """uint8 to [-1, 1]: an exact whole number times 1/255, so that every framework rounds once; floats as they are."""
    if pixels.dtype != jnp.uint8:
        return pixels.astype(dtype)
    return (pixels.astype(dtype) * 2 - 255) * (1 / 255)


def gather(data: Data, step: dict[str, Array]) -> Array:
    """Pixels (b, h*w, channels) of the step's examples after flip, crop and input permutation, in that order."""
    num_pixels = data.images.shape[1]
    side = round(num_pixels**0.5)
    order = data.pixel_order
    if "crops" not in step and "flips" not in step:
        pixels = data.images[step["examples"]]
        return pixels if order is None else pixels[:, order]
    target = jnp.arange(num_pixels, dtype=jnp.int32) if order is None else order
    rows, columns = (target // side)[None], (target % side)[None]
    if "crops" in step:
        rows, columns = rows + step["crops"][:, :1], columns + step["crops"][:, 1:]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    if "flips" in step:
        columns = jnp.where(step["flips"][:, None], side - 1 - columns, columns)
    source = jnp.where(inside, rows * side + columns, 0)
    black = jnp.asarray(0 if data.images.dtype == jnp.uint8 else -1, data.images.dtype)
    return jnp.where(inside[..., None], data.images[step["examples"][:, None], source], black)


def batch(
    data: Data, step: dict[str, Array], num_classes: int, smoothing: Array, dtype: DTypeLike
) -> tuple[Array, Array]:
    """Images (b, h, w, channels) and targets (b, k) of one step, after augmentation and mixup."""
    pixels = scale(gather(data, step), dtype)
    side = round(pixels.shape[1] ** 0.5)
    images = pixels.reshape(len(pixels), side, side, -1)
    labels, classes = data.labels[step["examples"]], jnp.arange(num_classes, dtype=jnp.int32)
    targets = (labels[:, None] == classes).astype(dtype) * (1 - smoothing) + smoothing / num_classes
    if "mixup_partners" in step:
        weight, partners = step["mixup_weights"].astype(dtype), step["mixup_partners"]
        images = weight * images + (1 - weight) * images[partners]
        targets = weight * targets + (1 - weight) * targets[partners]
    return images, targets
