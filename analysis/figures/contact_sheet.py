"""A sheet of the first images of each class, as a trial sees them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backends.arrays import Array

SIDE, GAP, NAME = 64, 4, 160  # pixels: of an image, between images, of the column of names
NUM = 8  # images of a class


def write(path: Path, images: Array, labels: Array, classes: Sequence[str]) -> None:
    """A PNG with a row for each class: its number, name and first NUM images.

    Args: images: uint8 (n, h, w, c).    labels: int32 (n,).
    """
    from PIL import Image, ImageDraw

    step = SIDE + GAP
    sheet = Image.new("RGB", (NAME + NUM * step, max(1, len(classes)) * step + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(classes):
        top = GAP + row * step
        draw.text((GAP, top + SIDE // 2 - 6), f"{row}  {name}"[:28], fill="black")
        for column, index in enumerate(np.flatnonzero(labels == row)[:NUM].tolist()):
            pixels = images[index][..., 0] if images.shape[-1] == 1 else images[index]
            picture = Image.fromarray(np.asarray(pixels)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (NAME + column * step, top))
    sheet.save(path, "PNG")
