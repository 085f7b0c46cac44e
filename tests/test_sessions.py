"""What a trial is remembered by: every session's commit, and the data of its own split seed."""

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from analysis import records
from experiments import data
from experiments.machine.environment import ROOT
from experiments.results.store import Store
from experiments.running.opener import WorkerSpec
from experiments.running.worker import Worker
from tests.conftest import base, planned, write_yaml
from tests.store_parts import record

ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40


@pytest.mark.parametrize(
    ("sessions", "commits", "dirty"),
    [
        ([(ONE, False)], [ONE], False),
        ([(ONE, False), (TWO, False)], [ONE, TWO], False),
        ([(TWO, False), (ONE, False), (TWO, False)], [TWO, ONE], False),
        ([(ONE, True), (TWO, False)], [ONE, TWO], True),  # what ran first was not what its commit says
        ([(None, False), (TWO, False)], [THREE, TWO], False),
    ],
)
def test_a_trial_that_went_on_under_another_commit_names_both(
    tmp_path: Path, quick: Path, sessions: list[tuple[str | None, bool]], commits: list[str], dirty: bool
) -> None:
    trials = planned(write_yaml(tmp_path / "a.yaml", base=base(backend="quick")), tmp_path / "data")
    key, store = trials[0].trial.id, Store(tmp_path / "runs")
    about = {"commit": THREE, "dirty": False}
    held = [{"first_step": i, "commit": commit, "dirty": dirty} for i, (commit, dirty) in enumerate(sessions)]
    store.finish(key, {**record(environment=about, sessions=held), "id": key})
    values = records.results("a", trials, store)[key].values
    assert values["commit"] == " ".join(commit[:12] for commit in commits) and values["dirty"] == dirty


@pytest.mark.parametrize("permutation", ["pixels", "patches"])
def test_trials_of_two_split_seeds_have_their_own_order_of_pixels(tmp_path: Path, permutation: str) -> None:
    """They have the same images, which the worker keeps from one trial to the next."""
    given = base(data={"source": "digits", "image_size": None, "image_channels": None, "permutation": permutation})
    path = write_yaml(tmp_path / "a.yaml", base=given, grid={"data.split_seed": [0, 1]})
    first, second = planned(path, tmp_path / "data")
    worker = Worker(
        WorkerSpec("torch", (0,), tmp_path, tmp_path / "data", {}, ROOT, time.monotonic()),
        threading.Event(),
        lambda _: None,
    )
    orders = []
    for planned_trial in (first, second, first):
        trial = planned_trial.trial
        found = worker.opener.dataset(trial, worker.opener.stored(trial, None)).pixel_order
        expected = data.pixel_order(permutation, 8, trial.model.patch_size, trial.data.split_seed)
        np.testing.assert_array_equal(found, expected)
        orders.append(found)
    assert not np.array_equal(orders[0], orders[1]) and first.trial.info.content == second.trial.info.content


def test_trials_of_each_permutation_and_size_of_patches_have_their_own_order_of_pixels(tmp_path: Path) -> None:
    """Whichever trial the worker has had before."""
    given = base(data={"source": "digits", "image_size": None, "image_channels": None})
    grid = {"data.permutation": ["none", "patches", "pixels"], "model.patch_size": [2, 4]}
    trials = [one.trial for one in planned(write_yaml(tmp_path / "a.yaml", base=given, grid=grid), tmp_path / "data")]
    about = WorkerSpec("torch", (0,), tmp_path, tmp_path / "data", {}, ROOT, time.monotonic())
    worker = Worker(about, threading.Event(), lambda _: None)
    stored = worker.opener.stored(trials[0], None)
    orders = [data.pixel_order(one.data.permutation, 8, one.model.patch_size, 0) for one in trials]
    for first, second in itertools.permutations(range(len(trials)), 2):
        for place in (first, second):
            np.testing.assert_array_equal(worker.opener.dataset(trials[place], stored).pixel_order, orders[place])
    assert len({None if order is None else tuple(order) for order in orders}) == 4  # pixels move alike in any patches
