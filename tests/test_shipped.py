"""What is shipped works as it is written: the README's commands and examples, and every ablation."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import mixlab
from experiments.bench import limit, step
from experiments.design import ablation
from experiments.design.ablation import GridTrial
from slurm.cluster_file import read_cluster
from tests.conftest import ROOT
from tests.peers import SMALL_MIXER, write_timm

README = (ROOT / "README.md").read_text()
ABLATIONS = sorted((ROOT / "experiments" / "ablations").glob("*.yaml"))
OFFICIAL = ROOT / "tests" / "fixtures" / "official_mixer_small.npz"
ON_A_CLUSTER = ("cluster", "submit", "logs", "retry", "cancel")  # tests/test_slurm.py goes on from there
HEAD = ("# Question: ", "# Command:  ", "# Cost:     ", "# Expected: ")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("mixlab ")]
    assert len(lines) >= 6
    return [shlex.split(line, comments=True)[1:] for line in lines]


def expand(text: str, folder: Path) -> list[GridTrial]:
    """The trials of an example as if it stood among the ablations."""
    path = folder / "example.yaml"
    path.write_text(text.replace("../bases", str(ROOT / "experiments" / "bases")))
    return ablation.trials(ablation.load_ablation(path), folder)


def small(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a bench one of seconds, against stand-ins for the peers."""
    if words[1] == "grid":
        words += ["model.num_blocks=1", "train.steps=2", "train.warmup_steps=1", "train.batch_size=8"]
        words += ["data.num_examples=200"]
        return
    words += ["--rounds", "1", "--backend", "torch"]
    for part in (limit, step):
        monkeypatch.setattr(part, "TURN_S", 0.05)
    if words[1] == "step":
        words += SMALL_MIXER
        write_timm(folder)
        monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_readme_is_understood(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    if "data.source=path/to/cifar10" in words:
        words[words.index("data.source=path/to/cifar10")] = "data.source=synthetic"
        words += ["data.num_examples=6000", "data.image_size=8"]
    if words[0] == "data":
        monkeypatch.chdir(tmp_path)
        own = ["synthetic", "data.num_examples=40"]
        words = [part for word in words for part in (own if word == "path/to/cifar10" else [word])]
    if words[0] in ("weights", "evaluate"):  # a reader has the authors' file; here it is a small one of their format
        monkeypatch.chdir(tmp_path)
        shutil.copy(OFFICIAL, "Mixer-B_16.npz")
        own = ["synthetic", "data.num_classes=7", "data.num_examples=40"]
        words = [part for word in words for part in (own if word == "path/to/imagenet" else [word])]
    if words[0] == "run":
        words.append("--dry-run")
    if words[0] == "compare":
        for name in words[1:]:
            (tmp_path / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
    if words[0] == "bench":
        small(words, tmp_path, monkeypatch)
    words = [file for word in words for file in (sorted(map(str, ROOT.glob(word))) if "*" in word else [word])]
    words = [word for word in words if word != "--open"]
    if words[0] == "parity":
        words += ["--steps", "2", "model.num_blocks=1", "model.hidden_dim=8", "data.image_size=8"]
    if words[0] in ON_A_CLUSTER:
        monkeypatch.setenv("PATH", str(tmp_path))
    if words[0] != "weights" and words[:2] != ["bench", "step"]:
        words += ["--store", str(tmp_path)]
    code = mixlab.main(words)
    if words[0] in ("status", "show", *ON_A_CLUSTER):
        assert code == mixlab.USER_ERROR  # understood; nothing has been run with this store, and there is no cluster
        said = capsys.readouterr().err
        assert ("slurm: " if words[0] in ("cluster", "submit") else "store: ") in said
    if words[0] == "show":  # a trial of the demo, which is what a reader has
        demo = ablation.trials(ablation.load_ablation(ROOT / "experiments" / "ablations" / "demo.yaml"), tmp_path)
        assert sum(one.trial.id.startswith(words[1]) for one in demo) == 1
    elif words[0] not in ("status", *ON_A_CLUSTER):
        assert code == 0


def test_the_example_of_the_readme_is_an_ablation(tmp_path: Path) -> None:
    text = next(block for block in blocks("yaml") if block.startswith("name:"))
    assert len(expand(text, tmp_path)) == 2 * 2 * 3


def test_the_second_example_makes_the_grid_that_it_says(tmp_path: Path) -> None:
    text = next(block for block in blocks("yaml") if block.startswith("grid:"))
    report = "report: {rows: [model.num_blocks, model.token_mixing, model.token_groups]}\n"
    assert [(t.trial.model.token_mixing, t.trial.model.num_blocks) for t in expand(text + report, tmp_path)] == [
        ("tied", 2),
        ("tied", 4),
        ("grouped", 4),
    ]


def test_the_cluster_file_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("USER", "me")
    path = tmp_path / "cluster.yaml"
    path.write_text(next(block for block in blocks("yaml") if block.startswith("time:")))
    found = read_cluster(path)
    assert (found.needs("jax").time, found.store, len(found.when)) == (90, "/scratch/me/runs", 1)


def test_the_readme_names_every_shipped_ablation_and_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert {path.relative_to(ROOT).as_posix() for path in ABLATIONS} <= set(links)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_a_shipped_ablation_opens_with_what_it_asks_and_can_be_planned(path: Path, tmp_path: Path) -> None:
    lines = path.read_text().splitlines()
    assert all(any(line.startswith(head) and len(line) > len(head) for line in lines[:6]) for head in HEAD)
    found = ablation.load_ablation(path)
    assert found.name == path.stem
    assert found.question in lines[0]
    planned = ablation.trials(found, tmp_path)
    assert {p.trial.backend for p in planned} == {"torch", "jax"}
    assert len({p.trial.seed for p in planned}) >= 3
