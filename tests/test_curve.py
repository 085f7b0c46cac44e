"""What a point of a learning curve says, on a program whose every loss and logit is known."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.arrays import Array
from backends.contract import PREDICT_BATCH, Predictions, StepMetrics
from backends.plan import StepPlan
from experiments import data
from experiments.results.claims import Claim
from experiments.results.store import Store
from experiments.training.evaluate import Evaluation, evaluate, evaluate_each
from experiments.training.loop import Loop
from experiments.training.trial_run import TrialRun
from tests.conftest import base, planned, write_yaml

LOGITS = np.array([[2.0, -1.0], [0.5, 1.5], [3.0, 0.0]])
LABELS = np.array([0, 1, 1], np.int32)


class Known:
    """The loss of step n, counted from 0, is n; of an image, the logits are those of its first pixel."""

    compile_s = 0.0

    def __init__(self, logits: Array):
        self.logits, self.predicted = logits, 0

    def load(self, states: list[Any]) -> None:
        self.held = states

    def states(self, wanted: bool = True) -> list[Any]:
        return self.held

    def train(self, plans: list[StepPlan]) -> list[StepMetrics]:
        steps = plans[0].first_step + np.arange(plans[0].num_steps, dtype=np.float64)
        return [StepMetrics(steps, steps)]

    def predict(self, images: Array) -> list[Predictions]:
        self.predicted += 1
        return [Predictions(self.logits[images[:, 0, 0, 0] % len(self.logits)], np.zeros((len(images), 1)))]

    def peak_memory_bytes(self) -> None:
        return None


def splits_of(num: int) -> Any:
    images = np.arange(num, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return data.Splits(None, images, np.resize(LABELS, num), *[np.arange(num, dtype=np.int32)] * 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "right"),
    [
        # -log softmax of the class: log(1 + exp(other - own))
        ("softmax", np.log1p(np.exp([-3.0, -1.0, 3.0])).mean()),
        # each class for itself: log(1 + exp(-own)) + log(1 + exp(other))
        ("sigmoid", (np.log1p(np.exp([-2.0, -1.5, 0.0])) + np.log1p(np.exp([-1.0, 0.5, 3.0]))).mean()),
    ],
)
def test_an_evaluation_is_the_mean_over_its_examples(loss: str, right: float) -> None:
    found = evaluate(Known(LOGITS), splits_of(3), np.arange(3), loss)  # type: ignore[arg-type]
    assert found == {"accuracy": pytest.approx(2 / 3), "loss": pytest.approx(float(right), rel=1e-12)}


def test_each_example_counts_once_where_the_last_batch_is_short() -> None:
    num, program = PREDICT_BATCH + 3, Known(LOGITS)
    splits = splits_of(num)
    images = (np.arange(num) % 3).astype(np.uint8).reshape(-1, 1, 1, 1)
    splits = dataclasses.replace(splits, images=images)
    wrong = np.arange(num) % 3 == 2
    found = evaluate(program, splits, np.arange(num), "softmax")  # type: ignore[arg-type]
    assert found["accuracy"] == pytest.approx(1 - wrong.mean()) and program.predicted == 2


def test_a_point_says_the_mean_loss_since_the_point_before_it_and_evaluates_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"steps": 6, "evaluate_every": 2, "evaluate_train_examples": 5, "warmup_steps": 0, "schedule": "linear"}
    one = planned(write_yaml(tmp_path / "a.yaml", base=base(train=train)), tmp_path / "data")[0]
    trial, store, evaluated = one.trial, Store(tmp_path / "runs"), []

    def note(predict: Any, splits: Any, indices: Array, loss: str, probes: Any) -> list[Evaluation]:
        evaluated.append(indices)
        return evaluate_each(predict, splits, indices, loss, probes)

    monkeypatch.setattr("experiments.training.loop.evaluate_each", note)
    splits = data.load(trial.data, trial.info, tmp_path / "data")
    run = TrialRun(trial, store, Claim(store.folder(trial.id)), splits)
    loop = Loop([run], [run.restore()], Known(LOGITS), splits)  # type: ignore[arg-type]
    assert [error for _, error in loop.run(lambda: False)] == [None]
    curve = run.result(0)["curve"]
    assert [point["step"] for point in curve] == [2, 4, 6]
    assert [point["loss"] for point in curve] == [0.5, 2.5, 4.5]
    assert [len(indices) for indices in evaluated[:3]] == [5, len(splits.validation), len(splits.test)]
    np.testing.assert_array_equal(evaluated[0], splits.train[:5])
