"""A format of weights: a table of rules from its own names to canonical ones, and what its code says besides."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from backends.arrays import Array, State
from backends.specs import ModelSpec
from backends.weights.layouts import Layout


class NotAModel(Exception):
    """The error that arrays are not those of one model in a known format. The text says how."""


@dataclass(frozen=True)
class Rule:
    """Arrays of a file that are parameters of a layer.

    own, canonical: their names, where {block} and {stage} count from 0, {block_1} and {stage_1} from 1, {block_2} from
        2; {blocks_2} is the number of blocks and 2. {block} counts within its stage, where there are any.
    optional: models of this format may lack it.
    """

    canonical: tuple[str, ...]
    own: tuple[str, ...]
    layout: Layout
    optional: bool = False


@dataclass(frozen=True)
class Row:
    """A rule at one place of a model."""

    canonical: tuple[str, ...]
    own: tuple[str, ...]
    layout: Layout


@dataclass(frozen=True, eq=False)
class Reading:
    """What is known of a model before its spec is made.

    params: by canonical name.   arrays: of the file, by own name.   told: fields of the spec that the user or the file
    says aloud.   num_blocks: of each stage.
    """

    params: State
    arrays: Mapping[str, Array]
    told: Mapping[str, Any]
    num_blocks: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """A spec, and why each field that nothing tells has its value."""

    model: ModelSpec
    assumed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Format:
    """A public form of weights.

    code: what `--to` calls it; of several formats of one code, a model is written in the first that has it.
    rules: the table.   spec: the spec of a model that is read.
    options: fields of the spec that its code sets, and its arrays do not tell.
    reads: further fields of the spec that its arrays tell, or that change nothing here.
    asks: fields of the spec that some of its files do not tell, so that the user may.
    note: what reading it changes, in words.
    """

    name: str
    source: str
    rules: tuple[Rule, ...]
    spec: Callable[["Format", Reading], Found]
    options: Mapping[str, Any]
    family: str = "mixer"
    code: str = ""
    reads: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    note: str = ""

    def table(self, names: Collection[str], canonical: bool = False) -> list[Row]:
        """The rules at each place of the model that has these names. Args: canonical: they are canonical, not own."""
        places = list(self._places(self.num_blocks(names, canonical)))
        rows = (row for rule in self.rules for row in _expanded(rule, places, names, canonical))
        return list(dict.fromkeys(rows))

    def reading(self, params: State, arrays: Mapping[str, Array], told: Mapping[str, Any]) -> Reading:
        """What is known of the model of some arrays; see Reading."""
        return Reading(params, arrays, told, self.num_blocks(arrays))

    def num_blocks(self, names: Collection[str], canonical: bool = False) -> tuple[int, ...]:
        """The number of blocks of each stage, counted by the first name of a block; one where there is none."""
        anchor = self.anchor.canonical[0] if canonical else self.anchor.own[0]
        pattern = _pattern(anchor)
        counts = Counter(match.groupdict().get("stage", "0") for name in names if (match := pattern.fullmatch(name)))
        return tuple(counts[stage] for stage in sorted(counts, key=int)) or (1,)

    def anchors(self) -> list[str]:
        """The names of the arrays that the first block always has."""
        (place,) = self._places((1,))
        rules = (rule for rule in self.rules if _in_block(rule) and not rule.optional)
        return [name.format(**place) for rule in rules for name in rule.own]

    @cached_property
    def anchor(self) -> Rule:
        """The rule by whose first name blocks are counted."""
        return next(rule for rule in self.rules if _in_block(rule) and not rule.optional)

    @property
    def is_nested(self) -> bool:
        """Whether `/` parts the layers of its names, as it does the mappings of a file."""
        return "/" in self.anchor.own[0]

    @staticmethod
    def _places(num_blocks: tuple[int, ...]) -> Iterator[dict[str, int]]:
        total = sum(num_blocks)
        end = {"blocks_2": total + 2, "blocks_4": total + 4}
        for stage, num in enumerate(num_blocks):
            for block in range(num):
                counted = {"block": block, "block_1": block + 1, "block_2": block + 2}
                yield {**counted, "stage": stage, "stage_1": stage + 1, **end}


def _in_block(rule: Rule) -> bool:
    return "{block" in rule.own[0] and "{blocks" not in rule.own[0]


def _pattern(template: str) -> re.Pattern[str]:
    """What the names of a template match, the stage in a group."""
    text = re.sub(r"\\\{stage\w*\\\}", r"(?P<stage>\\d+)", re.escape(template))
    return re.compile(re.sub(r"\\\{\w+(:\w+)?\\\}", r"\\d+", text))


def _expanded(rule: Rule, places: list[dict[str, int]], names: Collection[str], canonical: bool) -> Iterator[Row]:
    """The rows of a rule; those of an optional one where any of its names is there."""
    for place in places:
        known, own = (tuple(name.format(**place) for name in side) for side in (rule.canonical, rule.own))
        row = Row(known, own, rule.layout)
        if not rule.optional or any(name in names for name in (row.canonical if canonical else row.own)):
            yield row
