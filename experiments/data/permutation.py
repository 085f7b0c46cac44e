"""The permutation of an image's pixels that all images of a trial have in common."""

import numpy as np

from backends.arrays import Array
from experiments.streams import permutations


def pixel_order(permutation: str, image_size: int, patch_size: int, seed: int) -> Array | None:
    """The source of each pixel of the permuted image, row by row: int32 (h*w,); None: images stay as they are.

    "patches" shuffles the order of the patches, and the pixels within each by one permutation shared by all.
    "pixels" shuffles the pixels of the whole image.

    Source: arXiv 2105.01601, section 3.4.
    """
    order: Array
    if permutation == "none":
        return None
    if permutation == "pixels":
        order = permutations(seed, "data/pixels", 0, 1, image_size**2)[0]
        return order
    side = image_size // patch_size
    outer = permutations(seed, "data/patches", 0, 1, side**2)[0]
    inner = permutations(seed, "data/pixels within a patch", 0, 1, patch_size**2)[0]
    grid = np.arange(image_size**2, dtype=np.int32).reshape(side, patch_size, side, patch_size)
    patches = grid.transpose(0, 2, 1, 3).reshape(side**2, patch_size**2)[outer][:, inner]
    order = patches.reshape(side, side, patch_size, patch_size).transpose(0, 2, 1, 3).reshape(-1)
    return order
