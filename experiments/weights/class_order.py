"""Order of classes: which output of weights stands for which class of the data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.errors import MixlabError
from experiments.data import Splits
from experiments.data.words import listed


def read(path: Path) -> tuple[str, ...]:
    """The classes of the weights in the order of their outputs: a line a class.

    Raises: MixlabError: the file cannot be read, or names a class twice.
    """
    where = "command line: --classes"
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MixlabError(f"{where}: {path} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MixlabError(
            f"{where}: {path} names classes twice: {listed(twice)}; write one line for each class, in their order"
        )
    return tuple(names)


def renumbered(splits: Splits, of_weights: Sequence[str], num_outputs: int) -> Splits:
    """The examples with the numbers that their classes have in the weights.

    Raises: MixlabError: a class of the data is none of the weights', or these are not as many as their outputs.
    """
    of_data = splits.classes
    where = "command line: --classes"
    if len(of_weights) != num_outputs:
        raise MixlabError(
            f"{where}: expected {num_outputs:,} classes, as the weights have outputs, got {len(of_weights):,}; write "
            f"one line for each"
        )
    numbers = {name: number for number, name in enumerate(of_weights)}
    strange = [name for name in of_data if name not in numbers]
    if not of_data:
        raise MixlabError(
            f"{where}: the weights name their classes ({listed(of_weights)}), but the names of the data's "
            f"classes are not known, because its source is gone; bring it back"
        )
    if strange:
        raise MixlabError(
            f"{where}: {len(strange):,} of {len(of_data):,} classes of the data are not among those of the weights: "
            f"{listed(strange)}; named there: {listed(of_weights)}; give a file that names the outputs "
            f"in the data's words"
        )
    order = np.array([numbers[name] for name in of_data], np.int32)
    right = splits.right
    if right is not None:
        right = np.zeros((len(right), num_outputs), bool)
        right[:, order] = splits.right
    return replace(splits, labels=order[splits.labels], right=right)


def line(of_data: Sequence[str], of_weights: Sequence[str] | None) -> str:
    """A line on the order that the classes were taken to have."""
    names = of_weights or of_data
    whose = "that the weights or --classes name" if of_weights else "of the data, assumed to be the weights' too"
    return f"{len(names):,}, in the order {whose}: {listed(names)}" if names else "in an order that is not known"
