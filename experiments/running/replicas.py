"""Which trials can train as one program, and how many: `run.replicas`.

1       each trial alone: its result is the same bits whatever else runs
N       up to N as one program, as far as they fit into the memory
auto    on a GPU as many as fit, 8 at most; on a CPU, and with several run.devices, each trial alone

It is 1 unless asked for: a replica's numbers are those of the trial alone up to rounding (the parity rung `replicas`),
and belong to the same id. On one core, a step of 8 took this share of the CPU time of 8 steps: C 16, 2 blocks 0.30 in
torch and 0.58 in jax; C 64, 4 blocks 0.66 and 0.88. In jax a program of several is compiled for each number of them.

What differs between replicas is only in arrays: seed and initial weights, also those of elsewhere, learning rate,
schedule, warm-up, the rate of stochastic depth where it is on. All else must be equal; so must the step that they go on
from.
"""

from dataclasses import replace

from experiments.machine import memory
from experiments.running import fit
from experiments.spec.config import AUTO
from experiments.spec.trial import Trial

MOST = 8  # of `auto`


def wanted(trial: Trial) -> int:
    """How many trials may train as one program with this one, itself counted, if the device is large enough."""
    if trial.run.devices > 1:
        return 1
    return MOST if trial.run.replicas == AUTO else int(trial.run.replicas)


def common(trial: Trial) -> Trial:
    """What trials that can be replicas have in common: equal where they can."""
    model = replace(
        trial.model.structure(), dropout=trial.model.dropout, stochastic_depth=float(trial.model.stochastic_depth > 0)
    )
    train = replace(trial.train, learning_rate=0.0, schedule="constant", warmup_steps=0, init_from=None)
    return replace(trial, model=model, train=train, seed=0, start_file=None)


def number(trial: Trial, free_bytes: int | None) -> int:
    """How many such trials fit into one program here, at least 1 and at most `wanted`.

    Args: free_bytes: of the device; None: it uses the machine's own memory.
    """
    if free_bytes is None and trial.run.replicas == AUTO:
        return 1
    free, on_host = memory.available_bytes() if free_bytes is None else free_bytes, free_bytes is None
    fitting = (n for n in range(wanted(trial), 1, -1) if fit.need(trial, on_host, num_replicas=n).total <= free)
    return next(fitting, 1)
