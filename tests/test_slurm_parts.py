"""The parts of sending grids to Slurm that need no Slurm: cluster files, packs, snapshots, scripts, words, policies."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from backends.errors import BackendMissing, Diverged, MixlabError
from experiments.design import archive
from experiments.files import StoreError
from experiments.results.store import Store
from experiments.running.failures import CAUSES, DataMissing, cause_of
from experiments.running.queue import pending
from slurm import client, ledger, packing, snapshot, status
from slurm.attempts import Attempts
from slurm.batch import Ask, Batch
from slurm.cluster import RETRIES, ClusterSpec
from slurm.cluster_file import read_cluster
from slurm.cluster_keys import cluster_from
from slurm.needs import Needs
from slurm.software import EnvironmentSpec
from slurm.work import cores
from tests.conftest import ROOT, Ended, base, planned, records, write_yaml

EXAMPLE = ROOT / "slurm" / "clusters" / "example.yaml"


# --- the cluster file ---------------------------------------------------------------------------------------------


def test_the_example_holds_every_key() -> None:
    """Whoever copies it sees all that there is; its comments say what the defaults do."""
    keys = [line.partition(":")[0] for line in EXAMPLE.read_text().splitlines() if line[:1].isalpha()]
    missing = {f.name for f in dataclasses.fields(ClusterSpec)} - set(keys)
    assert not missing
    spec = read_cluster(EXAMPLE)
    assert dict(spec.retries) == RETRIES and spec.partition == "low" and spec.environment("jax") == EnvironmentSpec()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"partion": "a"}, "'partion' is not a key of a cluster file; did you mean 'partition'?"),
        ({"time_min": "soon"}, "time_min: 'soon' is not a time limit; expected minutes (90), H:M:S"),
        ({"time_min": 0}, "time_min: 0 is too small; at least 1 minute"),
        ({"memory_gb": "2GB"}, "memory_gb: expected a number (at least 0.001) or null, got '2GB'"),
        ({"signal": "TERM"}, "signal: expected one of USR1, USR2, got 'TERM'"),
        ({"partition": "low\n#SBATCH --x"}, "expected text of one line"),
        ({"environments": {"tensorflow": {}}}, "expected the name of a backend, got 'tensorflow'; allowed: jax, torch"),
        ({"environments": {"torch": {"pyton": "p"}}}, "'pyton' is not a key of it; did you mean 'python'?"),
        ({"environments": {"torch": "python3"}}, "environments: torch: expected a mapping, got 'python3'"),
        ({"environments": {"torch": {"setup": ["a\nb"]}}}, "expected text of one line"),
        ({"retries": {"kiled": 1}}, "'kiled' is no cause; allowed: timed_out"),
        ({"retries": {"diverged": 1}}, "it is never tried again by itself"),
        ({"retries": {"killed": -1}}, "retries: killed: expected a whole number (at least 0), got -1"),
        ({"retries": [1]}, "retries: expected a mapping, got [1]"),
        ({"sbatch": {"array": "0-9"}}, "'array' is set by Mixlab itself"),
        ({"sbatch": {"x y": "1"}}, "'x y' is no option"),
        ({"sbatch": {"mail-user": ["a"]}}, "expected text, a number, true or false, got ['a']"),
        ({"report": "maybe"}, "report: expected true or false, got 'maybe'"),
    ],
    ids=str,
)
def test_a_wrong_cluster_file_is_one_sentence(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(MixlabError) as caught:
        cluster_from(tree, "c.yaml")
    assert str(caught.value).startswith("c.yaml: ") and words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- packs --------------------------------------------------------------------------------------------------------


def test_packs_hold_one_backend_and_keep_shapes_together(tmp_path: Path, cache: Path) -> None:
    grid = {"seed": [0, 1, 2], "model.num_blocks": [1, 2], "backend": ["torch", "jax"]}
    trials = planned(write_yaml(tmp_path / "a.yaml", grid=grid), cache)
    packs = packing.packs(trials, lambda one: Needs(pack=3))
    assert [len(pack.trials) for pack in packs] == [3, 3, 3, 3]
    for pack in packs:
        assert {one.trial.backend for one in pack.trials} == {pack.backend}
        assert len({one.trial.model.num_blocks for one in pack.trials}) == 1
    assert sorted(one.trial.id for pack in packs for one in pack.trials) == sorted(one.trial.id for one in trials)
    arrays = packing.arrays(packing.packs(trials, lambda one: Needs()), 4)
    assert [len(array) for array in arrays] == [4, 2, 4, 2]
    assert all(len({pack.backend for pack in array}) == 1 for array in arrays)


# --- snapshots ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project under git: a tracked file that is changed, a new one, an ignored one, one that was deleted."""
    root = tmp_path / "project"
    root.mkdir()
    for name, text in {"a.py": "1", "gone.py": "2", ".gitignore": "*.bin\n"}.items():
        (root / name).write_text(text)
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    (root / "a.py").write_text("changed")
    (root / "gone.py").unlink()
    (root / "deep").mkdir()
    (root / "deep" / "new.py").write_text("new")
    (root / "large.bin").write_bytes(b"0" * 100)
    (root / "analysis" / "results" / "mine").mkdir(parents=True)
    (root / "analysis" / "results" / "mine" / "report.md").write_text("no code")
    return root


def test_a_snapshot_holds_what_git_tracks_and_what_is_new(tree: Path, tmp_path: Path) -> None:
    place = snapshot.take(tmp_path / "snapshots", 1.0, tree)
    found = {path.relative_to(place).as_posix(): path.read_text() for path in place.rglob("*") if path.is_file()}
    assert found == {"a.py": "changed", "deep/new.py": "new", ".gitignore": "*.bin\n"}
    assert snapshot.take(tmp_path / "snapshots", 1.0, tree) == place
    snapshot.check(place, place)
    (tree / "a.py").write_text("again")
    other = snapshot.take(tmp_path / "snapshots", 1.0, tree)
    assert other != place and (place / "a.py").read_text() == "changed"
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == sorted([place.name, other.name])


@pytest.mark.parametrize("under_git", [True, False])
def test_committed_results_are_no_part_of_a_snapshot_nor_of_its_name(tree: Path, under_git: bool) -> None:
    if not under_git:
        shutil.rmtree(tree / ".git")
    (tree / "analysis" / "results.py").write_text("code")
    before, names = snapshot.name_now(tree), snapshot.files(tree)
    assert "analysis/results.py" in names and not [name for name in names if name.startswith("analysis/results/")]
    (tree / "analysis" / "results" / "mine" / "report.md").write_text("another result")
    assert snapshot.name_now(tree) == before
    (tree / "analysis" / "results.py").write_text("other code")
    assert snapshot.name_now(tree) != before


def test_a_snapshot_that_is_not_what_it_was_runs_nothing_and_is_made_anew(tree: Path, tmp_path: Path) -> None:
    place = snapshot.take(tmp_path / "snapshots", 1.0, tree)
    (place / "__pycache__").mkdir()
    (place / "__pycache__" / "a.pyc").write_bytes(b"compiled")  # what Python leaves there changes nothing
    snapshot.check(place, place)
    (place / "a.py").chmod(0o640)
    (place / "a.py").write_text("tampered")
    with pytest.raises(snapshot.WrongSnapshot, match="was changed since the job was submitted"):
        snapshot.check(place, place)
    with pytest.raises(snapshot.WrongSnapshot, match=r"expected the code of .*, with which the job was submitted, got"):
        snapshot.check(place)
    assert snapshot.take(tmp_path / "snapshots", 1.0, tree) == place
    snapshot.check(place, place)


def test_a_file_by_another_name_is_other_code(tree: Path, tmp_path: Path) -> None:
    place = snapshot.take(tmp_path / "snapshots", 1.0, tree)
    (tree / "a.py").rename(tree / "b.py")
    other = snapshot.take(tmp_path / "snapshots", 1.0, tree)
    assert other != place and (other / "b.py").read_text() == (place / "a.py").read_text()
    (place / "a.py").rename(place / "c.py")
    with pytest.raises(snapshot.WrongSnapshot, match="was changed since the job was submitted"):
        snapshot.check(place, place)


def test_a_snapshot_over_its_limit_names_the_largest(tree: Path, tmp_path: Path) -> None:
    (tree / "weights.npz").write_bytes(b"0" * 3 * 2**20)
    with pytest.raises(
        MixlabError, match=r"at most snapshot_limit_mb 1, but .* has 3\.0 MiB; the largest files are weights\.npz"
    ):
        snapshot.take(tmp_path / "snapshots", 1.0, tree)
    assert not (tmp_path / "snapshots").exists()


# --- the batch script ---------------------------------------------------------------------------------------------


def test_nothing_of_a_cluster_file_reaches_a_shell_unquoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is run by bash with a `srun` that prints its words: each must come out as it went in."""
    evil = 'x\'y "z" $(touch pwned) `touch pwned`;&'
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nprintf \'%s\\0\' "$@" "$PYTHONPATH"\n')
    (tools / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    cluster = ClusterSpec(
        partition=evil, sbatch={"comment": evil}, environments={"torch": {"python": (f"/py {evil}",)}}
    )
    snap = tmp_path / f"snap {evil}"
    batch = Batch(tmp_path / evil, "name", Ask(cluster, cluster.needs("torch"), cluster.environment("torch"), snap))
    script = batch.text(3)
    done = subprocess.run(["bash", "-e"], input=script, cwd=tmp_path, capture_output=True, text=True, check=True)
    *words, path, _ = done.stdout.split("\0")
    assert f"/py {evil}" in words and str(tmp_path / evil) in words
    assert any(word.startswith(str(tmp_path / evil)) and word.endswith("%A_%a_%t_log.out") for word in words)
    assert path == str(tmp_path / f"snap {evil}")
    assert not list(tmp_path.rglob("pwned"))
    options = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert len(options) == len({line.partition("=")[0] for line in options})
    assert "#SBATCH --array=0-2%3" in options and "#SBATCH --requeue" in options
    assert not any("wckey" in line for line in options)


# --- Slurm's commands ---------------------------------------------------------------------------------------------


def test_a_command_that_hangs_or_reaches_nobody_is_silence(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.call, "__kwdefaults__", {"limit_s": 0.3})
    fake(squeue="exec sleep 600", sacct="echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1")
    began = time.monotonic()
    with pytest.raises(client.SlurmSilent, match=r"squeue did not answer in 0\.3 s"):
        client.queue(["a"])
    assert time.monotonic() - began < 300  # it has not waited for the answer
    with pytest.raises(client.SlurmSilent, match="Unable to contact slurm controller"):
        client.call("sacct")
    fake(scontrol="echo 'scontrol: error: Invalid job id specified' >&2; exit 1")
    with pytest.raises(client.SlurmError, match="Invalid job id specified"):
        client.release("7")


def test_programs_without_a_cluster_are_a_sentence_that_says_what_to_do(fake: Any) -> None:
    fake(scontrol="echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1")
    with pytest.raises(client.SlurmError, match=r"scontrol finds no cluster: .* no slurm\.conf; run this where jobs"):
        client.config()


def test_a_queue_is_read_by_names_that_are_ours(fake: Any, tmp_path: Path) -> None:
    fake(squeue=f"echo \"$@\" >> {tmp_path}/asked; echo '7_1|mixlab-a|PENDING|Priority||30:00'")
    (job,) = client.queue(["mixlab-a", "mixlab-b", "mixlab-a"])
    assert (job.id, job.state, job.reason, job.left) == ("7_1", "PENDING", "Priority", "30:00")
    assert "--name=mixlab-a,mixlab-b" in (tmp_path / "asked").read_text()


def test_memory_that_ran_out_is_told_from_a_step(fake: Any) -> None:
    rows = ["7_0|mixlab-a|FAILED", "7_0.batch|batch|FAILED", "7_0.0|bash|OUT_OF_MEMORY", "7_1|mixlab-a|CANCELLED by 5"]
    fake(sacct="\n".join(f"echo '{row}'" for row in rows))
    assert client.ended(["7_0", "7_1"]) == {
        "7_0": ("mixlab-a", "OUT_OF_MEMORY"),
        "7_1": ("mixlab-a", "CANCELLED by 5"),
    }
    fake(sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert client.ended(["7_0"]) == {}


def test_what_a_job_would_inherit_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SRUN_DEBUG", "SUBMITIT_EXECUTOR", "SLURM_CONF", "HOMELAND"):
        monkeypatch.setenv(name, "1")
    mask = os.umask(0o022)
    client.begin()
    assert os.umask(mask) == 0o027
    left = {
        name for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "SRUN_DEBUG", "SUBMITIT_EXECUTOR") if name in os.environ
    }
    assert left == set() and {"SLURM_CONF", "HOMELAND"} <= set(os.environ)


# --- states -------------------------------------------------------------------------------------------------------


def submitted(store: Store, state: str = "released", job: str | None = "7") -> ledger.Array:
    """An array of two packs in the ledger."""
    folder = ledger.new_submission(store, "a")
    name = f"mixlab-a-{folder.name}-0"
    return ledger.Array(folder, 0, name, state, job, "quick", (("t0", "t1"), ("t2",))).become()


@pytest.mark.parametrize(
    ("queue", "sacct", "expected"),
    [
        ("{name} RUNNING None", "", {"t0": "queued", "t2": "lost"}),
        ("", "{name} FAILED", {"t0": "lost", "t2": "lost"}),
    ],
)
def test_a_trial_is_lost_only_when_slurm_no_longer_has_its_job(
    fake: Any, tmp_path: Path, queue: str, sacct: str, expected: dict[str, str]
) -> None:
    store = Store(tmp_path)
    name = submitted(store).name
    job = queue.format(name=name).split()
    fake(
        squeue=f"echo '7_0|{job[0]}|{job[1]}|{job[2]}|n1|9:00'" if job else "true",
        sacct=f"echo '7_0|{sacct.format(name=name).replace(' ', '|')}'" if sacct else "exit 1",
    )
    known = status.overview(store, ["t0", "t2", "other"])
    assert {key: known.states[key].status for key in expected} == expected
    assert known.states["other"].status == "missing" and known.silence is None


def test_silence_is_not_death(fake: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    submitted(store)
    fake(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    known = status.overview(store, ["t0"])
    assert known.states["t0"].status == "unknown" and "Unable to contact" in str(known.silence)
    assert "mixlab retry" not in " ".join(status.hints("a", known))


@pytest.mark.parametrize(
    ("word", "said", "expected"),
    [
        ("OUT_OF_MEMORY", "", "out_of_memory: "),
        ("FAILED", "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0", "out_of_memory: "),
        ("TIMEOUT", "", "timed_out: "),
        ("NODE_FAIL", "", "node_lost: "),
        ("CANCELLED by 0", "", "cancelled: "),
        (
            "FAILED",
            "srun: error: n1: task 0: Killed",
            "FAILED; its last line: srun: error: n1: task 0: Killed",
        ),
        ("RUNNING", "", "Slurm says nothing about it"),
        ("SOMETHING_NEW", "", "Slurm says SOMETHING_NEW"),
    ],
)
def test_why_a_job_was_lost(fake: Any, tmp_path: Path, word: str, said: str, expected: str) -> None:
    store = Store(tmp_path)
    array = submitted(store)
    log = array.log_files(0)[1]
    log.parent.mkdir(parents=True)
    log.write_text(said)
    fake(squeue="true", sacct=f"echo '7_0|{array.name}|{word}'")
    assert expected in status.overview(store, ["t0"]).states["t0"].why


def test_a_job_of_another_that_was_given_our_number_says_nothing_of_ours(fake: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    submitted(store)
    fake(squeue="true", sacct="echo '7_0|somebody-elses|COMPLETED'")
    assert "Slurm says nothing about it" in status.overview(store, ["t0"]).states["t0"].why


# --- policies -----------------------------------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Diverged(3), "diverged"),
        (DataMissing("x"), "data_missing"),
        (BackendMissing("x"), "import_error"),
        (ModuleNotFoundError("x"), "import_error"),
        (OSError(errno.ENOSPC, "x"), "disk_full"),
        (OSError(errno.EACCES, "x"), "error"),
        (MemoryError(), "out_of_memory"),
        (OutOfMemoryError("CUDA"), "out_of_memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes"), "out_of_memory"),
        (ValueError("x"), "error"),
    ],
    ids=repr,
)
def test_errors_have_classes(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause and cause in CAUSES


def test_a_full_disk_is_known_through_the_stores_sentence() -> None:
    try:
        raise StoreError("store: cannot write") from OSError(errno.EDQUOT, "x")
    except StoreError as error:
        assert cause_of(error) == "disk_full"


@pytest.mark.parametrize(
    ("starts", "given_up"),
    [
        ([], False),
        ([("timed_out", 0)], False),
        ([("timed_out", 0), ("timed_out", 0)], True),
        ([("timed_out", 0), ("timed_out", 5)], False),  # it is at step 5 now, and was at 0 before
        ([("timed_out", 5), ("timed_out", 5)], True),
        ([("preempted", 5), ("preempted", 5)], True),
        ([(None, 5)] * 3, False),  # the node went away
        ([(None, 5)] * 4, True),
        ([("timed_out", None), ("timed_out", None)], False),  # this trial was not begun
    ],
    ids=str,
)
def test_only_starts_without_progress_count(
    tmp_path: Path, starts: list[tuple[str | None, int | None]], given_up: bool
) -> None:
    path, step = tmp_path / "attempts.json", max([s for _, s in starts if s is not None], default=0)
    path.write_text(json.dumps([{"ended": e, "steps": {} if s is None else {"t": s}} for e, s in starts]))
    failure = Attempts(path).given_up("t", step, ClusterSpec())
    assert (failure is not None) == given_up
    if failure:
        assert f"at step {step}" in failure.reason and failure.cause in CAUSES


def test_jobs_of_one_node_take_different_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    taken = []
    for job in range(4):
        monkeypatch.setenv("SLURM_JOB_ID", str(100 + job))
        taken.append(cores(2))
    assert sorted(core for share in taken for core in share) == list(range(8))
    assert cores(99) and len(cores(99)) == 8


# --- what stays of an ablation, and the local pool ----------------------------------------------------------------


def test_an_ablation_comes_back_from_the_store(tmp_path: Path, cache: Path) -> None:
    from experiments.design import ablation
    from experiments.design import trials as resolving

    report = {"columns": ["backend"], "baseline": {"backend": "torch"}, "equivalence": {"margin": 0.01}}
    path = write_yaml(tmp_path / "a.yaml", grid={"backend": ["torch", "jax"], "seed": [0, 1]}, report=report)
    whole = ablation.load_ablation(path)
    trials = resolving.trials(whole, cache)
    store = Store(tmp_path / "runs")
    archive.keep(store, whole, trials)
    path.unlink()
    again, found = archive.recall(store, "a")
    assert again == whole and found == trials
    with pytest.raises(MixlabError, match="has no ablation 'b'; allowed: a"):
        archive.recall(store, "b")
    (store.root / "ablations" / "a" / archive.FILE).write_text("{")
    with pytest.raises(MixlabError, match="is damaged"):
        archive.recall(store, "a")


def test_devices_are_dealt_out_to_the_jobs(run: Any, quick: Path, tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "a.yaml", base=base(backend="quick"), grid={"seed": [0, 1, 2, 3]})
    for word in ("gpuu", "cuda:x", ""):
        ended: Ended = run("run", str(path), "--devices", word)
        assert ended.code == 2 and f"--devices: expected a device, got {word!r}; allowed: auto, cpu, cuda" in ended.err
    assert run("run", str(path), "--devices", "cuda:1,cuda:0", "--jobs", "3").code == 0
    found = records(tmp_path / "runs").values()
    assert {(one["environment"]["backend"]["device"]) for one in found} == {"cuda sees 1", "cuda sees 0"}
    assert pending(planned(path, tmp_path / "runs" / "data"), Store(tmp_path / "runs"), print) == []
