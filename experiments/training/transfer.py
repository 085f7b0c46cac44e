"""The state of a trial that begins from weights of elsewhere: a file's, or those that another trial has kept."""

from pathlib import Path

from backends.arrays import State
from backends.errors import MixlabError
from backends.models import folds
from backends.models.family import Misfit
from backends.models.transfer import transfer
from experiments.results import kept, starts
from experiments.results.store import Store
from experiments.spec.trial import Trial
from experiments.training.start import drawn_state
from experiments.weights import start_file, weight_files
from experiments.weights.weight_files import Weights


class NoStart(Exception):
    """What a trial begins from is not there, or is not what it was. The text is one sentence; others may begin."""


def check(trial: Trial, store: Store) -> None:
    """Check that the trial whose weights this one begins from has kept them. Raises: NoStart."""
    if trial.start_id and (why := starts.why_not(store, trial.start_id, _which(trial))):
        raise NoStart(f"train.init_from: {why}")


def begun_state(trial: Trial, store: Store) -> tuple[State, str]:
    """The state of a trial with `train.init_from`, float64, and a line on what was loaded, drawn anew and adapted.

    Parameters are those that evaluations of the other trial used, its average where it had one; moments are zero.

    Raises: NoStart: the weights are not there, damaged, others, or of a model that this one cannot begin from.
    """
    check(trial, store)
    try:
        weights = _weights(trial, store)
        found = transfer(weights.model, trial.model)
    except (MixlabError, Misfit) as error:
        raise NoStart(f"train.init_from: {error}") from error
    state = drawn_state(trial)
    drawn = {name: state[f"params/{name}"] for name in folds.shapes(trial.model)}
    for name, array in found.params(weights.params, drawn).items():
        for group in ("params", "average"):
            if f"{group}/{name}" in state:
                state[f"{group}/{name}"] = array
    return state, f"begins from {trial.train.init_from}: {found.text}"


def _which(trial: Trial) -> str:
    return (trial.train.init_from or "").partition("/")[2]


def _weights(trial: Trial, store: Store) -> Weights:
    """Raises: MixlabError."""
    if trial.start_id is None:
        return start_file.read(Path(trial.start_file or ""), trial.train.init_from or "")
    return weight_files.read(store.folder(trial.start_id) / kept.FILE)
