"""What the spec of a ConvMixer says.  Source: arXiv 2201.09792."""

from dataclasses import dataclass, field

from backends.models.shared_config import BlocksConfig
from backends.specs import ModelSpec, Rates


@dataclass(frozen=True)
class ConvMixerConfig(Rates, BlocksConfig):
    """Dropout acts on what enters the head."""


@dataclass(frozen=True)
class ConvMixerSpec(ModelSpec):
    """One ConvMixer, every size known."""

    hidden_dim: int  # C
    num_blocks: int
    kernel_size: int  # tokens a side
    activation: str = "gelu"  # behind the stem and each convolution; gelu: the exact one
    family: str = field(default="convmixer", kw_only=True)
