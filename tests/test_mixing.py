"""Mixup, cutmix and repeated augmentation: what the plan says, and what both backends make of it."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from backends.arrays import Array
from backends.contract import ArrayDataset
from tests.test_plan import EXAMPLES, make_trial, plan

NUM = 4000
LEAST_P = 1e-3
SIZE = 8  # of the images of make_trial
BATCH = 8


def arrays(num: int = NUM, **augment: Any) -> dict[str, Array]:
    return plan(make_trial(augment=augment), 0, num).arrays()


def area(boxes: Array) -> Array:
    return (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])


def test_the_authors_mixup_takes_the_next_example_and_half_of_it_at_most() -> None:
    drawn, authors = arrays(mixup=0.3), arrays(mixup=0.3, mixup_style="authors")
    np.testing.assert_array_equal(authors["mixup_partners"], np.tile([1, 2, 3, 4, 5, 6, 7, 0], (NUM, 1)))
    np.testing.assert_array_equal(
        authors["mixup_weights"], np.maximum(drawn["mixup_weights"], 1 - drawn["mixup_weights"])
    )
    folded = stats.beta(0.3, 0.3)
    assert stats.kstest(authors["mixup_weights"], lambda x: folded.cdf(x) - folded.cdf(1 - x)).pvalue > LEAST_P


def boxes_by_hand(alpha: float, num: int) -> list[tuple[int, int, int, int]]:
    """Boxes of cutmix as its paper draws them, one by one."""
    generator, boxes = np.random.default_rng(0), []
    for _ in range(num):
        cut = int(SIZE * np.sqrt(1 - generator.beta(alpha, alpha)))
        y, x = generator.integers(0, SIZE, 2).tolist()
        ends = [(max(0, one - cut // 2), min(SIZE, one + cut // 2)) for one in (y, x)]
        boxes.append((*ends[0], *ends[1]))
    return boxes


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_boxes_of_cutmix_have_the_distribution_of_their_definition(alpha: float) -> None:
    found = arrays(cutmix=alpha)["cutmix_boxes"]
    assert found.dtype == np.int32 and found.min() == 0 and found.max() == SIZE
    by_hand = np.array(boxes_by_hand(alpha, NUM))
    for measure in (area, lambda one: one[:, 0], lambda one: one[:, 1], lambda one: one[:, 2], lambda one: one[:, 3]):
        values = np.union1d(measure(found), measure(by_hand))
        table = np.array([[np.sum(measure(one) == value) for value in values] for one in (found, by_hand)])
        table = table[:, table.sum(0) >= 10]
        assert stats.chi2_contingency(table).pvalue > LEAST_P


def test_targets_of_cutmix_weigh_what_is_left_of_the_image() -> None:
    found = arrays(cutmix=1.0)
    np.testing.assert_array_equal(found["target_weights"], 1 - area(found["cutmix_boxes"]) / SIZE**2)
    assert "mixup_weights" not in found and len(np.unique(found["mixup_partners"], axis=0)) > NUM / 2


def test_beside_mixup_each_step_draws_one_of_the_two() -> None:
    found, mixup, cutmix = (arrays(**one) for one in ({"mixup": 0.4, "cutmix": 1.0}, {"mixup": 0.4}, {"cutmix": 1.0}))
    cut = found["mixup_weights"] == 1
    assert stats.binomtest(int(cut.sum()), NUM, 0.5).pvalue > LEAST_P
    assert (area(found["cutmix_boxes"])[~cut] == 0).all()
    np.testing.assert_array_equal(found["cutmix_boxes"][cut], cutmix["cutmix_boxes"][cut])
    np.testing.assert_array_equal(found["target_weights"][cut], cutmix["target_weights"][cut])
    np.testing.assert_array_equal(found["target_weights"][~cut], mixup["mixup_weights"][~cut])
    np.testing.assert_array_equal(found["mixup_weights"][~cut], mixup["mixup_weights"][~cut])


@pytest.mark.parametrize("repeat", [2, 4, 8])
def test_a_batch_holds_each_example_so_many_times_and_an_epoch_of_the_order_each_once(repeat: int) -> None:
    num = BATCH // repeat
    per_epoch = len(EXAMPLES) // num
    found = arrays(2 * per_epoch, repeat=repeat)["examples"]
    assert found.shape == (2 * per_epoch, BATCH) and found.dtype == np.int32
    for i in range(repeat):  # neighbours differ, so that the authors' mixup mixes no image with itself
        np.testing.assert_array_equal(found[:, i * num : (i + 1) * num], found[:, :num])
    for epoch in (found[:per_epoch, :num], found[per_epoch:, :num]):
        assert len(set(epoch.ravel())) == per_epoch * num
    once = arrays(per_epoch // repeat, repeat=1)["examples"]
    np.testing.assert_array_equal(found[: per_epoch // repeat * repeat, :num].ravel()[: once.size], once.ravel())


def test_copies_of_an_example_are_augmented_apart() -> None:
    found = arrays(50, repeat=4, flip=True, crop=2)
    assert any(len(set(flips[::2].tolist())) == 2 for flips in found["flips"])
    assert not np.array_equal(found["crops"][:, :2], found["crops"][:, 2:4])


# --- what backends make of it -------------------------------------------------------------------------------------


def in_jax(dataset: ArrayDataset, step: dict[str, Array]) -> tuple[Array, Array]:
    import jax

    from backends.jax import augment, device

    with jax.enable_x64(True):
        data = device.place(dataset, jax.devices("cpu")[0])
        images, targets = jax.jit(lambda data, step: augment.batch(data, step, 3, np.float64(0.1), np.float64))(
            data, step
        )
        return np.asarray(images), np.asarray(targets)


def in_torch(dataset: ArrayDataset, step: dict[str, Array]) -> tuple[Array, Array]:
    import torch

    from backends.torch import augment, device

    placed = device.place(dataset, torch.device("cpu"))
    arrays = {name: torch.tensor(x) for name, x in step.items()}
    images, targets = augment.batch(placed, arrays, 3, 0.1, torch.float64)
    return images.numpy(), targets.numpy()


def by_hand(dataset: ArrayDataset, step: dict[str, Array]) -> tuple[Array, Array]:
    """Images and targets, example by example and pixel by pixel."""
    pixels = dataset.images[step["examples"]] * (2 / 255) - 1
    own = step["target_weights"] if "target_weights" in step else step["mixup_weights"]
    hard = np.eye(3)[dataset.labels[step["examples"]]] * 0.9 + 0.1 / 3
    images, targets = pixels.copy(), hard.copy()
    weight = step.get("mixup_weights", 1.0)
    top, bottom, left, right = step["cutmix_boxes"].tolist() if "cutmix_boxes" in step else (0, 0, 0, 0)
    for i, partner in enumerate(step["mixup_partners"]):
        images[i] = weight * pixels[i] + (1 - weight) * pixels[partner]
        targets[i] = own * hard[i] + (1 - own) * hard[partner]
        for y in range(top, bottom):
            for x in range(left, right):
                images[i, y, x] = pixels[partner, y, x]
    return images, targets


@pytest.mark.parametrize("backend", [in_jax, in_torch])
@pytest.mark.parametrize(
    "augment",
    [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}, {"mixup": 0.4, "mixup_style": "authors"}],
)
def test_images_and_targets_are_mixed_as_the_plan_says(backend: Any, augment: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (150, SIZE, SIZE, 3), dtype=np.uint8)
    dataset = ArrayDataset(images, generator.integers(0, 3, 150).astype(np.int32), None)
    steps = arrays(6, **augment)
    names = ("examples", "mixup_partners", "mixup_weights", "cutmix_boxes", "target_weights")
    for i in range(6):
        step = {name: steps[name][i] for name in names if name in steps}
        for found, expected in zip(backend(dataset, step), by_hand(dataset, step), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
