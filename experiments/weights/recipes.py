"""Recipes of how an evaluation prepares images: the mean, deviation, resize and crop that made the weights.

Without a recipe they are prepared as in trials. A recipe is a preset, what timm wrote beside the weights, or numbers;
numbers replace those of the preset one by one.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, choices
from experiments.spec.config import INTERPOLATION, DataConfig
from experiments.weights.weight_files import Weights

SQUASH = "squash"
CONFIG = "config.json"  # where timm writes its recipe beside weights


@dataclass(frozen=True)
class Options:
    """The recipe's options on the command line, as text; None: it is not given."""

    recipe: str | None = None
    mean: str | None = None
    std: str | None = None
    resize: str | None = None
    crop: str | None = None
    interpolation: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    source: where it comes from.   mean, std: of pixels in [0, 1], by channel; None: pixels are scaled to [-1, 1].
    shorter_side: pixels that it is resized to before the middle is cut out; None: images are squashed to the square.
    """

    source: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shorter_side: int | None = None
    interpolation: str = "bilinear"

    def config(self, config: DataConfig) -> DataConfig:
        """The data, framed by this recipe.

        Raises: MixlabError: the data sets its framing, and so does the recipe.
        """
        if (self.shorter_side, self.interpolation) == (DataConfig.shorter_side, DataConfig.interpolation):
            return config
        if (config.shorter_side, config.interpolation) != (DataConfig.shorter_side, DataConfig.interpolation):
            raise MixlabError(
                "command line: both a recipe and data.shorter_side or data.interpolation are given; leave one out"
            )
        return replace(config, shorter_side=self.shorter_side, interpolation=self.interpolation)

    def line(self, config: DataConfig) -> str:
        """A line on how images are prepared. Args: config: as `config` gives it."""
        square = f"{config.image_size} x {config.image_size}"
        frame = f"squashed to {square} where they are of another size"
        if config.shorter_side:
            frame = f"shorter side to {config.shorter_side}, the middle {square} cut out"
        scale = "scaled to [-1, 1]"
        if self.mean and self.std:
            scale = f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"
        return f"{frame}, {config.interpolation}; {scale} ({self.source})"

    def images(self, pixels: Array) -> "Array | Normalised":
        """Images as a program takes them: as they are if it scales them itself, else normalised on demand."""
        if self.mean is None or self.std is None:
            return pixels
        return Normalised(pixels, np.array(self.mean), np.array(self.std))


@dataclass(frozen=True, eq=False)
class Normalised:
    """Images of uint8 that are normalised batch by batch, in float64; a program rounds them once to its precision."""

    pixels: Array
    mean: Array
    std: Array

    def __getitem__(self, rows: Any) -> Array:
        images: Array = self.pixels[rows] / 255
        images -= self.mean
        images /= self.std
        return images


# Of pixels in [0, 1]. Source: timm's constants. It evaluates the Mixers of the paper with those of `inception`;
# `imagenet` is the recipe of torchvision's models: 256, then 224, bilinear.
PRESETS = {
    "inception": {"mean": (0.5,), "std": (0.5,), "crop_pct": 0.875, "interpolation": "bicubic"},
    "imagenet": {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
    },
}
NAMES = (*PRESETS, "timm")


def find(options: Options, weights: Weights, path: Path) -> Recipe:
    """The recipe that is asked for.

    Args:   path: the file of the weights.
    Raises: MixlabError: names the option, what was expected, and what was found.
    """
    size, channels = weights.model.image_size, weights.model.image_channels
    preset: Mapping[str, Any] = {}
    source = "as in trials"
    if options.recipe == "timm":
        preset, source = _timm(weights, path, options)
    elif options.recipe:
        preset, source = PRESETS[options.recipe], options.recipe
    named = [name for name in ("mean", "std", "resize", "crop", "interpolation") if getattr(options, name) is not None]
    source = ", ".join([source, *(f"--{name}" for name in named)]) if options.recipe or not named else "as given"
    mean, std = (_channels(name, getattr(options, name), preset.get(name), channels) for name in ("mean", "std"))
    if (mean is None) != (std is None):
        raise MixlabError("command line: --mean and --std go together; give both")
    if std and min(std) <= 0:
        raise MixlabError(f"command line: --std: expected numbers above 0, got {_numbers(std)}")
    interpolation = options.interpolation or preset.get("interpolation", DataConfig.interpolation)
    if interpolation not in INTERPOLATION:
        raise MixlabError(
            f"{source}: interpolation: expected a kind of it, got {interpolation!r}; "
            f"{choices(interpolation, INTERPOLATION)}"
        )
    return Recipe(source, mean, std, _shorter_side(options, preset.get("crop_pct"), size), interpolation)


def _shorter_side(options: Options, share: float | None, size: int) -> int | None:
    """The side that --resize and --crop ask for. Raises: MixlabError: they make no square of the model's size."""
    where = "command line: --crop"
    resize = None if options.resize in (None, SQUASH) else _whole("--resize", str(options.resize))
    if options.crop is None:
        if resize is not None and resize < size:
            raise MixlabError(
                f"command line: --resize: expected at least {size}, of which {size} x {size} pixels are cut out, got "
                f"{resize}"
            )
        if options.resize is not None:
            return resize
        return None if share is None else math.floor(size / share)
    if options.resize == SQUASH:
        raise MixlabError(f"{where}: nothing is cut out of images that are squashed; give one of --crop and --resize")
    crop = _number("--crop", options.crop)
    if crop > 1:
        if crop != size or resize is None:
            raise MixlabError(
                f"{where}: expected a share of the shorter side such as 0.875, or, beside --resize, {size}, the pixels "
                f"that the model takes, got {options.crop}"
            )
        return resize
    if crop <= 0 or resize not in (None, math.floor(size / crop)):
        raise MixlabError(
            f"{where}: {options.crop} of {options.resize or 'a side'} is not {size} pixels; leave one out"
        )
    return math.floor(size / crop)


def _timm(weights: Weights, path: Path, options: Options) -> tuple[dict[str, Any], str]:
    """The recipe that timm wrote: into the file's metadata, into config.json beside it, or as arguments.

    Raises: MixlabError: nothing is there, or it leaves out what is needed.
    """
    beside, settings = path.with_name(CONFIG), weights.settings
    try:
        if "pretrained_cfg" in settings:
            written, source = json.loads(settings["pretrained_cfg"]), f"timm, metadata of {path.name}"
        elif beside.is_file():
            written, source = json.loads(beside.read_text("utf-8")), f"timm, {beside.name}"
            written = written.get("pretrained_cfg", written)
        else:
            written, source = dict(settings), f"timm, arguments in {path.name}"
        instead = {"crop_pct": options.crop or options.resize}
        needed = ("mean", "std", "crop_pct", "interpolation")
        missing = [
            name for name in needed if written.get(name) is None and not instead.get(name, getattr(options, name, None))
        ]
    except (ValueError, AttributeError, TypeError) as error:
        raise MixlabError(f"{beside}: expected a configuration of timm ({error}); give --mean, --std, ...") from error
    if missing:
        raise MixlabError(
            f"command line: --recipe timm: neither {path.name} nor a {CONFIG} beside it holds {', '.join(missing)}; "
            f"give them as --mean, --std, --crop and --interpolation, or copy the model's {CONFIG} there"
        )
    if (written.get("crop_mode"), written["crop_pct"]) == (SQUASH, 1):
        return {**written, "crop_pct": None}, source
    if written.get("crop_mode", "center") != "center":
        raise MixlabError(
            f"{source}: crop_mode: expected 'center', got {written['crop_mode']!r}; give --resize and --crop"
        )
    size = written.get("input_size")
    if size and list(size) != [weights.model.image_channels, *[weights.model.image_size] * 2]:
        raise MixlabError(
            f"{source}: expected images of {weights.model.image_size} pixels, as the weights take, got {size}"
        )
    return written, source


def _channels(name: str, text: str | None, preset: Any, channels: int) -> tuple[float, ...] | None:
    """A number for each channel; a single one counts for all."""
    values: Sequence[float] | None = preset
    if text is not None:
        values = [_number(f"--{name}", part) for part in text.split(",")]
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise MixlabError(
            f"command line: --{name}: expected one number, or {channels}, as the weights have channels, got "
            f"{text or _numbers(values)}"
        )
    return tuple(map(float, values)) * (channels if len(values) == 1 else 1)


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise MixlabError(f"command line: {option}: expected a number, got {text!r}")
    return number


def _whole(option: str, text: str) -> int:
    number = _number(option, text)
    if number != int(number) or number < 1:
        raise MixlabError(f"command line: {option}: expected a whole number of pixels or {SQUASH!r}, got {text!r}")
    return int(number)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))
