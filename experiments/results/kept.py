"""Weights of a trial that is done: `weights.safetensors` in its folder, in the project's own form of weights.

`run.keep` says which: `last`, those of the record's `metrics.last`; `best`, those of `metrics.best`; or `none`. They
are the ones that were evaluated: with train.ema_decay the average. The file names the classes in the order of the
logits, where the data has names for them. The best are saved when their point is reached, as
`best-<step>.safetensors`, because a run that goes on later could not make them again. Such a file belongs to the
checkpoint whose curve has that point; a file of a step after the checkpoint that a run goes on from is of a future that
did not come, and goes. So it is with what an evaluation said of each example; see predictions.py.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.arrays import Array, State
from backends.models import folds
from backends.state import evaluated_arrays
from experiments.files import write_whole
from experiments.results import checkpoint
from experiments.spec.trial import Trial

FILE = "weights.safetensors"
SAVED = re.compile(r"(?:best|predictions)-(\d+)\.safetensors(?:\.gz)?")  # what belongs to a checkpoint, by step


def evaluated(trial: Trial, state: Mapping[str, Array]) -> State:
    """The parameters that evaluations use, by canonical name. Args: state: of training, by state name."""
    return {name: state[array] for name, array in evaluated_arrays(trial.model, trial.optimizer).items()}


def save_best(folder: Path, trial: Trial, classes: Sequence[str], state: Mapping[str, Array], step: int) -> None:
    """Save the weights of the best point so far. Raises: StoreError."""
    about = {"kept": "best", "step": step}
    write_whole(_best(folder, step), _content(trial, classes, state, about))


def keep_last(folder: Path, trial: Trial, classes: Sequence[str], state: Mapping[str, Array]) -> None:
    """Keep the weights of the last step. Raises: StoreError."""
    about = {"kept": "last", "step": trial.num_steps}
    write_whole(folder / FILE, _content(trial, classes, state, about))


def keep_best(folder: Path, trial: Trial, step: int) -> str | None:
    """Keep the weights that `save_best` saved; if they are gone or damaged, keep none and return a sentence.

    Raises: StoreError.
    """
    path = _best(folder, step)
    try:
        checkpoint.read(path, folds.shapes(trial.model))
        write_whole(folder / FILE, path.read_bytes())
    except (FileNotFoundError, checkpoint.CorruptCheckpoint) as error:
        forget(folder)
        how = "is not there; was run.keep different when it was trained?" if isinstance(error, OSError) else str(error)
        return f"store: {path} {how}; no weights are kept of this trial"
    return None


def drop_saved(folder: Path, but: Collection[int] = (), after: int = -1) -> None:
    """Remove the weights and predictions that were saved at steps later than `after`, but for those of some steps."""
    for path in folder.glob("*-*"):
        match = SAVED.fullmatch(path.name)
        if match and int(match[1]) not in but and int(match[1]) > after:
            path.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Remove the kept weights of a trial."""
    (folder / FILE).unlink(missing_ok=True)


def line(folder: Path, asked: str | None) -> str:
    """A line on where the weights of a done trial are. Args: asked: its run.keep; None: it had no such field."""
    path = folder / FILE
    try:
        about = checkpoint.read_progress(path)
        return f"weights {path} ({about.get('kept')}, of step {about.get('step')})"
    except FileNotFoundError:
        why = {"none": "run.keep was none", None: "an earlier version of Mixlab kept none"}
        return f"weights none: {why.get(asked, 'they were removed, or could not be kept')}"
    except checkpoint.CorruptCheckpoint as error:
        return f"weights {path}: damaged: {error}"


def _best(folder: Path, step: int) -> Path:
    return folder / f"best-{step:08d}.safetensors"


def _content(trial: Trial, classes: Sequence[str], state: Mapping[str, Array], about: Mapping[str, Any]) -> bytes:
    names = {"classes": list(classes)} if len(classes) == trial.model.num_classes else {}
    return checkpoint.pack(evaluated(trial, state), {"model": asdict(trial.model), "trial": trial.id, **names, **about})
