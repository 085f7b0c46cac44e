"""Forward passes in Flax, by the names of backends/models/."""

from flax import linen as nn

from backends.jax.models.convmixer import ConvMixer
from backends.jax.models.metaformer import MetaFormer
from backends.jax.models.mixer import MlpMixer
from backends.jax.models.resnet import Resnet
from backends.models import name_of
from backends.specs import ModelSpec

MODELS = {"mixer": MlpMixer, "resnet": Resnet, "metaformer": MetaFormer, "convmixer": ConvMixer}


def make(spec: ModelSpec, remat: bool) -> nn.Module:
    """A module that takes (images, chance, dtype) and gives (logits, features)."""
    return MODELS[name_of(spec)](spec, remat)
