"""An evaluation that is shared out counts each example once, and a process that evaluates others is named."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from backends.arrays import Array
from backends.contract import PREDICT_BATCH, Predictions
from backends.microbatches import Group
from experiments.data import Splits
from experiments.running import shares
from experiments.running.failures import Failure, GroupLost
from experiments.training.evaluate import evaluate_each, predictor

BATCH = PREDICT_BATCH


class Echo:
    """A program whose logits follow from an image alone: an example's number is its pixel."""

    def predict(self, images: Array) -> list[Predictions]:
        number = images.reshape(-1, 1).astype(np.float64)
        return [Predictions(np.concatenate([np.sin(number), np.cos(number * number)], 1), number)]


IMAGES = np.arange(3000, dtype=np.int32).reshape(-1, 1, 1, 1)


def said_by(size: int, indices: Array) -> Iterator[Any]:
    """What the processes of a group say of some examples, in their order, as their leader hears it."""
    each = [shares.said(Echo(), IMAGES, indices, Group(rank, size)) for rank in range(size)]  # type: ignore[arg-type]
    hear = [functools.partial(next, one, None) for one in each]
    return shares.in_order(indices, hear, [f"rank {rank}" for rank in range(size)])


NUMBERS = [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, 5 * BATCH + 7]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("number", NUMBERS)
def test_an_evaluation_counts_each_example_once_on_any_number_of_processes(size: int, number: int) -> None:
    """Also with fewer batches than processes, and where the last batch is short."""
    rng = np.random.default_rng(number)
    indices = rng.permutation(len(IMAGES)).astype(np.int32)[:number]
    labels = rng.integers(0, 2, len(IMAGES)).astype(np.int32)
    splits = Splits(None, IMAGES, labels, indices, indices[:0], indices)  # type: ignore[arg-type]
    heard = [0]

    def counted(given: Array) -> Iterator[Any]:
        for outputs in said_by(size, given):
            heard[0] += len(outputs[0].logits)
            yield outputs

    (found,) = evaluate_each(counted, splits, indices, "softmax")
    (alone,) = evaluate_each(predictor(Echo(), IMAGES), splits, indices, "softmax")  # type: ignore[arg-type]
    right = [int(np.cos(i * i) > np.sin(i)) == labels[i] for i in indices.astype(np.float64).astype(int)]
    assert found.scores["accuracy"] == np.mean(right) and found.scores == alone.scores
    assert found.classes.shape == (number,) and heard[0] == -(-number // BATCH) * BATCH


def kept(wrong: Callable[[Array, Group], Array]) -> Callable[[pytest.MonkeyPatch], None]:
    """Processes but the first one take another share of an evaluation."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        share = shares.share
        patch.setattr(shares, "share", lambda *given: wrong(*given) if given[1].rank else share(*given))

    return plant


def of_rank_0(indices: Array, group: Group) -> Array:
    return np.concatenate(shares.of_batches(indices)[:: group.size])


SHARES: dict[str, Callable[[Array, Group], Array]] = {
    "a batch counts twice": of_rank_0,
    "the remainder is dropped": lambda indices, group: np.concatenate(
        [indices[:0], *shares.of_batches(indices[: len(indices) // BATCH * BATCH])[group.rank :: group.size]]
    ),
    "examples are shared out, not batches": lambda indices, group: np.resize(indices[group.rank :: group.size], BATCH),
    "filled up with others": lambda indices, group: np.resize(
        np.append(indices[group.rank * BATCH :][:BATCH], 0), BATCH
    ),
}


@pytest.mark.parametrize("fault", SHARES)
def test_a_process_that_evaluates_other_examples_is_named(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.arange(5, BATCH + 12, dtype=np.int32)  # the second batch is short, and the second process's
    kept(SHARES[fault])(monkeypatch)
    with pytest.raises(GroupLost, match=rf"^rank 1: expected the predictions of examples {BATCH} to {BATCH + 6} of"):
        list(said_by(2, indices))


def test_what_a_process_says_of_its_failure_in_an_evaluation_is_named() -> None:
    hear: list[Callable[[], Any]] = [
        lambda: shares.Said(np.zeros(BATCH, np.int32), []),
        lambda: Failure("data_missing", "x"),
    ]
    with pytest.raises(GroupLost, match=r"^rank 1: x$") as lost:
        list(shares.in_order(np.zeros(2 * BATCH, np.int32), hear, ["rank 0", "rank 1"]))
    assert lost.value.failure.cause == "data_missing"


@pytest.mark.parametrize("number", [1, 3])
def test_more_or_fewer_batches_than_an_evaluation_has_are_no_result(number: int) -> None:
    indices = np.arange(BATCH + 7, dtype=np.int32)
    splits = Splits(None, IMAGES, IMAGES.ravel() % 2, indices, indices[:0], indices)  # type: ignore[arg-type]
    batch = Echo().predict(IMAGES[:BATCH])
    with pytest.raises(ValueError, match="zip"):
        evaluate_each(lambda _: iter([batch] * number), splits, indices, "softmax")
