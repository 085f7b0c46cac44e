"""A model as TensorBoard's graph, drawn from its declared layers: no framework runs, and both have the same one.

A layer is a node under its canonical name, so that blocks and mixing MLPs are scopes. It has the shape that it gives
out, its parameters and its multiply-accumulates as attributes. Edges follow the order of the forward pass; what ends a
residual branch also goes into the sum behind it, beside the value that the branch began with.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from backends.arrays import Shape
from backends.models import folds
from backends.models.family import Layer
from backends.specs import ModelSpec

if TYPE_CHECKING:
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef

IMAGES = "images"


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
        parameters = sum(math.prod(param.shape) for param in layer.params.values())
        node.attr["num_parameters"].i = parameters
        node.attr["multiply_accumulates_per_image"].i = layer.macs
        for part, param in layer.params.items():
            _add_shape(node, f"parameter {part}".strip(), param.shape)
        if layer.weights:
            node.attr["weights_of"].s = layer.weights.encode()
    return graph


def inputs_of(layers: tuple[Layer, ...]) -> list[list[str]]:
    """What goes into each layer, by name, the layer before first."""
    before = trunk = IMAGES  # trunk: the value that the residual branch which is open began with
    inputs, ends_branch = list[list[str]](), False
    for layer in layers:
        inputs.append([before, trunk] if ends_branch else [before])
        if ends_branch or not layer.block:
            trunk = layer.name
        before, ends_branch = layer.name, layer.branch
    return inputs


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
