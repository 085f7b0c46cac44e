"""What declares a model: parameters, layers, and the family that makes a list of layers from a spec.

Everything that is known of a model without running it is a fold over that list; see folds.py.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from backends.arrays import Array, Shape
from backends.specs import ModelSpec

Uniforms = Callable[[str, Shape], Array]  # (name of a parameter, shape) -> float64 in [0, 1), drawn for it

# Standard deviation of a unit normal cut at two sigma, so that the drawn kernels have the variance asked for.
# Source: jax.nn.initializers.lecun_normal, the default of the authors' Dense layers.
TRUNCATED_STD = 0.87962566103423978


class Init(Protocol):
    """How the initial values of a parameter are made."""

    def draw(self, name: str, shape: Shape, uniforms: Uniforms) -> Array:
        """The initial values, float64, of this shape.

        Args: name: the parameter's.    uniforms: see Uniforms.
        """


@dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float

    def draw(self, name: str, shape: Shape, uniforms: Uniforms) -> Array:
        return np.full(shape, self.value)


@dataclass(frozen=True)
class CutNormal:
    """A normal distribution around zero, cut at two sigma."""

    std: float  # before the cut

    def draw(self, name: str, shape: Shape, uniforms: Uniforms) -> Array:
        from scipy.special import ndtr, ndtri  # a fifth of a second that planning does not need

        low, high = ndtr(-2.0), ndtr(2.0)
        return np.asarray(self.std * ndtri(low + (high - low) * uniforms(name, shape)))


@dataclass(frozen=True)
class Normal:
    """A normal distribution around zero."""

    std: float

    def draw(self, name: str, shape: Shape, uniforms: Uniforms) -> Array:
        from scipy.special import ndtri

        return np.asarray(self.std * ndtri(np.maximum(uniforms(name, shape), 2.0**-54)))  # of 0 it is infinite


@dataclass(frozen=True)
class Uniform:
    """A uniform distribution from -limit to limit."""

    limit: float

    def draw(self, name: str, shape: Shape, uniforms: Uniforms) -> Array:
        return self.limit * (2 * uniforms(name, shape) - 1)


@dataclass(frozen=True)
class RandomRows:
    """Rows that sum to 1: the softmax of uniform numbers from 0 to 1.  Source: arXiv 2210.13452, RandFormer."""

    def draw(self, name: str, shape: Shape, uniforms: Uniforms) -> Array:
        exponentials = np.exp(uniforms(name, shape))
        return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


ZEROS, ONES = Constant(0.0), Constant(1.0)


def lecun(fan_in: int) -> CutNormal:
    """A cut normal distribution of variance 1 / fan_in.  Source: jax.nn.initializers.lecun_normal."""
    return CutNormal(math.sqrt(1 / fan_in) / TRUNCATED_STD)


def xavier(fan_in: int, fan_out: int) -> Uniform:
    """A uniform distribution of variance 2 / (fan_in + fan_out).  Source: jax.nn.initializers.xavier_uniform."""
    return Uniform(math.sqrt(6 / (fan_in + fan_out)))


@dataclass(frozen=True)
class Param:
    """One array of weights.

    decayed: weight decay acts on it also where it acts on kernels alone.
    trained: False: a constant that is drawn once; it has no gradient and no slots, and nothing moves it.
    """

    shape: Shape
    init: Init
    decayed: bool = False
    trained: bool = True


@dataclass(frozen=True, eq=False)
class Layer:
    """One operation of the forward pass.

    name: canonical; its parameters are `name/part`, or `name` alone where the part is "". It is also the name of the
        layer's value in the parity ladder.
    """

    name: str
    output: Shape  # of one image's output
    params: Mapping[str, Param] = field(default_factory=dict)
    weights: str = ""  # the layer that holds the parameters which this one uses, where that is another
    macs: int = 0  # of one image: multiply-accumulates in matrix products
    kept: int = 0  # of one image: numbers that are kept for the backward pass
    exact: bool = False  # they are kept in the precision of the parameters
    drops: bool = False  # dropout acts here
    branch: bool = False  # stochastic depth acts here, at the end of a residual branch
    block: str = ""  # the unit that is computed again for its gradient, and over which stochastic depth rises
    kink: bool = False  # its derivative jumps, so that rounding may pass a gradient or not
    hint: str = ""  # what to look at first where two implementations part here

    def param_names(self) -> dict[str, Param]:
        """The layer's own parameters by canonical name."""
        return {"/".join(filter(None, (self.name, part))): param for part, param in self.params.items()}


class Misfit(ValueError):
    """The error that a model cannot begin from another one's weights; its text is one sentence."""


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of a parameter where a model begins from another one's weights; see transfer.py."""

    how: str  # in words
    make: Callable[[Array], Array] = lambda array: array  # from the weights' array, float64


class Family(Protocol):
    """The attributes that a module of backends/models/ has: what is known of models of one kind."""

    Spec: type[ModelSpec]
    Config: type[Any]  # the fields of config.ModelConfig that models of this kind have

    def layers(self, spec: Any) -> Sequence[Layer]:
        """Every layer, in the order of the forward pass."""

    def make(self, config: Any, image_size: int, image_channels: int, num_classes: int) -> ModelSpec:
        """The spec of a config: sizes that it leaves open are filled in."""

    def faults(self, spec: Any, config: Any) -> Iterator[str]:
        """Sentences on what does not fit; each begins with the field."""

    def plain(self, spec: Any) -> ModelSpec:
        """The same model in its plainest words, where several say the same."""

    def shallow(self, spec: Any, num_blocks: int) -> ModelSpec:
        """The model with so many blocks, or with its own where these are fewer."""

    def first_layers(self, spec: Any) -> Mapping[str, int | None]:
        """Parameters that figures draw of a trained model, by name, and which of their copies; None: there is one."""

    def variant_of(self, spec: Any) -> str | None:
        """The published variant that has all sizes of a model; None: none has."""

    def sizes(self, spec: Any) -> str:
        """The sizes in words, for one line."""

    def options(self, spec: Any) -> list[str]:
        """The options in words, those left out that have their usual values."""
