"""The parts by name, in their order of worth: what a machine must have comes before what is good to know."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from experiments.doctor.check import Asked, Check

# A part is the module of its name here, with a function `checks(asked) -> list[Check]`. The number is its share of the
# minutes; what a part leaves of its share, the later ones have.
SHARES: Mapping[str, float] = MappingProxyType(
    {"machine": 2, "parity": 6, "bits": 4, "memory": 4, "speed": 5, "training": 2}
)
NAMES = tuple(SHARES)


def checks(part: str, asked: Asked) -> list[Check]:
    """The checks of a part, in their order of worth. Imports no framework."""
    return list(importlib.import_module(f"experiments.doctor.{part}").checks(asked))
