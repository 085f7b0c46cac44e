"""What the checks of a part found, as a file of the doctor's folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.doctor.check import Verdict
from experiments.doctor.parts import NAMES
from experiments.files import as_json, replace


@dataclass(frozen=True)
class Line:
    """One check, what it found, and the seconds that it took."""

    name: str
    verdict: Verdict
    seconds: float


@dataclass
class Found:
    """What a part has found so far.

    about: the machine, the code, the device and the backends that were asked for.    started: seconds since 1970.
    """

    part: str
    about: dict[str, Any]
    started: float
    limit_s: float
    lines: list[Line] = field(default_factory=list)

    @property
    def num_faults(self) -> int:
        return sum(line.verdict.is_fault for line in self.lines)


def keep(folder: Path, found: Found) -> None:
    """Write what a part has found, in place of what it found before.  Raises: OSError."""
    replace(folder / f"{found.part}.json", as_json(asdict(found)))


def kept(folder: Path) -> list[Found]:
    """The parts that a folder holds, in their order; a file that is none of them, or is damaged, is left out."""
    return [found for part in NAMES if (found := _read(folder / f"{part}.json"))]


def _read(path: Path) -> Found | None:
    try:
        fields = json.loads(path.read_text())
        lines = [Line(**{**line, "verdict": Verdict(**line["verdict"])}) for line in fields["lines"]]
        return Found(**{**fields, "lines": lines})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def num_faults(parts: Sequence[Found]) -> int:
    """The number of verdicts that a machine in order would not have."""
    return sum(found.num_faults for found in parts)
