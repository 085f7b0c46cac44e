"""The pixels of a batch on the device: those of a formula that says where each comes from, bit for bit."""

from typing import Any

import numpy as np
import pytest

from backends.arrays import Array
from backends.contract import ArrayDataset

NUM_IMAGES, BATCH = 9, 12
PARTS = [(), ("flips",), ("crops",), ("crops", "flips")]


def by_pixel(dataset: ArrayDataset, step: dict[str, Array]) -> Array:
    """The pixels (b, h*w, channels), each gathered by its own index; black from outside."""
    _, side, _, channels = dataset.images.shape
    images = dataset.images.reshape(NUM_IMAGES, side * side, channels)
    target = np.arange(side * side) if dataset.pixel_order is None else dataset.pixel_order
    rows, columns = (target // side)[None], (target % side)[None]
    if "crops" in step:
        rows, columns = rows + step["crops"][:, :1], columns + step["crops"][:, 1:]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    if "flips" in step:
        columns = np.where(step["flips"][:, None], side - 1 - columns, columns)
    source = np.where(inside, rows * side + columns, 0)
    black = np.asarray(0 if images.dtype == np.uint8 else -1, images.dtype)
    return np.where(inside[..., None], images[step["examples"][:, None], source], black)


def drawn(side: int, channels: int, dtype: Any, permuted: bool) -> ArrayDataset:
    generator = np.random.default_rng(side)
    pixels = generator.integers(0, 256, (NUM_IMAGES, side, side, channels))
    images = pixels.astype(np.uint8) if dtype == np.uint8 else (pixels / 127.5 - 1).astype(dtype)
    order = generator.permutation(side * side).astype(np.int32) if permuted else None
    return ArrayDataset(images, np.zeros(NUM_IMAGES, np.int32), order)


def step(side: int, parts: tuple[str, ...]) -> dict[str, Array]:
    """Examples, and shifts in which there is every kind: none, within, by the whole image, and beyond it."""
    generator = np.random.default_rng(1)
    crops = generator.integers(-2 * side, 2 * side + 1, (BATCH, 2)).astype(np.int32)
    crops[:8] = [[0, 0], [1, -1], [-2, 1], [side - 1, 0], [1 - side, 1], [side, 0], [0, -side], [3 * side, -1]]
    every = {"crops": crops, "flips": np.arange(BATCH) % 2 == 0}
    examples = np.r_[0, NUM_IMAGES - 1, generator.integers(0, NUM_IMAGES, BATCH - 2)].astype(np.int32)
    return {"examples": examples} | {name: every[name] for name in parts}


def in_jax(dataset: ArrayDataset, step: dict[str, Array]) -> Array:
    import jax

    from backends.jax import augment, device

    return np.asarray(jax.jit(augment.gather)(device.place(dataset, jax.devices("cpu")[0]), step))


def in_torch(dataset: ArrayDataset, step: dict[str, Array]) -> Array:
    import torch

    from backends.torch import augment, device

    placed = device.place(dataset, torch.device("cpu"))
    return augment.gather(placed, {name: torch.tensor(x) for name, x in step.items()}).numpy()


@pytest.mark.parametrize("gathered", [in_jax, in_torch])
@pytest.mark.parametrize("permuted", [False, True], ids=["in order", "permuted"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " and ".join(parts) or "as they are")
def test_each_pixel_comes_from_its_place(
    gathered: Any, parts: tuple[str, ...], channels: int, dtype: Any, permuted: bool
) -> None:
    dataset, one_step = drawn(7, channels, dtype, permuted), step(7, parts)
    found = gathered(dataset, one_step)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, by_pixel(dataset, one_step))


@pytest.mark.parametrize("side", [3, 8, 12])
@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " and ".join(parts) or "as they are")
def test_images_kept_as_on_a_tpu_give_the_same_pixels(
    side: int, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows short enough here that images take several, with and without zeros behind them."""
    import jax

    from backends.jax import augment, device

    monkeypatch.setattr(augment, "LANES", 16)
    monkeypatch.setattr(augment, "LONGEST", 64)
    dataset, one_step = drawn(side, 3, np.uint8, True), step(side, parts)
    images = device._in_rows(dataset.images, "tpu")
    assert images.shape == {3: (NUM_IMAGES, 32), 8: (3 * NUM_IMAGES, 64), 12: (9 * NUM_IMAGES, 48)}[side]
    data = augment.Data(images, dataset.labels, dataset.pixel_order, side=side, channels=3)  # type: ignore[arg-type]
    np.testing.assert_array_equal(jax.jit(augment.gather)(data, one_step), by_pixel(dataset, one_step))


@pytest.mark.parametrize(
    ("side", "channels", "expected"),
    [
        (8, 1, (1, 128)),
        (28, 1, (1, 896)),
        (32, 3, (1, 3072)),
        (64, 3, (1, 12288)),
        (96, 3, (2, 13824)),
        (224, 3, (12, 12544)),
        (227, 3, (10, 15488)),
    ],
)
def test_rows_on_a_tpu_are_short_and_of_whole_lanes(side: int, channels: int, expected: tuple[int, int]) -> None:
    from backends.jax import augment

    num_values = side * side * channels
    rows, width = augment.row_shape(num_values, "tpu")
    assert (rows, width) == expected
    assert width % augment.LANES == 0 and rows * width - num_values < rows * augment.LANES
    for platform in ("cpu", "gpu"):
        assert augment.row_shape(num_values, platform) == (1, num_values)
