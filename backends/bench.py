"""Protocols of what a backend offers to `mixlab bench` and `mixlab doctor`: peers, loaders, ceilings, devices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from backends.arrays import Array
from backends.contract import ArrayDataset
from backends.models.mixer_spec import MixerSpec
from backends.specs import OptimizerSpec, RunSpec


class Measured(Protocol):
    """A model that `mixlab bench` times. Each call ends when the device has done its work."""

    def train(self, num_steps: int) -> None:
        """Take so many steps on its one batch: forward pass, backward pass and AdamW."""

    def predict(self, num_batches: int) -> None:
        """Run the forward pass of its one batch so many times."""

    def peak_memory_bytes(self) -> int | None:
        """Peak of the device's memory in bytes; None on a CPU, where the peak of the process is what counts."""


@dataclass(frozen=True)
class PeerInfo:
    """Somebody else's model, which computes what ours does with its activation, its options, and else the defaults."""

    activation: str  # a value of model.activation
    how_to_get: str  # a command
    options: Mapping[str, object] = field(default_factory=dict)  # fields of the model that its own differ in


VIT = {"token_mixing": "attention", "position_embedding": "learned"}  # of a ViT that takes the mean over tokens


class Peers(Protocol):
    """The attributes of the module `backends/<name>/peers.py`."""

    PEERS: Mapping[str, PeerInfo]  # other people's models by name

    def open_peer(
        self, name: str, model: MixerSpec, optimizer: OptimizerSpec, data: ArrayDataset, run: RunSpec, path: Path | None
    ) -> Measured:
        """A peer as its authors wrote it, of the model's sizes, on one batch: all the examples of the data.

        Args:   path: a clone of its repository, where it is no package.
        Raises: MixlabError: the peer is not installed, or has no such model or precision.
        """


Read = Callable[[int], "bytes | Array"]  # an image by its number: a file's bytes, or pixels uint8 (h, w, c)
Reads = Callable[[Sequence[int]], None]  # makes the batches of the images of these numbers, and drops them


@dataclass(frozen=True)
class Load:
    """What a loader of images does.  least_area: of a random crop, as a share of the image; None: no crop."""

    image_size: int
    channels: int
    least_area: float | None
    flip: bool
    batch_size: int
    num_workers: int


class Loaders(Protocol):
    """The attributes of the module `backends/<name>/loader.py`, where there is one."""

    def open_loader(self, read: Read, load: Load) -> Reads:
        """The framework's own loader of images, by Pillow, with processes that last from one call to the next."""


class Ceilings(Protocol):
    """The attributes of the module `backends/<name>/ceilings.py`."""

    def product(self, run: RunSpec, size: int) -> Callable[[], None]:
        """A function that multiplies two square matrices of `size` rows, and returns when the device is done."""

    def copy(self, run: RunSpec, num_bytes: int) -> Callable[[], None]:
        """A function that copies an array of so many bytes, and returns when the device is done."""


@dataclass(frozen=True)
class DeviceSeen:
    """A device: its name by its maker, and its memory in bytes, as far as this process may use it; None on a CPU."""

    kind: str
    free_bytes: int | None = None
    total_bytes: int | None = None


class Devices(Protocol):
    """The attributes of the module `backends/<name>/devices.py`."""

    def versions(self) -> dict[str, str]:
        """Versions of the framework and of what it computes with on a device, by name."""

    def seen(self, run: RunSpec) -> list[DeviceSeen]:
        """The run's device, then the others of its kind.  Raises: MixlabError: it is not there."""

    def reason(self, run: RunSpec) -> str:
        """Why the run's device is not there, and a command where one brings it; empty where nothing is known."""
