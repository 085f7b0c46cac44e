"""Forward passes in PyTorch, by the names of backends/models/."""

from torch import nn

from backends.models import name_of
from backends.specs import ModelSpec
from backends.torch.models.convmixer import ConvMixer
from backends.torch.models.metaformer import MetaFormer
from backends.torch.models.mixer import MlpMixer
from backends.torch.models.resnet import Resnet

MODELS = {"mixer": MlpMixer, "resnet": Resnet, "metaformer": MetaFormer, "convmixer": ConvMixer}


def make(spec: ModelSpec, remat: bool) -> nn.Module:
    """A module that takes (images, chance, dtype) and gives (logits, features)."""
    return MODELS[name_of(spec)](spec, remat)
