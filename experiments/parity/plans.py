"""The plan of some steps as a side trains them: with the pixels that the host makes, where a trial has it make them."""

from dataclasses import replace

import numpy as np

from backends.microbatches import ALONE, Group
from backends.plan import StepPlan
from experiments.data import Splits
from experiments.spec.trial import Trial
from experiments.training import host
from experiments.training.plan import step_plan, step_rows


def whole_plan(trial: Trial, splits: Splits, first_step: int, num_steps: int, group: Group = ALONE) -> StepPlan:
    """The plan of steps first_step, ..., first_step + num_steps - 1.  Args: group: whose rows have pixels."""
    plan = step_plan(trial, splits.train, first_step, num_steps)
    if not host.needed(trial.data.augment):
        return plan
    prepare, steps = host.of(trial), []
    for i, examples in enumerate(plan.examples):
        draws = prepare.draws(first_step + i)
        rows = step_rows(trial, first_step + i, group)
        steps.append([prepare.apply(splits.images[examples[row]], draws, row) for row in rows])
    return replace(plan, pixels=np.array(steps))
