"""`mixlab clean`: sizes add up, nothing goes that was not named, and nothing that somebody holds."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.files import write_json, write_whole
from experiments.results import cleaning
from experiments.results.claims import Claim
from experiments.results.predictions import FILE
from experiments.results.store import Store
from slurm import ledger
from slurm.cluster import ClusterSpec
from tests.conftest import Ended, base, planned, records, write_yaml
from tests.store_parts import failed, make_older

Run = Callable[..., Ended]
OLD_S = cleaning.YOUNG_S + 60
SILENT = "echo 'squeue error: Unable to contact slurm controller' >&2; exit 1"


@dataclasses.dataclass(frozen=True)
class Full:
    """A store in which there is something of every kind, by kind."""

    store: Store
    run: Run
    paths: dict[str, list[Path]]

    def clean(self, *words: str) -> Ended:
        ended: Ended = self.run("clean", "--store", str(self.store.root), *words)
        return ended

    def there(self) -> set[str]:
        """Kinds of which all that was made is there."""
        return {kind for kind, paths in self.paths.items() if all(os.path.lexists(path) for path in paths)}

    def gone(self) -> set[str]:
        """Kinds of which nothing is there."""
        return {kind for kind, paths in self.paths.items() if not any(os.path.lexists(path) for path in paths)}

    def only(self, *kinds: str) -> bool:
        """Whether just these kinds are gone, whole."""
        return self.gone() == set(kinds) and self.there() == set(self.paths) - set(kinds)


def fill(root: Path, ids: dict[str, str]) -> dict[str, list[Path]]:
    """Args: ids: of the done trial, and of one that was stopped, has failed, is of no ablation, was never begun."""
    store, contents = Store(root), b"x" * 1000
    done, stopped, broken, orphan = (store.folder(ids[name]) for name in ("done", "stopped", "failed", "orphan"))
    store.finish(broken.name, {**failed(), "id": broken.name})
    paths = {
        "data": [next(path.parent for path in store.data.glob("*/about.json"))],
        "hub": [store.data / "hub" / "a" / "b"],
        "compiled": [root / "compiled" / "cpu" / "x"],
        "checkpoints": [
            stopped / name
            for name in (
                "checkpoint.safetensors",
                "previous-checkpoint.safetensors",
                "best-00000003.safetensors",
                "predictions-00000003.safetensors.gz",
            )
        ],
        "weights": [done / "weights.safetensors"],
        "orphans": [orphan / "spec.json", orphan / "weights.safetensors", orphan],
        "failed": [broken / "record.json", broken],
        "corrupt": [done / "record.json.corrupt-0", root / "snapshots" / "aa.corrupt-0"],
        "temporary": [
            store.folder(ids["idle"]) / ".record.json.0011.tmp",  # a claim of another trial sweeps there
            store.data / ".new-0011" / "entry",
            root / "ablations" / "a" / ".trials.txt.0011.tmp",
        ],
        "snapshots": [root / "snapshots" / "0123456789abcdef"],
        "results": [
            *(done / name for name in ("record.json", "metrics.jsonl", "filters.safetensors", FILE)),
            stopped / "spec.json",
        ],
        "ablations": [root / "ablations" / "a" / "resolved.json"],
        "other": [store.data / "seen", root / "limits.json"],
    }
    for path in (one for found in paths.values() for one in found):
        if not path.exists() and path != orphan:
            write_whole(path / "inner" if path.parent.name in ("snapshots", ".new-0011") else path, contents)
    for path in paths["temporary"]:
        make_older(path, OLD_S)
        for below in path.rglob("*"):
            make_older(below, OLD_S)
    make_older(store.data / ".new-0011", OLD_S)
    return paths


@pytest.fixture
def full(run: Run, tmp_path: Path, quick: Path, fake: Any) -> Full:
    fake(squeue="true", sacct="true")
    path = write_yaml(tmp_path / "a.yaml", base=base(backend="quick"), grid={"seed": [0, 1, 2, 3]})
    trials = [one.trial.id for one in planned(path, tmp_path / "runs" / "data")]
    assert run("run", "a.yaml", "--only", trials[0]).code == 0
    ids = {"done": trials[0], "stopped": trials[1], "failed": trials[2], "orphan": "feedfeedfeed", "idle": trials[3]}
    return Full(Store(tmp_path / "runs"), run, fill(tmp_path / "runs", ids))


def rows(ended: Ended) -> dict[str, list[str]]:
    lines = [line.split() for line in ended.out.splitlines()]
    return {words[0]: words[1:] for words in lines if words}


def test_without_a_name_nothing_is_removed_and_the_sizes_add_up(full: Full) -> None:
    before = sorted(full.store.root.rglob("*"))
    ended = full.clean()
    assert ended.code == 0 and "nothing was removed" in ended.out
    assert sorted(full.store.root.rglob("*")) == before and full.only()
    found = rows(ended)
    assert {kind for kind in found if found[kind][:1] not in ([], ["0"])} >= {*full.paths, "all"}
    items = list(cleaning.items(full.store, cleaning.Held(), _known(full.store), {}))
    whole = sum(path.stat().st_size for path in full.store.root.rglob("*") if path.is_file())
    assert sum(item.num_bytes for item in items) == whole
    for kind, paths in full.paths.items():
        files = {one for path in paths for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file()}
        own = [item for item in items if item.kind == kind]
        assert sum(item.num_bytes for item in own) >= sum(one.stat().st_size for one in files) > 0, kind


def _known(store: Store) -> set[str]:
    return {key for name in store.ablations() for key in store.ablation_labels(name)}


@pytest.mark.parametrize("kind", cleaning.REMOVABLE)
def test_what_is_named_goes_and_nothing_else(full: Full, kind: str) -> None:
    ended = full.clean("--remove", kind)
    assert ended.code == 0 and full.only(kind), (full.gone(), full.there(), ended)
    removed = [line for line in ended.out.splitlines() if line.startswith(f"removed {kind}: ")]
    assert removed and ended.out.splitlines()[-1].startswith(f"{len(removed)} removed, ")
    assert full.clean("--remove", kind).out.splitlines()[-1] == "nothing was removed"


def test_several_kinds_go_at_once(full: Full) -> None:
    assert full.clean("--remove", "data", "compiled", "weights").code == 0
    assert full.only("data", "compiled", "weights")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--remove", "results"), "--remove: expected a kind that can be removed, got 'results'; allowed: data, hub"),
        (("--remove", "wieghts"), "did you mean 'weights'?"),
        (("--trials-of", "b"), "--trials-of: there is no ablation 'b'; allowed: a"),
    ],
)
def test_a_name_that_is_none_removes_nothing(full: Full, words: tuple[str, ...], said: str) -> None:
    ended = full.clean(*words)
    assert ended.code == 2 and said in ended.err and full.only() and len(ended.err) < 300


def test_a_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path) -> None:
    ended = run("clean", "--store", "nowhere")
    assert ended.code == 2 and "there is no folder nowhere" in ended.err and not (tmp_path / "nowhere").exists()


def test_a_run_after_a_cleaning_makes_the_same_again(full: Full) -> None:
    before = records(full.store.root)
    assert full.clean("--remove", "data", "compiled", "temporary", "corrupt", "failed").code == 0
    assert full.run("run", "a.yaml").code == 0
    after = records(full.store.root)
    assert len(after) == 4 and all(one["status"] == "done" for one in after.values())
    done = {key: one for key, one in before.items() if one["status"] == "done"}
    assert done and {key: after[key] for key in done} == done


# --- what somebody holds ------------------------------------------------------------------------------------------


def test_what_a_running_trial_holds_stays(full: Full) -> None:
    """A trial that was stopped and now goes on, its data and what it has compiled; and a failed one that is retried."""
    stopped, broken = full.paths["checkpoints"][0].parent, full.paths["failed"][1]
    spec = json.loads(full.paths["weights"][0].with_name("spec.json").read_text())
    write_json(stopped / "spec.json", spec)
    claims = [Claim(stopped), Claim(broken)]
    for path in full.paths["temporary"][:1]:
        write_whole(path, b"in the making")
    ended = full.clean("--remove", *cleaning.REMOVABLE)
    assert ended.code == 0 and all(claim.is_held() for claim in claims)
    assert full.there() >= {"checkpoints", "failed", "data", "hub", "compiled", "results", "ablations", "other"}
    assert full.gone() == {"weights", "orphans", "corrupt", "snapshots"}
    assert full.paths["temporary"][0].exists()
    assert "kept 1 of data: a trial that runs or waits needs it" in ended.out and "runs now" in ended.out


def test_a_trial_that_reads_its_data_and_has_written_nothing_yet_holds_all_data(full: Full) -> None:
    claim = Claim(full.store.folder("beefbeefbeef"))
    assert full.clean("--remove", "data").code == 0 and full.only()
    claim.release()
    assert full.clean("--remove", "data").code == 0 and full.only("data")


def test_a_trial_that_begins_between_the_list_and_the_removal_stays(full: Full) -> None:
    items = list(cleaning.items(full.store, cleaning.Held(), _known(full.store), {}))
    folder = full.paths["failed"][1]
    (item,) = [item for item in items if item.kind == "failed"]
    claim = Claim(folder)
    assert "runs now" in cleaning.remove(full.store, item) and (folder / "record.json").exists()
    (folder / "record.json").unlink()
    claim.release()
    write_whole(folder / "checkpoint.safetensors", b"it was begun again, and stopped")
    assert "meanwhile" in cleaning.remove(full.store, item) and (folder / "checkpoint.safetensors").exists()


def submit(full: Full, trial_id: str, array_state: str = "released") -> ledger.Array:
    """As submission.py leaves it: one pack of one trial, and the snapshot that it runs."""
    folder = ledger.new_submission(full.store, "a")
    write_json(folder / "cluster.json", dataclasses.asdict(ClusterSpec()))
    write_json(folder / "report.json", {"snapshot": str(full.paths["snapshots"][0])})
    array = ledger.Array(folder, 0, f"mixlab-a-{folder.name}-0", array_state, "7", "quick", ((trial_id,),)).become()
    spec = json.loads(full.paths["weights"][0].with_name("spec.json").read_text())
    write_json(array.pack_file(0), {"trials": [{"spec": spec, "settings": {}}]})
    return array


@pytest.mark.parametrize("queue", ["a job", "silence", "the report's job", "nothing"])
def test_what_queued_jobs_hold_stays(full: Full, fake: Any, queue: str) -> None:
    stopped = full.paths["checkpoints"][0].parent
    array = submit(full, stopped.name)
    name = {"a job": array.name, "the report's job": ledger.report_name(array.folder)}.get(queue)
    line = f"7|{name}|PENDING|Priority||9:00"
    fake(squeue=SILENT if queue == "silence" else f"[[ $* == *{name}* ]] && echo '{line}' || true")
    ended = full.clean("--remove", "checkpoints", "data", "snapshots", "weights")
    assert ended.code == 0 and "weights" in full.gone()
    assert ("snapshots" in full.gone()) == (queue == "nothing")
    is_queued = queue in ("a job", "silence")
    assert ("checkpoints" in full.there(), "data" in full.there()) == (is_queued, is_queued)
    assert ("Unable to contact" in ended.out) == (queue == "silence")


def test_while_somebody_submits_no_code_is_removed(full: Full) -> None:
    claim = Claim(full.store.root / "submitting")
    ended = full.clean("--remove", "snapshots")
    assert full.only() and "somebody is submitting now" in ended.out and claim.is_held()


# --- a named ablation ---------------------------------------------------------------------------------------------


def test_an_ablation_goes_with_the_trials_that_it_alone_has(full: Full, tmp_path: Path) -> None:
    write_yaml(tmp_path / "b.yaml", base=base(backend="quick"), grid={"seed": [0, 7]})
    assert full.run("run", "b.yaml").code == 0
    shared, own = [one.trial.id for one in planned(tmp_path / "b.yaml", full.store.data)]
    ended = full.clean("--trials-of", "b")
    assert ended.code == 0 and full.only(), ended
    assert full.store.ablations() == ["a"] and shared in full.store.trial_ids() and own not in full.store.trial_ids()
    assert f"removed trials-of: {full.store.folder(own)}" in ended.out
    assert full.clean("--trials-of", "a").code == 0
    assert full.store.ablations() == [] and full.store.trial_ids() == ["feedfeedfeed"]


def test_an_ablation_whose_jobs_are_in_the_queue_stays(full: Full, fake: Any) -> None:
    array = submit(full, full.paths["checkpoints"][0].parent.name)
    fake(squeue=f"echo '7|{array.name}|RUNNING|None|n1|9:00'")
    ended = full.clean("--trials-of", "a")
    assert "has jobs in the queue" in ended.out and "waits in the queue" in ended.out
    assert full.paths["ablations"][0].exists() and full.paths["checkpoints"][0].exists()
    assert full.gone() >= {"failed", "weights"}


def test_links_go_and_what_they_lead_to_stays(full: Full, tmp_path: Path) -> None:
    """A shared folder of data, or of compiled programs, that somebody has linked into the store."""
    elsewhere = tmp_path / "elsewhere"
    write_whole(elsewhere / "x", b"dear")
    (full.store.root / "compiled" / "cpu" / "link").symlink_to(elsewhere)
    assert full.clean("--remove", "compiled").code == 0
    assert full.only("compiled") and (elsewhere / "x").read_bytes() == b"dear"


def test_an_ablation_of_which_a_trial_runs_stays(full: Full) -> None:
    """Else its trial would end as one of no ablation, which the next cleaning removes with its record."""
    claim = Claim(full.paths["checkpoints"][0].parent)
    ended = full.clean("--trials-of", "a")
    assert ended.code == 0 and claim.is_held() and full.store.ablations() == ["a"], ended
    assert f"trial {claim.path.parent.name} runs now" in ended.out
    claim.release()
    assert full.clean("--trials-of", "a").code == 0 and full.store.ablations() == []


# --- what is damaged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", '{"labels": ', '{"labels": 3}', "[]"])
def test_while_an_ablation_is_damaged_no_trial_is_an_orphan_and_the_rest_is_cleaned(full: Full, content: str) -> None:
    path = full.paths["ablations"][0]
    whole = path.read_text()
    path.write_text(content)
    ended = full.clean("--remove", "orphans", "data", "compiled")
    assert ended.code == 0 and full.only("data", "compiled"), ended
    assert "resolved.json is damaged" in ended.out and "every trial counts as one of an ablation" in ended.out
    ended = full.clean("--trials-of", "a")
    assert ended.code == 2 and "resolved.json is damaged" in ended.err and full.only("data", "compiled")
    path.write_text(whole)
    assert full.clean("--remove", "orphans").code == 0 and full.only("data", "compiled", "orphans")


def test_what_is_half_written_beside_the_trials_is_listed(full: Full) -> None:
    probe = full.store.root / "trials" / ".clock.0011.tmp"
    write_whole(probe, b"")
    make_older(probe, OLD_S)
    assert full.clean("--remove", "temporary").code == 0 and not probe.exists()
