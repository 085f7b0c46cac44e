"""What lasts long in a trial on several devices: it is waited for where it may, and found where it hangs."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.data.ahead import Interrupted
from experiments.running import group, meeting, messages, watch
from experiments.running.events import Ended, Event, Stepped, Told
from experiments.running.failures import Failure
from experiments.running.worker import Worker
from tests.conftest import records, wait_until
from tests.faulty_group import (
    AT,
    LASTS_S,
    STALLS_S,
    STEPS,
    WHO,
    bits_of,
    goes_on_as,
    make_alone,  # noqa: F401 - a fixture
    newest,
    pids_of,
    recorded,
    trained,
    trial_of,
    undisturbed,
)

pytestmark = pytest.mark.usefixtures("quick")  # the backend of the trials


@pytest.mark.parametrize("backend", ["quick", "torch"])
def test_an_evaluation_that_is_broken_off_leaves_a_group_that_goes_on(
    backend: str, monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    """A stop comes while images are waited for; the state, also one that is shared out, is saved all the same.

    What the other process has said by then is not taken for an answer to what it is asked next.
    """
    said, pids, broken, workers = group.said, list[list[int]](), list[bool](), list[Worker]()

    def breaks_off(*given: Any) -> Iterator[Any]:
        for answer in said(*given):
            if not broken:
                leader = workers[-1].leader
                broken.append(leader is not None and leader.members[0].told.poll(20))
                raise Interrupted
            yield answer

    def hear(one: Worker, event: Event) -> None:
        workers.append(one)
        if isinstance(event, Ended):
            pids.append(pids_of(one))

    trial, expected = trial_of(tmp_path, backend), undisturbed(alone, backend)
    trial = replace(trial, run=replace(trial.run, sharded_optimizer=True))
    monkeypatch.setattr(group, "said", breaks_off)
    assert trained(trial, tmp_path, "none", hear, trial) == Ended(trial.id, "done")
    assert broken == [True] and len(pids) == 2 and pids[0] == pids[1]
    assert bits_of(trial, tmp_path) == expected


def test_steps_that_do_not_end_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All processes are alive, and wait for each other."""
    train = group.LedProgram.train

    def waits(self: Any, plans: Any) -> Any:
        if plans[0].first_step < AT:
            return train(self, plans)

        def wait() -> Any:
            wait_until(lambda: self.leader.watch.lost, "the group is ended", 20)
            raise RuntimeError("connection closed by peer")

        return self.leader.train(messages.Steps(plans[0].first_step, plans[0].num_steps), wait)

    monkeypatch.setattr(group.LedProgram, "train", waits)
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    ended = trained(trial := trial_of(tmp_path), tmp_path, "none")
    assert ended.failure is not None and ended.failure.cause == "killed"
    assert ended.failure.reason == "the group: no step has ended for too long" and newest(trial, tmp_path) == AT


def test_the_first_steps_of_a_program_may_compile_for_longer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither what it takes to load the state nor the steps of the trial before say how long they last."""
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    first, second = (trial_of(tmp_path, steps=1, batch_size=size) for size in (8, 4))

    def hear(one: Worker, event: Event) -> None:
        if isinstance(event, Ended):
            monkeypatch.setenv("QUICK_STEP_S", str(1.5 * LASTS_S))

    assert trained(first, tmp_path, "none", hear, second) == Ended(second.id, "done")


def test_a_disk_that_stalls_for_one_process_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    """Longer than steps may last."""
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    start, trial = time.monotonic(), trial_of(tmp_path, streams=True)
    assert trained(trial, tmp_path, "its disk stalls") == Ended(trial.id, "done")
    assert time.monotonic() - start > STALLS_S
    assert bits_of(trial, tmp_path) == undisturbed(alone, streams=True)


def test_an_image_that_one_process_cannot_read_is_named_and_the_state_is_saved(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, streams=True)
    trial = replace(trial, run=replace(trial.run, checkpoint_every_s=3600.0))
    ended = trained(trial, tmp_path, "an image is damaged")
    assert ended.how == "error" and ended.failure is not None and ended.failure.cause == "data_missing"
    assert ended.failure.reason.startswith(f"trial {trial.id}: {WHO}row 3 is damaged; it is saved at step ")
    assert 0 < newest(trial, tmp_path) < STEPS and not records(tmp_path / "runs")


def test_what_else_fails_where_one_process_reads_keeps_its_cause(tmp_path: Path) -> None:
    ended = trained(trial_of(tmp_path, streams=True), tmp_path, "its memory is out")
    assert ended.failure == Failure("out_of_memory", f"{WHO}MemoryError: no room for a batch")


def test_an_evaluation_waits_for_the_images_of_another_process(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    trial = trial_of(tmp_path)
    assert trained(trial, tmp_path, "it waits for images") == Ended(trial.id, "done")
    assert bits_of(trial, tmp_path) == undisturbed(alone)


def test_a_stop_is_answered_while_another_process_waits_for_images(tmp_path: Path) -> None:
    trial, stopped = trial_of(tmp_path), list[float]()

    def hear(one: Worker, event: Told) -> None:
        if isinstance(event, Stepped) and event.waiting == 1.0 and not stopped:
            one.stop.set()
            stopped.append(time.monotonic())

    assert trained(trial, tmp_path, "it waits for images for ever", hear).how == "stopped"
    assert time.monotonic() - stopped[0] < 5 and newest(trial, tmp_path) > 0


def test_a_process_that_hangs_in_an_evaluation_is_named(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    trial = trial_of(tmp_path)
    ended = trained(trial, tmp_path, "it hangs in an evaluation")
    assert ended.failure == Failure("killed", f"{WHO}it has not answered in an evaluation for too long")
    goes_on_as(undisturbed(alone), trial, tmp_path)


def test_all_processes_read_images_from_where_the_first_one_finds_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A step has as many examples in each of them as one call takes there."""
    told, tell = list[Any](), group.Leader._tell
    monkeypatch.setattr(group.Leader, "_tell", lambda self, message: (told.append(message), tell(self, message)))
    monkeypatch.setattr("experiments.running.storage.choose", lambda *given: "disk")
    trial = trial_of(tmp_path)
    assert trial.data.storage == "auto" and trained(trial, tmp_path, "none") == Ended(trial.id, "done")
    (opened,) = (message.trial for message in told if isinstance(message, messages.Open))
    assert (opened.id, opened.data.storage) == (trial.id, "disk")
    assert recorded(trial, tmp_path)["data"]["storage"] == "disk" and any(isinstance(x, messages.Fed) for x in told)


def test_what_lasts_too_long_is_measured_while_this_process_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    awake = meeting.Awake()
    limit = watch.Limit(awake, "it lasts")

    def passes(seconds: int, step: int = 1) -> None:
        for _ in range(0, seconds, step):
            now[0] += step
            awake.look()

    def is_over(seconds: int, compiled: float = 0.0) -> bool:
        compiles = iter((0.0, compiled))
        with limit.within(lambda: next(compiles)):
            passes(seconds)
            passes(3600, 3600)  # all are stopped
            return limit.is_over()

    assert not is_over(600, 598.0)  # it has compiled: the first time has no limit
    assert not is_over(39) and is_over(2 * 20 * 39) and limit.longest_s == 39 * 40
    limit.begin()
    assert not is_over(300)
    passes(20 * 310, 4)
    assert not limit.is_over()  # nothing is under way
