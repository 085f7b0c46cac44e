"""The store: files are whole or as they were, damage is named, and what a disk does is one sentence."""

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import MixlabError
from experiments.files import StoreError, finite, set_aside, write_json, write_whole
from experiments.results import checkpoint
from experiments.results.record import RECORD_SCHEMA, read
from experiments.results.states import state
from experiments.results.store import CorruptRecord, Store
from tests.conftest import Ended, base, files, planned, records, results, write_yaml
from tests.store_parts import ID, record, temporaries

Run = Callable[..., Ended]


def metrics(**accuracies: Any) -> dict[str, Any]:
    """The metrics of a record, with other values for the accuracy: metrics(last="x")."""
    found = json.loads(json.dumps(record()["metrics"]))
    for when, value in accuracies.items():
        found[when]["test"]["accuracy"] = value
    return dict(found)


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
    with pytest.raises(MixlabError, match=r"2 trial ids start with 'ab'.*abc1, abd2"):
        Store(tmp_path).find("ab")
    with pytest.raises(MixlabError, match="no trial id starts with 'c'"):
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


def test_a_heartbeat_that_says_only_a_part_ends_no_command(tmp_path: Path) -> None:
    write_whole(tmp_path / "trials" / "ab12" / "heartbeat", b'{"step": 3}')
    found = state(Store(tmp_path), "ab12")
    assert found.status == "running" and found.why == "process None on None"
