"""Claims exclude each other, and only who holds one writes the record: a done one is never replaced by a worse one."""

import contextlib
import json
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.design.ablation import GridTrial
from experiments.files import StoreError, write_json, write_whole
from experiments.machine.environment import ROOT
from experiments.results import claims as ownership
from experiments.results import publish as publishing
from experiments.results import store
from experiments.results.claims import STALE_S, Claim, ClaimLost
from experiments.results.store import Store
from experiments.running.events import Ended, Event, Noted
from experiments.running.failures import Failure
from experiments.running.local import LocalRun
from experiments.running.opener import Opener, WorkerSpec
from experiments.running.pool import Pool
from experiments.running.worker import Worker
from tests.conftest import base, planned, records, wait_until, write_yaml
from tests.store_parts import ID, failed, heartbeat, leave_heartbeat, make_older, record, temporaries

RACERS, ROUNDS = 4, 25  # processes; races of each for a trial
THREADS = 8


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


def test_the_claim_of_a_process_that_died_is_taken_over_whatever_its_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from experiments.results.claims import Claim; from experiments.results.store import Store\n"
        "Claim(Store(Path(sys.argv[1])).folder(sys.argv[2])); os._exit(9)"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path, ID], cwd=Path(store.__file__).parents[2])
    assert ended.returncode == 9 and heartbeat(tmp_path).exists()
    monkeypatch.setattr(ownership, "STALE_S", math.inf)
    assert Claim(Store(tmp_path).folder(ID)).is_held()


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
    make_older(heartbeat(tmp_path), STALE_S + 20)
    new = Claim(Store(tmp_path).folder(ID))
    assert new.is_held() and not old.is_held()
    old.release()
    assert new.is_held()


def test_a_claim_is_kept_alive_and_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "BEAT_S", 0.01)
    claim = Claim(Store(tmp_path).folder(ID))
    with claim.kept():
        claim.said = {**claim.said, "step": 7}
        wait_until(lambda: "step" in (Store(tmp_path).owner(ID) or {}), "a beat says the step")
        os.utime(heartbeat(tmp_path), (0, 0))
        wait_until(lambda: Store(tmp_path).owner(ID), "a beat renews the heartbeat")
    assert claim.is_held()
    claim.release()
    assert temporaries(tmp_path) == []


def test_an_owner_that_misses_many_beats_is_still_alive(tmp_path: Path) -> None:
    """A disk that hangs for a minute, or a file that NFS shows as it was a minute ago, kills nobody."""
    leave_heartbeat(tmp_path, 100.0, host="elsewhere")
    assert Store(tmp_path).owner(ID) is not None
    leave_heartbeat(tmp_path, 180.0, host="elsewhere")
    assert Store(tmp_path).owner(ID) is None


def test_an_owner_beats_ten_times_before_it_counts_as_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    wait = threading.Event.wait

    def note(self: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is not threading.main_thread():
            waits.append(timeout)
        return wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", note)
    claim = Claim(Store(tmp_path).folder(ID))
    with claim.kept():
        wait_until(lambda: waits, "somebody beats")
    assert waits[0] and 10 * waits[0] <= STALE_S


@pytest.mark.parametrize(
    ("job", "restart", "is_dead"),
    [("7", 0, True), ("7", 1, False), ("7", 2, False), ("8", 0, False)],
)
def test_only_an_earlier_start_of_this_very_job_is_known_to_be_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, restart: int, is_dead: bool
) -> None:
    """Two processes of one start of a job leave each other alone."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    leave_heartbeat(tmp_path, host="elsewhere", job=job, restart=restart)
    assert (Store(tmp_path).owner(ID) is None) == is_dead


def test_a_beat_that_the_disk_delays_does_not_overwrite_the_new_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Claim(Store(tmp_path).folder(ID)), list[Claim]()
    write_new = ownership.write_new

    def slow(path: Path, content: bytes) -> None:
        write_new(path, content)
        monkeypatch.setattr(ownership, "write_new", write_new)
        make_older(heartbeat(tmp_path), STALE_S + 20)
        new.append(Claim(Store(tmp_path).folder(ID)))

    monkeypatch.setattr(ownership, "write_new", slow)
    assert not old._beat()
    assert new[0].is_held() and not old.is_held() and temporaries(tmp_path) == []


# --- who writes the record ----------------------------------------------------------------------------------------


def lost_to(root: Path, new_record: dict[str, Any] | None = None) -> Claim:
    """A claim whose owner was held up, so that another took the trial over, and has ended it if a record is given."""
    old = Claim(Store(root).folder(ID))
    make_older(heartbeat(root), STALE_S + 20)
    new = Claim(Store(root).folder(ID))
    if new_record:
        Store(root).finish(ID, new_record, new)
        new.release()
    return old


@pytest.mark.parametrize("theirs", [None, record(), failed("theirs")])
@pytest.mark.parametrize("ours", [record(started=1.0), failed("ours")])
def test_an_owner_that_has_lost_its_claim_writes_nothing(
    tmp_path: Path, theirs: dict[str, Any] | None, ours: dict[str, Any]
) -> None:
    old = lost_to(tmp_path, theirs)
    with pytest.raises(ClaimLost):
        Store(tmp_path).finish(ID, ours, old)
    found = Store(tmp_path).record(ID)
    assert (found and found["reason"], found and found.get("started")) == (theirs and theirs["reason"], None)
    assert [name for name in temporaries(tmp_path) if name != "heartbeat"] == []


@pytest.mark.parametrize("ours", [record(started=1.0), failed("ours")])
@pytest.mark.parametrize("final", [record(), failed("diverged at step 3")])
def test_a_final_record_is_never_replaced(tmp_path: Path, ours: dict[str, Any], final: dict[str, Any]) -> None:
    assert Store(tmp_path).finish(ID, {**final, "started": 2.0})
    assert not Store(tmp_path).finish(ID, ours)
    found = Store(tmp_path).record(ID)
    assert found and found["started"] == 2.0 and temporaries(tmp_path) == []


def test_a_failure_is_replaced_by_what_comes_after_it(tmp_path: Path) -> None:
    for one in (failed("first"), failed("second"), record()):
        assert Store(tmp_path).finish(ID, one)
        found = Store(tmp_path).record(ID)
        assert found and found["reason"] == one["reason"]
    assert temporaries(tmp_path) == []


def test_without_a_claim_no_record_is_written_beside_a_living_owner(tmp_path: Path) -> None:
    claim = Claim(Store(tmp_path).folder(ID))
    with pytest.raises(ClaimLost):
        Store(tmp_path).finish(ID, failed())
    assert Store(tmp_path).record(ID) is None and claim.is_held()


def test_in_the_race_of_an_old_owner_with_the_new_one_the_done_record_stays(tmp_path: Path) -> None:
    """Whoever is first, and wherever the other is then."""
    for number in range(ROUNDS):
        root = tmp_path / str(number)
        old = Claim(Store(root).folder(ID))
        barrier, ended = threading.Barrier(2), list[str]()

        def take_over(root: Path = root, barrier: Any = barrier, ended: list[str] = ended) -> None:
            make_older(heartbeat(root), STALE_S + 20)
            barrier.wait()
            new = Claim(Store(root).folder(ID))
            Store(root).finish(ID, record(), new)
            ended.append("new")

        def fail(root: Path = root, barrier: Any = barrier, old: Claim = old, ended: list[str] = ended) -> None:
            barrier.wait()
            with contextlib.suppress(ClaimLost):
                Store(root).finish(ID, failed(), old)
            ended.append("old")

        threads = [threading.Thread(target=one) for one in (take_over, fail)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = Store(root).record(ID)
        assert found and found["status"] == "done" and sorted(ended) == ["new", "old"], f"round {number}"


def at(monkeypatch: pytest.MonkeyPatch, name: str, do: Callable[[], None], after: bool = False) -> None:
    """Let something happen once, just before (or after) a function of publish.py is called."""
    call = getattr(publishing, name)

    def wrapped(*arguments: Any) -> Any:
        monkeypatch.setattr(publishing, name, call)
        if not after:
            do()
        answer = call(*arguments)
        if after:
            do()
        return answer

    monkeypatch.setattr(publishing, name, wrapped)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("theirs", [None, record()])
def test_a_failure_that_is_written_as_the_claim_is_lost_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, Any] | None, after: bool
) -> None:
    """The claim goes between the last look at it and the link, or right after the link."""
    claim = Claim(Store(tmp_path).folder(ID))

    def take_over() -> None:
        make_older(heartbeat(tmp_path), STALE_S + 20)
        new = Claim(Store(tmp_path).folder(ID))
        if theirs:
            Store(tmp_path).finish(ID, theirs, new)

    at(monkeypatch, "_link", take_over, after)
    with contextlib.suppress(ClaimLost):
        Store(tmp_path).finish(ID, failed(), claim)
    found = Store(tmp_path).record(ID)
    assert (found and found["status"]) == (theirs and theirs["status"])
    assert [name for name in temporaries(tmp_path) if name != "heartbeat"] == []


def test_a_record_that_gets_better_while_it_is_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure that was looked at is a done record when it is moved aside: that one is put back."""
    Store(tmp_path).finish(ID, failed())
    claim = Claim(Store(tmp_path).folder(ID))
    path = Store(tmp_path).folder(ID) / "record.json"
    at(monkeypatch, "_move_aside", lambda: write_json(path, record()))
    assert not Store(tmp_path).finish(ID, failed("later"), claim)
    found = Store(tmp_path).record(ID)
    assert found and found["status"] == "done"
    assert [name for name in temporaries(tmp_path) if name != "heartbeat"] == []


def test_a_record_that_a_kill_leaves_aside_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).finish(ID, failed("first"))
    dead = Claim(Store(tmp_path).folder(ID))

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    at(monkeypatch, "_move_aside", kill, after=True)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # as of a process that is gone
    with pytest.raises(Killed):
        Store(tmp_path).finish(ID, failed("second"), dead)
    monkeypatch.undo()
    assert Store(tmp_path).record(ID) is None
    make_older(heartbeat(tmp_path), STALE_S + 20)
    Claim(Store(tmp_path).folder(ID)).release()
    found = Store(tmp_path).record(ID)
    assert found and found["reason"] == "first" and temporaries(tmp_path) == []


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS asks again, and is told that the name is taken: by its own link."""
    link = os.link

    def lost(source: Path, target: Path) -> None:
        link(source, target)
        if target.name == "record.json":
            raise FileExistsError

    claim = Claim(Store(tmp_path).folder(ID))
    monkeypatch.setattr(os, "link", lost)
    assert Store(tmp_path).finish(ID, failed(), claim)
    found = Store(tmp_path).record(ID)
    assert found and found["reason"] == "boom"


def test_a_disk_that_fills_up_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).finish(ID, failed("first"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    claim = Claim(Store(tmp_path).folder(ID))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space is left"):
        Store(tmp_path).finish(ID, record(), claim)
    monkeypatch.undo()
    claim.release()
    found = Store(tmp_path).record(ID)
    assert found and found["reason"] == "first" and temporaries(tmp_path) == []


# --- workers and the pool -----------------------------------------------------------------------------------------


@pytest.fixture
def trial(tmp_path: Path, quick: Path) -> GridTrial:
    return planned(write_yaml(tmp_path / "a.yaml", base=base(backend="quick")), tmp_path / "data")[0]


def take_over(root: Path, trial_id: str, result: dict[str, Any] | None) -> None:
    path = Store(root).folder(trial_id) / "heartbeat"
    make_older(path, STALE_S + 20)
    new = Claim(path.parent)
    if result:
        Store(root).finish(trial_id, {**result, "id": trial_id}, new)
        new.release()


def work(root: Path, trial: GridTrial, cache: Path) -> list[Event]:
    events = list[Event]()
    spec = WorkerSpec("quick", (0,), root, cache, {}, ROOT, time.monotonic())
    Worker(spec, threading.Event(), events.append).run(trial.trial)
    return events


@pytest.mark.parametrize("theirs", [None, record()])
@pytest.mark.parametrize("ending", ["an error", "its last step"])
def test_a_worker_that_has_lost_its_trial_leaves_it_to_the_other(
    tmp_path: Path, trial: GridTrial, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, Any] | None, ending: str
) -> None:
    root, open_program = tmp_path / "runs", Opener.open

    def slow(self: Opener, *arguments: Any) -> Any:
        opened = open_program(self, *arguments)
        take_over(root, trial.trial.id, theirs)
        if ending == "an error":
            raise RuntimeError("boom")
        return opened

    monkeypatch.setattr(Opener, "open", slow)
    events = work(root, trial, tmp_path / "data")
    assert events[-1] == Ended(trial.trial.id, "busy")
    found = records(root)
    assert [one["status"] for one in found.values()] == (["done"] if theirs else [])


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_worker_that_meets_a_corrupt_record_sets_it_aside_and_trains(
    tmp_path: Path, trial: GridTrial, content: bytes
) -> None:
    """It became so after the run was planned."""
    root = tmp_path / "runs"
    write_whole(Store(root).folder(trial.trial.id) / "record.json", content)
    events = work(root, trial, tmp_path / "data")
    notes = [event.sentence for event in events if isinstance(event, Noted)]
    assert events[-1] == Ended(trial.trial.id, "done") and "record.json.corrupt-0" in notes[0]
    assert [one["status"] for one in records(root).values()] == ["done"]


class Silent:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, planned: GridTrial, event: Event) -> None:
        self.events.append(event)


@pytest.mark.parametrize("how", ["given up", "its worker died"])
@pytest.mark.parametrize(
    ("theirs", "kind"),
    [("nothing", "failed"), ("a claim", "busy"), ("done", "done"), ("diverged", "failed"), ("corrupt", "failed")],
)
def test_a_trial_is_failed_by_the_pool_only_if_nobody_else_has_it(
    tmp_path: Path, trial: GridTrial, theirs: str, kind: str, how: str
) -> None:
    root, reporter, key = tmp_path / "runs", Silent(), trial.trial.id
    tries = int(theirs in ("done", "diverged"))  # it is not begun again, although it might be
    pool = Pool(environment={}, retries={"killed": tries})
    run = LocalRun([trial], Store(root), tmp_path / "data", pool, reporter)
    if theirs == "a claim":
        Claim(Store(root).folder(key))
    if theirs == "done":
        Store(root).finish(key, {**record(), "id": key})
    if theirs == "diverged":
        Store(root).finish(key, {**failed("diverged at step 3"), "id": key})
    if theirs == "corrupt":
        write_whole(Store(root).folder(key) / "record.json", b"{")
    if how == "given up":
        run.give_up(trial, Failure("killed", "its process was killed"))
    else:
        run.oom_kills, slot = 0, run.slots[0]
        slot.trials, slot.process = {key: trial}, subprocess.Popen(["sh", "-c", "kill -9 $$"])
        slot.process.wait()
        slot.process = SimpleNamespace(join=lambda: None, exitcode=slot.process.returncode)
        run._bury(slot)
    (ended,) = reporter.events
    assert isinstance(ended, Ended) and (ended.how, ended.trial_id) == (kind, key)
    assert (list(run.summary.failed), run.summary.done, run.busy) == {
        "failed": ([key], [], []),
        "busy": ([], [], [trial]),
        "done": ([], [key], []),
    }[kind]
    found = Store(root).record(key)
    assert (found and found["status"]) == {"failed": "failed", "busy": None, "done": "done"}[kind]
    if theirs == "diverged":  # as it was: a choice of what is tuned may stand on it
        assert found and found["reason"] == run.summary.failed[key] == "diverged at step 3"
