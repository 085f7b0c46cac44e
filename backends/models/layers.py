"""Layers that models are put together from: Dense, LayerNorm, and the MLP of two Dense layers."""

from collections.abc import Callable
from math import prod

from backends.arrays import Shape
from backends.models.family import ONES, ZEROS, Init, Layer, Param, lecun

KERNEL_HINT = "the layout of its kernel, or its bias"
NORM_HINT = "epsilon, or the formula of the variance"
DROPOUT_HINT = "the hash, its key, the rate, or the rescaling"


def dense(
    name: str,
    inputs: int,
    outputs: int,
    output: Shape,
    *,
    positions: int = 1,
    copies: Shape = (),
    init: Init | None = None,
    hint: str = KERNEL_HINT,
) -> Layer:
    """A product with a kernel (*copies, inputs, outputs), and a bias, at so many positions of each image.

    Args:   copies: sizes of the axes along which each index has weights of its own.
            init: of the kernel; None: lecun.
    """
    kernel = Param((*copies, inputs, outputs), init or lecun(inputs), decayed=True)
    params = {"kernel": kernel, "bias": Param((*copies, outputs), ZEROS)}
    return Layer(name, output, params, macs=positions * inputs * outputs, kept=positions * inputs, hint=hint)


def layer_norm(name: str, output: Shape) -> Layer:
    """A normalisation over the last axis, with a scale and a bias."""
    params = {"scale": Param(output[-1:], ONES), "bias": Param(output[-1:], ZEROS)}
    return Layer(name, output, params, kept=prod(output), exact=True, hint=NORM_HINT)


def mlp(
    name: str,
    inputs: int,
    hidden: int,
    positions: int,
    shape: Callable[[int], Shape],
    function: str,
    *,
    copies: Shape = (),
    hint: str = KERNEL_HINT,
) -> list[Layer]:
    """Dense, activation, dropout, Dense, dropout, from `inputs` units to `hidden` ones and back.

    Args:   positions: at how many places of each image.    shape: from a number of units to the shape of their output.
            function: the activation.    copies: sizes of the axes along which each index has weights of its own.
    """
    return [
        dense(f"{name}/Dense_0", inputs, hidden, shape(hidden), positions=positions, copies=copies, hint=hint),
        activation(f"{name}/activation", function, shape(hidden)),
        dropout(f"{name}/dropout_0", shape(hidden)),
        dense(f"{name}/Dense_1", hidden, inputs, shape(inputs), positions=positions, copies=copies, hint=hint),
        dropout(f"{name}/dropout_1", shape(inputs)),
    ]


def activation(name: str, function: str, output: Shape) -> Layer:
    """A function of each number alone, whose argument is kept."""
    hint = "another activation function, or the other form of GELU"
    return Layer(name, output, kept=prod(output), kink=function == "relu", hint=hint)


def dropout(name: str, output: Shape) -> Layer:
    """A site of dropout."""
    return Layer(name, output, drops=True, hint=DROPOUT_HINT)


def stochastic_depth(name: str, output: Shape) -> Layer:
    """The end of a residual branch, where the branch of each example is scaled."""
    return Layer(name, output, branch=True, hint="the rates over blocks, or the rescaling")


def addition(name: str, output: Shape) -> Layer:
    """The sum of a residual branch and its skip-connection."""
    return Layer(name, output, hint="the skip-connection")
