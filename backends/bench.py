"""Protocols that a backend answers for `mixlab bench`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backends.contract import ArrayDataset
from backends.models.mixer_spec import MixerSpec
from backends.specs import OptimizerSpec, RunSpec


class Measured(Protocol):
    """A model that `mixlab bench` times. Each call ends when the device has done its work."""

    def train(self, num_steps: int) -> None:
        """Run the forward pass, the backward pass and AdamW, `num_steps` times."""

    def predict(self, num_batches: int) -> None:
        """Run the forward pass of one batch, `num_batches` times."""

    def peak_memory_bytes(self) -> int | None:
        """Peak of the device's memory since the process began; None: the memory of the process counts."""


@dataclass(frozen=True)
class PeerInfo:
    """A Mixer of somebody else. Its function is ours if all options but the activation have their defaults."""

    activation: str
    how_to_get: str


class Peers(Protocol):
    """The attributes of the module `backends/<name>/peers.py`."""

    PEERS: Mapping[str, PeerInfo]  # other people's Mixers by name

    def open_peer(
        self, name: str, model: MixerSpec, optimizer: OptimizerSpec, data: ArrayDataset, run: RunSpec, path: Path | None
    ) -> Measured:
        """Open an unmodified peer of the model's sizes, on one batch: all the examples of the data.

        Args:   path: a clone of its repository, if it is no package.
        Raises: MixlabError: it is not there, or has no such model or precision.
        """


class Ceilings(Protocol):
    """The attributes of the module `backends/<name>/ceilings.py`."""

    def product(self, run: RunSpec, size: int) -> Callable[[], None]:
        """A call that multiplies two square matrices of `size` rows."""

    def copy(self, run: RunSpec, num_bytes: int) -> Callable[[], None]:
        """A call that copies an array of so many bytes."""
