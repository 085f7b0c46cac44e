"""The command `mixlab doctor`."""

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError, choices
from mixlab.common import COMMAND_LINE, TRIAL_FAILED

if TYPE_CHECKING:
    from experiments.doctor.results import Found

HELP = "Examine a machine: packages, parity, bits, memory, speed and a training, on its device; a verdict a line."
EXAMPLE = "mixlab doctor --device cuda --out doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, tpu, ... (auto: what the machine has)")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together (8)")
    parser.add_argument("--out", type=Path, default=Path("doctor"), help="folder of the page and its figures (doctor)")
    parser.add_argument("--part", action="append", default=[], metavar="NAME", help="one of the parts alone; several")
    parser.add_argument("--backend", help="one or several, with commas (all that are installed)")
    parser.add_argument("--python", action="append", default=[], metavar="BACKEND=PATH", help="another interpreter")
    parser.add_argument("--short", action="store_true", help="fewer settings of each kind")


def command(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import doctor_lines
    from experiments.doctor import parts, results
    from experiments.doctor.ask import asked
    from experiments.doctor.supervise import Doctor

    if unknown := [name for name in arguments.part if name not in parts.NAMES]:
        raise MixlabError(
            f"{COMMAND_LINE}: --part: expected a part, got {unknown[0]!r}; {choices(unknown[0], parts.NAMES)}"
        )
    if not arguments.minutes > 0:
        raise MixlabError(f"{COMMAND_LINE}: --minutes: expected more than 0, got {arguments.minutes:g}")
    question = asked(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no check outlives the command
    with Console(stderr=True).status("begins") as status:

        def say(found: "Found", check: str) -> None:
            if check:
                return status.update(f"{found.part}: {check}")
            if len(found.lines) == 1:
                print(f"\n{found.part}")
            print(doctor_lines.line(found.lines[-1]), flush=True)
            doctor_lines.write_page(question.folder, results.kept(question.folder))

        names = arguments.part or parts.NAMES
        found = Doctor(question, names, 60 * arguments.minutes, say).run()
    print(f"\n{doctor_lines.summary(found)}; {question.folder / doctor_lines.PAGE}")
    return TRIAL_FAILED if results.num_faults(found) else 0
