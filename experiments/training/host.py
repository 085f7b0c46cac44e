"""What is done to the pixels of a training image on the host, before the device has them; in whole numbers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backends.arrays import Array
from experiments.data import framing
from experiments.spec.config import AugmentConfig, DataConfig
from experiments.spec.trial import Trial
from experiments.training.augment import crops, draws
from experiments.training.augment.draws import Draws
from experiments.training.augment.pillow import from_pillow, to_pillow


def needed(augment: AugmentConfig) -> bool:
    """Whether anything is to be done on the host, so that pixels come in the plan wherever they are stored."""
    return augment.inception is not None


@dataclass(frozen=True)
class HostAugment:
    """A pure function of a stored image and the draws of (seed, step, row): any thread may call it, in any order."""

    seed: int
    batch_size: int
    size: int  # pixels a side of what comes out
    data: DataConfig

    def draws(self, step: int) -> Draws:
        """All draws of a step's batch; the same however a run is cut into chunks."""
        return draws.of_step(self.seed, step, self.batch_size, self._sizes)

    def apply(self, image: Array, of_step: Draws, row: int) -> Array:
        """The image as the device gets it.

        Args:   image: uint8 (h, w, c), as it is stored.    of_step: draws(step).    row: its place in the batch.
        Returns: uint8 (size, size, c).
        """
        augment = self.data.augment
        if augment.inception is None:
            return self._framed(image)
        least = augment.inception_area or crops.AREA[augment.inception]
        part = crops.box(augment.inception, image.shape[0], image.shape[1], least, of_step["inception"][row])
        return crops.resized(image, part, self.size)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """How many uniforms each image takes, by purpose."""
        form = self.data.augment.inception
        return {"inception": crops.num_draws(form)} if form else {}

    def _framed(self, image: Array) -> Array:
        if image.shape[:2] == (self.size, self.size) and self.data.shorter_side is None:
            return image
        return np.ascontiguousarray(from_pillow(framing.frame(to_pillow(image), self.size, self.data)))


def of(trial: Trial) -> HostAugment:
    """What a trial does on the host."""
    return HostAugment(trial.seed, trial.train.batch_size, trial.info.image_size, trial.data)
