"""Labels of trials without what all of them set, for lists whose width is short."""

import re
from collections.abc import Mapping

SETTING = re.compile(r" (?=[\w.]+=)")  # what stands between two settings of a label; a value may hold spaces


def shared(labels: Mapping[str, str]) -> list[str]:
    """The settings that stand in the labels of several trials and are the same in all, in their order."""
    first, *others = [SETTING.split(label) for label in labels.values()] or [[]]
    return [one for one in first if one and all(one in several for several in others)] if others else []


def apart(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels, by id, without the settings that all trials share; that of a single trial is whole."""
    common = set(shared(labels))
    return {key: " ".join(one for one in SETTING.split(label) if one not in common) for key, label in labels.items()}
