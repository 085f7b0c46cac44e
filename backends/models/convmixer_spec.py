"""What the spec of a ConvMixer says.  Source: arXiv 2201.09792."""

from dataclasses import dataclass, field
from typing import Optional

from backends.models.mixer_spec import ACTIVATION
from backends.specs import ModelSpec, Rates, option


@dataclass(frozen=True)
class ConvMixerConfig(Rates):
    """Dropout acts on what enters the head. What is said of a field is said in MixerConfig."""

    activation: Optional[str] = option(None, allowed=ACTIVATION)
    kernel_size: Optional[int] = option(None, low=1, high=99)
    hidden_dim: Optional[int] = option(None, low=1)
    num_blocks: Optional[int] = option(None, low=1, high=1000)


@dataclass(frozen=True)
class ConvMixerSpec(ModelSpec):
    """One ConvMixer, every size known."""

    hidden_dim: int  # C
    num_blocks: int
    kernel_size: int  # tokens a side
    activation: str = "gelu"  # behind the stem and each convolution; gelu: the exact one
    family: str = field(default="convmixer", kw_only=True)
