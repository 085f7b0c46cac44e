"""Every operator of token mixing, every family and every augmentation has the bits of one process on several.

`MIXLAB_GROUPS=long`: all trials that the parity ladder climbs, on 2, 4 and 8 processes, in both frameworks, in float32,
float64 and bfloat16, also with the optimizer's state shared out; else some of them, in torch, on two.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.contract import ArrayDataset
from backends.microbatches import ALONE, Group
from experiments import data
from experiments.design.ablation import load_ablation
from experiments.parity import trials
from experiments.parity.job import spread_state
from experiments.parity.plans import whole_plan
from experiments.results.crc import crc
from experiments.spec.trial import Trial
from tests.conftest import ROOT
from tests.group_bench import Processes

LONG = os.environ.get("MIXLAB_GROUPS") == "long"
PAGES = ("options", "augment", "resnet", "stages")  # in experiments/parity
SOME = ("sincos2d", "depthwise", "inception=tf num=2", "repeat=2", "kernel_size=3")  # in their names
PARTS, STEPS = 8, 3
BACKENDS = ("torch", "jax") if LONG else ("torch",)
SIZES = (2, 4, 8) if LONG else (2,)


@functools.cache
def found(root: Path) -> dict[str, Trial]:
    """The trials that the ladder compares, with everything on, by their settings; in microbatches of one example."""
    words = [f"train.microbatches={PARTS}", f"train.batch_size={PARTS}", f"run.compile_cache={root / 'compiled'}"]
    words += ["run.threads=1", "run.device=cpu", "data.num_examples=64"]
    known = {}
    for page in PAGES:
        whole = load_ablation(ROOT / "experiments" / "parity" / f"{page}.yaml", words)
        known |= {f"{page}: {one.label}": one.trial for one in trials.trials(whole, STEPS, root / "data")}
    return known


def bits(backend: Any, group: Group, trial: Trial, cache: Path) -> str:
    """Of the state after some steps from one in which every array counts, and of what it predicts."""
    splits = data.load(trial.data, trial.info, cache)
    config, model = trial.data, trial.model
    order = data.pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
    program = backend.open(model, trial.optimizer, dataset, trial.run_spec(1, group=group))
    program.load([spread_state(trial)])
    for i in range(STEPS):
        program.train([whole_plan(trial, splits, i, 1, group)])
    (said,) = program.predict(np.array(splits.images[:4]))
    return crc({**program.states()[0], "logits": said.logits})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bits")


@pytest.fixture(scope="module")
def group() -> Iterator[Callable[[str, int], Processes]]:
    """A group by backend and size, one at a time."""
    held: dict[tuple[str, int], Processes] = {}

    def of(backend: str, size: int) -> Processes:
        if (backend, size) not in held:
            for other in list(held):
                held.pop(other).end()
            held[backend, size] = Processes(backend, size)
        return held[backend, size]

    yield of
    for processes in held.values():
        processes.end()


@functools.cache
def of_one(backend: str, precision: str, name: str, root: Path) -> str:
    """The bits of one process."""
    return bits(backends.load(backend), ALONE, trial_of(backend, precision, name, root), root / "data")


def trial_of(backend: str, precision: str, name: str, root: Path, **run: Any) -> Trial:
    trial = found(root)[name]
    train = dataclasses.replace(trial.train, precision=precision)
    return dataclasses.replace(trial, backend=backend, train=train, run=dataclasses.replace(trial.run, **run))


@pytest.mark.parametrize(
    "shared", [False, True] if LONG else [True], ids=lambda shared: "shared" if shared else "whole"
)
@pytest.mark.parametrize("precision", ("float32", "float64", "bfloat16") if LONG else ("float32",))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_trial_of_the_ladder_has_the_bits_of_one_process(
    backend: str, size: int, precision: str, shared: bool, group: Any, root: Path
) -> None:
    names = [name for name in found(root) if LONG or any(part in name for part in SOME)]
    assert len(names) >= (56 if LONG else len(SOME))
    differing = []
    for name in names:
        run = {"devices": size, "sharded_optimizer": shared}
        of_group = group(backend, size).do(bits, trial_of(backend, precision, name, root, **run), root / "data")
        if set(of_group) != {of_one(backend, precision, name, root)}:
            differing.append(name)
    assert differing == []


def test_other_rows_have_other_bits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared above sees a single microbatch that is another one."""
    from backends.torch import program

    name = next(name for name in found(root) if SOME[0] in name)
    expected, split = of_one("torch", "float32", name, root), program.split
    monkeypatch.setattr(program, "split", lambda *given: [*(parts := split(*given))[:-1], parts[0]])
    assert bits(backends.load("torch"), ALONE, trial_of("torch", "float32", name, root), root / "data") != expected
