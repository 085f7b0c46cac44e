"""The layers of a ResNet.

Names are near those of public weights, and one for V1 and V2: `block1/unit01/conv1/kernel`, kernels (h, w, in, out).
Source: google-research/big_vision, models/bit.py (V1) and models/bit_paper.py (V2), the initial values too; the head's
are zero.
"""

from dataclasses import replace
from itertools import chain

from backends.arrays import Shape
from backends.models.convolution import STANDARDISED_HINT, Window, convolution, group_norm, image_of, max_pool, relu
from backends.models.family import ONES, ZEROS, Layer
from backends.models.layers import addition, dense, stochastic_depth
from backends.models.resnet_spec import ResnetSpec, Unit

PROJECTION_HINT = f"{STANDARDISED_HINT}; or what it projects"


def layers(spec: ResnetSpec) -> list[Layer]:
    """Every layer, in the order of the forward pass."""
    declared = _root(spec)
    for unit in chain(*spec.stages):
        declared += [replace(layer, block=unit.name) for layer in _unit(spec, unit, declared[-1].output)]
    if not spec.is_v1:
        declared += _norm("pre_head_group_norm", declared[-1].output, relu_name="pre_head_relu")
    return [
        *declared,
        Layer("features", (spec.num_features,), hint="the mean over the image"),
        dense("head", spec.num_features, spec.num_classes, (spec.num_classes,), init=ZEROS),
    ]


def _root(spec: ResnetSpec) -> list[Layer]:
    """The first convolution; V1 has a norm and a ReLU behind it. For larger images a max pool follows."""
    declared = [_convolution("conv_root", spec.root_window, image_of(spec), spec.width)]
    if spec.is_v1:
        declared += _norm("gn_root", declared[-1].output, relu_name="relu_root")
    if spec.pool_window is not None:
        declared.append(max_pool("pool_root", spec.pool_window, declared[-1].output))
    return declared


def _unit(spec: ResnetSpec, unit: Unit, image: Shape) -> list[Layer]:
    """The layers of a unit.   image: the shape of what comes in."""
    name = unit.name
    branch = (_branch_v1 if spec.is_v1 else _branch_v2)(unit, image)
    output = branch[-1].output
    declared = [*branch, stochastic_depth(f"{name}/stochastic_depth", output)]
    if not spec.is_v1:
        return [*declared, addition(f"{name}/sum", output)]
    if unit.projection is not None:
        declared += [_projection(unit, unit.projection, image), group_norm(f"{name}/gn_proj", output)]
    return [*declared, addition(f"{name}/sum", output), relu(f"{name}/relu", output)]


def _branch_v1(unit: Unit, image: Shape) -> list[Layer]:
    """Convolution, norm and ReLU, but for the last ReLU; the last norm begins with a scale of zero."""
    declared: list[Layer] = []
    for i, window in enumerate(unit.windows, 1):
        declared.append(_convolution(f"{unit.name}/conv{i}", window, image, unit.channels(i)))
        image, norm = declared[-1].output, f"{unit.name}/gn{i}"
        is_last = i == len(unit.windows)
        declared += [group_norm(norm, image, scale=ZEROS)] if is_last else _norm(norm, image, f"{unit.name}/relu{i}")
    return declared


def _branch_v2(unit: Unit, image: Shape) -> list[Layer]:
    """Norm, ReLU and convolution; the skip-connection is projected from the first ReLU's result."""
    declared: list[Layer] = []
    for i, window in enumerate(unit.windows, 1):
        declared += _norm(f"{unit.name}/gn{i}", image, f"{unit.name}/relu{i}")
        if i == 1 and unit.projection is not None:
            declared.append(_projection(unit, unit.projection, image))
        declared.append(_convolution(f"{unit.name}/conv{i}", window, image, unit.channels(i)))
        image = declared[-1].output
    return declared


def _norm(name: str, output: Shape, relu_name: str) -> list[Layer]:
    return [group_norm(name, output, scale=ONES), relu(relu_name, output)]


def _projection(unit: Unit, window: Window, image: Shape) -> Layer:
    projected = _convolution(f"{unit.name}/conv_proj", window, image, unit.outputs)
    return replace(projected, hint=PROJECTION_HINT)


def _convolution(name: str, window: Window, image: Shape, channels: int) -> Layer:
    return convolution(name, window, image, channels, bias=False, hint=STANDARDISED_HINT)
