"""What the spec of a ResNet says: BiT's, with norms over groups of channels and standardised kernels, V1 and V2.

There is no batch norm: a network's output for one image does not depend on the others of its batch.
Source: google-research/big_vision, models/bit.py (V1) and models/bit_paper.py (V2); arXiv 1912.11370.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from backends.models.convolution import Standardisation, Window
from backends.specs import BranchRates, ModelSpec, option

VERSION = ("v1", "v2")
ROOT = ("imagenet", "cifar")
UNIT = ("bottleneck", "basic")

# The kind of units, and their number in each stage.
# Source: big_vision, models/bit.py; arXiv 1512.03385, table 1 (18, 34) and section 4.2 (three stages, for CIFAR).
DEPTHS: Mapping[int, tuple[str, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    20: ("basic", (3, 3, 3)),
    26: ("bottleneck", (2, 2, 2, 2)),
    32: ("basic", (5, 5, 5)),
    34: ("basic", (3, 4, 6, 3)),
    44: ("basic", (7, 7, 7)),
    50: ("bottleneck", (3, 4, 6, 3)),
    56: ("basic", (9, 9, 9)),
    101: ("bottleneck", (3, 4, 23, 3)),
    110: ("basic", (18, 18, 18)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
EXPANSION = {"bottleneck": 4, "basic": 1}  # channels that a unit gives out, over those inside

# As V1 and V2 have them in public code, where each is a constant.
STANDARDISATION = {"v1": Standardisation(1e-5, in_root=False), "v2": Standardisation(1e-10, in_root=True)}
NORM_EPSILON = {"v1": 1e-6, "v2": 1e-5}


@dataclass(frozen=True)
class ResnetOptions(BranchRates):
    """What a config and a spec have in common. Stochastic depth acts on each unit."""

    version: str = option("v2", allowed=VERSION)  # v1: norms and ReLU behind convolutions; v2: before them


@dataclass(frozen=True)
class ResnetConfig(ResnetOptions):
    """Sizes that are left out are those of a small ResNet for small images, and of BiT's R50 for others."""

    depth: Optional[int | tuple[int, ...]] = option(None, low=1, high=1000)  # layers, as of 50; a list: units a stage
    width: Optional[int] = option(None, low=1)  # channels of the first stage, doubled in each; 64 is BiT's x1
    root: Optional[str] = option(None, allowed=ROOT)  # 7 x 7 and a max pool, or 3 x 3; none: cifar below 64 pixels
    unit: Optional[str] = option(None, allowed=UNIT)  # of a list of depths: 1 x 1, 3 x 3, 1 x 1, or two of 3 x 3
    norm_groups: Optional[int] = option(None, low=1)  # of each norm, they divide the width; none: 32, or a small width


@dataclass(frozen=True)
class ResnetSizes(ModelSpec):
    """The sizes of a ResNet beside those of every model; patches are what data.permutation moves."""

    depth: tuple[int, ...]  # units of each stage
    width: int  # channels of the first stage inside of its units
    root: str
    unit: str
    norm_groups: int


@dataclass(frozen=True)
class Unit:
    """A residual unit: where it stands, and its convolutions."""

    stage: int  # from 1 on
    place: int  # in its stage, from 1 on
    inner: int  # channels between its convolutions
    outputs: int
    windows: tuple[Window, ...]  # of conv1, conv2 and so on
    projection: Window | None  # of the 1 x 1 convolution that brings the skip-connection to the branch's shape

    @property
    def block(self) -> str:
        """`block1`, as public weights call a stage."""
        return f"block{self.stage}"

    @property
    def part(self) -> str:
        """`unit01`, its name below that of the stage."""
        return f"unit{self.place:02}"

    @property
    def name(self) -> str:
        """`block1/unit01`."""
        return f"{self.block}/{self.part}"

    def channels(self, i: int) -> int:
        """Channels that come out of convolution i, counted from 1."""
        return self.outputs if i == len(self.windows) else self.inner


@dataclass(frozen=True)
class ResnetSpec(ResnetOptions, ResnetSizes):
    """One ResNet, every size known."""

    family: str = field(default="resnet", kw_only=True)

    @property
    def by(self) -> Standardisation:
        """How kernels are standardised."""
        return STANDARDISATION[self.version]

    @property
    def norm_epsilon(self) -> float:
        """What is added to the variance in each norm."""
        return NORM_EPSILON[self.version]

    @property
    def is_v1(self) -> bool:
        return self.version == "v1"

    @property
    def root_window(self) -> Window:
        """Of the first convolution."""
        return self._window(7, 2) if self.root == "imagenet" else self._window(3, 1)

    @property
    def pool_window(self) -> Window | None:
        """Of the max pool behind it; None: there is none."""
        return self._window(3, 2) if self.root == "imagenet" else None

    @property
    def stages(self) -> tuple[tuple[Unit, ...], ...]:
        """The residual units of each stage, in their order."""
        return tuple(tuple(self._unit(stage, place) for place in range(num)) for stage, num in enumerate(self.depth))

    @property
    def num_features(self) -> int:
        """Channels that enter the head."""
        return self._outputs(len(self.depth) - 1)

    def _unit(self, stage: int, place: int) -> Unit:
        stride = 2 if stage and not place else 1
        inner, outputs = self.width << stage, self._outputs(stage)
        inputs = outputs if place else self._outputs(stage - 1) if stage else self.width
        small, middle = self._window(1, 1), self._window(3, stride)
        # The stride is that of the first 3 x 3 convolution.
        windows = (small, middle, small) if self.unit == "bottleneck" else (middle, self._window(3, 1))
        projection = self._window(1, stride) if inputs != outputs else None
        return Unit(stage + 1, place + 1, inner, outputs, windows, projection)

    def _outputs(self, stage: int) -> int:
        return (self.width << stage) * EXPANSION[self.unit]

    def _window(self, size: int, stride: int) -> Window:
        """V1 pads as XLA's SAME does; V2 pads both sides alike."""
        return Window(size, stride, None if self.is_v1 else size // 2)
