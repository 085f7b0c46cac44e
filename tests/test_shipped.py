"""The ablations that are shipped say what they ask, and can be planned."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import data
from experiments.design import ablation
from experiments.design import trials as resolving
from experiments.spec.trial import DataInfo
from mixlab import common, plan
from tests.conftest import ROOT, Ended, planned, write_yaml

ABLATIONS = sorted((ROOT / "experiments" / "ablations").glob("*.yaml"))
BASES = sorted((ROOT / "experiments" / "bases").glob("*.yaml"))
HEAD = ("# Question: ", "# Command:  ", "# Cost:     ", "# Expected: ")


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_a_shipped_ablation_opens_with_what_it_asks_and_can_be_planned(path: Path, tmp_path: Path) -> None:
    lines = path.read_text().splitlines()
    assert all(any(line.startswith(head) and len(line) > len(head) for line in lines[:6]) for head in HEAD)
    found = ablation.load_ablation(path)
    assert found.name == path.stem
    assert found.question in lines[0]
    planned = resolving.trials(found, tmp_path)
    assert {p.trial.backend for p in planned} == {"torch", "jax"}
    assert len({p.trial.seed for p in planned}) >= 3


@pytest.mark.parametrize("name", ["imagenet_90", "imagenet_paper"])
def test_the_cost_of_a_base_for_imagenet_is_what_plan_says_of_it(
    name: str, run: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "experiments" / "bases" / f"{name}.yaml"
    (cost,) = (line for line in path.read_text().splitlines() if line.startswith("# Cost:"))
    command = re.search(r"mixlab plan (--rate [^;]+)", cost)
    assert command is not None
    num_validation = round(0.01 * 1_281_167)
    info = DataInfo("imagenet", 224, 3, 1000, 1_281_167 - num_validation, num_validation, 50_000)
    monkeypatch.setattr(data, "describe", lambda *arguments: info)
    for module in (common, plan):
        monkeypatch.setattr(module, "data_notes", lambda *arguments: [])  # of its examples
    whole = write_yaml(
        tmp_path / "a.yaml", base={"base": str(path), "data": {"source": "imagenet"}}, grid={"seed": [0]}
    )
    ended = run("plan", str(whole), *command[1].split())
    assert ended.code == 0, ended.err
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in ended.out.splitlines()[1:3]}
    flop, time = re.match(r"\S+ \wFLOP", said["work"]), re.match(r".* h at a sustained \d+ TFLOP/s", said["time"])
    assert flop and time and cost.startswith(f"# Cost: {flop[0]} of training in matrix products, {time[0]}"), said


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_shipped_base_makes_a_trial_of_small_images(path: Path, tmp_path: Path, cache: Path) -> None:
    """At the sizes of its own data it is planned alike, but for what the data decides."""
    small = {"data.source": "synthetic", "data.num_examples": 60, "data.image_size": 32, "data.image_channels": 3}
    small |= {"train.batch_size": 8, "train.epochs": None, "train.steps": 9, "train.warmup_steps": 3}
    shorter = {"data.shorter_side": 36} if "shorter_side" in path.read_text() else {}
    whole = write_yaml(tmp_path / "a.yaml", base={"base": str(path), **small, **shorter}, grid={"seed": [0]})
    assert path.read_text().startswith("# ") and "# Cost:" in path.read_text()
    (one,) = planned(whole, cache)
    assert one.trial.num_steps == 9
    if path.stem.startswith("imagenet"):
        augment = one.trial.data.augment
        assert (augment.inception, augment.mixup_style, augment.randaugment.num) == ("tf", "authors", 2)
