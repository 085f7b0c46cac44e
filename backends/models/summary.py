"""A model layer by layer: what each gives out for one image, and how many parameters it has."""

import math
from dataclasses import dataclass

from backends.arrays import Shape
from backends.models import folds
from backends.specs import ModelSpec


@dataclass(frozen=True)
class LayerSummary:
    name: str  # canonical
    shape: Shape  # of its output for one image
    parameters: int  # 0: they are another layer's


def model_summary(model: ModelSpec) -> list[LayerSummary]:
    """Every layer with parameters, in the order of the forward pass; the parameters sum to folds.count(model).

    Where blocks share their weights, the first has them.
    """
    counts: dict[str, int] = {}
    for name, shape in folds.shapes(model).items():
        layer = name.rpartition("/")[0] or name
        counts[layer] = counts.get(layer, 0) + math.prod(shape)
    block = [name.removeprefix("MixerBlock_0/") for name in counts if name.startswith("MixerBlock_0/")]
    before = [name for name in counts if name in ("stem", "position_embedding")]
    after = [name for name in counts if name in ("pre_head_layer_norm", "head")]
    names = [*before, *(f"MixerBlock_{i}/{layer}" for i in range(model.num_blocks) for layer in block), *after]
    return [LayerSummary(name, _output(model, name), counts.get(name, 0)) for name in names]


def _output(model: ModelSpec, name: str) -> Shape:
    tokens, channels = model.num_tokens, model.hidden_dim
    columns = channels * tokens // model.token_rows  # of token mixing, fewer where channels are grouped
    if name == "head":
        return (model.num_classes,)
    inner = {
        "token_mixing/Dense_0": (model.tokens_mlp_dim, columns),
        "token_mixing/Dense_1": (model.token_rows, columns),
        "channel_mixing/Dense_0": (tokens, model.channels_mlp_dim),
    }
    return inner.get(name.partition("/")[2], (tokens, channels))
