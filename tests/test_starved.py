"""A device that waits for images is seen: while a trial runs, in status, and in the report."""

from collections.abc import Callable

import pytest
from rich.console import Console

from analysis.terminal.listing import status_layout
from experiments.results.metrics import WAIT_SECONDS
from experiments.results.states import TrialState
from experiments.running.events import Stepped
from experiments.running.progress import PlainReporter
from tests.conftest import fresh_cache
from tests.test_report_files import Bench, bench, record  # noqa: F401 - bench is a fixture

cache = fresh_cache


def waited(seconds: float, train: float) -> dict[str, object]:
    spent = {"compile": 1.0, "train": train, "evaluate": 3.0, WAIT_SECONDS: seconds}
    return record(0.5, seconds=spent)


@pytest.mark.parametrize(
    ("spent", "said"),
    [
        ((3.0, 7.0), "1 of 2 trials waited for data for more than 5% of their training, {id} for 30%: "),
        ((4.0, 96.0), None),  # too small a share
        ((0.9, 0.1), None),  # too short
    ],
)
def test_the_report_names_trials_whose_device_waited(
    bench: Callable[..., Bench],  # noqa: F811
    spent: tuple[float, float],
    said: str | None,
) -> None:
    made = bench(grid={"seed": [0, 1]}, report=None)
    made.put(record(0.5), waited(*spent))
    text = made.text()
    if said is None:
        assert "waited for data" not in text
    else:
        assert said.format(id=made.trials[1].trial.id) in text


@pytest.mark.parametrize(("share", "said"), [(0.3, "waiting 30%"), (0.05, "")])
def test_status_says_which_trial_waits(share: float, said: str) -> None:
    now = {"step": 3, "steps": 10, "loss": 0.5, "images_per_s": 7.0, "waiting": share}
    states = {"a": TrialState("running", said=now), "b": TrialState("missing")}
    head, *rows = status_layout({"a": "seed=0", "b": "seed=1"}, states)
    assert ("data" in head) == bool(said) and (not said or rows[0][head.index("data")] == said)


@pytest.mark.parametrize(("share", "said"), [(0.3, ", waiting for data 30%"), (0.05, "")])
def test_a_run_says_that_a_trial_waits(share: float, said: str) -> None:
    reporter = PlainReporter(Console(), 1)
    assert reporter.how_far(Stepped("a", 3, 10, 0.5, 7.0, share)) == f"loss 0.5000, 7 images/s{said}"
