"""Splits by class, nested subsets and permutations of pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.arrays import Array
from experiments import data
from experiments.data import drawing
from experiments.data.known import About
from experiments.streams import words
from tests.conftest import fresh_cache
from tests.sources import (
    config,
    describe_and_load,
    parquet_folder,
    png,
    write_parquet,
)

cache = fresh_cache


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a training split alone, of 100, 40 and 10 images; and a cache."""
    folder = tmp_path_factory.mktemp("uneven")
    labels = [0] * 100 + [1] * 40 + [2] * 10
    write_parquet(folder / "set" / "train.parquet", [png(v) for v in range(150)], labels)
    return folder / "set", folder / "cache"


def uneven_splits(uneven: tuple[Path, Path], **fields: Any) -> data.Splits:
    return describe_and_load(config(uneven[0], **fields), uneven[1])[1]


def test_splits_are_disjoint_and_cover_the_source(uneven: tuple[Path, Path]) -> None:
    splits = uneven_splits(uneven)
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [108, 12, 30]
    assert sorted(np.concatenate(parts).tolist()) == list(range(150))
    assert all(part.dtype == np.int32 for part in parts)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.37, 0.5, 1.0])
def test_every_part_holds_the_classes_in_their_shares(uneven: tuple[Path, Path], seed: int, fraction: float) -> None:
    splits = uneven_splits(uneven, fraction=fraction, split_seed=seed)
    for part in (splits.train, splits.validation, splits.test):
        shares = np.array([100, 40, 10]) / 150 * len(part)
        assert np.abs(np.bincount(splits.labels[part], minlength=3) - shares).max() <= 1


def test_the_ten_percent_lies_inside_the_thirty(uneven: tuple[Path, Path]) -> None:
    whole, thirty, ten = (uneven_splits(uneven, fraction=f).train for f in (1.0, 0.3, 0.1))
    assert (len(thirty), len(ten)) == (32, 11)
    assert np.array_equal(whole[:32], thirty) and np.array_equal(thirty[:11], ten)


def test_validation_and_test_do_not_depend_on_the_fraction(uneven: tuple[Path, Path]) -> None:
    whole, tenth = (uneven_splits(uneven, fraction=f) for f in (1.0, 0.1))
    assert np.array_equal(whole.validation, tenth.validation) and np.array_equal(whole.test, tenth.test)


def test_splits_follow_the_split_seed(uneven: tuple[Path, Path]) -> None:
    first, again, second = (uneven_splits(uneven, split_seed=seed) for seed in (0, 0, 1))
    for name in ("train", "validation", "test"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(second, name))


def test_the_smallest_fraction_leaves_one_example(uneven: tuple[Path, Path]) -> None:
    assert len(uneven_splits(uneven, fraction=1e-6).train) == 1


def test_validation_may_be_empty(uneven: tuple[Path, Path]) -> None:
    splits = uneven_splits(uneven, validation_fraction=0.0)
    assert len(splits.validation) == 0 and len(splits.train) == 120


def test_a_validation_split_is_tested_on_where_there_is_no_test_split(tmp_path: Path, cache: Path) -> None:
    folder = parquet_folder(tmp_path / "set")
    (folder / "test-00000-of-00001.parquet").rename(folder / "validation-00000-of-00001.parquet")
    info, splits = describe_and_load(config(folder), cache)
    assert info.num_test == 4 and splits.test.tolist() == [20, 21, 22, 23]


# Permutations


def by_definition(labels: Array, draws: Callable[..., Array]) -> Array:
    """The order of training examples as `drawing` says it, with NumPy's sort by several keys."""
    keys, ties = (draws(0, "data/train", row, 1, len(labels))[0] for row in (0, 1))
    by_class = np.lexsort((keys, labels))
    nums = np.bincount(labels)
    rank = np.concatenate([np.arange(num) for num in nums])
    order: Array = by_class[np.lexsort((ties, (rank + 0.5) / np.repeat(nums, nums)))]
    return order


@pytest.mark.parametrize("bits", [64, 7, 0], ids=lambda bits: f"{bits} bits")
@pytest.mark.parametrize(
    "nums", [[1], [5], [1, 3, 9], [700, 700, 300, 1], [0, 4, 0, 4, 2], list(range(80))], ids=lambda nums: str(nums[:4])
)
def test_examples_are_in_the_order_of_their_definition(
    nums: list[int], bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where words are equal, by their upper bits or as a whole."""

    def draws(*args: Any) -> Array:
        return words(*args) >> np.uint64(64 - bits) if bits else np.zeros_like(words(*args))

    monkeypatch.setattr(drawing, "words", draws)
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(nums), dtype=np.int32), nums))
    about = About("", len(labels), 1, len(nums), 8, 1)
    train, *_ = drawing.split(config("any", validation_fraction=0.0), about, np.append(labels, np.int32(0)), "here")
    assert train.dtype == np.int32
    np.testing.assert_array_equal(train, by_definition(labels, draws))


def test_no_permutation_is_none() -> None:
    assert data.pixel_order("none", 8, 4, 0) is None


def ordered(permutation: str, patch_size: int, seed: int) -> Array:
    order = data.pixel_order(permutation, 12, patch_size, seed)
    assert order is not None and order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(144))
    assert order.tolist() != list(range(144))
    return order


@pytest.mark.parametrize("patch_size", [2, 3, 4, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_patches_move_whole_and_are_shuffled_alike_inside(patch_size: int, seed: int) -> None:
    side = 12 // patch_size
    order = ordered("patches", patch_size, seed).reshape(side, patch_size, side, patch_size).transpose(0, 2, 1, 3)
    rows, columns = np.divmod(order.reshape(side**2, patch_size**2), 12)
    patch = rows // patch_size * side + columns // patch_size
    within = rows % patch_size * patch_size + columns % patch_size
    assert (patch == patch[:, :1]).all() and sorted(patch[:, 0].tolist()) == list(range(side**2))
    assert (within == within[:1]).all()


def test_patches_are_shuffled_both_outside_and_inside() -> None:
    order = ordered("patches", 4, 0)
    corners, first = order.reshape(12, 12)[::4, ::4].ravel(), order.reshape(12, 12)[:4, :4].ravel()
    assert (corners // 48 * 3 + corners % 12 // 4).tolist() != list(range(9))
    assert (first // 12 % 4 * 4 + first % 12 % 4).tolist() != list(range(16))


def test_pixels_leave_their_patches_and_follow_the_seed() -> None:
    order = ordered("pixels", 4, 0)
    patches = {(int(source) // 12 // 4, int(source) % 12 // 4) for source in order[:4]}
    assert len(patches) > 1
    assert np.array_equal(order, ordered("pixels", 6, 0)) and not np.array_equal(order, ordered("pixels", 4, 1))
