"""How the images of an evaluation are prepared: mean, deviation, resize and crop of the recipe that made the weights.

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
    """What the command line says, as text; None: nothing."""

    recipe: str | None = None
    mean: str | None = None
    std: str | None = None
    resize: str | None = None
    crop: str | None = None
    interpolation: str | None = None


@dataclass(frozen=True)
class Recipe:
    """source: where it comes from.   mean, std: of pixels in [0, 1], by channel; None: pixels are scaled to [-1, 1].

    shorter_side: pixels that it is resized to before the middle is cut out; None: images are squashed to the square.
    """

    source: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shorter_side: int | None = None
    interpolation: str = "bilinear"

    def config(self, config: DataConfig) -> DataConfig:
        """The data, framed by this recipe.

        Raises: MixlabError: the data says how it is framed, and so does the recipe.
        """
        if (self.shorter_side, self.interpolation) == (DataConfig.shorter_side, DataConfig.interpolation):
            return config
        if (config.shorter_side, config.interpolation) != (DataConfig.shorter_side, DataConfig.interpolation):
            raise MixlabError(
                "command line: data.shorter_side or data.interpolation came beside a recipe's; give one of them"
            )
        return replace(config, shorter_side=self.shorter_side, interpolation=self.interpolation)

    def line(self, config: DataConfig) -> str:
        """How images are prepared, in words. Args: config: as `config` gives it."""
        square = f"{config.image_size} x {config.image_size}"
        frame = f"squashed to {square} where they are of another size"
        if config.shorter_side:
            frame = f"shorter side to {config.shorter_side}, the middle {square} cut out"
        scale = "scaled to [-1, 1]"
        if self.mean and self.std:
            scale = f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"
        return f"{frame}, {config.interpolation}; {scale} ({self.source})"

    def images(self, pixels: Array) -> "Array | Normalised":
        """Images as a program takes them: as they are where it scales them itself, else when they are asked for."""
        if self.mean is None or self.std is None:
            return pixels
        return Normalised(pixels, np.array(self.mean), np.array(self.std))


@dataclass(frozen=True, eq=False)
class Normalised:
    """uint8 images that are normalised batch by batch, in float64; a program rounds them once to its precision."""

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
    Raises: MixlabError: names the option, what is allowed, and what came.
    """
    size, channels = weights.model.image_size, weights.model.image_channels
    given: Mapping[str, Any] = {}
    source = "as in trials"
    if options.recipe == "timm":
        given, source = _timm(weights, path, options)
    elif options.recipe:
        given, source = PRESETS[options.recipe], options.recipe
    named = [name for name in ("mean", "std", "resize", "crop", "interpolation") if getattr(options, name) is not None]
    source = ", ".join([source, *(f"--{name}" for name in named)]) if options.recipe or not named else "as given"
    mean, std = (_channels(name, getattr(options, name), given.get(name), channels) for name in ("mean", "std"))
    if (mean is None) != (std is None):
        raise MixlabError("command line: --mean and --std go together; give both")
    if std and min(std) <= 0:
        raise MixlabError(f"command line: --std: {_numbers(std)} came; allowed: numbers above 0")
    interpolation = options.interpolation or given.get("interpolation", DataConfig.interpolation)
    if interpolation not in INTERPOLATION:
        raise MixlabError(f"{source}: interpolation {interpolation!r}; {choices(interpolation, INTERPOLATION)}")
    return Recipe(source, mean, std, _shorter_side(options, given.get("crop_pct"), size), interpolation)


def _shorter_side(options: Options, share: float | None, size: int) -> int | None:
    """Raises: MixlabError: --resize and --crop make no square of the model's size."""
    where = "command line: --crop"
    resize = None if options.resize in (None, SQUASH) else _whole("--resize", str(options.resize))
    if options.crop is None:
        if resize is not None and resize < size:
            raise MixlabError(f"command line: --resize: {resize} came, and {size} x {size} pixels are cut out of it")
        if options.resize is not None:
            return resize
        return None if share is None else math.floor(size / share)
    if options.resize == SQUASH:
        raise MixlabError(f"{where}: nothing is cut out of images that are squashed; give one of --crop and --resize")
    crop = _number("--crop", options.crop)
    if crop > 1:
        if crop != size or resize is None:
            raise MixlabError(
                f"{where}: {options.crop} came; allowed: a share of the shorter side such as 0.875, or {size}, the "
                f"pixels that the model takes, beside --resize"
            )
        return resize
    if crop <= 0 or resize not in (None, math.floor(size / crop)):
        raise MixlabError(
            f"{where}: {options.crop} of {options.resize or 'a side'} is not {size} pixels; leave one out"
        )
    return math.floor(size / crop)


def _timm(weights: Weights, path: Path, options: Options) -> tuple[dict[str, Any], str]:
    """What timm wrote: in the metadata of the file, in config.json beside it, or as arguments of its training script.

    Raises: MixlabError: nothing is there, or it leaves out what is needed.
    """
    beside, settings = path.with_name(CONFIG), weights.settings
    try:
        if "pretrained_cfg" in settings:
            found, source = json.loads(settings["pretrained_cfg"]), f"timm, metadata of {path.name}"
        elif beside.is_file():
            found, source = json.loads(beside.read_text("utf-8")), f"timm, {beside.name}"
            found = found.get("pretrained_cfg", found)
        else:
            found, source = dict(settings), f"timm, arguments in {path.name}"
        instead = {"crop_pct": options.crop or options.resize}
        needed = ("mean", "std", "crop_pct", "interpolation")
        missing = [
            name for name in needed if found.get(name) is None and not instead.get(name, getattr(options, name, None))
        ]
    except (ValueError, AttributeError, TypeError) as error:
        raise MixlabError(f"{beside}: it is no configuration of timm ({error}); give --mean, --std, ...") from error
    if missing:
        raise MixlabError(
            f"command line: --recipe timm: neither {path.name} nor a {CONFIG} beside it tells {', '.join(missing)}; "
            f"give them as --mean, --std, --crop and --interpolation, or copy the model's {CONFIG} there"
        )
    if found.get("crop_mode", "center") != "center":
        raise MixlabError(f"{source}: crop_mode {found['crop_mode']!r}; allowed: 'center'; give --resize and --crop")
    size = found.get("input_size")
    if size and list(size) != [weights.model.image_channels, *[weights.model.image_size] * 2]:
        raise MixlabError(f"{source}: it is of images {size}, and the weights take {weights.model.image_size} pixels")
    return found, source


def _channels(name: str, text: str | None, given: Any, channels: int) -> tuple[float, ...] | None:
    """One number a channel; a single one counts for all."""
    values: Sequence[float] | None = given
    if text is not None:
        values = [_number(f"--{name}", part) for part in text.split(",")]
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise MixlabError(
            f"command line: --{name}: {text or _numbers(values)} came, and the weights take {channels} channels; give "
            f"one number for all, or {channels}"
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
