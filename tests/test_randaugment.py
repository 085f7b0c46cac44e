"""RandAugment: its operations against slow formulas of their definitions, and which of them come."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from backends.arrays import Array
from experiments import streams
from experiments.spec.config import RandAugmentConfig
from experiments.training.augment import randaugment, tensorflow_forms
from experiments.training.augment.randaugment import NUM_DRAWS, on_line, operations

NUM = 20_000
LEAST_P = 1e-3
PLACE = [0.3, 0.8]
IMAGE = np.random.default_rng(3).integers(0, 256, (11, 14, 3), dtype=np.uint8)
BIG_VISION = {
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
}  # fmt: skip
TORCHVISION = BIG_VISION - {"Invert", "Cutout", "SolarizeAdd"} | {"Identity"}


def apply(name: str, magnitude: float, image: Array = IMAGE, sign: float = 1, style: str = "big_vision") -> Array:
    return operations(style, magnitude)[name](image, sign, PLACE)


def moved(image: Array, source: Callable[[int, int], tuple[float, float]], fill: int) -> Array:
    """Each pixel (x, y) from the nearest one to source(x, y), pixel by pixel."""
    height, width, _ = image.shape
    result = np.full_like(image, fill)
    for y in range(height):
        for x in range(width):
            column, row = (math.floor(abs(one) + 0.5) * (1 if one > 0 else -1) for one in source(x, y))
            if 0 <= row < height and 0 <= column < width:
                result[y, x] = image[row, column]
    return result


def blended(ground: Any, image: Array, factor: float) -> Array:
    first = np.asarray(ground, np.float32)
    return np.clip(first + np.float32(factor) * (image.astype(np.float32) - first), 0, 255).astype(np.uint8)


# --- which operations come ----------------------------------------------------------------------------------------


def test_styles_have_their_operations() -> None:
    assert set(operations("big_vision", 10.0)) == set(operations("fixed", 10.0)) == BIG_VISION
    assert set(operations("torchvision", 10.0)) == TORCHVISION
    assert len(BIG_VISION) == 16 and len(TORCHVISION) == 14


@pytest.mark.parametrize(("style", "num"), [("big_vision", 16), ("torchvision", 14)])
def test_operations_signs_and_places_are_drawn_evenly_and_apart(
    style: str, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float, list[float]]] = []
    names = list(operations(style, 10.0))

    def noting(i: int) -> Any:
        return lambda image, sign, place: seen.append((i, sign, place)) or image

    monkeypatch.setattr(randaugment, "operations", lambda *_: {name: noting(i) for i, name in enumerate(names)})
    config, u = RandAugmentConfig(2, 10.0, style), streams.uniforms(5, style, 0, NUM, (2 * NUM_DRAWS,))
    for row in u:
        randaugment.randaugment(IMAGE, config, row)
    which, signs = np.array([i for i, _, _ in seen]).reshape(NUM, 2), np.array([sign for _, sign, _ in seen])
    pairs = np.bincount(which[:, 0] * num + which[:, 1], minlength=num**2)  # with replacement: all pairs alike
    assert len(pairs) == num**2 and stats.chisquare(pairs).pvalue > LEAST_P
    table = np.array([[np.sum((which.ravel() == i) & (signs == sign)) for sign in (1, -1)] for i in range(num)])
    assert stats.chisquare(table.ravel()).pvalue > LEAST_P
    for places in zip(*(place for _, _, place in seen), strict=True):
        assert stats.kstest(places, "uniform").pvalue > LEAST_P


def test_operations_follow_one_another() -> None:
    names = list(operations("big_vision", 4.0))
    u = np.zeros((2, NUM_DRAWS))
    u[:, 0] = (names.index("TranslateX") + 0.5) / 16, (names.index("Invert") + 0.5) / 16
    found = randaugment.randaugment(IMAGE, RandAugmentConfig(2, 0.4, "big_vision"), u.ravel())
    np.testing.assert_array_equal(found, 255 - apply("TranslateX", 0.4))


# --- big_vision's, against slow formulas --------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0.25, 3.0, 10.0, 15.0])
def test_geometry_of_big_vision_takes_the_nearest_pixel_and_fills_with_128(magnitude: float, sign: int) -> None:
    """In float32, as their kernel has it: of what lies half-way between two pixels, rounding alone decides."""
    turn, f = math.radians(sign * 3 * magnitude), np.float32
    cos, sin = f(math.cos(turn)), f(math.sin(turn))
    x0, y0 = (
        (13 - (math.cos(turn) * 13 - math.sin(turn) * 10)) / 2,
        (10 - (math.sin(turn) * 13 + math.cos(turn) * 10)) / 2,
    )

    def turned(x: int, y: int) -> tuple[float, float]:
        return cos * f(x) - sin * f(y) + f(x0), sin * f(x) + cos * f(y) + f(y0)

    sheared, shifted = f(sign * magnitude / 10 * 0.3), f(sign * magnitude / 10 * 100)
    sources: dict[str, Callable[[int, int], tuple[float, float]]] = {
        "Rotate": turned,
        "ShearX": lambda x, y: (f(x) + sheared * f(y), y),
        "ShearY": lambda x, y: (x, f(y) + sheared * f(x)),
        "TranslateX": lambda x, y: (x + shifted, y),
        "TranslateY": lambda x, y: (x, y + shifted),
    }
    for name, source in sources.items():
        found = apply(name, magnitude, sign=sign)
        np.testing.assert_array_equal(found, moved(IMAGE, source, 128), err_msg=name)


def test_what_lies_just_below_half_way_is_the_nearer_pixel() -> None:
    """0.49999997 and 0.5 are 1 in float32."""
    shift = np.nextafter(np.float32(0.5), np.float32(0))
    found = tensorflow_forms.warp(IMAGE, (1, 0, float(shift), 0, 1, 0))
    np.testing.assert_array_equal(found, moved(IMAGE, lambda x, y: (float(np.float32(x) + shift), y), 128))
    np.testing.assert_array_equal(found[:, 0], IMAGE[:, 0])


@pytest.mark.parametrize("magnitude", [0.0, 5.0, 10.0, 15.0])
def test_enhancements_of_big_vision_cut_fractions_off(magnitude: float) -> None:
    factor = magnitude / 10 * 1.8 + 0.1
    grey = IMAGE.astype(np.float64) @ [0.2989, 0.587, 0.114] / 255 * 255.5
    np.testing.assert_array_equal(apply("Brightness", magnitude), blended(0, IMAGE, factor))
    np.testing.assert_array_equal(apply("Color", magnitude), blended(grey.astype(np.uint8)[..., None], IMAGE, factor))
    smooth = IMAGE.copy()
    for y in range(1, 10):
        for x in range(1, 13):
            around = IMAGE[y - 1 : y + 2, x - 1 : x + 2].astype(int).sum((0, 1))
            smooth[y, x] = (around + 4 * IMAGE[y, x].astype(int)) // 13
    np.testing.assert_array_equal(apply("Sharpness", magnitude), blended(smooth, IMAGE, factor))


def test_contrast_of_big_vision_is_about_the_number_of_pixels_and_fixed_about_the_mean() -> None:
    """Numbers of big_vision's issue 109: reddish and bluish squares at 224 pixels, and a factor of 1.9."""
    tile = np.full((224, 224, 3), (192, 64, 64), np.uint8)
    tile[112:] = 64, 192, 192
    for style, red, blue in (("big_vision", (188, 0, 0), (0, 188, 188)), ("fixed", (249, 6, 6), (6, 249, 249))):
        found = apply("Contrast", 10.0, tile, style=style)
        assert tuple(found[0, 0]) == red and tuple(found[-1, 0]) == blue, style


@pytest.mark.parametrize(("magnitude", "threshold"), [(4.0, 102), (10.0, 0), (15.0, 128), (0.0, 0)])
def test_solarize_of_big_vision_overflows_as_there(magnitude: float, threshold: int) -> None:
    """big_vision's issue 110: at magnitude 10 the threshold is 256, which a uint8 has as 0."""
    expected = np.where(threshold > IMAGE, IMAGE, 255 - IMAGE)
    np.testing.assert_array_equal(apply("Solarize", magnitude), expected)


@pytest.mark.parametrize(
    ("magnitude", "mask"),
    [(0.0, 0x80), (2.5, 0x80), (5.0, 0xC0), (9.0, 0xE0), (10.0, 0xF0), (15.0, 0xFC), (30.0, 0xFF)],
)
def test_posterize_of_big_vision_keeps_upper_bits(magnitude: float, mask: int) -> None:
    np.testing.assert_array_equal(apply("Posterize", magnitude), IMAGE & mask)


def test_other_levels_of_big_vision() -> None:
    np.testing.assert_array_equal(apply("Invert", 3.0), 255 - IMAGE)
    lighter = np.minimum(IMAGE.astype(int) + 110, 255)
    np.testing.assert_array_equal(apply("SolarizeAdd", 10.0), np.where(IMAGE < 128, lighter, IMAGE))
    for channel in range(3):
        levels = IMAGE[..., channel].astype(np.float32)
        scale = np.float32(255) / (levels.max() - levels.min())
        stretched = np.clip(levels * scale + -levels.min() * scale, 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(apply("AutoContrast", 1.0)[..., channel], stretched)
    flat = np.full((4, 4, 3), 7, np.uint8)
    np.testing.assert_array_equal(apply("AutoContrast", 1.0, flat), flat)


def test_equalize_spreads_the_counts_of_levels() -> None:
    image = np.random.default_rng(0).integers(60, 120, (40, 40, 1), dtype=np.uint8)
    counts = np.bincount(image.ravel(), minlength=256)
    step = (image.size - counts[np.nonzero(counts)[0][-1]]) // 255
    below = np.cumsum(counts) - counts
    expected = np.clip((below + step // 2) // step, 0, 255)[image]
    for style in ("big_vision", "torchvision"):
        np.testing.assert_array_equal(apply("Equalize", 1.0, image, style=style), expected)


@pytest.mark.parametrize(("magnitude", "pad"), [(1.0, 4), (0.5, 2), (10.0, 40)])
def test_cutout_fills_a_square_around_a_pixel(magnitude: float, pad: int) -> None:
    row, column = int(0.3 * 11), int(0.8 * 14)
    expected = IMAGE.copy()
    for y in range(11):
        for x in range(14):
            if row - pad <= y < row + pad and column - pad <= x < column + pad:
                expected[y, x] = 128
    np.testing.assert_array_equal(apply("Cutout", magnitude), expected)


# --- torchvision's ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [1.0, 9.0, 12.0, 15.0, 30.0])
def test_operations_of_torchvision_are_those_of_pillow(magnitude: float, sign: int) -> None:
    """With magnitudes of 31 bins; nothing is as in big_vision's but Equalize."""
    given, share = Image.fromarray(IMAGE), magnitude / 30
    factor = float(1 + sign * on_line(0.9, magnitude))
    assert factor == pytest.approx(1 + sign * 0.9 * share, abs=1e-6)
    expected = {
        "Identity": given,
        "Brightness": ImageEnhance.Brightness(given).enhance(factor),
        "Color": ImageEnhance.Color(given).enhance(factor),
        "Contrast": ImageEnhance.Contrast(given).enhance(factor),
        "Sharpness": ImageEnhance.Sharpness(given).enhance(factor),
        "Rotate": given.rotate(sign * on_line(30, magnitude)),
        "AutoContrast": ImageOps.autocontrast(given),
        "Posterize": ImageOps.posterize(given, {1: 8, 9: 7, 12: 6, 15: 6, 30: 4}[int(magnitude)]),
    }
    for name, image in expected.items():
        found = apply(name, magnitude, sign=sign, style="torchvision")
        np.testing.assert_array_equal(found, np.asarray(image), err_msg=name)
    solarized = np.where(255 - 255 * share > IMAGE, IMAGE, 255 - IMAGE)
    np.testing.assert_array_equal(apply("Solarize", magnitude, style="torchvision"), solarized)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [1.0, 9.0, 15.0, 30.0])
def test_geometry_of_torchvision_is_black_outside_and_shifts_by_a_share_of_the_image(
    magnitude: float, sign: int
) -> None:
    share = magnitude / 30
    by_columns, by_rows = (int(sign * 150 / 331 * side * share) for side in (14, 11))
    shear = sign * 0.3 * share
    sources: dict[str, Callable[[int, int], tuple[float, float]]] = {
        "TranslateX": lambda x, y: (x - by_columns, y),
        "TranslateY": lambda x, y: (x, y - by_rows),
        # Pillow's pixels begin at whole numbers: their middles lie half a pixel on.
        "ShearX": lambda x, y: (x + shear * (y + 0.5), y),
        "ShearY": lambda x, y: (x, y + shear * (x + 0.5)),
    }
    for name, source in sources.items():
        found = apply(name, magnitude, sign=sign, style="torchvision")
        np.testing.assert_array_equal(found, moved(IMAGE, source, 0), err_msg=name)


def test_magnitudes_of_torchvision_are_torchs_linspace_and_go_on_between_its_bins() -> None:
    torch = pytest.importorskip("torch")
    for last in (0.3, 0.9, 30.0, 150.0 / 331.0 * 331, 255.0):
        bins = torch.linspace(0.0, last, 31).tolist()
        found = [on_line(last, float(i)) for i in range(31)]
        assert found == pytest.approx(bins, rel=2e-7)
        assert [int(one) for one in found] == [int(one) for one in bins]
    assert on_line(30, 9.5) == 9.5


# --- both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["big_vision", "fixed", "torchvision"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 1), (1, 3, 3), (9, 9, 1)])
def test_operations_take_small_and_grey_images_and_leave_what_they_are_given(
    style: str, shape: tuple[int, int, int]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    for name, operation in operations(style, 10.0).items():
        found = operation(image, -1.0, PLACE)
        assert found.shape == shape and found.dtype == np.uint8, name
        np.testing.assert_array_equal(image, before, err_msg=name)


@pytest.mark.parametrize("piece", [1, 50, 150])
def test_operations_are_the_same_by_bands_of_rows(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: apply(name, 9.0, style="fixed") for name in BIG_VISION}
    monkeypatch.setattr(tensorflow_forms, "PIECE", piece)
    for name, expected in whole.items():
        np.testing.assert_array_equal(apply(name, 9.0, style="fixed"), expected, err_msg=name)


def test_a_grey_image_is_treated_as_a_colour_image_of_grey() -> None:
    grey = IMAGE[..., :1]
    coloured = np.repeat(grey, 3, axis=2)
    for style in ("fixed", "torchvision"):
        for name, operation in operations(style, 7.0).items():
            one, three = operation(grey, 1.0, PLACE), operation(coloured, 1.0, PLACE)
            # TensorFlow's weights of grey add up to 0.9999, and its scale to 255.5 / 255: the mean may be one more.
            near = 1 if style == "fixed" and name in ("Color", "Contrast") else 0
            assert np.abs(one.astype(int) - three).max() <= near, (style, name)


# Of each operation on one image at magnitude 9, as this code gave them; change them only with a definition.
GOLDEN = {
    "big_vision": {
        "AutoContrast": 1650142102,
        "Equalize": 310752135,
        "Invert": 4252452138,
        "Rotate": 693698418,
        "Posterize": 2214618753,
        "Solarize": 2772772993,
        "Color": 3449827748,
        "Contrast": 2035684034,
        "Brightness": 3605329406,
        "Sharpness": 1773526605,
        "ShearX": 3824493999,
        "ShearY": 957168015,
        "TranslateX": 776705679,
        "TranslateY": 776705679,
        "Cutout": 1365800922,
        "SolarizeAdd": 1509194344,
    },
    "torchvision": {
        "Identity": 1650142102,
        "ShearX": 3399366703,
        "ShearY": 2878794997,
        "TranslateX": 1466152285,
        "TranslateY": 1015417116,
        "Rotate": 1696604455,
        "Brightness": 2307093388,
        "Color": 3706801209,
        "Contrast": 4263760295,
        "Sharpness": 2383695991,
        "Posterize": 3938221342,
        "Solarize": 3879588477,
        "AutoContrast": 1650142102,
        "Equalize": 310752135,
    },
}


@pytest.mark.parametrize("style", ["big_vision", "torchvision"])
def test_pixels_stay_what_they_were_to_the_bit(style: str) -> None:
    image = np.random.default_rng(9).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    image[10:20, 5:40] //= 3
    found = {name: zlib.crc32(one(image, -1.0, PLACE).tobytes()) for name, one in operations(style, 9.0).items()}
    assert found == GOLDEN[style]


def test_grey_levels_of_tensorflow_are_exact() -> None:
    levels = np.random.default_rng(2).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    levels[0, 0] = 255
    exact = [[sum(w * int(v) for w, v in zip((2989, 5870, 1140), p, strict=True)) for p in row] for row in levels]
    expected = np.array([[one * 511 // (510 * 10_000) for one in row] for row in exact])
    np.testing.assert_array_equal(tensorflow_forms.grey(levels)[..., 0], expected)
