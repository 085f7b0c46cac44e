"""What is done to the pixels of a training image on the host, before the device has them; in whole numbers.

Order: the stored image, an inception crop or else the square of `framing`, RandAugment, three-augment, colour jitter,
erasing. Then, on the device: mirror, padding crop, input permutation, mixup or cutmix. Libraries mirror before
RandAugment. Signs are drawn with 1/2 and places are uniform, so that the distribution is the same, but for ShearY: the
side that it leaves in its place is always the left one of the image before the mirror.
"""

from dataclasses import dataclass
from functools import cached_property

from backends.arrays import Array
from experiments.spec.config import INCEPTION_AREA, AugmentConfig, DataConfig
from experiments.spec.trial import Trial
from experiments.training.augment import crops, photometric, randaugment
from experiments.training.augment.draws import Draws, of_step


def num_draws(augment: AugmentConfig) -> dict[str, int]:
    """How many uniforms each image takes, by purpose; those that are off are left out."""
    sizes = {
        "inception": crops.num_draws(augment.inception) if augment.inception else 0,
        "randaugment": augment.randaugment.num * randaugment.NUM_DRAWS,
        "color_jitter": photometric.JITTER_DRAWS if augment.color_jitter else 0,
        "three_augment": photometric.THREE_DRAWS if augment.three_augment else 0,
        "erasing": photometric.ERASING_DRAWS if augment.erasing else 0,
    }
    return {name: size for name, size in sizes.items() if size}


def needed(augment: AugmentConfig) -> bool:
    """Whether anything is to be done on the host, so that pixels come in the plan wherever they are stored."""
    return augment.on_host


@dataclass(frozen=True)
class HostAugment:
    """A pure function of a stored image and the draws of (seed, step, row): any thread may call it, in any order."""

    seed: int
    batch_size: int
    size: int  # pixels a side of what comes out
    data: DataConfig

    def draws(self, step: int) -> Draws:
        """All draws of a step's batch; the same however a run is cut into chunks."""
        return of_step(self.seed, step, self.batch_size, self._num_draws)

    def apply(self, image: Array, draws: Draws, row: int) -> Array:
        """The image as the device gets it.

        Args:   image: uint8 (h, w, c), c is 1 or 3; for an inception crop as it is stored, else framed already.
                draws: those of the step.    row: its place in the batch.
        Returns: uint8 (size, size, c); the image itself where nothing is to be done.
        """
        augment = self.data.augment
        if augment.inception:
            image = self._cropped(image, draws["inception"][row])
        if augment.randaugment.num:
            image = randaugment.randaugment(image, augment.randaugment, draws["randaugment"][row])
        if augment.three_augment:
            image = photometric.three_augment(image, draws["three_augment"][row])
        if augment.color_jitter:
            image = photometric.color_jitter(image, augment.color_jitter, draws["color_jitter"][row])
        if augment.erasing:
            image = photometric.erasing(image, augment.erasing, draws["erasing"][row])
        return image

    @cached_property
    def _num_draws(self) -> dict[str, int]:
        return num_draws(self.data.augment)

    def _cropped(self, image: Array, u: Array) -> Array:
        augment, (height, width, _) = self.data.augment, image.shape
        assert augment.inception is not None
        least = augment.inception_area or INCEPTION_AREA[augment.inception]
        return crops.resized(image, crops.box(augment.inception, height, width, least, u), self.size)


def of(trial: Trial) -> HostAugment:
    """What a trial does on the host."""
    return HostAugment(trial.seed, trial.train.batch_size, trial.info.image_size, trial.data)
