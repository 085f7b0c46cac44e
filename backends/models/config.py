"""What YAML may say of a model: the fields of all families together; each family's own are in <family>_spec.py."""

from dataclasses import dataclass, fields
from typing import Any, Optional

from backends.models.convmixer_spec import ConvMixerConfig
from backends.models.metaformer_spec import MetaFormerConfig
from backends.models.mixer_spec import MixerConfig
from backends.models.resnet_spec import ResnetConfig
from backends.models.variants import VARIANTS
from backends.specs import option

FAMILY = ("mixer", "resnet", "metaformer", "convmixer")


@dataclass(frozen=True)
class ModelConfig(ConvMixerConfig, MetaFormerConfig, ResnetConfig, MixerConfig):
    """The model. A field of another family than `family` stays at its default."""

    family: str = option("mixer", allowed=FAMILY)  # mixer: what is one block with some token mixing
    variant: Optional[str] = option(None, allowed=tuple(VARIANTS))  # a published model: the fields that it stands for
    num_classes: Optional[int] = option(None, low=2)  # none: as many as the data has
    patch_size: Optional[int] = option(
        None, low=1
    )  # pixels a side; none: near an eighth of the image's, in a MetaFormer 4


def with_variant(settings: dict[str, Any]) -> dict[str, Any]:
    """Fields of a model with those that its variant stands for; what is set itself wins, unless it is None."""
    stands_for, usual = VARIANTS.get(settings.get("variant") or "", {}), ModelConfig()
    own = {
        name: value
        for name, value in settings.items()
        if value is not None or (name not in stands_for and getattr(usual, name) is None)
    }
    return {**stands_for, **own}


def foreign(config: ModelConfig, own: type) -> list[str]:
    """Fields that are set and that the family does not have.   own: the family's Config."""
    usual = ModelConfig()
    return [name for name in of_others(own) if getattr(config, name) != getattr(usual, name)]


def of_others(own: type) -> list[str]:
    """Fields that other families have, and this one has not.   own: the family's Config."""
    shared = {"family", "variant", "num_classes", "patch_size", *(f.name for f in fields(own))}
    return [f.name for f in fields(ModelConfig) if f.name not in shared]
