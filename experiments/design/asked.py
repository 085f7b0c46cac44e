"""The values of fields at a point of a grid: what the ablation says itself, or what that leads to."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from backends.models import FAMILIES
from backends.models.config import ModelConfig
from backends.models.mixer_spec import MixerOptions
from backends.models.variants import VARIANTS
from backends.specs import ModelSpec
from experiments.design import names
from experiments.design.axes import Point
from experiments.design.base import laid_over
from experiments.spec import fields
from experiments.spec.config import TrialConfig

VARIANT = "model.variant"
# Options of a block that are null where they are left out, as each family has a usual value of its own.
BY_FAMILY = tuple(name for name in vars(MixerOptions()) if getattr(ModelConfig(), name) is None)
IMAGES = (224, 3, 1000)  # side, channels, classes: some, on which no value of BY_FAMILY depends


def asked(name: str, point: Point, base: Mapping[str, Any]) -> Any:
    """The value of a field at a point of the grid: its own, that of its variant, the base's, else the default.

    An axis of mappings that the point is not of has none.
    """
    if name in point or name.startswith(names.AXIS):
        return point.get(name)
    section, _, field = name.partition(".")
    variants = [settings.get(VARIANT) for settings in (point, base) if VARIANT in settings]
    stands_for = VARIANTS.get(variants[0] or "", {}) if variants and section == "model" else {}
    if field in stands_for and (VARIANT in point or base.get(name) is None):
        return stands_for[field]
    value = default(name, base)
    if value is None and section == "model" and field in BY_FAMILY:
        settings = laid_over(dict(base), names.settings(point))
        return getattr(_spec(fields.set_fields(TrialConfig(), settings).model), field, None)
    return value


def default(name: str, base: Mapping[str, Any]) -> Any:
    """The value of a field that the grid does not set: the base's, else the default."""
    usual = fields.get_field(TrialConfig(), name)
    return usual if base.get(name) is None else base[name]


@lru_cache(maxsize=1024)
def _spec(model: ModelConfig) -> ModelSpec:
    """What the family makes of a model, on some images."""
    return FAMILIES[model.family].make(model, *IMAGES)
