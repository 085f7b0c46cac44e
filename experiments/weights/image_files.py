"""Images that are given as arrays, in a .npy or .npz file; nothing of them is scaled, turned or cut in silence."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, choices
from experiments.weights.weight_files import Weights

ENDINGS = (".npy", ".npz")
IMAGES, LABELS = "images", "labels"  # names in an .npz


@dataclass(frozen=True, eq=False)
class Images:
    """Images for a model.

    pixels: uint8 or float in [-1, 1] (n, h, w, c), or what gives such arrays for rows.   labels: (n,), where there are.
    """

    pixels: Array
    labels: Array | None = None


def read(path: Path, name: str | None = None) -> Images:
    """The images of a file.

    Args:   name: of the array in an .npz; None: `images`, or the only one.
    Raises: MixlabError: names the file, what was expected, and what was found.
    """
    arrays = _arrays(path)
    if isinstance(arrays, np.ndarray):
        if name is not None:
            raise MixlabError(f"{path}: a .npy file holds one array without a name, got --array {name}; leave it out")
        return Images(_checked(path, arrays))
    chosen = name or (IMAGES if IMAGES in arrays or len(arrays) != 1 else next(iter(arrays)))
    if chosen not in arrays:
        raise MixlabError(
            f"{path}: expected an array {chosen!r} in it; name another with --array; {choices(chosen, arrays)}"
        )
    pixels, labels = _checked(path, arrays[chosen]), arrays.get(LABELS)
    is_each = labels is not None and labels.dtype.kind in "iu" and labels.shape == pixels.shape[:1]
    return Images(pixels, labels if is_each else None)


def check_fit(path: Path, images: Images, weights: Weights) -> None:
    """Check that a model takes the images. Raises: MixlabError: they are of another size."""
    model = weights.model
    expected, found = (model.image_size, model.image_size, model.image_channels), images.pixels.shape[1:]
    if found == expected:
        return
    channels_first = found == (model.image_channels, model.image_size, model.image_size)
    hint = "; turn them with transpose(0, 2, 3, 1)" if channels_first else ""
    raise MixlabError(f"{path}: expected images of {_size(expected)}, as the weights take, got {_size(found)}{hint}")


def _arrays(path: Path) -> Array | dict[str, Array]:
    if path.is_dir() or not path.exists():
        near = sorted(other.name for other in path.parent.glob("*") if other.suffix in ENDINGS)
        there = choices(path.name, near) if near else f"{path.parent} holds no arrays"
        raise MixlabError(f"{path}: {'it is a folder' if path.is_dir() else 'there is no such file'}; {there}")
    try:
        content = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        return {name: content[name] for name in content.files}
    except PermissionError as error:
        raise MixlabError(f"{path}: permission to read it is denied") from error
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise MixlabError(
            f"{path}: it cannot be read as {path.suffix} of numbers; it is damaged or something else"
        ) from error


def _checked(path: Path, pixels: Array) -> Array:
    """Images as a program takes them. Raises: MixlabError: they are no images, or not scaled to [-1, 1]."""
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise MixlabError(f"{path}: expected images (number, height, width, channels), got shape {pixels.shape}")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f":
        raise MixlabError(f"{path}: expected pixels of uint8, or floats in [-1, 1], got {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MixlabError(f"{path}: expected finite pixels, got NaN or infinity")
    if low < -1 or high > 1:
        raise MixlabError(
            f"{path}: expected floats in [-1, 1], got {low:g} to {high:g}; scale them, or give pixels as uint8"
        )
    return pixels if pixels.dtype in (np.float32, np.float64) else pixels.astype(np.float32)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
