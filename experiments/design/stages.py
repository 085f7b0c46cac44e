"""What halving means for each tuning trial: how far it is trained for now, where it halts, how far it may come."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from backends.errors import MixlabError
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.choice import ByPoint, Choice, trials_of
from experiments.design.halving import Halving
from experiments.design.tune_spec import TuneSpec
from experiments.results import checkpoint, curves
from experiments.results.states import Halt
from experiments.results.store import Store


def check(tune: TuneSpec, trials: Sequence[GridTrial], where: str) -> None:
    """Check that each tuning trial is evaluated at each step of halving, before its last step. Raises: MixlabError."""
    for planned in trials if tune.halving else ():
        for step in tune.halving.steps if tune.halving else ():
            every, last = planned.trial.train.evaluate_every, planned.trial.num_steps
            if step % every == 0 and step < last:
                continue
            what, mend = f"steps before the last ({last})", "leave it out"
            if step % every:
                near = max(every, round(step / every) * every)
                what, mend = f"multiples of train.evaluate_every ({every})", f"such as {near}"
            told = f"{what} of ({planned.label}), got {step}; {mend}"
            raise MixlabError(f"{where}: tune: halving: steps: expected {told}")


def staged(
    tune: TuneSpec, trials: Sequence[GridTrial], choices: Sequence[Choice], by_point: ByPoint
) -> list[GridTrial]:
    """The tuning trials, each with how far it is trained for now; of two settings that share it, the further one."""
    if tune.halving is None:
        return list(trials)
    found: dict[str, list[tuple[int | None, bool]]] = {}
    for choice in choices:
        for planned, step, is_pruned in _steps(tune, choice, by_point):
            found.setdefault(planned.trial.id, []).append((step, is_pruned))
    return [replace(planned, **_further(found[planned.trial.id])) for planned in trials]


def _further(asked: Sequence[tuple[int | None, bool]]) -> dict[str, Any]:
    """How far a trial is trained for all that ask for it."""
    steps = [step for step, _ in asked if step is not None]
    until = max(steps) if len(steps) == len(asked) else None
    return {"until": until, "pruned": all(is_pruned for _, is_pruned in asked)}


def _steps(tune: TuneSpec, choice: Choice, trials: ByPoint) -> Iterator[tuple[GridTrial, int | None, bool]]:
    """The trials of a setting, how far each is trained for now, and whether it is pruned."""
    values = [(one.value, one.step, True) for one in choice.pruned] + [
        (value, choice.step, False) for value in choice.going
    ]
    for value, step, is_pruned in values:
        yield from ((planned, step, is_pruned) for planned in trials_of(tune, choice.setting, value, trials))


def is_halted(planned: GridTrial, store: Store) -> bool:
    """Tell whether a trial that has not ended for good has come as far as it is trained for now, by its curve."""
    return planned.until is not None and curves.has_come_to(store, planned.trial.id, planned.until)


def halts(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> dict[str, Halt]:
    """Where the trials stand that halving has paused or pruned, by id."""
    if ablation.tune is None or ablation.tune.halving is None:
        return {}
    found = ((one.trial.id, _halt(ablation.tune.halving, one, store)) for one in trials if one.tunes)
    return {key: halt for key, halt in found if halt is not None}


def _halt(halving: Halving, planned: GridTrial, store: Store) -> Halt | None:
    if planned.until is not None and is_halted(planned, store):
        return Halt(planned.until, is_pruned=planned.pruned)
    trial_id, until = planned.trial.id, planned.until or planned.trial.num_steps
    before = max((step for step in halving.steps if step < until), default=0)
    stands_there = before and checkpoint.newest_step(store.checkpoint(trial_id)) == before
    return Halt(before, goes_on=True) if stands_there and store.sound_record(trial_id) is None else None


def expected_steps(tune: TuneSpec, choices: Sequence[Choice], trials: ByPoint) -> dict[str, float]:
    """The steps that each tuning trial is trained to, by id: of an open stage the mean over its values."""
    assert tune.halving is not None
    expected: dict[str, float] = {}
    for choice in choices:
        for planned, step, is_pruned in _steps(tune, choice, trials):
            steps = float(planned.trial.num_steps if step is None else step)
            if step is not None and not is_pruned:
                stage = tune.halving.steps.index(step)
                steps = tune.halving.steps_to_come(len(choice.going), planned.trial.num_steps, stage)
            expected[planned.trial.id] = max(expected.get(planned.trial.id, 0.0), steps)
    return expected
