"""What a Mixer's spec says: its options, stated once, what YAML may say, and the spec with every size known.

Source: arXiv 2105.01601, section 2 and Table 1; the options are those of its appendix A and of public code.
"""

from dataclasses import dataclass
from typing import Optional

from backends.specs import ModelSpec, Rates, option

TOKEN_MIXING = ("tied", "untied", "grouped", "grouped_views", "pooling", "identity")
CHANNEL_MIXING = ("tied", "untied")
POSITION_EMBEDDING = ("none", "learned")
ACTIVATION = ("gelu_tanh", "gelu", "relu")

# What a variant decides, and its numbers: (patch size, C, blocks, D_S, D_C).  Source: arXiv 2105.01601, Table 1.
SIZES = ("patch_size", "hidden_dim", "num_blocks", "tokens_mlp_dim", "channels_mlp_dim")
VARIANTS = {
    "S/32": (32, 512, 8, 256, 2048),
    "S/16": (16, 512, 8, 256, 2048),
    "B/32": (32, 768, 12, 384, 3072),
    "B/16": (16, 768, 12, 384, 3072),
    "L/32": (32, 1024, 24, 512, 4096),
    "L/16": (16, 1024, 24, 512, 4096),
    "H/14": (14, 1280, 32, 640, 5120),
}


@dataclass(frozen=True)
class MixerOptions(Rates):
    """What a config and a spec have in common. Dropout acts after the activation and the second Dense of each MLP."""

    token_mixing: str = option("tied", allowed=TOKEN_MIXING)  # what mixes the tokens of a block
    channel_mixing: str = option("tied", allowed=CHANNEL_MIXING)  # untied: an MLP for each token
    share_blocks: bool = option(False)  # one set of weights for all blocks
    position_embedding: str = option("none", allowed=POSITION_EMBEDDING)  # added behind the stem
    activation: str = option("gelu_tanh", allowed=ACTIVATION)  # of both MLPs; gelu: the exact one
    norm_epsilon: float = option(1e-6, low=1e-30, high=1.0)  # added to the variance in each norm
    pre_head_norm: bool = option(True)  # a norm between the last block and the mean over tokens


@dataclass(frozen=True)
class MixerConfig(MixerOptions):
    """The model. Sizes that are left out come from `variant`, else from the paper's ratios D_S = C/2 and D_C = 4C."""

    variant: Optional[str] = option(None, allowed=tuple(VARIANTS))  # sizes of the paper's table 1
    num_classes: Optional[int] = option(None, low=2)  # none: as many as the data has
    patch_size: Optional[int] = option(None, low=1)  # pixels a side; none: near an eighth of the image's side
    hidden_dim: Optional[int] = option(None, low=1)  # C; none: 64
    num_blocks: Optional[int] = option(None, low=1, high=1000)  # none: 4
    tokens_mlp_dim: Optional[int] = option(None, low=1)  # D_S; none: half of C
    channels_mlp_dim: Optional[int] = option(None, low=1)  # D_C; none: four times C
    token_groups: Optional[int] = option(None, low=1)  # G, of the grouped forms of token mixing, which need it


@dataclass(frozen=True)
class MixerSizes(ModelSpec):
    """The sizes of a Mixer beside those of every model."""

    hidden_dim: int  # C
    num_blocks: int
    tokens_mlp_dim: int  # D_S
    channels_mlp_dim: int  # D_C


@dataclass(frozen=True)
class MixerSpec(MixerOptions, MixerSizes):
    """One MLP-Mixer, every size known."""

    token_groups: int = 1  # G, of the two grouped forms

    @property
    def num_tokens(self) -> int:
        """S, the number of patches."""
        return (self.image_size // self.patch_size) ** 2
