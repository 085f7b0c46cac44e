"""Families of models by name. A family is a module here, and forward code in backends/*/models/ under the same name."""

from types import MappingProxyType
from typing import Any

from backends.models import convmixer, metaformer, mixer, resnet
from backends.models.family import Family
from backends.specs import ModelSpec

FAMILIES: MappingProxyType[str, Family] = MappingProxyType(
    {"mixer": mixer, "resnet": resnet, "metaformer": metaformer, "convmixer": convmixer}
)


def name_of(spec: ModelSpec) -> str:
    """The name of a spec's family."""
    return next(name for name, family in FAMILIES.items() if isinstance(spec, family.Spec))


def family_of(spec: ModelSpec) -> Family:
    """The family that a spec is of."""
    return FAMILIES[name_of(spec)]


def read_spec(fields: dict[str, Any]) -> ModelSpec:
    """A spec from its fields, as a store holds them.

    Raises: KeyError, TypeError: the fields are of no family.
    """
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return FAMILIES[fields.get("family", "mixer")].Spec(**values)
