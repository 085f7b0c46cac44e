"""The state that a trial starts from, where its weights are drawn; see transfer.py for those of elsewhere."""

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from backends.state import draw_state
from experiments import streams
from experiments.spec.trial import Trial


def initial_state(trial: Trial) -> dict[str, Array]:
    """The arrays that a trial starts from, float64, by state name; see backends.state.state_shapes.

    Raises: MixlabError: it begins from weights of elsewhere.
    """
    if trial.train.init_from is not None:
        raise MixlabError(f"train.init_from: {trial.train.init_from} cannot be loaded here; leave it out")
    return drawn_state(trial)


def drawn_state(trial: Trial) -> dict[str, Array]:
    """The arrays that a trial would start from if all of its weights were drawn."""

    def uniforms(name: str, shape: tuple[int, ...]) -> Array:
        return np.asarray(streams.uniforms(trial.seed, f"weights/{name}", 0, 1, shape)[0])

    return draw_state(trial.model, trial.optimizer, uniforms)
