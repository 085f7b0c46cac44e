"""Layers of convolutional networks: a convolution, a norm over groups of channels, a ReLU, a max pool.

Images are (h, w, c) and square. The forward functions are in backends/*/convolution.py, under the same names.
"""

from dataclasses import dataclass
from math import prod

from backends.arrays import Shape
from backends.models.family import ONES, ZEROS, Init, Layer, Param, lecun
from backends.specs import ModelSpec

CONVOLUTION_HINT = "the layout of its kernel, its stride, or on which side it pads"
STANDARDISED_HINT = f"{CONVOLUTION_HINT}; or how its kernel is standardised: epsilon, or the formula of the variance"
GROUP_HINT = "which channels are a group, epsilon, or the formula of the variance"
POOL_HINT = "on which side it pads, or with what"


@dataclass(frozen=True)
class Window:
    """A square that moves over an image.

    padding: pixels on each side; None: as XLA's SAME, so many that ceil(side / stride) places come out, and where their
        number is odd one more at the end.
    """

    size: int
    stride: int = 1
    padding: int | None = None

    def pads(self, side: int) -> tuple[int, int]:
        """Pixels in front of a side and behind it.   side: of the image, in pixels."""
        if self.padding is not None:
            return self.padding, self.padding
        total = max((-(-side // self.stride) - 1) * self.stride + self.size - side, 0)
        return total // 2, total - total // 2

    def output(self, side: int) -> int:
        """Places on a side; 0 where the window is larger than the padded image.   side: of the image, in pixels."""
        return max(0, (side + sum(self.pads(side)) - self.size) // self.stride + 1)

    def shape(self, image: Shape, channels: int) -> Shape:
        """The shape of what comes out.   image: (h, w, c) of what comes in."""
        return self.output(image[0]), self.output(image[1]), channels


@dataclass(frozen=True)
class Standardisation:
    """Kernels of mean 0 and variance 1 for each output channel, over (h, w, in); the variance is the biased one.

    Source: Weight Standardization, arXiv 1903.10520.
    """

    epsilon: float
    in_root: bool  # it is added to the variance, not to its root


def image_of(spec: ModelSpec) -> Shape:
    """The shape (h, w, c) of a model's images."""
    return spec.image_size, spec.image_size, spec.image_channels


def convolution(
    name: str,
    window: Window,
    image: Shape,
    channels: int,
    *,
    groups: int = 1,
    bias: bool = True,
    init: Init | None = None,
    hint: str = CONVOLUTION_HINT,
) -> Layer:
    """A convolution, its kernel (h, w, in / groups, out), zeros outside of the image.

    Args:   image: (h, w, c) of what comes in.    channels: that come out.
            groups: of neighbouring channels, each mixed by itself; as many as channels: depthwise.
            init: of the kernel; None: lecun.
    """
    output, inputs = window.shape(image, channels), image[-1] // groups
    fan_in = window.size**2 * inputs
    params = {"kernel": Param((window.size, window.size, inputs, channels), init or lecun(fan_in), decayed=True)}
    if bias:
        params["bias"] = Param((channels,), ZEROS)
    return Layer(name, output, params, macs=prod(output) * fan_in, kept=prod(image), hint=hint)


def group_norm(name: str, output: Shape, *, bias: bool = True, scale: Init = ONES) -> Layer:
    """A normalisation over the image and groups of neighbouring channels, with a scale and, where asked, a bias.

    Source: arXiv 1803.08494.
    """
    params = {"scale": Param(output[-1:], scale)}
    if bias:
        params["bias"] = Param(output[-1:], ZEROS)
    return Layer(name, output, params, kept=prod(output), exact=True, hint=GROUP_HINT)


def relu(name: str, output: Shape) -> Layer:
    """A ReLU, whose gradient is read from its result: the layer that takes the result keeps it."""
    return Layer(name, output, kink=True, hint="another activation function, or its place")


def max_pool(name: str, window: Window, image: Shape) -> Layer:
    """The largest number of each window, nothing outside of the image counted.   image: (h, w, c) of what comes in."""
    output = window.shape(image, image[-1])
    return Layer(name, output, kept=prod(image) + 2 * prod(output), kink=True, hint=POOL_HINT)
