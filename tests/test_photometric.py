"""Colour jitter, three-augment, erasing, and what a trial does on the host as a whole."""

import itertools
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import stats

from backends.arrays import Array
from backends.errors import MixlabError
from experiments import streams
from experiments.spec.augmentation import resolve_augment
from experiments.spec.config import AugmentConfig, DataConfig, RandAugmentConfig
from experiments.training import host
from experiments.training.augment import photometric, pillow_forms
from experiments.training.augment.photometric import ERASING_DRAWS, JITTER_DRAWS, THREE_DRAWS
from experiments.training.host import HostAugment

NUM = 10_000
LEAST_P = 1e-3
IMAGE = np.random.default_rng(4).integers(0, 256, (20, 30, 3), dtype=np.uint8)
EVERYTHING = AugmentConfig(
    inception="tf", randaugment=RandAugmentConfig(2, 9.0), color_jitter=0.3, three_augment=True, erasing=0.5
)


def uniforms(name: str, size: int) -> Array:
    return streams.uniforms(11, name, 0, NUM, (size,))


def test_jitter_draws_factors_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float]] = []
    monkeypatch.setattr(pillow_forms, "enhanced", lambda image, what, factor: seen.append((what, factor)) or image)
    for row in uniforms("jitter", JITTER_DRAWS):
        photometric.color_jitter(IMAGE, 0.4, row)
    orders = Counter(tuple(what for what, _ in seen[i : i + 3]) for i in range(0, 3 * NUM, 3))
    assert set(orders) == set(itertools.permutations(("brightness", "contrast", "color")))
    assert stats.chisquare(list(orders.values())).pvalue > LEAST_P
    for what in ("brightness", "contrast", "color"):
        factors = [factor for one, factor in seen if one == what]
        assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > LEAST_P


def test_jitter_is_pillows_enhancements_one_after_the_other() -> None:
    u = np.array([0.0, 0.5, 1.0, 0.9, 0.1, 0.5])  # factors 0.7, 1, 1.3; contrast, colour, brightness
    expected = ImageEnhance.Contrast(Image.fromarray(IMAGE)).enhance(1.0)
    expected = ImageEnhance.Brightness(ImageEnhance.Color(expected).enhance(1.3)).enhance(0.7)
    np.testing.assert_array_equal(photometric.color_jitter(IMAGE, 0.3, u), np.asarray(expected))


def test_three_augment_takes_one_of_three_alike() -> None:
    given = Image.fromarray(IMAGE)
    of = {
        "grey": np.asarray(given.convert("L").convert("RGB")).tobytes(),
        "solarized": np.asarray(ImageOps.solarize(given)).tobytes(),
    }
    names = {value: name for name, value in of.items()}
    found = [photometric.three_augment(IMAGE, row).tobytes() for row in uniforms("three", THREE_DRAWS)[:3000]]
    counts = Counter(names.get(one, "blurred") for one in found)
    assert set(counts) == {"grey", "solarized", "blurred"} and stats.chisquare(list(counts.values())).pvalue > LEAST_P
    blurred = given.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * 0.25))
    np.testing.assert_array_equal(photometric.three_augment(IMAGE, np.array([0.99, 0.25])), np.asarray(blurred))


def box_of(found: Array) -> tuple[int, int, int, int] | None:
    """First and last row and column of a box of 128 in an image of 0; the last ones are in it."""
    rows, columns = np.nonzero(found[..., 0])
    if not len(rows):
        return None
    assert (found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == 128).all()
    assert (found != 0).sum() == 3 * (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_erasing_has_the_distribution_of_its_definition() -> None:
    """On a large square, where sides are nearly those before rounding; what does not fit is drawn again."""
    side, black = 200, np.zeros((200, 200, 3), np.uint8)
    boxes = [box_of(photometric.erasing(black, 0.25, row)) for row in uniforms("erasing", ERASING_DRAWS)]
    erased = [one for one in boxes if one]
    assert stats.binomtest(len(erased), NUM, 0.25).pvalue > LEAST_P
    generator, expected = np.random.default_rng(0), []
    while len(expected) < NUM:
        area, aspect = generator.uniform(0.02, 1 / 3), math.exp(generator.uniform(math.log(0.3), -math.log(0.3)))
        h, w = (round(side * math.sqrt(area * one)) for one in (aspect, 1 / aspect))
        expected += [(h, w)] if h < side and w < side else []
    sides = [(bottom - top + 1, right - left + 1) for top, bottom, left, right in erased]
    for measure in (lambda one: one[0] * one[1], lambda one: math.log(one[0] / one[1])):
        found = stats.ks_2samp([measure(one) for one in sides], [measure(one) for one in expected])
        assert found.pvalue > LEAST_P
    for first, last in ((0, 1), (2, 3)):
        starts = [(one[first] + 0.5) / (side - (one[last] - one[first])) for one in erased]
        assert stats.kstest(starts, "uniform").pvalue > LEAST_P and max(one[last] for one in erased) == side - 1


# --- the host's part of a trial -----------------------------------------------------------------------------------


def prepared(augment: AugmentConfig, size: int = 16, seed: int = 0) -> HostAugment:
    return HostAugment(seed, 8, size, DataConfig(augment=augment))


def images(num: int = 8) -> list[Array]:
    generator = np.random.default_rng(1)
    shapes = generator.integers(5, 60, (num, 2)).tolist()
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in shapes]


@pytest.mark.parametrize(
    "on",
    [
        {"inception": "torchvision"},
        {"randaugment": RandAugmentConfig(1)},
        {"color_jitter": 0.1},
        {"three_augment": True},
        {"erasing": 0.9},
    ],
    ids=lambda on: next(iter(on)),
)
def test_each_part_needs_the_host_and_changes_pixels(on: dict[str, Any]) -> None:
    assert host.needed(AugmentConfig(**on))
    prepare, square = prepared(AugmentConfig(**on)), IMAGE[:16, :16]
    for step in range(3):
        drawn = [prepare.apply(square, prepare.draws(step), row) for row in range(8)]
        assert any(not np.array_equal(one, square) for one in drawn)
        assert len({one.tobytes() for one in drawn}) > 2  # the rows of a batch have draws of their own


def test_what_the_device_does_needs_no_host() -> None:
    assert resolved(2, flip=True, cutmix=1.0).cutmix == 1.0  # of any channels
    assert not host.needed(AugmentConfig(flip=True, crop=2, mixup=0.5, cutmix=1.0, mixup_style="authors", repeat=2))
    prepare = prepared(AugmentConfig(flip=True, crop=2))
    square = IMAGE[:16, :16]
    assert prepare.apply(square, prepare.draws(3), 0) is square


def test_pixels_depend_on_seed_step_and_row_alone_whatever_the_order_and_the_threads() -> None:
    prepare, given = prepared(EVERYTHING), images()
    rows = [(step, row) for step in range(5, 9) for row in range(8)]

    def one(place: tuple[int, int]) -> bytes:
        step, row = place
        return prepare.apply(given[row], prepare.draws(step), row).tobytes()

    expected = [one(place) for place in rows]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, reversed(rows))) == expected[::-1]
    assert len(set(expected)) == len(expected)
    other = prepared(EVERYTHING, seed=1)
    assert other.apply(given[0], other.draws(5), 0).tobytes() != expected[0]


def test_one_part_draws_what_it_does_whichever_others_are_on() -> None:
    alone, all_of_them = prepared(AugmentConfig(inception="tf")).draws(3), prepared(EVERYTHING).draws(3)
    np.testing.assert_array_equal(alone["inception"], all_of_them["inception"])
    assert set(all_of_them) == {"inception", "randaugment", "color_jitter", "three_augment", "erasing"}


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (1, 9, 3), (3, 3, 1)])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_smallest_images_and_grey_ones_go_through_all_parts(shape: tuple[int, int, int], size: int) -> None:
    for style in ("big_vision", "torchvision"):
        for inception in ("tf", "torchvision", None):
            augment = AugmentConfig(
                inception=inception, randaugment=RandAugmentConfig(3, 9.0, style), color_jitter=1.0,
                three_augment=True, erasing=1.0,
            )  # fmt: skip
            prepare, given = prepared(augment, size), shape if inception else (size, size, shape[2])
            image = np.full(given, 77, np.uint8)
            for row in range(8):
                found = prepare.apply(image, prepare.draws(0), row)
                assert found.shape == (size, size, shape[2]) and found.dtype == np.uint8


# --- fields -------------------------------------------------------------------------------------------------------


def resolved(channels: int = 3, **fields: Any) -> AugmentConfig:
    return resolve_augment(AugmentConfig(**fields), (16, channels), 12, "x.yaml")


def test_fields_that_change_nothing_have_their_defaults() -> None:
    plain = AugmentConfig()
    assert resolved(randaugment=RandAugmentConfig(0, 5.0, "torchvision")) == plain
    assert resolved(mixup_style="authors", cutmix=0.0) == plain
    assert resolved(inception_area=0.3) == plain
    assert resolved(inception="tf", inception_area=0.05) == AugmentConfig(inception="tf")
    kept = AugmentConfig(
        mixup=0.1, mixup_style="authors", inception="tf", inception_area=0.08, repeat=3,
        randaugment=RandAugmentConfig(1, 5.0, "torchvision"),
    )  # fmt: skip
    assert resolve_augment(kept, (16, 3), 12, "x.yaml") == kept


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"crop": 2, "inception": "tf"}, ["crop and inception", "remove one"]),
        ({"repeat": 5}, ["repeat: 5 does not divide train.batch_size 12", "take 15 examples"]),
        ({"inception": "tf", "inception_area": 0.0}, ["inception_area", "above 0"]),
        ({"crop": 17}, ["crop: 17", "exceed"]),
        ({"channels": 2, "erasing": 0.1}, ["erasing", "1 channel or 3, got 2"]),
    ],
)
def test_fields_that_do_not_fit_are_named_in_one_sentence(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(MixlabError) as caught:
        resolved(**fields)
    text = str(caught.value)
    assert text.startswith("x.yaml: data.augment.") and "\n" not in text and all(word in text for word in words)
