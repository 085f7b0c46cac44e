"""The fields that all trials of an ablation share. What is nearer to the trial wins:

defaults < the base's own base < base < fields at the top of the ablation < grid < command line

A base may also say what is `matched`; see matched.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from backends.models import FAMILIES
from backends.models.config import ModelConfig, of_others
from backends.models.variants import VARIANTS
from experiments.design.axes import Point, read_call
from experiments.spec import fields
from experiments.spec.expand import expand
from experiments.spec.values import may_be_list, shown
from experiments.spec.yaml_files import read_mapping

MATCHED = "matched"
# A setting takes back what it stands in place of, where a base, of any depth, has set that.
IN_PLACE_OF = {
    "train.steps": ("train.epochs",),
    "train.epochs": ("train.steps",),
}


@dataclass(frozen=True)
class Base:
    """What an ablation stands on."""

    fields: Point
    matched: Any = None  # as it is written; None: nothing is
    matched_where: str = ""  # it stands


def read_base(base: Any, folder: Path, where: str, above: tuple[Path, ...] = ()) -> Base:
    """A base: a file name, or a mapping that may itself stand on a base."""
    if base is None:
        return Base({})
    if isinstance(base, str):
        file = folder / expand(base, where)
        if file.resolve() in above:
            raise MixlabError(f"{where}: {shown(base)} is a base of itself; name another file")
        return read_base(read_mapping(file), file.parent, str(file), (*above, file.resolve()))
    if not isinstance(base, dict):
        raise MixlabError(f"{where}: expected a file name or a mapping of fields, got {shown(base)}")
    below = matched_over(read_base(base.get("base"), folder, where, above), base, where)
    own = {key: value for key, value in base.items() if key not in ("base", MATCHED)}
    return replace(below, fields=laid_over(below.fields, fields.typed(fields.flatten(own, where), where)))


def matched_over(base: Base, tree: Mapping[str, Any], where: str) -> Base:
    """The base with what the tree says is matched, where it says so; a null takes back what a base says."""
    return replace(base, matched=tree[MATCHED], matched_where=f"{where}: {MATCHED}") if MATCHED in tree else base


def fields_at_the_top(tree: Mapping[str, Any], where: str) -> Point:
    """The fields that stand in an ablation itself.  Raises: MixlabError: see fields.flatten."""
    own = fields.flatten({key: value for key, value in tree.items() if is_field(key)}, where)
    for name, value in own.items():
        holds_list = name in fields.names() and may_be_list(*fields.holder(name))
        if (isinstance(value, list) and not holds_list) or (name in fields.names() and read_call(value, name)):
            raise MixlabError(f"{where}: {name}: {shown(value)} is an axis; put it under 'grid'")
    return fields.typed(own, where)


def is_field(key: str) -> bool:
    """Whether a key means a field or a section of fields, maybe with a mistake in its last part."""
    return key in fields.names() or fields.is_section(key.partition(".")[0])


def laid_over(base: Point, values: Point) -> Point:
    """The base with some values set; settings that these replace are taken back."""
    set_here = [name for name, value in values.items() if value is not None]
    taken_back = [other for name in set_here for other in IN_PLACE_OF.get(name, ())]
    if variant := values.get("model.variant"):
        taken_back += [f"model.{field}" for field in ("family", *VARIANTS[variant])]
    taken_back += _of_other_families(base, values)
    return base | dict.fromkeys(taken_back) | values


def _of_other_families(base: Point, values: Point) -> list[str]:
    """What the base says of a model, and the family that is named here has not."""
    variant = values.get("model.variant")
    family = values.get("model.family") or (_family_of(variant) if variant else None)
    if not family:
        return []
    others = {f"model.{name}" for name in of_others(FAMILIES[family].Config)}
    if (below := base.get("model.variant")) and _family_of(below) != family:
        others.add("model.variant")
    return [name for name in base if name in others]


def _family_of(variant: str) -> str:
    return str(VARIANTS[variant].get("family", ModelConfig().family))
