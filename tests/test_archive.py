"""What was asked under a name changes at once: a kill between any two writes leaves the old form or the new one."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design import archive
from experiments.design.ablation import Ablation, GridTrial, load_ablation
from experiments.files import write_whole
from experiments.results.store import RESOLVED, TRIALS, Store
from tests.conftest import Ended, base, planned, write_yaml

WRITES = 3


class Killed(BaseException):
    """The process is gone."""


def form(folder: Path, seeds: list[int], **keys: Any) -> tuple[Ablation, list[GridTrial]]:
    path = write_yaml(folder / "a.yaml", base=base(backend="quick"), grid={"seed": seeds}, **keys)
    return load_ablation(path), planned(path, folder / "data")


def kill_before(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Args: number: of the write that does not happen any more, from 0."""
    done: list[Path] = []

    def write(path: Path, content: bytes) -> None:
        if len(done) == number:
            raise Killed
        done.append(path)
        write_whole(path, content)

    monkeypatch.setattr(archive, "write_whole", write)


def asked(store: Store) -> tuple[str, dict[str, str], list[str]]:
    """What each way to ask says: the question, the labels, the ids."""
    ablation, trials = archive.recall(store, "a")
    return ablation.question, store.ablation_labels("a"), [one.trial.id for one in trials]


@pytest.mark.parametrize("number", range(WRITES))
@pytest.mark.parametrize(("seeds", "question"), [([2, 3], "new"), ([0, 1], "new"), ([1, 0], "old")])
def test_a_kill_between_two_writes_leaves_the_old_form_or_the_new_one(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, number: int, seeds: list[int], question: str
) -> None:
    """Other trials; the same under another question; the same in another order."""
    stores = {name: Store(tmp_path / name) for name in ("old", "new", "killed")}
    old = form(tmp_path, [0, 1], question="old")
    for name in ("old", "killed"):
        archive.keep(stores[name], *old)
    new = form(tmp_path, seeds, question=question)
    archive.keep(stores["new"], *new)
    kill_before(monkeypatch, number)
    with pytest.raises(Killed):
        archive.keep(stores["killed"], *new)
    monkeypatch.undo()
    assert asked(stores["killed"]) == asked(stores["old" if number == 0 else "new"])
    archive.keep(stores["killed"], *new)  # the next run or submission completes it, for people too
    for file in (RESOLVED, TRIALS, "ablation.yaml"):
        assert (stores["killed"].ablation("a") / file).read_bytes() == (stores["new"].ablation("a") / file).read_bytes()


@pytest.mark.parametrize("number", range(WRITES))
def test_a_kill_as_an_ablation_is_kept_first_leaves_it_whole_or_not_at_all(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store, whole = Store(tmp_path / "runs"), form(tmp_path, [0, 1])
    kill_before(monkeypatch, number)
    with pytest.raises(Killed):
        archive.keep(store, *whole)
    if number == 0:
        assert store.ablations() == []
        with pytest.raises(MixlabError, match="has no ablation 'a'"):
            store.ablation_labels("a")
    else:
        assert store.ablations() == ["a"] and list(asked(store)[1]) == asked(store)[2]


def test_keeping_the_same_writes_nothing_and_losing_trials_is_told(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "runs")
    assert not archive.keep(store, *form(tmp_path, [0, 1]))
    with monkeypatch.context() as patch:
        kill_before(patch, 0)
        assert not archive.keep(store, *form(tmp_path, [0, 1]))
    assert not archive.keep(store, *form(tmp_path, [0, 1, 2]))
    assert archive.keep(store, *form(tmp_path, [1, 2]))


def test_a_setting_that_is_not_hashed_is_kept_too(tmp_path: Path, quick: Path) -> None:
    """A base that was edited beside an ablation whose YAML and ids stay: retry goes by the newer one."""
    store = Store(tmp_path / "runs")
    for every_s in (60.0, 5.0):
        (tmp_path / "b.yaml").write_text(json.dumps(base(backend="quick", run={"checkpoint_every_s": every_s})))
        path = write_yaml(tmp_path / "a.yaml", base="b.yaml")
        archive.keep(store, load_ablation(path), planned(path, tmp_path / "data"))
        assert archive.recall(store, "a")[1][0].trial.run.checkpoint_every_s == every_s


def test_a_store_of_an_earlier_version_is_read(run: Any, tmp_path: Path, quick: Path) -> None:
    form(tmp_path, [0, 1])
    assert run("run", "a.yaml").code == 0
    path = tmp_path / "runs" / "ablations" / "a" / RESOLVED
    tree = json.loads(path.read_text())
    labels = tree.pop("labels")
    path.write_text(json.dumps(tree))
    store = Store(tmp_path / "runs")
    assert store.ablation_labels("a") == labels and len(archive.recall(store, "a")[1]) == 2
    path.unlink()
    assert store.ablations() == ["a"] and store.ablation_labels("a") == labels
    ended: Ended = run("status", "a")
    assert ended.code == 0 and ended.out.count("done") >= 2


def test_damage_is_named(run: Any, tmp_path: Path, quick: Path) -> None:
    archive.keep(Store(tmp_path / "runs"), *form(tmp_path, [0, 1]))
    path = tmp_path / "runs" / "ablations" / "a" / RESOLVED
    path.write_bytes(path.read_bytes()[:30])
    ended: Ended = run("status", "a")
    assert ended.code == 2 and f"{Path('runs/ablations/a') / RESOLVED} is damaged" in ended.err
    assert len(ended.err.splitlines()) == 1
