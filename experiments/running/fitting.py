"""Settings of a trial that change the memory that it needs and nothing that is asked: microbatches, devices, remat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from experiments.spec.trial import Trial


@dataclass(frozen=True)
class Setting:
    """How a trial is cut up. Microbatches are part of its id, the others are not."""

    microbatches: int
    devices: int
    remat: bool
    shares: bool = False  # run.sharded_optimizer, of several devices

    @classmethod
    def of(cls, trial: Trial) -> "Setting":
        """The setting that a trial has."""
        run = trial.run
        return cls(trial.train.microbatches, run.devices, run.remat, run.sharded_optimizer and run.devices > 1)

    @property
    def is_valid(self) -> bool:
        """Whether its microbatches can be dealt out to its devices, and the optimizer's state."""
        return self.microbatches % self.devices == 0 and self.devices >= 1 + self.shares

    def on(self, trial: Trial) -> Trial:
        """The trial in this setting."""
        train = replace(trial.train, microbatches=self.microbatches)
        run = replace(trial.run, devices=self.devices, remat=self.remat, sharded_optimizer=self.shares)
        return replace(trial, train=train, run=run)

    def words(self, trial: Trial) -> str:
        """What is to be set for it: `run.remat=true and train.microbatches=2 (another trial)`."""
        own = Setting.of(trial)
        words = [f"run.devices={self.devices}"] * (self.devices != own.devices)
        words += [f"run.sharded_optimizer={self.shares}".lower()] * (self.shares != own.shares)
        words += [f"run.remat={self.remat}".lower()] * (self.remat != own.remat)
        words += [f"train.microbatches={self.microbatches} (another trial)"] * (self.microbatches != own.microbatches)
        return " and ".join(words)


def microbatches(trial: Trial) -> list[int]:
    """The numbers of microbatches that the batch of a trial can be cut into."""
    batch = trial.train.batch_size
    return [2**i for i in range(batch.bit_length()) if batch % 2**i == 0]


def least_change(trial: Trial, fits: Callable[[Trial], bool], devices: Sequence[int] = ()) -> Setting | None:
    """The smallest change of a trial's setting under which it fits; None: none does, or it fits as it is.

    A change that leaves the trial's id comes first, and last what takes more devices than the trial has.

    Args: devices: numbers of them that may be set, beside the trial's own.
    """
    own = Setting.of(trial)
    parts = [number for number in microbatches(trial) if number >= own.microbatches]
    fewer = [own.devices, *sorted((number for number in devices if number < own.devices), reverse=True)]
    more = sorted(number for number in devices if number > own.devices)
    for group in (fewer, more):
        for cut, number, remat, shares in product(parts, group, sorted({own.remat, True}), sorted({own.shares, True})):
            setting = Setting(cut, number, remat, shares)
            if setting.is_valid and fits(setting.on(trial)):
                return None if setting == own else setting
    return None
