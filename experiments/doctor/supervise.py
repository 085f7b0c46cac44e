"""Runs the checks one after the other, each in a process of its own that may hang, crash or be killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from backends.errors import MixlabError
from experiments.doctor import parts, results
from experiments.doctor.check import Asked, Check, Verdict, not_run
from experiments.doctor.process import asked_json
from experiments.doctor.results import Found, Line
from experiments.files import as_json, reason
from experiments.machine.environment import ROOT, environment

POLL_S = 0.02
LEAST_S = 5.0  # a check is not begun when less than this is left
END_S = 5.0  # a process that is killed and has not ended by then waits in a driver, and is left behind
LAST_WORDS = 200  # letters of what a process printed last


@dataclass(frozen=True)
class Doctor:
    """What to examine, how long, and whom to tell.

    say: called with each part whenever a verdict is there or a check begins (its name, else "").
    """

    asked: Asked
    names: Sequence[str]  # of the parts
    limit_s: float
    say: Callable[[Found, str], None]
    unusable: list[str] = field(default_factory=list)  # backends whose device was looked at and computes nothing

    def run(self) -> list[Found]:
        """Run the parts in their order of worth, each within its share of the time that is left.

        Raises: MixlabError: the folder cannot be written.
        """
        ends = time.monotonic() + self.limit_s
        found, names = [], [name for name in parts.NAMES if name in self.names]
        with tempfile.TemporaryDirectory(prefix="mixlab-doctor-") as work:
            asked = replace(self.asked, work=Path(work))
            for i, name in enumerate(names):
                share = parts.SHARES[name] / sum(parts.SHARES[later] for later in names[i:])
                found.append(self._part(name, asked, share * (ends - time.monotonic())))
        return found

    def _part(self, name: str, asked: Asked, limit_s: float) -> Found:
        ends = time.monotonic() + limit_s
        about = {**environment(), "device": asked.device, "backends": asked.backends, "short": asked.short}
        found = Found(name, about, time.time(), limit_s)
        for check in parts.checks(name, asked):
            start, left = time.monotonic(), ends - time.monotonic()
            self.say(found, check.name)
            if backend := next(filter(check.needs, self.unusable), ""):
                verdict = not_run(f"see machine: {backend}: device")
            elif left < LEAST_S:
                verdict = not_run(
                    f"the {limit_s:.0f} s of this part were over; try --part {name} or more --minutes",
                    is_fault=not found.lines,  # nothing at all was found out
                )
            else:
                verdict = look(name, check, asked, left, is_first=not found.lines)
            found.lines.append(Line(check.name, verdict, time.monotonic() - start))
            if check.unlocks and verdict.is_fault and not verdict.figures.get("devices"):
                self.unusable.append(check.unlocks)
            self._keep(found)
            self.say(found, "")
        return found

    def _keep(self, found: Found) -> None:
        try:
            results.keep(self.asked.folder, found)
        except OSError as error:
            raise MixlabError(
                f"doctor: cannot write {self.asked.folder}: {reason(error)}; choose another place with --out"
            ) from error


def look(part: str, check: Check, asked: Asked, left_s: float, is_first: bool = False) -> Verdict:
    """The verdict of one check, or why there is none.  Args: left_s: of the part's time.   is_first: in the part."""
    limit_s = min(check.limit_s, left_s)
    with tempfile.TemporaryDirectory(dir=asked.work) as folder, tempfile.TemporaryFile() as output:
        order, verdict = Path(folder) / "order.json", Path(folder) / "verdict.json"
        order.write_bytes(as_json({"part": part, "check": check.name, "asked": asked_json(asked)}))
        process = _start(asked.pythons.get(check.backend, sys.executable), order, output)
        try:
            ends = time.monotonic() + limit_s
            while not verdict.exists() and process.poll() is None and time.monotonic() < ends:
                time.sleep(POLL_S)
            if verdict.exists():
                return Verdict(**json.loads(verdict.read_text()))
            if process.poll() is None and limit_s < check.limit_s:
                return _cut(limit_s, is_fault=is_first or limit_s >= check.enough_s)
            return _none(process.poll(), limit_s, _last_words(output))
        finally:
            _end(process)


def _start(python: str, order: Path, output: IO[bytes]) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [python, "-m", "experiments.doctor.process", order],
        # Beside the order, so that what a killed check leaves behind goes with its folder.
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "TMPDIR": str(order.parent)},
        stdin=subprocess.PIPE,  # it ends when we do
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that it is killed with all that it has started
    )


def _cut(limit_s: float, is_fault: bool) -> Verdict:
    """The verdict on a check that was stopped since its part's time was over, and not its own."""
    why = f"it was stopped after {limit_s:.0f} s, when the part's time was over; give more --minutes"
    return not_run(f"{why}{': it may hang' if is_fault else ''}", is_fault=is_fault)


def _none(code: int | None, limit_s: float, last_words: str) -> Verdict:
    """Why a process left no verdict.  Args: code: its exit code; None: it had not ended in its time."""
    how = f"it had not ended after {limit_s:.0f} s, and was killed" if code is None else f"its process {_ended(code)}"
    return not_run(f"{how}{f'; its last words: {last_words}' if last_words else ''}", is_fault=True)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}{': was its memory out?' if -code == signal.SIGKILL else ''}"


def _last_words(output: IO[bytes]) -> str:
    """The end of what a process printed, its last line."""
    output.seek(max(0, output.seek(0, os.SEEK_END) - 4096))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1][-LAST_WORDS:] if lines else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    if process.stdin:
        process.stdin.close()
