"""Inception crops: their boxes against slow references of their definitions, their resize against Pillow's."""

from pathlib import Path

import numpy as np

from experiments.training.augment import crops
from experiments.training.augment.crops import Box

FIXTURE = Path(__file__).parent / "fixtures/pillow_crop_small.npz"


def test_a_crop_is_resized_as_pillow_does_bit_for_bit() -> None:
    with np.load(FIXTURE) as golden:
        for (x0, y0, x1, y1), expected in zip(golden["boxes"].tolist(), golden["outputs"], strict=True):
            found = crops.resized(golden["image"], Box(y0, x0, y1 - y0, x1 - x0), 24)
            np.testing.assert_array_equal(found, expected)
