"""What the spec of a MetaFormer says: a model of stages, each narrower in pixels and wider in channels.

Source: PoolFormer, arXiv 2111.11418; the baselines, arXiv 2210.13452; public code of both: timm, models/metaformer.py.
"""

from dataclasses import dataclass, field
from typing import Optional

from backends.models.shared_config import LayerScaleConfig
from backends.specs import ModelSpec, Rates, option

TOKEN_MIXERS = ("pooling", "identity")
METAFORMER = ("poolformer", "baseline")


@dataclass(frozen=True)
class MetaFormerOptions(Rates):
    """What a config and a spec have in common. Dropout acts after the activation and the second Dense of each MLP."""

    metaformer: str = option("poolformer", allowed=METAFORMER)  # the block of which paper: PoolFormer, the baselines
    depths: tuple[int, ...] = option((2, 2, 6, 2), low=1, high=1000)  # blocks of each stage of a MetaFormer
    dims: tuple[int, ...] = option((64, 128, 320, 512), low=1)  # channels of each stage of a MetaFormer
    token_mixers: str | tuple[str, ...] = option("pooling", allowed=TOKEN_MIXERS)  # of all stages, or a list, one each


@dataclass(frozen=True)
class MetaFormerConfig(MetaFormerOptions, LayerScaleConfig):
    """What is left out is as in the public code of the block."""

    scaled_stages: Optional[tuple[int, ...]] = option(
        None, low=0, high=999
    )  # stages of a MetaFormer, from 0 on, whose skip-connections have factors; none: a baseline's from the third on


@dataclass(frozen=True)
class MetaFormerSpec(MetaFormerOptions, ModelSpec):
    """One MetaFormer, every size known. `patch_size` is the stride of its stem."""

    layer_scale: float = 0.0  # first factors of the branches; 0: none
    scaled_stages: tuple[int, ...] = ()
    family: str = field(default="metaformer", kw_only=True)

    @property
    def num_stages(self) -> int:
        """The number of stages."""
        return len(self.depths)

    @property
    def mixers(self) -> tuple[str, ...]:
        """The token mixing of each stage."""
        own = self.token_mixers
        return (own,) * self.num_stages if isinstance(own, str) else own

    @property
    def is_baseline(self) -> bool:
        """Whether the block is that of the baselines."""
        return self.metaformer == "baseline"

    def is_halved(self, stage: int) -> bool:
        """Whether a stage begins with a convolution that halves the image: the first does not.

        Source: timm, models/metaformer.py: nor does one that is as wide as the one before.
        """
        return stage > 0 and self.dims[stage] != self.dims[stage - 1]
