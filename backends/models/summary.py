"""A model layer by layer: what each gives out for one image, and how many parameters it has."""

import math
from dataclasses import dataclass

from backends.arrays import Shape
from backends.models.folds import layers
from backends.specs import ModelSpec


@dataclass(frozen=True)
class LayerSummary:
    """One row of a model's summary."""

    name: str  # canonical
    shape: Shape  # of its output for one image
    parameters: int  # that are trained; 0: they are another layer's, or a constant


def model_summary(model: ModelSpec) -> list[LayerSummary]:
    """Every layer with parameters, in the order of the forward pass; the parameters sum to folds.count(model).

    Where blocks share their weights, the first has them.
    """
    return [
        LayerSummary(
            layer.name, layer.output, sum(math.prod(param.shape) for param in layer.params.values() if param.trained)
        )
        for layer in layers(model)
        if layer.params or layer.weights
    ]
