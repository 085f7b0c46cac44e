"""The state that a trial starts from."""

import numpy as np

from backends.arrays import Array
from backends.state import draw_state
from experiments import streams
from experiments.spec.trial import Trial


def initial_state(trial: Trial) -> dict[str, Array]:
    """The arrays that a trial starts from, float64, by state name; see backends.state.state_shapes."""

    def uniforms(name: str, shape: tuple[int, ...]) -> Array:
        return np.asarray(streams.uniforms(trial.seed, f"weights/{name}", 0, 1, shape)[0])

    return draw_state(trial.model, trial.optimizer, uniforms)
