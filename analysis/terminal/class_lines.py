"""What a done trial says of each class, as lines for the terminal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.table.layout import aligned
from backends.arrays import Array
from backends.errors import counted
from experiments.results import predictions
from experiments.results.metrics import ACCURACY

FEW = 12  # classes that are shown as one matrix
MAX_LINES = 12  # of the worst classes, and of the most frequent confusions, where there are more
MAX_NAME = 24  # letters of a class's name


def class_lines(folder: Path, names: Sequence[str], when: str, split: str) -> list[str]:
    """The accuracy of each class, and what is taken for what, of one evaluation of a done trial.

    Args: names: of the classes, in order, as far as they are known.
    """
    said, true = predictions.read(folder, when, split), predictions.labels(folder, split)
    if said is None or true is None:
        return [f"{when}.{split}: {predictions.why_none(folder)}"]
    num_classes = 1 + int(max(true.max(), said.classes.max()))
    words = [_word(number, names) for number in range(num_classes)]
    right, share = int(said.correct.sum()), float(said.correct.mean())
    head = f"{when}.{split}: {right:,} of {counted(len(true), 'example')} right, {_accuracy(share)} {ACCURACY.unit}"
    tables = _matrix(true, said.classes, words) if num_classes <= FEW else _worst(true, said.classes, words)
    return [head, *tables]


def _matrix(true: Array, said: Array, words: Sequence[str]) -> list[str]:
    """A row for each class, a column for each class that it may be taken for."""
    num = len(words)
    counts = np.bincount(true.astype(np.int64) * num + said, minlength=num * num).reshape(num, num)
    layout = [["class", "examples", _head(), *(f"as {number}" for number in range(num))]]
    for number, row in enumerate(counts):
        share = _accuracy(row[number] / row.sum()) if row.sum() else "—"
        layout.append([words[number], f"{row.sum():,}", share, *(f"{count:,}" if count else "·" for count in row)])
    return aligned(layout)


def _worst(true: Array, said: Array, words: Sequence[str]) -> list[str]:
    """The classes with the lowest accuracy, then the most frequent confusions."""
    num = len(words)
    examples, right = np.bincount(true, minlength=num), np.bincount(true[true == said], minlength=num)
    there = np.flatnonzero(examples)
    shares = right[there] / examples[there]
    order = there[np.lexsort((there, -examples[there], shares))]
    layout = [["class", "examples", _head()]]
    for number in order[:MAX_LINES]:
        layout.append([words[number], f"{examples[number]:,}", _accuracy(right[number] / examples[number])])
    low, middle, high = np.quantile(shares, (0, 0.5, 1))
    spread = f"{_accuracy(low)} to {_accuracy(high)} {ACCURACY.unit}, median {_accuracy(middle)}"
    first = [f"the worst of {len(there)} classes, whose accuracies are {spread}:", *aligned(layout)]
    return [*first, "", *_confusions(true, said, words, examples)]


def _confusions(true: Array, said: Array, words: Sequence[str], examples: Array) -> list[str]:
    wrong = true != said
    pairs, counts = np.unique(true[wrong].astype(np.int64) * len(words) + said[wrong], return_counts=True)
    layout = [["class", "taken for", "examples", f"{ACCURACY.unit} of the class"]]
    for place in np.lexsort((pairs, -counts))[:MAX_LINES]:
        own, other = divmod(int(pairs[place]), len(words))
        share = _accuracy(counts[place] / examples[own])
        layout.append([words[own], words[other], f"{counts[place]:,}", share])
    return [f"the most frequent of {counted(len(pairs), 'confusion')} that occur:", *aligned(layout)]


def _word(number: int, names: Sequence[str]) -> str:
    """`3 cat`: numbers stand in the heads of columns."""
    name = " ".join(names[number].split()) if number < len(names) else ""
    clipped = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return str(number) if name in ("", str(number)) else f"{number} {clipped}"


def _head() -> str:
    return f"{ACCURACY.name} {ACCURACY.unit}"


def _accuracy(share: float) -> str:
    return ACCURACY.text(share)
