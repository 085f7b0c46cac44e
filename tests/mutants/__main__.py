"""Plant the faults one after the other; see __init__.py."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.mutants import MUTANTS
from tests.mutants.fault import ROOT, Mutant, planted

LIMIT_S = 600  # of one choice of tests: a fault that makes them hang is seen


def lives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests pass in a copy of the tree that has the fault."""
    path = copy_tree(folder) / mutant.file
    path.write_text(planted(path.read_text(), mutant))
    return passes(mutant.test_file, mutant.words, folder)


def copy_tree(folder: Path) -> Path:
    without = shutil.ignore_patterns(".*", "runs", "__pycache__")
    left_out = {str(ROOT / "analysis"): {"results"}}
    return shutil.copytree(ROOT, folder, ignore=lambda path, names: without(path, names) | left_out.get(path, set()))


def passes(test_file: str, words: str, folder: Path) -> bool:
    """Raises: SystemExit: pytest could not run them, or found none."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test_file]
    command += ["-k", words] if words else []
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return False
    if ended.returncode not in (0, 1):
        raise SystemExit(f"{test_file} -k {words!r}: did not run:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.returncode == 0


def check_sound(chosen: Iterable[Mutant], folder: Path) -> None:
    """Raises: SystemExit: tests that fail without any fault could not tell one."""
    words: dict[str, dict[str, None]] = {}
    for one in chosen:
        words.setdefault(one.test_file, {})[one.words] = None
    for test_file, several in words.items():
        every = "" if "" in several else " or ".join(f"({one})" for one in several)
        if not passes(test_file, every, folder):
            raise SystemExit(f"{test_file} -k {every!r}: fails without a fault; mend that first")


def main(words: list[str]) -> int:
    """Try those whose label holds one of the words, or all; 1 if any lives."""
    chosen = [one for one in MUTANTS if not words or any(word in one.label for word in words)]
    if not chosen:
        raise SystemExit(f"no fault's file or text holds {' or '.join(words)}")
    with tempfile.TemporaryDirectory(prefix="mixlab-mutant-") as folder:
        check_sound(chosen, copy_tree(Path(folder) / "tree"))
    survivors = []
    for number, mutant in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory(prefix="mixlab-mutant-") as folder:
            alive = lives(mutant, Path(folder) / "tree")
        survivors += [mutant] if alive else []
        print(f"{number}/{len(chosen)} {'LIVES' if alive else 'killed'}  {mutant.label}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    for mutant in survivors:
        print(f"survivor: {mutant.label}  ({mutant.tests})")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
