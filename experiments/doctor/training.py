"""A real training: the digits, to the accuracy that they are known to reach, by each framework."""

from functools import partial

from experiments.doctor import runs
from experiments.doctor.check import Asked, Check, Verdict, differs, ok
from experiments.results.metrics import ACCURACY

# Of seed 0 of bases/small.yaml on a CPU, in both frameworks; seeds have a standard deviation of 0.3 points. A device
# that rounds otherwise is another draw of the same kind: three of them either way.
KNOWN, MARGIN = 0.978, 0.009
LIMIT_S = 240.0


def checks(asked: Asked) -> list[Check]:
    """A training by each backend."""
    return [Check(f"{name}: digits", partial(_train, name, asked), LIMIT_S, name) for name in asked.backends]


def _train(backend: str, asked: Asked) -> Verdict:
    (record,) = runs.train(runs.small_trials(backend, asked), runs.store(asked, "training"), asked)
    accuracy, seconds = record["metrics"]["last"]["test"][ACCURACY.name], record["seconds"]
    text = f"{accuracy:.1%} of the test digits are right, {KNOWN:.1%} are known; {seconds['train']:.1f} s"
    figures = {ACCURACY.name: accuracy, "known": KNOWN, "seconds": seconds, "images_per_s": record["images_per_s"]}
    return (ok if abs(accuracy - KNOWN) <= MARGIN else differs)(text, **figures)
