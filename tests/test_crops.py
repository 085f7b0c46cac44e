"""Inception crops: their boxes against the distribution that their definitions give, their resize against Pillow's."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from backends.errors import MixlabError
from experiments import streams
from experiments.training.augment import crops
from experiments.training.augment.crops import Box
from tests.conftest import base, planned, write_yaml

FIXTURE = Path(__file__).parent / "fixtures/pillow_crop_small.npz"
NUM = 20_000
LEAST_P = 1e-3  # all is seeded: a test fails never or always
LEAST_EXPECTED = 10  # draws in a class of a chi-square test; rarer ones are counted together
AREA = {"tf": 0.05, "torchvision": 0.08}


def drawn(form: str, height: int, width: int, area: float, num: int = NUM) -> list[Box]:
    u = streams.uniforms(7, f"test {form} {height} {width}", 0, num, (crops.num_draws(form),))
    return [crops.box(form, height, width, area, row) for row in u]


def sides_tf(height: int, width: int, area: float) -> Counter[tuple[int, int]]:
    """Probabilities of (h, w) as TensorFlow defines them: aspects on a fine grid, each height with its share."""
    found: Counter[tuple[int, int]] = Counter()
    for aspect in 0.75 + 0.58 * (np.arange(20_000) + 0.5) / 20_000:
        low = round(math.sqrt(area * height * width / aspect))
        fitting = [h for h in range(height + 1) if round(h * aspect) <= width]
        high = min(round(math.sqrt(height * width / aspect)), height, fitting[-1])
        for h in range(min(low, high), high + 1):
            size = (h, round(h * aspect))
            if size[0] * size[1] < area * height * width:  # one pixel more, where it is too small
                size = (h + 1, round((h + 1) * aspect))
            if area * height * width <= size[0] * size[1] and size[0] <= height and size[1] <= width:
                found[size] += 1 / (high - min(low, high) + 1)
    return found


def sides_torchvision(height: int, width: int, area: float) -> Counter[tuple[int, int]]:
    """Probabilities of (h, w) as torchvision defines them: areas and logarithms of aspects on a fine grid."""
    found: Counter[tuple[int, int]] = Counter()
    middle = (np.arange(800) + 0.5) / 800
    aspects = np.exp(np.log(3 / 4) + middle * (np.log(4 / 3) - np.log(3 / 4)))
    for share in area + (1 - area) * middle:
        for aspect in aspects.tolist():
            pixels = share * height * width
            size = (round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect)))
            if 0 < size[0] <= height and 0 < size[1] <= width:
                found[size] += 1 / 800**2
    aspect = min(max(width / height, 3 / 4), 4 / 3)  # the middle, where ten tries do not fit
    middle_part = (min(height, round(width / aspect)), min(width, round(height * aspect)))
    fitting = sum(found.values())
    found = Counter({size: share * (1 - (1 - fitting) ** 10) / fitting for size, share in found.items()})
    found[middle_part] += (1 - fitting) ** 10
    return found


def p_of(observed: Counter[tuple[int, int]], weights: Counter[tuple[int, int]]) -> float:
    """The chi-square test of counts against probabilities; what is rare is one class."""
    assert not set(observed) - set(weights), "what the definition never gives"
    total, num = sum(weights.values()), sum(observed.values())
    expected = {key: num * weight / total for key, weight in weights.items()}
    often = [key for key, count in expected.items() if count >= LEAST_EXPECTED]
    classes = [(observed[key], expected[key]) for key in often]
    rest = (num - sum(one for one, _ in classes), num - sum(one for _, one in classes))
    classes += [rest] if rest[1] > 1 else []
    assert len(often) > 20
    return float(stats.chisquare(*zip(*classes, strict=True), sum_check=False).pvalue)


@pytest.mark.parametrize(
    ("form", "height", "width", "area"),
    [
        ("tf", 24, 32, 0.05),
        ("tf", 30, 17, 0.4),
        ("torchvision", 24, 32, 0.08),
        ("torchvision", 30, 17, 0.4),
    ],
)
def test_sides_of_boxes_have_the_distribution_of_their_definition(
    form: str, height: int, width: int, area: float
) -> None:
    found = Counter((one.height, one.width) for one in drawn(form, height, width, area))
    weights = (sides_tf if form == "tf" else sides_torchvision)(height, width, area)
    assert p_of(found, weights) > LEAST_P


@pytest.mark.parametrize(("form", "last"), [("tf", 0), ("torchvision", 1)])
def test_places_of_boxes_are_uniform_and_those_of_tensorflow_leave_out_the_last(form: str, last: int) -> None:
    boxes = drawn(form, 24, 32, AREA[form])
    for place, side, size in (("top", "height", 24), ("left", "width", 32)):
        rooms = [(getattr(one, place), size - getattr(one, side)) for one in boxes if getattr(one, side) < size]
        assert all(0 <= start < room + last for start, room in rooms)
        assert sum(start == room for start, room in rooms) > 100 * last - 1
        # Whole numbers are spread over their own room by a uniform that is taken from a stream of its own.
        spread = streams.uniforms(8, place, 0, 1, (len(rooms),))[0]
        shares = [(start + u) / (room + last) for (start, room), u in zip(rooms, spread, strict=True)]
        assert stats.kstest(shares, "uniform").pvalue > LEAST_P


def test_aspects_of_tensorflows_boxes_end_where_they_should() -> None:
    aspects = [one.width / one.height for one in drawn("tf", 2000, 2000, 0.05, 4000) if one.height > 500]
    assert 1.325 < max(aspects) < 1.3315 and 0.749 < min(aspects) < 0.755  # a width is rounded by half a pixel


def test_the_area_and_the_aspect_of_torchvisions_boxes_do_not_depend_on_each_other() -> None:
    boxes = [one for one in drawn("torchvision", 400, 400, 0.08, 4000) if one.height * one.width < 0.5 * 400**2]
    areas, aspects = [one.height * one.width for one in boxes], [math.log(one.width / one.height) for one in boxes]
    assert stats.spearmanr(areas, aspects).pvalue > LEAST_P
    assert stats.kstest(aspects, stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3)).cdf).pvalue > LEAST_P


@pytest.mark.parametrize(
    ("form", "height", "width", "expected"),
    [
        ("tf", 1, 100, Box(0, 0, 1, 100)),
        ("tf", 100, 1, Box(0, 0, 100, 1)),
        ("torchvision", 10, 100, Box(0, 43, 10, 13)),
        ("torchvision", 101, 10, Box(44, 0, 13, 10)),
    ],
)
def test_where_no_box_fits_it_is_the_whole_image_or_torchvisions_middle(
    form: str, height: int, width: int, expected: Box
) -> None:
    """At a least share of 0.9 no aspect that is allowed fits."""
    assert set(drawn(form, height, width, 0.9, 20)) == {expected}


@pytest.mark.parametrize("form", ["tf", "torchvision"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (3, 3), (5, 64)])
def test_boxes_of_the_smallest_images_lie_inside(form: str, height: int, width: int) -> None:
    for one in drawn(form, height, width, AREA[form], 200):
        assert 0 <= one.top < one.top + one.height <= height and 0 <= one.left < one.left + one.width <= width


def test_a_crop_is_resized_as_pillow_does_bit_for_bit() -> None:
    with np.load(FIXTURE) as golden:
        for (x0, y0, x1, y1), expected in zip(golden["boxes"].tolist(), golden["outputs"], strict=True):
            part = Box(y0, x0, y1 - y0, x1 - x0)
            np.testing.assert_array_equal(crops.resized(golden["image"], part, 24), expected)
            grey = crops.resized(golden["image"][..., :1], part, 24)
            np.testing.assert_array_equal(grey, expected[..., :1])


def test_who_asks_for_an_inception_crop_where_padding_is_said_is_told_the_field(tmp_path: Path, cache: Path) -> None:
    path = write_yaml(tmp_path / "a.yaml", base=base(data={"augment": {"crop": "inception"}}))
    with pytest.raises(MixlabError, match=r"got 'inception'; an area is cut by data.augment.inception=tf or torch"):
        planned(path, cache)
