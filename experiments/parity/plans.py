"""The plan of some steps as a side trains them: with the pixels that the host makes, where a trial has it make them."""

from dataclasses import replace

import numpy as np

from backends.plan import StepPlan
from experiments.data import Splits
from experiments.spec.trial import Trial
from experiments.training import host
from experiments.training.plan import step_plan


def whole_plan(trial: Trial, splits: Splits, first_step: int, num_steps: int) -> StepPlan:
    """The plan of steps first_step, ..., first_step + num_steps - 1."""
    plan = step_plan(trial, splits.train, first_step, num_steps)
    if not host.needed(trial.data.augment):
        return plan
    prepare, steps = host.of(trial), []
    for i, examples in enumerate(plan.examples):
        draws = prepare.draws(first_step + i)
        steps.append([prepare.apply(splits.images[number], draws, row) for row, number in enumerate(examples)])
    return replace(plan, pixels=np.array(steps))
