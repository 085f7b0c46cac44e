"""A model with its weights as an ONNX graph: images of uint8 in, logits in float32 out."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backends.arrays import Array
from backends.errors import MixlabError
from backends.graphs import IMAGES, LOGITS
from backends.models.folds import spread
from backends.specs import ModelSpec
from backends.torch.augment import scale
from backends.torch.layers import Chance
from backends.torch.models import make

MOST_BYTES = 2**31 - 2**20  # of weights: a file of ONNX is a message of protobuf, which ends at 2 GiB
BATCH = "batch"  # the name of the axis that may have any length
EXAMPLES = 3  # of the traced call: with 0 or 1 the length would become a constant


def write_graph(
    model: ModelSpec, params: Mapping[str, Array], pixel_order: Array | None, about: Mapping[str, str]
) -> bytes:
    """See graphs.Graphs."""
    num_bytes = 4 * sum(array.size for array in params.values())
    if num_bytes > MOST_BYTES:
        raise MixlabError(
            f"--to onnx: a file of ONNX holds at most 2 GiB, and the weights of this model take "
            f"{num_bytes / 2**30:.1f} GiB; export it with --to hf"
        )
    module = Predictor(model, params, pixel_order).eval()
    images = torch.zeros((EXAMPLES, model.image_size, model.image_size, model.image_channels), dtype=torch.uint8)
    with torch.no_grad(), _quiet():
        program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim(BATCH)},))
        made = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=[IMAGES],
            output_names=[LOGITS],
            external_data=False,
            verbose=False,
        )
    assert made is not None
    return _content(made.model_proto, about)


class Predictor(nn.Module):
    """What a program's `predict` computes in float32, with the weights as constants: uint8 (b, h, w, c) -> (b, k)."""

    pixel_order: Tensor | None

    def __init__(self, model: ModelSpec, params: Mapping[str, Array], pixel_order: Array | None):
        super().__init__()
        self.spec = model
        with torch.device("meta"):
            self.model = make(model.structure(), remat=False)
        for name, array in spread(model, params).items():
            parent, _, part = name.replace("/", ".").rpartition(".")
            values = nn.Parameter(torch.tensor(array, dtype=torch.float32), requires_grad=False)
            setattr(self.model.get_submodule(parent), part, values)
        order = None if pixel_order is None else torch.tensor(pixel_order).long()
        self.register_buffer("pixel_order", order)

    def forward(self, images_bhwc: Tensor) -> Tensor:
        side, channels = self.spec.image_size, self.spec.image_channels
        pixels = images_bhwc.reshape(-1, side * side, channels)
        if self.pixel_order is not None:
            pixels = pixels.index_select(1, self.pixel_order)
        images_bhwc = scale(pixels, torch.float32).reshape(-1, side, side, channels)
        logits_bk: Tensor = self.model(images_bhwc, Chance(), torch.float32)[0]
        return logits_bk


def _content(proto: Any, about: Mapping[str, str]) -> bytes:
    """The bytes of a file. What the exporter notes of its own work, such as lines of this code, is left out."""
    graph = proto.graph
    del graph.value_info[:]  # the shapes between input and output, which a reader infers
    for noted in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for name, text in about.items():
        proto.metadata_props.add(key=name, value=text)
    return bytes(proto.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says of packages that Mixlab does not use, and of its own future."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        log.setLevel(level)
