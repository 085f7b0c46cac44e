"""The process of one check: it finds the verdict, leaves it in a file, and ends."""

import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, show_chain
from experiments.doctor import parts
from experiments.doctor.check import Asked, Verdict, not_run
from experiments.doctor.packages import install
from experiments.files import as_json, replace
from experiments.machine.environment import ROOT
from experiments.running.failures import failure


def main(path: Path) -> None:
    """Run the check that a JSON file names; its verdict appears beside it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    order = json.loads(path.read_text())
    verdict = look(order["part"], order["check"], read_asked(order["asked"]))
    replace(path.with_name("verdict.json"), as_json(asdict(verdict)), durable=False)


def look(part: str, name: str, asked: Asked) -> Verdict:
    """The verdict of a check; an error is one too: a fault that kept it from being run."""
    try:
        check = next(check for check in parts.checks(part, asked) if check.name == name)
        return check.look()
    except MixlabError as error:
        show_chain(error)
        return not_run(str(error), is_fault=True)
    except ModuleNotFoundError as error:
        traceback.print_exc()
        return not_run(f"{sys.executable} lacks the package {error.name}; in {ROOT}: {install('')}", is_fault=True)
    except Exception as error:
        traceback.print_exc()
        return not_run(failure(error).reason, is_fault=True)


def asked_json(asked: Asked) -> dict[str, Any]:
    """What was asked, in JSON's types; see read_asked."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(asked).items()}


def read_asked(tree: dict[str, Any]) -> Asked:
    """What was asked, from JSON's types."""
    folders = {name: Path(tree[name]) for name in ("folder", "work")}
    names = {name: tuple(tree[name]) for name in ("backends", "absent")}
    return Asked(**{**tree, **folders, **names})


def _end_with_parent() -> None:
    """End all processes of this check when the doctor's own process has gone."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # the verdict is there; a framework or a driver may take long to take itself down
