"""A training batch on the device: crop, flip and input permutation, then mixup or cutmix.

PyTorch's gathers each pixel by its own index. Compiled for a TPU, that reads 70 times the bytes and copies the data set
into another layout first; so whole images and rows are gathered here, which a CPU does as fast. The bits are the same.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike

# On a TPU, XLA gathers from rows without a copy of them all where their length is a multiple of LANES and not far above
# LONGEST; seen in what libtpu 0.0.42 compiles for a v5e: 784 numbers and 150,528 are copied, 3,072 and 32,768 are not.
LANES, LONGEST = 128, 2**14


@struct.dataclass
class Data:
    """The data set on the device.

    images: (n * rows, width), each image as its numbers in order, and zeros up to rows * width; see `row_shape`.
    labels: (n,).   pixel_order: (h*w,), or None.   side, channels: of an image.
    """

    images: Array
    labels: Array
    pixel_order: Array | None
    side: int = struct.field(pytree_node=False)
    channels: int = struct.field(pytree_node=False)


def row_shape(num_values: int, platform: str) -> tuple[int, int]:
    """Rows that an image of so many numbers is kept in, and their width; with zeros at the end where it must be."""
    if platform != "tpu":
        return 1, num_values
    least = -(-num_values // LONGEST)
    for rows in range(least, 4 * least + 1):
        if num_values % (rows * LANES) == 0:
            return rows, num_values // rows
    return least, -(-num_values // (least * LANES)) * LANES


def scale(pixels: Array, dtype: DTypeLike) -> Array:
    """uint8 to [-1, 1]: an exact whole number times 1/255, so that every framework rounds once; floats as they are."""
    if pixels.dtype != jnp.uint8:
        return pixels.astype(dtype)
    return (pixels.astype(dtype) * 2 - 255) * (1 / 255)


def gather(data: Data, step: dict[str, Array]) -> Array:
    """Pixels (b, h*w, channels) of the step's examples after flip, crop and input permutation, in that order."""
    side, channels = data.side, data.channels
    pixels = step["pixels"] if "pixels" in step else _examples(data, step["examples"])
    pixels = pixels.reshape(-1, side, side * channels)
    rows = columns = jnp.arange(side, dtype=jnp.int32)[None]
    inside = None
    if "crops" in step:
        rows, columns = rows + step["crops"][:, :1], columns + step["crops"][:, 1:]
        inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
        pixels = _taken(pixels, rows[:, :, None], 1)
    pixels = pixels.reshape(-1, side, side, channels)
    if "flips" in step:
        columns = jnp.where(step["flips"][:, None], side - 1 - columns, columns)
    if "crops" in step or "flips" in step:
        pixels = _taken(pixels, columns[:, None, :, None], 2)
    if inside is not None:
        black = jnp.asarray(0 if pixels.dtype == jnp.uint8 else -1, pixels.dtype)
        pixels = jnp.where(inside[..., None], pixels, black)
    return permuted(pixels.reshape(len(pixels), -1, channels), data.pixel_order)


def _examples(data: Data, examples: Array) -> Array:
    """The images (b, h*w*channels) of some examples."""
    num_rows = len(data.images) // len(data.labels)
    rows = examples[:, None] * num_rows + jnp.arange(num_rows, dtype=jnp.int32)
    images = data.images.at[rows].get(mode="promise_in_bounds").reshape(len(examples), -1)
    return images[:, : data.side**2 * data.channels]


def _taken(pixels: Array, places: Array, axis: int) -> Array:
    """The pixels at some places of an axis, for each image; of a place outside, those at the nearest inside."""
    places = jnp.clip(places, 0, pixels.shape[axis] - 1)
    return jnp.take_along_axis(pixels, places, axis, mode="promise_in_bounds")


def permuted(pixels: Array, order: Array | None) -> Array:
    """Pixels (b, h*w, channels) in the order of the input permutation, where there is one."""
    return pixels if order is None else pixels[:, order]


def batch(
    data: Data, step: dict[str, Array], num_classes: int, smoothing: Array, dtype: DTypeLike
) -> tuple[Array, Array]:
    """Images (b, h, w, channels) and targets (b, k) of one step, after augmentation, mixup and cutmix."""
    pixels = scale(gather(data, step), dtype)
    side = round(pixels.shape[1] ** 0.5)
    images = pixels.reshape(len(pixels), side, side, -1)
    labels, classes = data.labels[step["examples"]], jnp.arange(num_classes, dtype=jnp.int32)
    targets = (labels[:, None] == classes).astype(dtype) * (1 - smoothing) + smoothing / num_classes
    if "mixup_partners" in step:
        partners, name = step["mixup_partners"], "target_weights" if "target_weights" in step else "mixup_weights"
        own, weight = slice(len(partners)), step[name]  # of a microbatch; of a whole batch it is all of it
        images = mixed(images[own], images[partners], step)
        targets = weight * targets[own] + (1 - weight) * targets[partners]
    return images, targets


def mixed(images: Array, others: Array, step: dict[str, Array]) -> Array:
    """Images (b, h, w, channels) with a share of the others mixed in, or a box of them set in."""
    if "mixup_weights" in step:
        weight = step["mixup_weights"]
        images = weight * images + (1 - weight) * others
    if "cutmix_boxes" in step:
        place = jnp.arange(images.shape[1], dtype=jnp.int32)
        top, bottom, left, right = step["cutmix_boxes"]
        inside = ((place >= top) & (place < bottom))[:, None] & (place >= left) & (place < right)
        images = jnp.where(inside[..., None], others, images)
    return images
