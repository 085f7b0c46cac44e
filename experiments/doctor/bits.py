"""Bits: the same short trial twice, killed and resumed, and in a replica group."""

from functools import partial

import numpy as np
from safetensors.numpy import load_file

from backends.arrays import State
from experiments.doctor import runs
from experiments.doctor.check import Asked, Check, Verdict, differs, not_run, ok
from experiments.parity.tolerances import tolerance
from experiments.results import kept
from experiments.results.store import Store

LIMIT_S = 150.0
# Everything that is drawn is on, and the state is saved after each call of the program.
TRIAL = (
    "model.num_blocks=2",
    "model.dropout=0.1",
    "model.stochastic_depth=0.1",
    "data.augment.flip=true",
    "data.augment.crop=1",
    "data.augment.mixup=1.0",
    "train.steps=60",
    "train.evaluate_every=10",
    "train.ema_decay=0.9",
    "run.checkpoint_every_s=0",
)
KILLED_AT = 20
NUM_REPLICAS = 4


def checks(asked: Asked) -> list[Check]:
    """Each kind of repetition, by each backend."""
    kinds = {"the same trial twice": _twice, "killed and resumed": _resumed, f"{NUM_REPLICAS} replicas": _replicas}
    return [
        Check(f"{backend}: {kind}", partial(look, backend, asked), LIMIT_S, backend)
        for kind, look in kinds.items()
        for backend in asked.backends
    ]


def _twice(backend: str, asked: Asked) -> Verdict:
    again = runs.store(asked, "twice")
    _train(backend, asked, again)
    return _same_bits(_alone(backend, asked), _weights(backend, asked, again), "")


def _resumed(backend: str, asked: Asked) -> Verdict:
    alone, store = _alone(backend, asked), runs.store(asked, "killed")
    killer = runs.Killer(store, KILLED_AT)
    record = runs.train(runs.small_trials(backend, asked, TRIAL), store, asked, killer)[0]
    resumed_at = record["sessions"][-1]["first_step"]
    if not killer.killed_at or not resumed_at:
        return not_run("the trial was done before it could be killed", is_fault=True)
    how = f"killed at step {killer.killed_at}, resumed at step {resumed_at}: "
    return _same_bits(alone, _weights(backend, asked, store), how)


def _replicas(backend: str, asked: Asked) -> Verdict:
    """Replicas are the trials alone up to rounding, as far as the parity ladder lets them part: the first, the last."""
    store, ends = runs.store(asked, "replicas"), (0, NUM_REPLICAS - 1)
    alone = [_alone(backend, asked, seed) for seed in ends]
    seeds = f"seed=[{', '.join(map(str, range(NUM_REPLICAS)))}]"
    trials = runs.small_trials(backend, asked, [*TRIAL, seeds, f"run.replicas={NUM_REPLICAS}"])
    record = runs.train(trials, store, asked)[0]
    if record["replicas"] != NUM_REPLICAS:
        return not_run(f"{record['replicas']} trained together, and not {NUM_REPLICAS}", is_fault=True)
    replicas = [_weights(backend, asked, store, seed) for seed in ends]
    trial = trials[0].trial
    limit = tolerance("replicas", (trial.train.precision,) * 2, trial.model).limit
    largest = max(map(largest_difference, alone, replicas))
    if largest > limit:
        return differs(f"by {largest:.1e} from the trial alone; {limit:.0e} is allowed", largest=largest, limit=limit)
    return ok("equal" if largest == 0 else f"within {largest:.1e} of the trial alone", largest=largest, limit=limit)


def _alone(backend: str, asked: Asked, seed: int = 0) -> State:
    """The weights of the trial that the others are held against; it is trained once for all checks."""
    store = runs.store(asked, "alone")
    _train(backend, asked, store, seed)
    return _weights(backend, asked, store, seed)


def _train(backend: str, asked: Asked, store: Store, seed: int = 0) -> None:
    runs.train(runs.small_trials(backend, asked, [*TRIAL, f"seed={seed}"]), store, asked)


def _weights(backend: str, asked: Asked, store: Store, seed: int = 0) -> State:
    trial = runs.small_trials(backend, asked, [*TRIAL, f"seed={seed}"])[0].trial
    return dict(load_file(store.folder(trial.id) / kept.FILE))


def _same_bits(alone: State, other: State, how: str) -> Verdict:
    unequal = [name for name in alone if alone[name].tobytes() != other[name].tobytes()]
    if not unequal:
        return ok(f"{how}equal")
    largest = largest_difference(alone, other)
    return differs(f"{how}{len(unequal)} of {len(alone)} arrays, by up to {largest:.1e}", largest=largest)


def largest_difference(a: State, b: State) -> float:
    """The largest difference of two states, each relative to the largest element of its array; NaN counts as one."""
    differences = [
        np.max(np.abs(np.subtract(a[name], b[name], dtype=np.float64))) / (np.max(np.abs(a[name])) or 1.0) for name in a
    ]
    return float(np.nan_to_num(max(differences, default=0.0), nan=np.inf))
