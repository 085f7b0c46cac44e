"""Whether a trial fits into the memory of its device or of the machine."""

from backends import footprint
from backends.models import folds
from experiments.machine import memory
from experiments.running.failures import DoesNotFit
from experiments.spec.trial import PREDICT_BATCH, Trial


def needed_bytes(trial: Trial) -> int:
    """Estimate of the memory that it needs: of a training step, or of an evaluation where that takes more."""
    return max(_training_bytes(trial), _evaluation_bytes(trial))


def _training_bytes(trial: Trial) -> int:
    return footprint.training_memory_bytes(
        trial.model, trial.optimizer, trial.train.precision, trial.train.batch_size, trial.run.remat
    )


def _evaluation_bytes(trial: Trial) -> int:
    return footprint.prediction_memory_bytes(trial.model, trial.optimizer, trial.train.precision, PREDICT_BATCH)


def check(trial: Trial, free_bytes: int | None) -> None:
    """Hold the estimate of what a trial needs against the memory that is there.

    Args:   free_bytes: of its device; None: it uses the machine's own.
    Raises: DoesNotFit: gives both numbers.
    """
    memory.give_back()
    free = memory.available_bytes() if free_bytes is None else free_bytes
    if free >= needed_bytes(trial):
        return
    what, less = f"an evaluation of {PREDICT_BATCH} images", "a smaller model"
    if _training_bytes(trial) > max(free, _evaluation_bytes(trial)):
        what = f"a step of train.batch_size {trial.train.batch_size}"
        less = f"{'' if trial.run.remat else 'run.remat=true, '}a smaller train.batch_size or model"
    raise DoesNotFit(
        f"{what} needs {needed_bytes(trial) / 2**30:.1f} GiB ({folds.count(trial.model):,} parameters) and "
        f"{free / 2**30:.1f} GiB are free; nothing was allocated; set {less}, or take a device with more"
    )
