"""What a grid can show: the spread that a plan reads in a store, of records and predictions written by hand."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analysis import power
from analysis.inference import crossed
from analysis.planning import spread
from analysis.planning.spread import Origin
from analysis.terminal.shows_lines import Asked
from analysis.variance import Parts, pooled
from backends.errors import MixlabError
from experiments.results import predictions, unsealed
from tests.conftest import base
from tests.test_planning import ACCURACY, GRID, MIXING, REPORT, SD, Bench

PLACES = {"validation": np.arange(50), "test": np.arange(50, 62)}
LABELS = np.zeros(62, np.uint16)
NUM_TEST = 12  # of the smallest trial


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


def answers(num_trials: int, seeds: int) -> list[dict[str, Any]]:
    """Of each trial which examples are right, bool (examples,), by split. Args: seeds: of a setting."""
    rng, num = np.random.default_rng(5), len(LABELS)
    skill = np.repeat(rng.normal(0.3, 0.8, (num_trials // seeds, num)), seeds, 0) + rng.normal(0, 1.0, (num_trials, 1))
    right = skill + rng.normal(0, 0.7, (num_trials, num)) > 0
    return [{name: one[PLACES[name]] for name in PLACES} for one in right]


def predict(made: Bench, *names: str) -> list[dict[str, Any]]:
    """Records of all trials with their predictions of these splits, or all; gives what `answers` does."""
    found = answers(len(made.trials), len({planned.trial.seed for planned in made.trials}))
    places = {name: one if not names or name in names else one[:0] for name, one in PLACES.items()}
    splits: Any = SimpleNamespace(labels=LABELS, **places)
    for planned, each in zip(made.trials, found, strict=True):
        right = {name: one for name, one in each.items() if len(places[name])}
        made.put(planned.trial, {name: float(one.mean()) for name, one in right.items()})
        said = {name: np.where(one, 0, 1).astype(np.uint16) for name, one in right.items()}
        kept = {"last": said, "best": said}
        predictions.keep(made.store.folder(planned.trial.id), splits, planned.trial.info.content, kept)
    return found


def unseal(made: Bench) -> None:
    """As a report with test numbers does."""
    contents = {planned.trial.id: planned.trial.info.content for planned in made.trials}
    unsealed.note(made.store, made.ablation.name, contents)


def differences(right: list[dict[str, Any]], split: str) -> list[Any]:
    """Of the two compared settings of GRID, (seeds, examples)."""
    tied, *others = (np.array([one[split] for one in right[i : i + 3]], float) for i in (0, 3, 6))
    return [other - tied for other in others]


def read(made: Bench) -> spread.Spread:
    found = spread.from_store(made.known)
    assert found is not None
    return found


# --- from records -----------------------------------------------------------------------------------------------------


def test_the_spread_of_a_difference_is_pooled_over_the_pairs_in_the_store(bench: Any) -> None:
    found = read(bench().put_all())
    assert found.sd == pytest.approx(SD) and found.examples is None
    assert found.origin == Origin(num_trials=9, df=4, of_pairs=True, split="validation", num_examples=0)


def test_frameworks_are_averaged_seed_by_seed(bench: Any) -> None:
    """A copy of every number in another framework adds no degree of freedom, and no setting."""
    grid, report = {"backend": ["torch", "jax"], **GRID}, {**REPORT, "columns": ["backend"]}
    made = bench(grid=grid, report=report)
    for planned, accuracy in zip(made.trials, 2 * [x for row in ACCURACY for x in row], strict=True):
        made.put(planned.trial, accuracy)
    found = read(made)
    assert found.sd == pytest.approx(SD) and found.origin is not None and found.origin.df == 4
    assert spread.compared(made.known) == spread.Compared(2, 3, 3)


def test_pairs_of_other_trainings_of_the_same_models_come_next(bench: Any) -> None:
    """Another learning rate, other seeds, and both frameworks, which are one experiment."""
    for backend in ("torch", "jax"):
        bench(base=base(train={"learning_rate": 0.5}, backend=backend)).put_all()
    made = bench(grid={**GRID, "seed": [5, 6, 7, 8]})
    found = read(made)
    assert found.sd == pytest.approx(SD)
    assert found.origin == Origin(num_trials=18, df=4, of_pairs=True, split="validation", num_examples=0)
    for other in ({"hidden_dim": 16}, {"num_blocks": 2}):
        assert spread.from_store(bench(base=base(model=other)).known) is None
    assert spread.from_store(bench(base=base(data={"num_examples": 80})).known) is None


def test_without_pairs_the_spread_is_that_of_single_settings(bench: Any) -> None:
    for i, backend in enumerate(("torch", "jax")):
        made = bench(base=base(train={"learning_rate": 0.5}, backend=backend), grid={"seed": [0, 1, 2]}, report={})
        for planned, accuracy in zip(made.trials, ACCURACY[0], strict=True):
            made.put(planned.trial, accuracy + 0.1 * i)
    found = read(bench(grid={**GRID, "seed": [5, 6, 7, 8]}))
    assert found.sd == pytest.approx(math.sqrt(2) * np.std(ACCURACY[0], ddof=1)) and found.examples is None
    assert found.origin == Origin(num_trials=6, df=2, of_pairs=False, split="validation", num_examples=0)


# --- from predictions -------------------------------------------------------------------------------------------------


def test_predictions_tell_what_the_seeds_bring_and_what_the_test_examples_leave(bench: Any) -> None:
    made = bench()
    right = predict(made)
    unseal(made)
    tables = differences(right, "test")
    found, tested = read(made), [crossed(d) for d in tables]
    seeds = [one.error**2 * one.seeds_share * 3 for one in tested]
    assert found.sd == pytest.approx(math.sqrt(np.mean(seeds)))  # of as many examples as they are read from
    assert found.examples == pytest.approx(math.sqrt(np.mean([Parts.of(d).examples for d in tables]) / NUM_TEST))
    assert found.origin == Origin(num_trials=9, df=4, of_pairs=True, split="test", num_examples=NUM_TEST)


def test_until_a_report_has_shown_test_numbers_validation_is_read_and_scaled_to_the_test_examples(bench: Any) -> None:
    made = bench()
    right = predict(made)
    sealed, expected = read(made), pooled([Parts.of(d) for d in differences(right, "validation")])
    assert sealed.sd == pytest.approx(math.sqrt(expected.seeds + expected.rest / NUM_TEST))
    assert sealed.examples == pytest.approx(math.sqrt(expected.examples / NUM_TEST))
    assert sealed.origin == Origin(num_trials=9, df=4, of_pairs=True, split="validation", num_examples=50)
    text = made.text()
    assert f"{NUM_TEST} examples leave an error of {100 * (sealed.examples or 0):.1f} points" in text
    assert "(from the predictions of 9 trials on 50 validation examples, 4 degrees of freedom)" in text
    unseal(made)
    assert "9 trials on 12 test examples" in made.text()
    other = bench(name="another")  # of the same trials, whose test numbers it has not shown
    assert read(other) == sealed


def test_a_report_of_other_data_leaves_these_test_numbers_sealed(bench: Any) -> None:
    made = bench()
    predict(made)
    unsealed.note(made.store, made.ablation.name, {"another": "other content"})
    assert "on 50 validation examples" in made.text()


def test_single_settings_do_not_tell_what_examples_bring_to_a_difference(bench: Any) -> None:
    alone = bench(base=base(train={"learning_rate": 0.5}), grid={"seed": [0, 1, 2]}, report={})
    right = predict(alone)
    made = bench()
    found = read(made)
    expected = pooled([Parts.of(np.array([one["validation"] for one in right], float))])
    assert found.sd == pytest.approx(math.sqrt(2) * expected.of_seeds(NUM_TEST)) and found.examples is None
    assert "as if the seeds of two were unrelated, from the predictions of 3 trials on 50 validation" in made.text()
    assert "over seeds alone: the test examples are taken as fixed" in made.text()


def test_what_is_promised_counts_the_test_examples(bench: Any) -> None:
    made = bench(grid={**GRID, "seed": list(range(8))})
    predict(made)
    found, level = read(made), power.first_step(2)
    assert found.examples
    least = 100 * power.detectable_over(8, found.sd, level, found.examples)
    assert abs(least - 100 * power.detectable_over(8, found.sd, level)) > 1
    assert f"8 seeds show a difference of {least:.0f} points with 80 % power" in made.text()
    most, asked = 100 * power.detectable(found.examples, math.inf, level), 90.0
    sentence = f"no number of seeds shows a difference of {0.99 * most:g} points on 12 examples: {most:.0f} points are"
    assert sentence in made.text(Asked(detect=0.99 * most))
    needed = power.seeds_for(asked / 100, found.sd, level, found.examples)
    assert f"{needed} seeds show a difference of 90 points" in made.text(Asked(detect=asked))


def test_a_told_deviation_is_over_seeds_alone_whatever_the_store_holds(bench: Any) -> None:
    made = bench()
    predict(made)
    assert made.text(Asked(sd=0.4)).endswith(
        "0.4, taken from --sd); over seeds alone: the test examples are taken as fixed"
    )


def test_estimated_parts_are_right_on_average_and_put_together_for_any_number_of_examples() -> None:
    rng, size = np.random.default_rng(0), (4, 60)
    true = Parts(0.02, 0.3, 0.5, 0)
    tables = [
        rng.normal(0, math.sqrt(true.seeds), (size[0], 1))
        + rng.normal(0, math.sqrt(true.examples), (1, size[1]))
        + rng.normal(0, math.sqrt(true.rest), size)
        for _ in range(4_000)
    ]
    found = pooled([Parts.of(d) for d in tables])
    assert (found.seeds, found.examples, found.rest, found.df) == pytest.approx((0.02, 0.3, 0.5, 12_000), rel=0.03)
    assert found.of_seeds(60) == pytest.approx(math.sqrt(np.mean([d.mean(1).var(ddof=1) for d in tables])), rel=1e-9)
    error = math.sqrt(found.of_seeds(60) ** 2 / 4 + found.of_examples(60) ** 2)
    assert error == pytest.approx(np.std([d.mean() for d in tables]), rel=0.04)  # 3.5 standard errors


# --- what a plan says -------------------------------------------------------------------------------------------------


def test_a_told_deviation_is_that_of_one_setting_in_points(bench: Any) -> None:
    text = bench().text(Asked(sd=0.4, detect=0.5))
    level = 1 - 0.05 / 2  # two settings are compared
    least = power.detectable_over(3, math.sqrt(2) * 0.4, level)
    assert f"3 seeds show a difference of {least:.1f} points with 80 % power (Holm's first step over 2 settings" in text
    assert f"{power.seeds_for(0.5, math.sqrt(2) * 0.4, level)} seeds show a difference of 0.5 points" in text
    assert "0.4, taken from --sd" in text


def test_a_loss_is_asked_for_in_nats(bench: Any) -> None:
    made = bench(report={**REPORT, "metric": "last.test.loss"})
    least = power.detectable_over(3, math.sqrt(2) * 0.01, 0.975)
    assert f"a difference of {least:.3f} nats" in made.text(Asked(sd=0.01))


def test_what_cannot_be_said_is_said_so(bench: Any) -> None:
    assert "give --sd, that of one setting in points" in bench().text()
    assert "report.baseline names no setting" in bench(report={"rows": [MIXING]}).text()
    made = bench()
    for planned in made.trials:
        made.put(planned.trial, 1.0)
    assert "is the same at every seed" in made.text()
    with pytest.raises(MixlabError, match=r"--detect: report.baseline|--detect: no comparison"):
        bench(report={"rows": [MIXING]}).text(Asked(detect=0.5))
    with pytest.raises(MixlabError, match=r"--detect: .*standard deviation"):
        bench(grid={**GRID, "seed": [7, 8]}, base=base(model={"hidden_dim": 16})).text(Asked(detect=0.5))


def test_one_seed_is_planned_to_be_tested_as_its_report_tests_it(bench: Any) -> None:
    """Over its examples alone; a loss has none that are right or wrong, and is not tested."""
    one = "shows   one seed: a difference is tested over the test examples of this seed alone; it says nothing of other"
    alone = bench(grid={**GRID, "seed": [0]})
    for asked in (Asked(), Asked(sd=0.4)):
        text = alone.text(asked)
        assert f"{one} seeds" in text and text.count("deviation") == 0
    assert one in alone.text(Asked(sd=0.4, detect=2)) and "seeds show a difference of 2 points" in alone.text(
        Asked(sd=0.4, detect=2)
    )
    of_loss = bench(grid={**GRID, "seed": [0]}, report={**REPORT, "metric": "last.test.loss"}).text(Asked(sd=0.4))
    assert "one seed: no difference of test loss is tested, as one seed has no spread" in of_loss


def test_what_no_accuracy_can_show_is_neither_asked_for_nor_promised(bench: Any) -> None:
    made = bench(grid={**GRID, "seed": [0, 1]})
    for asked in (Asked(sd=100), Asked(sd=0.4, detect=120)):
        with pytest.raises(
            MixlabError, match=r"--(sd|detect): expected less than 100 points, as two values of accuracy"
        ):
            made.text(asked)
    assert "2 seeds show no difference, however large, with 80 % power (Holm" in made.text(Asked(sd=5))
    assert "2 seeds show a difference of " in made.text(Asked(sd=0.4))
    assert "the test examples are taken as fixed" in made.text(Asked(sd=0.4))
    of_validation = bench(grid={**GRID, "seed": [0, 1]}, report={**REPORT, "metric": "last.validation.accuracy"})
    assert "the validation examples are taken as fixed" in of_validation.text(Asked(sd=0.4))


def test_without_validation_examples_sealed_test_numbers_stay_unread(bench: Any) -> None:
    made = bench(base=base(data={"validation_fraction": 0.0}))
    predict(made, "test")
    assert "not known: test numbers are sealed until a report shows them" in made.text()
    unseal(made)
    assert "from the predictions of 9 trials on 12 test examples" in made.text()
