"""Lists of trials on a terminal: the summary first, and the width for what differs."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.terminal.listing import status_head, status_layout
from experiments.design.apart import apart, shared
from experiments.results.states import TrialState
from experiments.running.events import Started, Stepped
from experiments.running.progress import LiveReporter, reporter
from tests.conftest import Ended, base, planned, write_yaml

LONG = {
    "model.channel_mixing": ["tied"],
    "model.token_mixing": ["tied", "untied"],
    "train.optimizer": ["adamw"],
    "train.learning_rate": [0.001, 0.0025],
    "train.schedule": ["cosine"],
    "seed": [0, 1],
}
LABELS = {"1": "mixing=tied, wide lr=0.1 seed=0", "2": "mixing=tied lr=0.1 seed=0", "3": "mixing=x=y lr=0.1 seed=1"}


def test_what_all_labels_share_is_left_out_and_said_once() -> None:
    assert shared(LABELS) == ["lr=0.1"]
    assert apart(LABELS) == {"1": "mixing=tied, wide seed=0", "2": "mixing=tied seed=0", "3": "mixing=x=y seed=1"}


@pytest.mark.parametrize("labels", [{}, {"1": "a=1 b=2"}, {"1": ""}, {"1": "", "2": ""}, {"1": "a=1", "2": "b=1"}])
def test_a_single_label_is_whole_and_none_is_nothing(labels: dict[str, str]) -> None:
    assert apart(labels) == labels and shared(labels) == []


def test_a_status_has_no_column_for_what_is_the_same_in_all() -> None:
    states = {key: TrialState("done") for key in LABELS}
    assert status_head(LABELS, states) == ["3 trials: 3 done", "all have lr=0.1"]
    one = next(iter(LABELS))
    assert status_head({one: LABELS[one]}, states)[0] == "1 trial: 1 done"
    header, *rows = status_layout(LABELS, states)
    assert header == ["id", "state", "settings"] and [row[2] for row in rows] == list(apart(LABELS).values())


def test_status_begins_with_its_summary(run: Callable[..., Ended], tmp_path: Path) -> None:
    write_yaml(tmp_path / "long.yaml", grid=LONG)
    lines = run("status", "long.yaml").out.splitlines()
    assert lines[0] == "8 trials: 8 missing"
    assert lines[1] == "all have channel_mixing=tied optimizer=adamw schedule=cosine"
    below = lines[lines.index("") + 1 :]
    assert len(below) == 2 + 8 and "token_mixing=tied learning_rate=0.001 seed=0" in below[2]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_bar_is_one_line(tmp_path: Path, cache: Path, width: int) -> None:
    trials = planned(write_yaml(tmp_path / "long.yaml", base=base(), grid=LONG), cache)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    labels: dict[str, Any] = apart({one.trial.id: one.label for one in trials})
    with reporter(console, len(trials), labels) as made:
        assert isinstance(made, LiveReporter)
        for one in trials:
            made.on_event(one, Started(one.trial.id, 0))
            made.on_event(one, Stepped(one.trial.id, 3, one.trial.num_steps, 0.5, 1234.0))
        shown = Console(file=io.StringIO(), width=width)  # without the codes that move a live display
        shown.print(made.bars.get_renderable())
    assert isinstance(shown.file, io.StringIO)
    lines = shown.file.getvalue().splitlines()
    assert len(lines) == 1 + len(trials) and all(len(line) <= width for line in lines)
    assert all("3/6" in line and "loss 0.5000, 1,234 images/s" in line for line in lines[1:])
    assert all("…" in line if width == 80 else "seed=" in line or width < 120 for line in lines[1:])
