"""From the weights of one model to those that another one begins with: what is kept, drawn anew, or made from them.

The head is drawn anew where the number of classes differs. Everything else must have the same name and shape, or a
rule of the family; what has neither is refused. The rules of the Mixer are in mixer_transfer.py; a family without
rules, such as one of convolutions alone, takes weights of any resolution whose shapes are the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from backends.arrays import Array, State
from backends.models import family_of, folds, mixer_transfer, name_of
from backends.models.family import Change, Misfit
from backends.specs import ModelSpec, Rates

KEPT, ANEW = "kept", "anew"
HEAD = "head/"
Rules = Callable[[Any, Any], Mapping[str, Change]]
RULES: Mapping[str, Rules] = MappingProxyType({"mixer": mixer_transfer.rules})
FREE = ("image_size", "num_classes", *(f.name for f in fields(Rates)))  # they may differ without a word


@dataclass(frozen=True, eq=False)
class Transfer:
    """What becomes of each parameter of a model that begins from another one's weights."""

    before: ModelSpec
    after: ModelSpec
    changes: Mapping[str, Change]  # by canonical name, of all parameters

    def params(self, weights: Mapping[str, Array], drawn: Mapping[str, Array]) -> State:
        """The parameters, float64, by canonical name.  Args: weights: before.   drawn: those of a fresh start."""
        return {
            name: np.asarray(drawn[name] if one.how == ANEW else one.make(weights[name].astype(np.float64)))
            for name, one in self.changes.items()
        }

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the parameters by what becomes of them."""
        by_how: dict[str, list[str]] = {}
        for name, change in self.changes.items():
            by_how.setdefault(change.how, []).append(name)
        return by_how

    @property
    def otherwise(self) -> list[str]:
        """What the two models compute otherwise with the same weights: `activation gelu, there gelu_tanh`."""
        told = [f.name for f in fields(self.after) if f.name not in ("tokens_mlp_dim", *FREE)]
        pairs = [(name, getattr(self.after, name), getattr(self.before, name)) for name in told]
        return [f"{name} {here}, there {there}" for name, here, there in pairs if here != there]

    @property
    def text(self) -> str:
        """One line: `42 arrays as they are, head drawn anew (10 classes, there 100), 8 arrays expanded, K = 2`."""
        told = []
        for how, names in self.names.items():
            classes = f"{self.after.num_classes} classes, there {self.before.num_classes}"
            words = {KEPT: f"{len(names)} arrays as they are", ANEW: f"head drawn anew ({classes})"}
            told.append(words.get(how, f"{names[0] if len(names) == 1 else f'{len(names)} arrays'} {how}"))
        return ", ".join([*told, *self.otherwise])


def transfer(before: ModelSpec, after: ModelSpec) -> Transfer:
    """How a model begins from the weights of another one; by their specs alone.

    Raises: Misfit: one sentence, which begins with a field of the model or the name of a parameter.
    """
    family = name_of(after)
    if name_of(before) != family:
        raise Misfit(f"model.family: the weights are of {name_of(before)!r}, got {family!r}; take that family")
    before = family_of(before).plain(before)
    own = folds.shapes(before)
    rules = RULES[family](before, after) if family in RULES else {}
    changes: dict[str, Change] = {}
    for name, shape in folds.shapes(after).items():
        if name in rules:
            changes[name] = rules[name]
        elif name.startswith(HEAD) and before.num_classes != after.num_classes:
            changes[name] = Change(ANEW)
        elif own.get(name) == shape:
            changes[name] = Change(KEPT)
        else:
            there = f"has shape {own[name]} in the weights" if name in own else "is not among the weights"
            raise Misfit(f"{name} {there}, expected {shape}{_why(before, after)}")
    if left := [name for name in own if name not in changes]:
        raise Misfit(f"{left[0]} is among the weights, and the model has no such parameter{_why(before, after)}")
    return Transfer(before, after, changes)


def _why(before: ModelSpec, after: ModelSpec) -> str:
    """The end of a sentence: the first field in which the models differ, and its value in the weights' model."""
    for f in fields(after):
        there = getattr(before, f.name)
        if f.name not in FREE and getattr(after, f.name) != there:
            return f"; their model has {f.name} {there}, and this one {getattr(after, f.name)}"
    return ""
