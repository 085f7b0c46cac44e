"""One-line faults that the tests must see: `make mutants` plants each in a copy of the tree and prints those that live.

A row is a file, what stands there once, what is put in its place, and the tests that must fail for it. When a line is
rewritten, its row is too: tests/test_mutants.py fails on a row that no longer fits.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str  # stands in the file exactly once
    new: str
    tests: str  # files or node ids, as pytest takes them

    @property
    def label(self) -> str:
        return f"{self.file}: {self.old.strip()} -> {self.new.strip() or 'nothing'}"


GOLDEN = "tests/test_golden.py -k examples_weights_and_plan"
MUTANTS = (
    # What an id stands for: names of streams, ranks, initial values.
    Mutant("experiments/trial.py", 'f"weights/{name}"', 'f"weight/{name}"', GOLDEN),
    Mutant("experiments/streams.py", 'f"{seed}/{purpose}"', 'f"{seed}:{purpose}"', GOLDEN),
    Mutant("experiments/streams.py", "counter=first * counts", "counter=first", GOLDEN),
    Mutant("experiments/plan.py", '"order", epoch', '"orders", epoch', GOLDEN),
    Mutant("experiments/plan.py", '"crops", first', '"crop", first', GOLDEN),
    Mutant("experiments/plan.py", '"flips", first', '"flip", first', GOLDEN),
    Mutant("experiments/plan.py", '"mixup_partners", first', '"partners", first', GOLDEN),
    Mutant("experiments/plan.py", '"mixup_weights", *draw', '"weights", *draw', GOLDEN),
    Mutant("experiments/plan.py", '"dropout", first', '"drop", first', GOLDEN),
    Mutant("experiments/plan.py", '"stochastic_depth", first', '"depth", first', GOLDEN),
    Mutant("experiments/plan.py", "(t + 1) / max(1, train.warmup_steps)", "t / max(1, train.warmup_steps)", GOLDEN),
    Mutant("experiments/data/splits.py", '"data/train")[:num_train]', '"data/training")[:num_train]', GOLDEN),
    Mutant("experiments/data/splits.py", 'split_seed, "data/test")', 'split_seed, "test")', GOLDEN),
    Mutant("experiments/data/splits.py", 'split_seed, "data/validation")', 'split_seed, "validation")', GOLDEN),
    Mutant("experiments/data/splits.py", "(rank + 0.5)", "(rank + 1.0)", GOLDEN),
    Mutant("experiments/data/splits.py", "(rank + 0.5)", "(rank + 0.0)", GOLDEN),
    Mutant("experiments/data/splits.py", "np.lexsort((ties, position))", "np.argsort(position, kind='stable')", GOLDEN),
    Mutant("experiments/data/splits.py", '"data/patches", 0', '"patches", 0', "tests/test_golden.py -k same_losses"),
    Mutant("experiments/data/builtin.py", '"synthetic/blobs", row', '"synthetic/blob", row', GOLDEN),
    Mutant("backends/parameters.py", "math.sqrt(1 / fan_in)", "math.sqrt(1.01 / fan_in)", GOLDEN),
    # The time of a worker is measured by one clock.
    Mutant(
        "experiments/worker.py",
        "time.monotonic() - spec.hired_s",
        "time.time() - spec.hired_s",
        "tests/test_bench.py -k add_up",
    ),
)


def lives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests pass in a copy of the tree that has the fault."""
    path = copy_tree(folder) / mutant.file
    path.write_text(planted(path.read_text(), mutant))
    return passes(mutant.tests, folder)


def copy_tree(folder: Path) -> Path:
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__", "results"))


def passes(tests: str, folder: Path) -> bool:
    """Raises: SystemExit: pytest could not run them."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *shlex.split(tests)]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if ended.returncode not in (0, 1):
        raise SystemExit(f"{tests}: pytest did not run:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.returncode == 0


def planted(text: str, mutant: Mutant) -> str:
    """Raises: ValueError: the line is not there, or not once."""
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.label}: what it replaces stands there {text.count(mutant.old)} times; once is needed"
        )
    return text.replace(mutant.old, mutant.new)


def main(words: list[str]) -> int:
    """Try those whose label holds one of the words, or all; 1 if any lives.

    Raises: SystemExit: tests that fail without any fault could not tell one.
    """
    chosen = [one for one in MUTANTS if not words or any(word in one.label for word in words)]
    with tempfile.TemporaryDirectory(prefix="mixlab-mutant-") as folder:
        copy = copy_tree(Path(folder) / "tree")
        for tests in dict.fromkeys(one.tests for one in chosen):
            if not passes(tests, copy):
                raise SystemExit(f"{tests}: fails without a fault; mend that first")
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
