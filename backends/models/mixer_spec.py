"""What the spec of a Mixer says, and of every model that is one block with another token mixing: ViT, gMLP, ResMLP.

The options stand once; the config is what YAML may say, and in the spec every size is known.
Source: arXiv 2105.01601, section 2 and Table 1; the options are those of its appendix A and of public code.
"""

from dataclasses import dataclass
from typing import Optional

from backends.models.shared_config import ACTIVATION, BlocksConfig, LayerScaleConfig
from backends.specs import ModelSpec, Rates, option

TOKEN_MIXING = (
    "tied",
    "untied",
    "grouped",
    "grouped_views",
    "attention",
    "gating",
    "linear",
    "pooling",
    "identity",
    "fourier",
    "random",
    "depthwise",
    "shift",
)
CHANNEL_MIXING = ("tied", "untied", "none")
POSITION_EMBEDDING = ("none", "learned", "sincos2d")
NORM = ("layer", "affine", "rms")

SIZES = ("patch_size", "hidden_dim", "num_blocks", "tokens_mlp_dim", "channels_mlp_dim")  # of the paper's table 1


@dataclass(frozen=True)
class SharedOptions(Rates):
    """What a config and a spec have in common. Dropout acts after the activation and the second Dense of each MLP."""

    token_mixing: str | tuple[str, ...] = option("tied", allowed=TOKEN_MIXING)  # of all blocks, or a list, one each
    channel_mixing: str = option("tied", allowed=CHANNEL_MIXING)  # untied: an MLP for each token
    share_blocks: bool = option(False)  # one set of weights for all blocks
    position_embedding: str = option("none", allowed=POSITION_EMBEDDING)  # added behind the stem
    norm_epsilon: float = option(1e-6, low=1e-30, high=1.0)  # added to the variance in each norm
    pre_head_norm: bool = option(True)  # a norm between the last block and the mean over tokens
    norm: str = option("layer", allowed=NORM, before="layer")  # affine: a scale and a bias alone, as in ResMLP
    norm_place: str = option("pre", allowed=("pre", "post"), before="pre")  # post: of the sum with the skip-connection
    share_token_mixing: bool = option(False, before=False)  # one token mixing for all blocks
    share_channel_mixing: bool = option(False, before=False)  # one channel MLP for all blocks
    pool: str = option("mean", allowed=("mean", "cls"), before="mean")  # what enters the head: the mean, a class token
    cls_position: bool = option(True, before=True)  # the class token has a position of its own; big_vision: false
    representation: bool = option(False, before=False)  # a Dense layer and tanh before the head
    stem: str = option("patches", allowed=("patches", "overlap"), before="patches")  # overlap: of 2 P - 1 pixels
    pyramid: tuple[int, ...] = option((), low=0, high=999, before=())  # blocks that halve the grid's side, from 0 on
    init: str = option("mixer", allowed=("mixer", "vit"), before="mixer")  # initial values, as in the code of which


@dataclass(frozen=True)
class MixerOptions(SharedOptions):
    """All options of a spec, those too that a config may leave open."""

    activation: str = option("gelu_tanh", allowed=ACTIVATION)  # of the MLPs; gelu: the exact one
    layer_scale: float = option(0.0, before=0.0)  # first factors of the branches; 0: none
    kernel_size: int = option(3, before=3)  # of `depthwise`: tokens a side


@dataclass(frozen=True)
class MixerConfig(SharedOptions, LayerScaleConfig, BlocksConfig):
    """Sizes that are left out have the paper's ratios D_S = C/2 and D_C = 4C."""

    tokens_mlp_dim: Optional[int] = option(None, low=1)  # D_S; none: half of C
    channels_mlp_dim: Optional[int] = option(None, low=1)  # D_C; none: four times C
    token_groups: Optional[int] = option(None, low=1)  # G, of the grouped forms of token mixing, which need it
    num_heads: Optional[int] = option(None, low=1)  # of attention; none: near C / 64


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
    num_heads: int = option(1, before=1)  # of attention

    @property
    def num_patches(self) -> int:
        """The number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_tokens(self) -> int:
        """S of the first block: the patches, and the class token where there is one."""
        return self.num_patches + (self.pool == "cls")

    @property
    def num_positions(self) -> int:
        """Rows of the position embedding."""
        return self.num_tokens if self.cls_position else self.num_patches

    @property
    def stem_size(self) -> int:
        """Pixels a side of what each token is made from."""
        return self.patch_size if self.stem == "patches" else 2 * self.patch_size - 1

    @property
    def operators(self) -> tuple[str, ...]:
        """The token mixing of each block."""
        own = self.token_mixing
        return (own,) * self.num_blocks if isinstance(own, str) else own

    def mixing_of(self, i: int) -> str:
        """The token mixing of block i."""
        return self.operators[i]

    def tokens_before(self, i: int) -> int:
        """S of what comes into block i; of i = num_blocks, what goes out of the last one."""
        side = (self.image_size // self.patch_size) >> sum(block < i for block in self.pyramid)
        return side * side + (self.pool == "cls")
