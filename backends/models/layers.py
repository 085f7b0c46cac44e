"""Layers that models are put together from: Dense, norms, and the MLP of two Dense layers."""

from collections.abc import Callable
from math import prod

from backends.arrays import Shape
from backends.models.family import ONES, ZEROS, Constant, Init, Layer, Normal, Param, lecun, xavier

KERNEL_HINT = "the layout of its kernel, or its bias"
NORM_HINT = "epsilon, or the formula of the variance"
VIT_BIAS_STD = 1e-6
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
    bias: Init = ZEROS,
    hint: str = KERNEL_HINT,
) -> Layer:
    """A product with a kernel (*copies, inputs, outputs), and a bias, at so many positions of each image.

    Args:   copies: sizes of the axes along which each index has weights of its own.
            init: of the kernel; None: lecun.    bias: its initial values.
    """
    kernel = Param((*copies, inputs, outputs), init or lecun(inputs), decayed=True)
    params = {"kernel": kernel, "bias": Param((*copies, outputs), bias)}
    return Layer(name, output, params, macs=positions * inputs * outputs, kept=positions * inputs, hint=hint)


def layer_norm(name: str, output: Shape) -> Layer:
    """A normalisation over the last axis, with a scale and a bias."""
    params = {"scale": Param(output[-1:], ONES), "bias": Param(output[-1:], ZEROS)}
    return Layer(name, output, params, kept=prod(output), exact=True, hint=NORM_HINT)


def affine(name: str, output: Shape) -> Layer:
    """A scale and a bias for each channel, without statistics.  Source: ResMLP, arXiv 2105.03404, eq. 1."""
    params = {"scale": Param(output[-1:], ONES), "bias": Param(output[-1:], ZEROS)}
    return Layer(name, output, params, kept=prod(output), exact=True, hint="the scale, or the bias")


def rms_norm(name: str, output: Shape) -> Layer:
    """Division by the root mean square over the last axis, and a scale.  Source: arXiv 1910.07467, eq. 4."""
    params = {"scale": Param(output[-1:], ONES)}
    return Layer(name, output, params, kept=prod(output), exact=True, hint="epsilon, or a mean that is taken off")


def layer_scale(name: str, output: Shape, value: float) -> Layer:
    """A factor for each channel at the end of a branch.  Source: CaiT, arXiv 2103.17239, eq. 4."""
    params = {"scale": Param(output[-1:], Constant(value))}
    return Layer(name, output, params, kept=prod(output), hint="the place of layer scale")


def mlp(
    name: str,
    inputs: int,
    hidden: int,
    positions: int,
    shape: Callable[[int], Shape],
    function: str,
    *,
    outputs: int | None = None,
    copies: Shape = (),
    vit: bool = False,
    hint: str = KERNEL_HINT,
) -> list[Layer]:
    """Dense, activation, dropout, Dense, dropout, from `inputs` units to `hidden` ones and to `outputs`.

    Args:   positions: at how many places of each image.    shape: from a number of units to the shape of their output.
            function: the activation.    outputs: None: as many as inputs.
            copies: sizes of the axes along which each index has weights of its own.
            vit: kernels begin xavier, biases normal.  Source: big_vision, models/vit.py, MlpBlock
    """
    outputs, bias = outputs or inputs, Normal(VIT_BIAS_STD) if vit else ZEROS

    def layer(part: str, ins: int, outs: int) -> Layer:
        init = xavier(ins, outs) if vit else None
        own = f"{name}/{part}"
        return dense(own, ins, outs, shape(outs), positions=positions, copies=copies, init=init, bias=bias, hint=hint)

    return [
        layer("Dense_0", inputs, hidden),
        activation(f"{name}/activation", function, shape(hidden)),
        dropout(f"{name}/dropout_0", shape(hidden)),
        layer("Dense_1", hidden, outputs),
        dropout(f"{name}/dropout_1", shape(outputs)),
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
