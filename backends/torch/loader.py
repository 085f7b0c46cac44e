"""The loader that PyTorch's tutorials use: a DataLoader with processes, each of which decodes, crops and flips."""

import io
import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from backends.bench import Load, Read, Reads

CROP_TRIES, ASPECT = 10, (3 / 4, 4 / 3)


def open_loader(read: Read, load: Load) -> Reads:
    """See bench.Loaders."""
    numbers = Numbers()
    loader: DataLoader[torch.Tensor] = DataLoader(
        Images(read, load),
        batch_size=load.batch_size,
        sampler=numbers,
        num_workers=load.num_workers,
        persistent_workers=True,
        multiprocessing_context="fork",
    )

    def reads(chosen: Sequence[int]) -> None:
        numbers.chosen = chosen
        for _ in loader:
            pass

    return reads


class Numbers(Sampler[int]):
    """The numbers of the images of one pass, which are other ones in the next pass."""

    chosen: Sequence[int] = ()

    def __iter__(self) -> Iterator[int]:
        return iter(self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)


class Images(Dataset[torch.Tensor]):
    """Images uint8 (size, size, c) as Pillow decodes and resizes them."""

    def __init__(self, read: Read, load: Load):
        self.read, self.load = read, load

    def __getitem__(self, number: int) -> torch.Tensor:
        content, size = self.read(number), (self.load.image_size, self.load.image_size)
        image: Image.Image = (
            Image.open(io.BytesIO(content)) if isinstance(content, bytes) else Image.fromarray(content.squeeze())
        )
        image = image.convert("L" if self.load.channels == 1 else "RGB")
        if self.load.least_area is not None:
            image = image.crop(crop_box(*image.size, self.load.least_area))
        image = image.resize(size, Image.Resampling.BILINEAR)
        if self.load.flip and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image))


def crop_box(width: int, height: int, least_area: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part of an image.

    Source: torchvision's RandomResizedCrop; where no try fits, it takes the middle, here it is the whole image.
    """
    for _ in range(CROP_TRIES):
        area = width * height * random.uniform(least_area, 1.0)
        aspect = math.exp(random.uniform(*map(math.log, ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height
