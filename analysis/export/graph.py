"""A model as TensorBoard's graph, drawn from its declared layers: no framework runs, and both have the same one.

A layer is a node under its canonical name, so that blocks and mixing MLPs are scopes. It has the shape that it gives
out, its trained parameters and its multiply-accumulates as attributes. Edges follow the order of the forward pass; what
ends a residual branch also goes into the sum behind it, beside what its skip-connection has made of the value that the
branch began with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backends.arrays import Shape
from backends.models import folds
from backends.models.family import Layer
from backends.specs import ModelSpec

if TYPE_CHECKING:
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef

IMAGES = "images"
# Layers that take what another takes that stands before them, and layers that take several: by the last part of names.
BESIDE = {"key": "query", "value": "query", "conv1": "conv_proj"}
JOINED = {"heads": ("query", "key", "value"), "gated": ("dropout_0", "gate")}
SHORTCUT = ("skip", "conv_proj", "gn_proj")  # of a skip-connection that changes the shape


def graph_of(spec: ModelSpec) -> GraphDef:
    """The graph of a model. Shapes are those of a batch, whose size is open."""
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.versions_pb2 import VersionDef

    graph = GraphDef(versions=VersionDef(producer=22))
    size, channels = spec.image_size, spec.image_channels
    _node(graph, IMAGES, "Images", (size, size, channels))
    for layer, inputs in zip(folds.layers(spec), inputs_of(folds.layers(spec)), strict=True):
        node = _node(graph, layer.name, kind(layer), layer.output)
        node.input.extend(inputs)
        parameters = sum(math.prod(param.shape) for param in layer.params.values() if param.trained)
        node.attr["num_parameters"].i = parameters
        node.attr["multiply_accumulates_per_image"].i = layer.macs
        for part, param in layer.params.items():
            _add_shape(node, f"parameter {part}".strip(), param.shape)
        if layer.weights:
            node.attr["weights_of"].s = layer.weights.encode()
    return graph


def inputs_of(layers: tuple[Layer, ...]) -> list[list[str]]:
    """What goes into each layer, by name, the layer before first."""
    found: dict[str, list[str]] = {}
    before = trunk = IMAGES  # trunk: the value that the residual branch which is open began with
    shortcut = branch = block = ""  # what the skip-connection made of it; the end of a branch that is not added yet
    num_sums = 0  # of the block
    for layer in layers:
        num_sums, block = (num_sums if layer.block == block else 0), layer.block
        scope, _, part = layer.name.rpartition("/")
        if branch and part not in SHORTCUT:  # the sum
            found[layer.name] = [branch, shortcut or trunk]
            trunk, shortcut, branch, num_sums = layer.name, "", "", num_sums + 1
        elif branch:
            found[layer.name] = [shortcut or trunk]
        else:
            found[layer.name] = _inside(found, scope, part, before)
        shortcut = layer.name if part in SHORTCUT else shortcut
        branch = layer.name if layer.branch else branch
        is_behind_sum = scope == block and found[layer.name] == [trunk] and num_sums > 0
        if not block or (is_behind_sum and _is_of_trunk(part, num_sums)):
            trunk = layer.name
        before = layer.name
    return list(found.values())


def _inside(found: Mapping[str, list[str]], scope: str, part: str, before: str) -> list[str]:
    """The inputs of a layer that is no sum and no part of a skip-connection's own way."""
    if part in JOINED:
        return [f"{scope}/{one}" for one in JOINED[part]]
    return found.get(f"{scope}/{BESIDE.get(part)}", [before])


def _is_of_trunk(part: str, num_sums: int) -> bool:
    """Whether a layer behind the last of so many sums of a block belongs to it: a norm of its number, or V1's ReLU."""
    return part == "relu" or part.endswith(f"_{num_sums - 1}")


def kind(layer: Layer) -> str:
    """`Dense` of `.../Dense_0`: what TensorBoard colours alike."""
    return re.sub(r"_\d+$", "", layer.name.rpartition("/")[2])


def _node(graph: GraphDef, name: str, op: str, output: Shape) -> NodeDef:
    node = graph.node.add(name=name, op=op)
    _add_shape(node, "_output_shapes", (-1, *output), listed=True)
    return node


def _add_shape(node: NodeDef, name: str, shape: Shape, listed: bool = False) -> None:
    """Args: listed: as TensorFlow writes what a node gives out, which TensorBoard shows along its edges."""
    place = node.attr[name].list.shape.add() if listed else node.attr[name].shape
    for size in shape:
        place.dim.add(size=size)
