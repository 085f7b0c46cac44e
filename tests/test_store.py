"""The store: claims exclude each other, files are whole or as they were, and what a disk does is one sentence."""

import contextlib
import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import MixlabError
from experiments import checkpoint, store
from experiments import claims as ownership
from experiments.claims import STALE_S, Claim, ClaimLost
from experiments.files import StoreError, finite, set_aside, write_json, write_whole
from experiments.record import NUMBERS, RECORD_SCHEMA, read
from experiments.store import CorruptRecord, Store
from tests.conftest import Ended, base, files, planned, records, results, write_yaml

Run = Callable[..., Ended]

ID = "0123456789ab"
RACERS, ROUNDS = 4, 25  # processes; races of each for a trial
THREADS = 8


def heartbeat(root: Path) -> Path:
    return Store(root).folder(ID) / "heartbeat"


def leave_heartbeat(root: Path, age_s: float = 0.0, **said: Any) -> None:
    """What an owner left: by default of this very process, which is alive."""
    alive = {"token": "left", "host": socket.gethostname(), "pid": os.getpid(), "processes": ownership._processes()}
    start = ownership._process_start(os.getpid())
    write_json(heartbeat(root), {**alive, "process_start": start, **said})
    then = time.time() - age_s
    os.utime(heartbeat(root), (then, then))


def temporaries(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".*") if path.is_file()]


def record(**fields: Any) -> dict[str, Any]:
    point = {"step": 1, **{split: {"accuracy": 0.5, "loss": 1.0} for split in ("train", "test")}, "validation": None}
    metrics = {"last": point, "best": point}
    numbers = {**dict.fromkeys(NUMBERS, 1), "seconds": dict.fromkeys(("compile", "train", "evaluate"), 1.0)}
    about = {"schema": RECORD_SCHEMA, "id": ID, "status": "done", "reason": None, "notes": [], "sessions": []}
    return {**about, **numbers, "metrics": metrics, **fields}


def metrics(**accuracies: Any) -> dict[str, Any]:
    """The metrics of a record, with other values for the accuracy: metrics(last="x")."""
    found = json.loads(json.dumps(record()["metrics"]))
    for when, value in accuracies.items():
        found[when]["test"]["accuracy"] = value
    return dict(found)


# --- claims -------------------------------------------------------------------------------------------------------


def race(root: Path, barrier: Any, answers: Any) -> None:
    """In a process of its own: claim a trial at the same instant as the others, again and again."""
    for number in range(ROUNDS):
        claim = None
        barrier.wait()
        with contextlib.suppress(ClaimLost):
            claim = Claim(Store(root).folder(f"trial{number}"))
        answers.put((number, claim is not None))
        barrier.wait()  # the winner is alive until all have tried


def test_of_processes_that_claim_one_trial_at_once_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(RACERS, timeout=60), context.Queue()
    processes = [context.Process(target=race, args=(tmp_path, barrier, answers), daemon=True) for _ in range(RACERS)]
    for process in processes:
        process.start()
    given = [answers.get(timeout=60) for _ in range(RACERS * ROUNDS)]
    for process in processes:
        process.join()
    assert [sum(won for at, won in given if at == number) for number in range(ROUNDS)] == [1] * ROUNDS
    assert not temporaries(tmp_path)


@pytest.mark.parametrize("left", ["nothing", "a dead owner"])
def test_of_threads_that_claim_one_trial_at_once_one_holds_it(tmp_path: Path, left: str) -> None:
    for number in range(ROUNDS):
        root = tmp_path / str(number)
        if left == "a dead owner":
            leave_heartbeat(root, process_start=1)
        barrier = threading.Barrier(THREADS)
        claims: list[Claim] = []

        def claim(root: Path = root, barrier: Any = barrier, claims: list[Claim] = claims) -> None:
            barrier.wait()
            try:
                claims.append(Claim(Store(root).folder(ID)))
            except ClaimLost:
                return

        threads = [threading.Thread(target=claim) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(one.is_held() for one in claims) == 1
        assert not [name for name in temporaries(root) if name != "heartbeat"]


def test_a_live_claim_is_not_taken_over(tmp_path: Path) -> None:
    claim = Claim(Store(tmp_path).folder(ID))
    with pytest.raises(ClaimLost):
        Claim(Store(tmp_path).folder(ID))
    assert claim.is_held()
    owner = Store(tmp_path).owner(ID)
    assert owner and owner["pid"] == os.getpid()
    claim.release()
    assert Store(tmp_path).owner(ID) is None and not heartbeat(tmp_path).exists()
    assert Claim(Store(tmp_path).folder(ID)).is_held()


@pytest.mark.parametrize(
    ("said", "age_s", "is_dead"),
    [
        ({}, 0.0, False),
        ({}, STALE_S - 20, False),
        ({}, STALE_S + 20, True),  # hung, or stopped: it has not beaten
        ({"process_start": 1}, 0.0, True),  # the number of the process was given to another
        ({"host": "elsewhere", "process_start": 1}, 0.0, False),  # its process cannot be asked after
        ({"processes": "another user's", "process_start": 1}, 0.0, False),  # nor can this one: /proc may hide it
        ({"host": "elsewhere", "process_start": 1}, STALE_S - 20, False),
        ({"host": "elsewhere", "process_start": 1}, STALE_S + 20, True),
    ],
)
def test_a_claim_is_taken_over_only_from_the_dead(
    tmp_path: Path, said: dict[str, Any], age_s: float, is_dead: bool
) -> None:
    leave_heartbeat(tmp_path, age_s, **said)
    assert (Store(tmp_path).owner(ID) is None) == is_dead
    if is_dead:
        assert Claim(Store(tmp_path).folder(ID)).is_held()
    else:
        with pytest.raises(ClaimLost):
            Claim(Store(tmp_path).folder(ID))
        assert json.loads(heartbeat(tmp_path).read_text())["token"] == "left"


def test_the_claim_of_a_process_that_died_is_taken_over_at_once(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from experiments.claims import Claim; from experiments.store import Store\n"
        "Claim(Store(Path(sys.argv[1])).folder(sys.argv[2])); os._exit(9)"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path, ID], cwd=Path(store.__file__).parent.parent)
    assert ended.returncode == 9 and heartbeat(tmp_path).exists()
    begin = time.monotonic()
    assert Claim(Store(tmp_path).folder(ID)).is_held() and time.monotonic() - begin < STALE_S / 10


@pytest.mark.parametrize("left", ["", "{"])
def test_a_heartbeat_that_is_none_is_taken_over(tmp_path: Path, left: str) -> None:
    write_whole(heartbeat(tmp_path), left.encode())
    assert Store(tmp_path).owner(ID) is None
    assert Claim(Store(tmp_path).folder(ID)).is_held()


def test_the_slower_of_two_that_take_over_leaves_the_faster_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the owner dead; between the slower's look and its move, the faster takes over."""
    leave_heartbeat(tmp_path, process_start=1)
    faster: list[Claim] = []
    is_dead = ownership._is_dead

    def look(said: dict[str, Any], age_s: float) -> bool:
        found = is_dead(said, age_s)
        if not faster:
            monkeypatch.setattr(ownership, "_is_dead", is_dead)
            faster.append(Claim(Store(tmp_path).folder(ID)))
        return found

    monkeypatch.setattr(ownership, "_is_dead", look)
    with pytest.raises(ClaimLost):
        Claim(Store(tmp_path).folder(ID))
    assert faster[0].is_held()
    assert temporaries(tmp_path) == []


def test_an_owner_whose_claim_was_taken_over_notices_and_leaves_the_new_one_alone(tmp_path: Path) -> None:
    old = Claim(Store(tmp_path).folder(ID))
    then = time.time() - STALE_S - 20
    os.utime(heartbeat(tmp_path), (then, then))
    new = Claim(Store(tmp_path).folder(ID))
    assert new.is_held() and not old.is_held()
    old.release()
    assert new.is_held()


def test_a_claim_is_kept_alive_and_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "BEAT_S", 0.01)
    claim = Claim(Store(tmp_path).folder(ID))
    with claim.kept():
        claim.said = {**claim.said, "step": 7}
        limit = time.monotonic() + 30
        while "step" not in (Store(tmp_path).owner(ID) or {}):
            assert time.monotonic() < limit, "no beat in 30 s"
        os.utime(heartbeat(tmp_path), (0, 0))
        while Store(tmp_path).owner(ID) is None:
            assert time.monotonic() < limit, "the beat does not renew the heartbeat"
    assert claim.is_held()
    claim.release()
    assert temporaries(tmp_path) == []


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    path = tmp_path / "record.json"
    write_whole(path, b"old")

    def fail(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr(Path, "replace", fail)
        with pytest.raises(StoreError) as caught:
            write_whole(path, b"new")
        with pytest.raises(StoreError):
            write_whole(tmp_path / "other.json", b"new")
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == b"old" and [one.name for one in tmp_path.iterdir()] == ["record.json"]


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "file", b"a longer text")
    write_whole(tmp_path / "deep" / "file", b"short")
    assert (tmp_path / "deep" / "file").read_bytes() == b"short" and temporaries(tmp_path) == []


def test_two_processes_of_one_number_do_not_write_to_one_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two machines that share a store, processes have equal numbers: in containers nearly always."""
    seen = []
    replace = Path.replace

    def note(self: Path, target: Path) -> Path:
        seen.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    write_whole(tmp_path / "file", b"1")
    write_whole(tmp_path / "file", b"2")
    assert len(set(seen)) == 2


def test_nan_and_infinity_are_null_in_every_depth(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    write_json(tmp_path / "a.json", {"a": [nan, (1.5, -inf)], "b": {"c": inf, "d": "NaN", "e": True}})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {
        "a": [None, [1.5, None]],
        "b": {"c": None, "d": "NaN", "e": True},
    }
    assert finite(np.float64("nan")) is None


def test_nothing_set_aside_is_written_over(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "record.json").write_text(str(number))
        assert set_aside(tmp_path / "record.json").read_text() == str(number)
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["0", "1", "2"]


# --- records ------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert Store(tmp_path).record(ID) is None
    Store(tmp_path).finish(ID, record(loss=0.1 + 0.2, curve=[{"step": 1}]))
    assert Store(tmp_path).record(ID) == record(loss=0.1 + 0.2, curve=[])  # which is read where it is drawn
    assert json.loads((Store(tmp_path).folder(ID) / "record.json").read_text())["curve"] == [{"step": 1}]


def test_a_record_is_read_without_its_curve_only_where_that_is_its_last_part(tmp_path: Path) -> None:
    path, curve = Store(tmp_path).folder(ID) / "record.json", [{"step": step} for step in range(5_000)]
    whole = record()
    notes = whole.pop("notes")
    write_json(path, {**whole, "notes": notes, "curve": curve})
    assert read(path, with_curve=False)["curve"] == []
    assert Store(tmp_path).record(ID) == record(curve=[])
    assert Store(tmp_path).record(ID, with_curve=True) == record(curve=curve)
    write_json(path, {**whole, "curve": curve, "notes": notes})
    assert read(path, with_curve=False)["curve"] == curve and Store(tmp_path).record(ID) == record(curve=[])
    assert Store(tmp_path).record(ID, with_curve=True) == record(curve=curve)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CorruptRecord, match="not JSON"):
        Store(tmp_path).record(ID)
    write_json(path, {**whole, "notes": notes, "curve": curve})
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CorruptRecord, match="not JSON"):
        Store(tmp_path).record(ID)


def test_a_checkpoint_goes_with_the_record_of_a_done_trial_and_stays_with_a_failed_one(tmp_path: Path) -> None:
    path = Store(tmp_path).folder(ID) / "checkpoint.safetensors"
    write_whole(path, b"state")
    Store(tmp_path).finish(ID, record(status="failed"))
    assert path.exists()
    Store(tmp_path).finish(ID, record())
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "how"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (json.dumps(record()).encode()[:-9], "not JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b"[]", "not the record"),
        (json.dumps(record(id="another")).encode(), "not the record"),
        (json.dumps(record(status="perhaps")).encode(), "its status is"),
        (json.dumps(record(schema="2")).encode(), "its schema is"),
        (json.dumps(record(notes="x")).encode(), "its notes is"),
        (json.dumps(record(status="failed", reason=None)).encode(), "its reason is"),
        (json.dumps(record(parameters="many")).encode(), "its parameters is"),
        (json.dumps(record(seconds=[1, 2])).encode(), "its seconds.compile is"),
        (json.dumps(record(sessions=["torch"])).encode(), "its sessions is"),
        (json.dumps(record(metrics=None)).encode(), "its metrics.last.step is"),
        (json.dumps(record(metrics=metrics(last="x"))).encode(), "its metrics.last.test.accuracy is"),
        (json.dumps(record(metrics=metrics(best=[1]))).encode(), "its metrics.best.test.accuracy is"),
    ],
)
def test_a_corrupt_record_is_named_and_set_aside(tmp_path: Path, content: bytes, how: str) -> None:
    path = Store(tmp_path).folder(ID) / "record.json"
    write_whole(path, content)
    with pytest.raises(CorruptRecord) as caught:
        Store(tmp_path).record(ID)
    assert str(path) in str(caught.value) and how in str(caught.value)
    _, sentence = Store(tmp_path).record_or_set_aside(ID)
    assert sentence and str(path) in sentence and "record.json.corrupt-0" in sentence
    assert (path.parent / "record.json.corrupt-0").read_bytes() == content
    assert Store(tmp_path).record(ID) is None and Store(tmp_path).record_or_set_aside(ID) == (None, None)


@pytest.mark.parametrize("schema", [1, 99])
def test_a_record_of_another_schema_is_named_and_stays(tmp_path: Path, schema: int) -> None:
    path = Store(tmp_path).folder(ID) / "record.json"
    write_whole(path, json.dumps(record(schema=schema)).encode())
    for ask in (Store(tmp_path).record, Store(tmp_path).record_or_set_aside):
        with pytest.raises(StoreError, match=f"has schema {schema}, and this version of Mixlab reads {RECORD_SCHEMA}"):
            ask(ID)
    assert [one.name for one in path.parent.iterdir()] == ["record.json"]


def test_two_that_set_one_corrupt_record_aside_at_once_are_both_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Store(tmp_path).folder(ID) / "record.json"
    write_whole(path, b"{")
    rename = Path.rename

    def second(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        Store(tmp_path).record_or_set_aside(ID)  # another run of the same ablation is faster
        return self.rename(target)

    monkeypatch.setattr(Path, "rename", second)
    Store(tmp_path).record_or_set_aside(ID)
    assert [one.name for one in path.parent.iterdir()] == ["record.json.corrupt-0"]


def test_find_wants_a_beginning_of_one_id(tmp_path: Path) -> None:
    for name in ("abc1", "abd2", "b3"):
        write_whole(Store(tmp_path).folder(name) / "spec.json", b"{}")
    assert Store(tmp_path).find("b") == "b3" and Store(tmp_path).find("abd") == "abd2"
    with pytest.raises(MixlabError, match=r"2 trials begin with 'ab'.*abc1, abd2"):
        Store(tmp_path).find("ab")
    with pytest.raises(MixlabError, match="no trial begins with 'c'"):
        Store(tmp_path).find("c")


# --- checkpoints --------------------------------------------------------------------------------------------------

STATE = {"params/a": np.arange(6, dtype=np.float32).reshape(2, 3), "params/b": np.array([1e-300])}
SHAPES = {"params/a": (2, 3), "params/b": (1,)}


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    progress = {"step": 3, "loss_sum": 0.1 + 0.2, "curve": [{"step": 1, "test": None}]}
    checkpoint.write(tmp_path / "c", STATE, progress)
    state, back = checkpoint.read(tmp_path / "c", SHAPES)
    assert back == progress
    for name, array in STATE.items():
        assert state[name].dtype == array.dtype and state[name].tobytes() == array.tobytes()


def test_a_checkpoint_that_cannot_be_written_keeps_the_former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write(tmp_path / "c", STATE, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space is left"):
        checkpoint.write(tmp_path / "c", {**STATE, "params/b": np.array([2.0])}, {"step": 2})
    state, progress = checkpoint.read(tmp_path / "c", SHAPES)
    assert progress == {"step": 1} and state["params/b"][0] == 1e-300 and temporaries(tmp_path) == []


@pytest.mark.parametrize("part", ["head", "metadata", "array", "end"])
def test_a_checkpoint_with_one_changed_byte_is_corrupt(tmp_path: Path, part: str) -> None:
    checkpoint.write(tmp_path / "c", STATE, {"step": 1})
    content = bytearray((tmp_path / "c").read_bytes())
    at = {"head": 0, "metadata": content.index(b"step") + 1, "array": len(content) - 20, "end": len(content) - 1}[part]
    content[at] ^= 1
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(checkpoint.CorruptCheckpoint):
        checkpoint.read(tmp_path / "c", SHAPES)


def test_a_checkpoint_cut_off_anywhere_or_of_another_model_is_corrupt(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "c", STATE, {"step": 1})
    with pytest.raises(checkpoint.CorruptCheckpoint, match="another model"):
        checkpoint.read(tmp_path / "c", {**SHAPES, "params/b": (2,)})
    whole = (tmp_path / "c").read_bytes()
    for length in range(0, len(whole), 16):
        (tmp_path / "c").write_bytes(whole[:length])
        with pytest.raises(checkpoint.CorruptCheckpoint):
            checkpoint.read(tmp_path / "c", SHAPES)
    with pytest.raises(FileNotFoundError):
        checkpoint.read(tmp_path / "none", SHAPES)


# --- full and read-only disks, through the command line -----------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk in memory: disk("size=400k"), then disk("ro") makes the same read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        given = f"remount,{options}" if mounted else options
        ended = subprocess.run(["mount", "-t", "tmpfs", "-o", given, "tmpfs", folder], capture_output=True, text=True)
        if ended.returncode:
            pytest.skip(f"a disk cannot be mounted here: {ended.stderr.strip()}")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def assert_store_error(ended: Ended, *parts: str) -> None:
    lines = [line for line in ended.err.splitlines() if line.startswith("mixlab: ")]
    assert ended.code == 2 and len(lines) == 1 and "Traceback" not in ended.err, ended
    for part in ("cannot write", *parts):
        assert part in lines[0]


def test_a_disk_that_fills_up_is_one_sentence_and_the_next_run_goes_on(
    run: Run, tmp_path: Path, quick: Path, disk: Callable[[str], Path]
) -> None:
    """The checkpoint has room once, and not beside the former one."""
    large = base(model={"hidden_dim": 64}, train={"steps": 4}, backend="quick", run={"checkpoint_every_s": 0.0})
    write_yaml(tmp_path / "large.yaml", base=large)
    assert run("run", "large.yaml", "--store", "whole").code == 0
    root = disk("size=1300k") / "runs"
    ended = run("run", "large.yaml", "--store", str(root))
    assert_store_error(ended, "checkpoint.safetensors", "no space is left", "--store")
    left = list(root.glob("trials/*/checkpoint.safetensors"))
    assert len(left) == 1 and temporaries(root) == [] and not records(root)
    disk("size=4m")
    assert run("run", "large.yaml", "--store", str(root)).code == 0
    assert results(root) == results(tmp_path / "whole")
    assert {len(one["sessions"]) for one in records(root).values()} == {1, 2}


def test_a_disk_that_is_full_from_the_start_is_one_sentence(
    run: Run, tmp_path: Path, quick: Path, disk: Callable[[str], Path]
) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"))
    root = disk("size=16k")
    (root / "filler").write_bytes(bytes(8192))
    ended = run("run", "tiny.yaml", "--store", str(root / "runs"))
    assert ended.code == 2 and "Traceback" not in ended.err and len(ended.err.splitlines()) == 1, ended.err
    assert str(root) in ended.err and "space" in ended.err.lower()
    assert temporaries(root) == []


def test_a_read_only_store_can_be_read_and_refuses_a_run(
    run: Run, tmp_path: Path, quick: Path, disk: Callable[[str], Path]
) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"))
    root = disk("size=4m")
    first = planned(tmp_path / "tiny.yaml", root / "data")[0].trial.id
    assert run("run", "tiny.yaml", "--store", str(root), "--only", first).code == 0
    before = files(root)
    disk("ro")
    for command in ("plan", "report", "status"):
        ended = run(command, "tiny.yaml", "--store", str(root))
        assert ended.code == 0 and "missing" in ended.out, ended.err
    assert run("show", first[:5], "--store", str(root)).code == 0
    assert_store_error(run("run", "tiny.yaml", "--store", str(root)), str(root), "read-only")
    assert files(root) == before
