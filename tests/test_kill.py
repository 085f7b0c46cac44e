"""`kill -9` at random instants loses nothing: a small grid ends with the results of an undisturbed run, bit for bit.

MIXLAB_KILLS=200 is the long form (`make test-kill`): that many kills, on both backends, in as many laps over the grid
as they need. It prints how many were made and how many met a trial at work.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from experiments.results.store import Store
from tests.conftest import (
    MIXLAB,
    TIMEOUT_S,
    base,
    environment,
    is_alive,
    kill_tree,
    planned,
    records,
    results,
    wait_until,
    workers,
    write_yaml,
)

LONG_KILLS = int(os.environ.get("MIXLAB_KILLS", "0"))
KILLS = LONG_KILLS or 6
SEED = 20210504
# A kill comes at any instant within this time of a trial's training, or, this share of them, of the command's start.
AT_WORK_S, AT_START_S, START_SHARE = 2.0, 4.0, 0.25


class Lap:
    """One store, the command that works on it now, and every worker that was seen."""

    def __init__(self, folder: Path, store: str, log: Path):
        self.folder, self.store, self.log = folder, folder / store, log
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.seen: set[int] = set()

    def command(self) -> "subprocess.Popen[bytes]":
        """The command, begun anew if it has ended."""
        if self.process is None or self.process.poll() is not None:
            jobs = "2" if LONG_KILLS else "1"
            self.started = time.time()
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*MIXLAB, "run", "grid.yaml", "--store", self.store, "--jobs", jobs],
                    cwd=self.folder,
                    env=environment(),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        return self.process

    def at_work(self) -> list[int]:
        """Workers that train a trial now: they hold it, and have begun since the command was given."""
        found = []
        for path in self.store.glob("trials/*/spec.json"):
            owner = Store(self.store).owner(path.parent.name)
            if owner and path.stat().st_mtime > self.started:
                found.append(int(owner["pid"]))
        return found

    def stepping(self) -> bool:
        """Whether this command has saved a step of some trial."""
        checkpoints = self.store.glob("trials/*/checkpoint.safetensors")
        return any(path.stat().st_mtime > self.started for path in checkpoints if path.exists())

    def strike(self, dice: random.Random) -> str | None:
        """Kill something at a random instant; says what and when, or None if the command ended before."""
        process = self.command()
        phase = dice.random()
        if phase < START_SHARE:
            delay_s = dice.uniform(0, AT_START_S)
        elif phase < 2 * START_SHARE:  # begun: most of this is importing and compiling
            wait_until(lambda: process.poll() is not None or self.at_work(), "a trial was begun")
            delay_s = dice.uniform(0, AT_WORK_S)
        else:
            wait_until(lambda: process.poll() is not None or self.stepping(), "steps were taken")
            delay_s = dice.uniform(0, AT_WORK_S)
        try:
            process.wait(delay_s)
            return None
        except subprocess.TimeoutExpired:
            pass  # it is still at work, and is killed now
        alive = workers(process.pid)
        self.seen |= set(alive)
        when = "at work" if set(self.at_work()) & set(alive) else "between"
        victim = dice.choice(["parent", "worker", "group"]) if alive else dice.choice(["parent", "group"])
        if victim == "worker":
            os.kill(dice.choice(alive), signal.SIGKILL)  # the command goes on with the other trials
            return f"worker {when}"
        os.killpg(process.pid, signal.SIGKILL) if victim == "group" else process.kill()
        process.wait(TIMEOUT_S)
        return f"{victim} {when}"

    def finish(self) -> None:
        """Let the command end, again if a kill has left it incomplete, until every trial is done."""
        for _ in range(3):
            code = self.command().wait(TIMEOUT_S)
            assert code in (0, 1, -signal.SIGKILL), self.log.read_text()
            if code == 0:
                return
        raise AssertionError(f"the grid does not end:\n{self.log.read_text()}")

    def clear(self) -> None:
        if self.process is not None:
            kill_tree(self.process.pid)
        for pid in self.seen:
            kill_tree(pid)


def write_grid(folder: Path) -> Path:
    """Trials of two or three seconds, with all that is random switched on."""
    grid = {"model.token_mixing": ["tied", "untied"], "backend": ["torch", "jax"] if LONG_KILLS else ["torch"]}
    given = base(
        model={"num_blocks": 2, "dropout": 0.1, "stochastic_depth": 0.1},
        data={"augment": {"flip": True, "crop": 1, "mixup": 0.2}},
        train={"steps": 400, "evaluate_every": 80, "ema_decay": 0.9},
        run={"checkpoint_every_s": 0.05, "threads": 1},
    )
    return write_yaml(folder / "grid.yaml", base=given, grid={**grid, "seed": [0, 1] if LONG_KILLS else [0]})


def assert_as_undisturbed(lap: Lap, whole: Path) -> None:
    expected, found = results(whole), results(lap.store)
    assert set(found) == set(expected)
    for key, record in expected.items():
        for name, value in record.items():
            assert found[key][name] == value, f"{name} of trial {key} differs in {lap.store.name}"
    left = [str(path.relative_to(lap.store)) for path in lap.store.glob("trials/*/*")]
    allowed = (
        "record.json",
        "spec.json",
        "env.json",
        "metrics.jsonl",
        "heartbeat",
        "checkpoint.safetensors",
        "filters.safetensors",
        "predictions.safetensors.gz",
        "weights.safetensors",
    )
    assert [name for name in left if Path(name).name not in allowed] == [], "temporary or corrupt files are left"
    for trial_id in Store(lap.store).trial_ids():
        curve = (Store(lap.store).folder(trial_id) / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in curve] == found[trial_id]["curve"]


def test_kills_at_random_instants_change_no_result(tmp_path: Path) -> None:
    trials = planned(write_grid(tmp_path), tmp_path / "data")
    undisturbed = Lap(tmp_path, "whole", tmp_path / "whole.log")
    undisturbed.finish()
    assert len(records(undisturbed.store)) == len(trials)
    assert {len(record["sessions"]) for record in records(undisturbed.store).values()} == {1}

    dice, struck, laps, sessions = random.Random(SEED), Counter[str](), 0, 0
    while struck.total() < KILLS:
        lap = Lap(tmp_path, f"lap{laps}", tmp_path / f"lap{laps}.log")
        laps += 1
        try:
            while struck.total() < KILLS:
                what = lap.strike(dice)
                if what:
                    struck[what] += 1
                elif lap.process and lap.process.returncode == 0:
                    break
            lap.finish()
            wait_until(lambda: not any(map(is_alive, lap.seen)), "orphaned workers ended")  # noqa: B023
            assert_as_undisturbed(lap, undisturbed.store)
            assert "Traceback" not in lap.log.read_text(), lap.log.read_text()
            sessions += sum(len(record["sessions"]) for record in records(lap.store).values())
        finally:
            lap.clear()

    hits = sum(number for what, number in struck.items() if what.endswith("at work"))
    print(
        f"\n{struck.total()} kills, {hits} of a trial at work, in {laps} laps over {len(trials)} trials: {dict(struck)}"
    )
    print(f"{sessions} processes worked on the {laps * len(trials)} trials")
    assert hits >= KILLS / 3
    assert sessions > laps * len(trials)  # some trial was resumed
