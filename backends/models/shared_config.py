"""What YAML may say of models of several families; each field stands once."""

from dataclasses import dataclass
from typing import Optional

from backends.specs import option

ACTIVATION = ("gelu_tanh", "gelu", "relu")


@dataclass(frozen=True)
class BlocksConfig:
    """Fields of a Mixer and of a ConvMixer."""

    hidden_dim: Optional[int] = option(None, low=1)  # C; none: 64
    num_blocks: Optional[int] = option(None, low=1, high=1000)  # none: 4
    activation: Optional[str] = option(
        None, allowed=ACTIVATION
    )  # of MLPs, or convolutions; gelu: the exact one; none: gelu_tanh, in a ConvMixer gelu
    kernel_size: Optional[int] = option(
        None, low=1, high=99
    )  # tokens a side, of depthwise an odd number; none: 3, in a ConvMixer 9


@dataclass(frozen=True)
class LayerScaleConfig:
    """The field of a Mixer and of a MetaFormer."""

    layer_scale: Optional[float] = option(
        None, low=0.0, high=10.0
    )  # first factors of the branches, without any at 0; none: 0, in a PoolFormer 1e-5
