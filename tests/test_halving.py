"""Halving of what is tuned: who goes on from a stage, by made-up curves."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.planning.cost import cost
from analysis.planning.known import Known
from backends.errors import MixlabError
from experiments.design import archive, stages, tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.choice import OTHERS
from experiments.design.halving import Halving, stages_text
from experiments.results import curves
from experiments.results.states import Halt
from experiments.results.store import Store
from experiments.running.queue import Queue, pending
from tests.conftest import base
from tests.test_tune import MIXING, RATE, ablation_of, chosen, known, mixing, record

RATES = [0.001, 0.01, 0.1, 0.3]
HALVING: dict[str, Any] = {"steps": [3, 6], "keep": "1/2"}
TUNE: dict[str, Any] = {"over": {RATE: RATES}, "seeds": [100, 101], "halving": HALVING}
TRAIN = {"steps": 12, "evaluate_every": 3}
ONE = {"grid": {MIXING: ["tied"], "seed": [0]}, "report": {"rows": [MIXING]}}

Score = Callable[[GridTrial], float | None]


def halved(folder: Path, changes: Mapping[str, Any] = {}, **keys: Any) -> Ablation:
    """One setting of four values, halved twice. Args: changes: to `tune`.    keys: of the ablation."""
    return ablation_of(folder, {**TUNE, **changes}, **{"base": base(backend="quick", train=TRAIN), **ONE, **keys})


def point(step: int, score: float, test: float = 0.5) -> dict[str, Any]:
    validation = {"accuracy": score, "loss": 1.0 - score}
    return {"step": step, "loss": 0.1, "learning_rate": 0.1, "train": None, "validation": validation,
            "test": {"accuracy": test, "loss": 1.0}}  # fmt: skip


def evaluate(folder: Path, planned: GridTrial, scores: Mapping[int, float], test: float = 0.5) -> None:
    """Give a trial that has not ended a curve. Args: scores: on validation, by step."""
    place = Store(folder / "runs").folder(planned.trial.id)
    place.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(point(step, score, test)) for step, score in scores.items())
    (place / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


def come_to(folder: Path, ablation: Ablation, step: int, score: Score, test: Score = lambda planned: 0.5) -> None:
    """Bring the trials of a stage to its step, each with a score there and at the steps before; None: it diverges."""
    for planned in known(ablation, folder):
        if planned.tunes and planned.until in (step, None):
            number = score(planned)
            if number is None:
                record(folder, planned, None, curve=[point(one, 0.5) for one in range(3, step, 3)])
            else:
                evaluate(folder, planned, dict.fromkeys(range(3, step + 1, 3), number), test(planned) or 0.0)


def end(folder: Path, ablation: Ablation, score: float) -> None:
    """Record the trials that are trained to their end, with the curves that they have."""
    store = Store(folder / "runs")
    for planned in known(ablation, folder):
        if planned.tunes and planned.until is None:
            record(folder, planned, score, curve=curves.points(store, planned.trial.id, None))


def rate(planned: GridTrial) -> float:
    return planned.trial.train.learning_rate


def until(ablation: Ablation, folder: Path) -> dict[float, Any]:
    """How far each value is trained for now, by its rate, of the first setting; `pruned` where it goes no further."""
    found: dict[float, Any] = {}
    for planned in known(ablation, folder):
        if planned.tunes:
            now = ("pruned", planned.until) if planned.pruned else planned.until
            assert found.setdefault(rate(planned), now) == now, "the seeds of a value go together"
    return found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": [6, 3]}, "steps: expected steps above 0, each after the one before, got"),
        ({"steps": [3, 3]}, "each after the one before"),
        ({"steps": [0, 3]}, "expected steps above 0"),
        ({"steps": []}, "expected steps above 0"),
        ({"steps": 3}, "steps: expected a list"),
        ({"steps": ["3.5"]}, "steps: expected a list of whole numbers, got"),
        ({"steps": [4]}, "steps: expected multiples of train.evaluate_every (3) of (tuning: token_mixing=tied"),
        ({"steps": [5]}, "seed=100), got 5; such as 6"),
        ({"steps": [3, 12]}, "got 12; leave it out"),
        ({"steps": [15]}, "steps: expected steps before the last (12)"),
        ({"keep": 1}, "keep: expected a fraction such as 1/2, or a number, between 0 and 1, got"),
        ({"keep": 0}, "between 0 and 1"),
        ({"keep": "3/2"}, "between 0 and 1"),
        ({"keep": "1/0"}, "between 0 and 1"),
        ({"keep": "half"}, "between 0 and 1"),
        ({"keep": [0.5]}, "keep: expected text"),
        ({"stop": 3}, "'stop' is not a key of it; allowed: steps, keep; did you mean 'steps'"),
    ],
)
def test_what_is_no_halving_is_refused_in_a_sentence(
    tmp_path: Path, quick: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MixlabError, match="tune: halving") as error:
        known(halved(tmp_path, {"halving": {**HALVING, **changes}}), tmp_path)
    assert sentence in str(error.value) and len(str(error.value)) < 300 + len(str(tmp_path))


def test_halving_needs_steps_and_a_share(tmp_path: Path) -> None:
    for given in ({"steps": [3]}, {"keep": 0.5}, [3], "1/2"):
        with pytest.raises(MixlabError, match=r"halving: expected a mapping such as \{steps: \[100, 300\], keep: 1/2"):
            halved(tmp_path, {"halving": given})


def test_the_share_that_goes_on_is_rounded_up_as_it_is_written(tmp_path: Path) -> None:
    """0.28 of 25 is 7, though the binary number next to 0.28 makes it more."""
    assert Halving((3, 6), "1/2").numbers(5) == [5, 3, 2]
    assert Halving((3, 6, 9), "1/10").numbers(3) == [3, 1, 1, 1]
    spec = halved(tmp_path, {"halving": {"steps": [3], "keep": 0.28}}).tune
    assert spec is not None and spec.halving == Halving((3,), "7/25") and spec.halving.num_kept(25) == 7
    assert stages_text(Halving((3, 6), "1/2"), 4) == "4 values to step 3, 2 to step 6, 1 to the end"


def test_stage_after_stage_the_best_go_on_and_the_last_one_is_chosen_among(tmp_path: Path, quick: Path) -> None:
    ablation = halved(tmp_path)
    assert until(ablation, tmp_path) == dict.fromkeys(RATES, 3)
    come_to(tmp_path, ablation, 3, rate)
    assert until(ablation, tmp_path) == {0.001: ("pruned", 3), 0.01: ("pruned", 3), 0.1: 6, 0.3: 6}
    come_to(tmp_path, ablation, 6, lambda planned: 1 - rate(planned))  # at this step it is the other way round
    assert until(ablation, tmp_path) == {0.001: ("pruned", 3), 0.01: ("pruned", 3), 0.1: None, 0.3: ("pruned", 6)}
    assert chosen(ablation, tmp_path) == ["no value is chosen yet: 2 tuning trials have not ended"]
    end(tmp_path, ablation, 0.1)
    assert chosen(ablation, tmp_path) == [{RATE: 0.1}]
    assert [rate(planned) for planned in known(ablation, tmp_path) if not planned.tunes] == [0.1]


def test_a_stage_is_decided_when_all_trials_of_its_setting_have_come_to_it(tmp_path: Path, quick: Path) -> None:
    """One setting does not wait for another."""
    ablation = halved(tmp_path, grid={MIXING: ["tied", "untied"], "seed": [0]})
    missing = [planned for planned in known(ablation, tmp_path) if mixing(planned) == "untied"][-1]
    for planned in known(ablation, tmp_path):
        if planned.trial.id != missing.trial.id:
            evaluate(tmp_path, planned, {3: rate(planned)})
    trials = known(ablation, tmp_path)
    assert {one.until for one in trials if mixing(one) == "tied"} == {3, 6}
    assert {one.until for one in trials if mixing(one) == "untied"} == {3}
    assert chosen(ablation, tmp_path)[1] == "no value is chosen yet: 1 tuning trial has not reached step 3"
    evaluate(tmp_path, missing, {3: rate(missing)})
    assert {one.until for one in known(ablation, tmp_path) if mixing(one) == "untied"} == {3, 6}


@pytest.mark.parametrize(("by", "ahead"), [("best.validation.accuracy", 0.1), ("last.validation.accuracy", 0.3)])
def test_best_is_the_best_up_to_the_step_and_last_is_the_one_at_it(
    tmp_path: Path, quick: Path, by: str, ahead: float
) -> None:
    """What comes after the step says nothing: 0.01 has its best there."""
    scores = {0.1: {3: 0.9, 6: 0.1}, 0.3: {3: 0.2, 6: 0.5}, 0.01: {3: 0.0, 6: 0.0, 9: 1.0}, 0.001: {3: 0.0, 6: 0.0}}
    ablation = halved(tmp_path, {"by": by, "halving": {"steps": [6], "keep": 0.25}})
    for planned in known(ablation, tmp_path):
        evaluate(tmp_path, planned, scores[rate(planned)])
    assert [value for value, step in until(ablation, tmp_path).items() if step is None] == [ahead]


def test_a_curve_that_only_comes_near_the_step_or_is_damaged_decides_nothing(tmp_path: Path, quick: Path) -> None:
    ablation = halved(tmp_path, {"halving": {"steps": [6], "keep": 0.25}})
    come_to(tmp_path, ablation, 6, rate)
    planned = known(ablation, tmp_path)[0]
    for_all = until(ablation, tmp_path)
    evaluate(tmp_path, planned, {3: 0.5, 9: 0.5})
    assert until(ablation, tmp_path) == dict.fromkeys(RATES, 6)
    (Store(tmp_path / "runs").folder(planned.trial.id) / "metrics.jsonl").write_text('{"step": 6, "val')
    assert until(ablation, tmp_path) == dict.fromkeys(RATES, 6)
    evaluate(tmp_path, planned, {6: rate(planned)})
    assert until(ablation, tmp_path) == for_all


def test_test_metrics_prune_nothing(tmp_path: Path, quick: Path) -> None:
    """Test numbers that would keep the others change nothing; those of validation do."""
    ablation = halved(tmp_path)
    come_to(tmp_path, ablation, 3, rate, test=rate)
    first = until(ablation, tmp_path)
    assert first[0.3] == 6 and first[0.001] == ("pruned", 3)
    for planned in known(ablation, tmp_path):
        evaluate(tmp_path, planned, {3: rate(planned)}, test=1 - rate(planned))
    assert until(ablation, tmp_path) == first
    for planned in known(ablation, tmp_path):
        evaluate(tmp_path, planned, {3: 1 - rate(planned)}, test=rate(planned))
    assert until(ablation, tmp_path) == {0.001: 6, 0.01: 6, 0.1: ("pruned", 3), 0.3: ("pruned", 3)}


def test_what_diverged_stands_behind_and_of_equal_values_the_first_go_on(tmp_path: Path, quick: Path) -> None:
    """One seed of 0.001 has diverged, the other one is the best of all."""
    ablation = halved(tmp_path)
    come_to(tmp_path, ablation, 3, lambda one: (None if one.trial.seed == 101 else 0.9) if rate(one) == 0.001 else 0.5)
    assert until(ablation, tmp_path) == {0.001: ("pruned", 3), 0.01: 6, 0.1: 6, 0.3: ("pruned", 3)}


def test_values_that_all_diverged_do_not_go_on_and_a_setting_of_none_has_no_choice(tmp_path: Path, quick: Path) -> None:
    ablation = halved(tmp_path)
    come_to(tmp_path, ablation, 3, lambda planned: 0.5 if rate(planned) == 0.3 else None)
    assert until(ablation, tmp_path)[0.3] == 6
    assert sum(step == 6 for step in until(ablation, tmp_path).values()) == 1  # though two of four would go on
    come_to(tmp_path, ablation, 6, lambda planned: None)
    assert chosen(ablation, tmp_path) == [f"no value is chosen: the value that is left diverged{OTHERS}"]
    for planned in known(ablation, tmp_path):
        record(tmp_path, planned, None)  # without a curve: before the first stage
    assert chosen(ablation, tmp_path) == [f"no value is chosen: all 4 values diverged{OTHERS}"]


def test_a_divergence_after_the_step_does_not_change_what_was_decided_at_it(tmp_path: Path, quick: Path) -> None:
    ablation = halved(tmp_path)
    come_to(tmp_path, ablation, 3, rate)
    before = until(ablation, tmp_path)
    for planned in known(ablation, tmp_path):
        if rate(planned) == 0.3:
            record(tmp_path, planned, None, curve=[point(3, rate(planned))])
    assert until(ablation, tmp_path) == before
    come_to(tmp_path, ablation, 6, rate)
    assert until(ablation, tmp_path)[0.1] is None and until(ablation, tmp_path)[0.3] == ("pruned", 6)


def test_a_failure_that_another_run_may_mend_decides_nothing_unless_the_step_was_reached(
    tmp_path: Path, quick: Path
) -> None:
    ablation, killed = halved(tmp_path), {"status": "failed", "cause": "killed", "reason": "its process was killed"}
    come_to(tmp_path, ablation, 3, rate)
    before, planned = until(ablation, tmp_path), known(ablation, tmp_path)[0]
    record(tmp_path, planned, 0.5, **killed)
    assert until(ablation, tmp_path) == before
    (Store(tmp_path / "runs").folder(planned.trial.id) / "metrics.jsonl").unlink()
    assert until(ablation, tmp_path) == dict.fromkeys(RATES, 3)
    (why,) = chosen(ablation, tmp_path)
    assert f"its tuning trial {planned.trial.id} failed" in why and "run or submit it again" in why


def test_a_trial_of_an_earlier_run_counts_by_its_curve_and_is_not_chosen_where_it_is_pruned(
    tmp_path: Path, quick: Path
) -> None:
    """0.001 was trained to its end, and ends as the best; at the first stage it is among the worse half."""
    ablation = halved(tmp_path)
    for planned in known(ablation, tmp_path):
        if rate(planned) == 0.001:
            record(tmp_path, planned, 1.0, curve=[point(step, rate(planned)) for step in (3, 6, 9, 12)])
    come_to(tmp_path, ablation, 3, rate)
    for planned in known(ablation, tmp_path):
        if rate(planned) == 0.001:
            evaluate(tmp_path, planned, {3: 1.0})  # beside the record of one that is done, this says nothing
    assert until(ablation, tmp_path)[0.001] == ("pruned", 3)
    come_to(tmp_path, ablation, 6, rate)
    end(tmp_path, ablation, 0.2)
    assert chosen(ablation, tmp_path) == [{RATE: 0.3}]


def test_ids_are_those_of_tuning_without_halving(tmp_path: Path, quick: Path) -> None:
    with_it = [planned.trial.id for planned in known(halved(tmp_path), tmp_path)]
    assert with_it == [planned.trial.id for planned in known(halved(tmp_path, {"halving": None}), tmp_path)]


def test_of_two_settings_that_share_a_trial_the_one_that_goes_further_counts(tmp_path: Path, quick: Path) -> None:
    """Without weight decay it does not matter what it acts on: for one setting it is best, for the other worst."""
    tuned = {"over": {"train.weight_decay": [0.0, 0.1]}, "seeds": [100], "halving": {"steps": [3], "keep": "1/2"}}
    given = base(backend="quick", train=TRAIN)
    ablation = ablation_of(tmp_path, tuned, base=given, grid={"train.decay": ["kernels", "all"], "seed": [0]})
    for planned in known(ablation, tmp_path):
        train = planned.trial.train
        worse = train.weight_decay and "kernels" in planned.label
        evaluate(tmp_path, planned, {3: 0.5 if not train.weight_decay else 0.1 if worse else 0.9})
    shared = [planned for planned in known(ablation, tmp_path) if not planned.trial.train.weight_decay]
    assert len(shared) == 2 and {planned.trial.id for planned in shared} == {shared[0].trial.id}
    assert [(planned.until, planned.pruned) for planned in shared] == [(None, False)] * 2
    assert len(pending(known(ablation, tmp_path), Store(tmp_path / "runs"), print)) == 2


def test_what_is_paused_or_pruned_is_not_pending(tmp_path: Path, quick: Path) -> None:
    ablation, store = halved(tmp_path), Store(tmp_path / "runs")
    first = known(ablation, tmp_path)[0]
    evaluate(tmp_path, first, {3: 0.5})
    assert first.trial.id not in {one.trial.id for one in pending(known(ablation, tmp_path), store, print)}
    assert stages.halts(ablation, known(ablation, tmp_path), store) == {first.trial.id: Halt(3)}
    come_to(tmp_path, ablation, 3, rate)
    trials = known(ablation, tmp_path)
    assert {rate(one) for one in pending(trials, store, print)} == {0.1, 0.3}
    halts = stages.halts(ablation, trials, store)
    assert {halts[one.trial.id] for one in trials if rate(one) < 0.1} == {Halt(3, is_pruned=True)}


def test_replicas_are_of_one_stage(tmp_path: Path, quick: Path) -> None:
    ablation = halved(tmp_path, base=base(backend="quick", train=TRAIN, run={"replicas": 8}))
    trials = known(ablation, tmp_path)
    mixed = [trials[0], replace(trials[1], until=None), replace(trials[2], until=6), replace(trials[3], until=6)]
    queue, taken = Queue(mixed, Store(tmp_path / "runs")), []
    while queue:
        taken.append([one.until for one in queue.take("quick", 1, lambda trial_id: True)[0]])
    assert taken == [[3], [None], [6, 6]]


def test_what_was_asked_is_kept_and_without_halving_it_is_kept_as_before(tmp_path: Path, quick: Path) -> None:
    """How far a trial is trained for now is not: it follows from the curves."""
    store, ablation = Store(tmp_path / "runs"), halved(tmp_path)
    archive.keep(store, ablation, known(ablation, tmp_path))
    path = store.ablation("a") / archive.FILE
    before = path.read_bytes()
    assert store.ablation_halves("a") and store.ablation_waiting("a") == 1 and len(store.ablation_labels("a")) == 8
    come_to(tmp_path, ablation, 3, rate)
    assert archive.recall(store, "a") == (ablation, known(ablation, tmp_path))
    archive.keep(store, ablation, known(ablation, tmp_path))
    assert path.read_bytes() == before
    plain = halved(tmp_path, {"halving": None})
    archive.keep(store, plain, known(plain, tmp_path))
    tree = json.loads(path.read_text())
    assert not store.ablation_halves("a") and store.ablation_waiting("a") == 1
    assert "halving" not in tree and set(tree["ablation"]["tune"]) == {"over", "by", "seeds", "each"}
    assert all(set(one) == {"settings", "tunes", "spec"} for one in tree["trials"])
    assert archive.recall(store, "a")[0] == plain


def test_a_trial_on_its_way_to_a_job_says_how_far_it_goes(tmp_path: Path, quick: Path) -> None:
    ablation = halved(tmp_path)
    come_to(tmp_path, ablation, 3, rate)
    for planned in known(ablation, tmp_path):
        tree = json.loads(json.dumps(archive.to_tree(planned)))
        assert archive.from_tree(tree) == planned and tree["until"] in (3, 6)


def test_a_plan_counts_the_steps_of_each_stage(tmp_path: Path, quick: Path) -> None:
    """Of 4 values to step 3, 2 to step 6 and 1 to step 12 the whole is 24 steps of 48, for each seed."""
    ablation, store = halved(tmp_path), Store(tmp_path / "runs")
    whole = cost(Known(halved(tmp_path, {"halving": None}), known(ablation, tmp_path), store))

    def now() -> tuple[float, float, int]:
        found = cost(Known(halved(tmp_path), known(ablation, tmp_path), store))
        return found.flops / whole.flops, found.flops_left / whole.flops, found.num_left

    assert now() == (pytest.approx(24 / 48), pytest.approx(24 / 48), 8)
    come_to(tmp_path, ablation, 3, rate)
    assert now()[0] == pytest.approx(24 / 48) and now()[2] == 4  # what is pruned is not left
    come_to(tmp_path, ablation, 6, rate)
    assert now()[0] == pytest.approx(24 / 48) and now()[2] == 2
    steps = tune.expected_steps(ablation, known(ablation, tmp_path), store)
    assert sorted(steps.values()) == [3.0] * 4 + [6.0] * 2 + [12.0] * 2
