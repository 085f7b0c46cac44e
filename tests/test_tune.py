"""What an ablation tunes: its trials, the choice from records, and the table at what is chosen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design import archive, tune
from experiments.design.ablation import Ablation, GridTrial, load_ablation
from experiments.design.choice import Tried, best, combinations
from experiments.design.tune_spec import TuneSpec
from experiments.results.store import Store
from tests.conftest import Ended, base, records, write_yaml

RATE = "train.learning_rate"
MIXING, WIDTH = "model.token_mixing", "model.hidden_dim"
TUNE: dict[str, Any] = {"over": {RATE: [0.001, 0.01, 0.1]}, "seeds": [100, 101]}
GRID = {MIXING: ["tied", "untied"], "seed": [0, 1]}
REPORT = {"rows": [MIXING], "baseline": {MIXING: "tied"}}


def ablation_of(folder: Path, tuned: Any = TUNE, **keys: Any) -> Ablation:
    given = {"base": base(backend="quick"), "grid": GRID, **keys}
    return load_ablation(write_yaml(folder / "a.yaml", tune=tuned, **given))


def known(ablation: Ablation, folder: Path) -> list[GridTrial]:
    return tune.trials(ablation, folder / "data", Store(folder / "runs"))


def record(folder: Path, planned: GridTrial, score: float | None, test: float = 0.5, **changes: Any) -> None:
    """Record a trial as done with a score on validation, or as diverged."""
    points = {
        when: {
            "step": 6,
            "loss": 0.1,
            "learning_rate": 0.1,
            "train": {"accuracy": 0.5, "loss": 1.0},
            "validation": {"accuracy": score, "loss": 2.0},
            "test": {"accuracy": test, "loss": 1.0},
        }
        for when in ("last", "best")
    }
    done = {"status": "done", "reason": None, "metrics": points}
    outcome = done if score is not None else {"status": "failed", "cause": "diverged", "reason": "diverged at step 3"}
    tree = {"schema": 2, "id": planned.trial.id, "spec": {}, "environment": {}, "notes": [], "curve": []}
    costs = {
        "started": 0.0, "finished": 1.0, "steps": 6, "sessions": [], "replicas": 1,
        "seconds": {"compile": 0.0, "train": 1.0, "evaluate": 0.0}, "images_per_s": 1.0, "parameters": 1,
        "forward_flops_per_image": 1, "training_flops": 1, "peak_memory_bytes": 1,
    }  # fmt: skip
    place = Store(folder / "runs").folder(planned.trial.id)
    place.mkdir(parents=True, exist_ok=True)
    (place / "record.json").write_text(json.dumps({**tree, **costs, **outcome, **changes}))


def record_all(folder: Path, ablation: Ablation, score: Callable[[GridTrial], float | None]) -> None:
    for planned in known(ablation, folder):
        if planned.tunes:
            record(folder, planned, score(planned))


def chosen(ablation: Ablation, folder: Path) -> list[Any]:
    """The value that is chosen for each setting, or why none is."""
    choices = tune.choose(ablation, known(ablation, folder), Store(folder / "runs"))
    return [one.chosen.value if one.chosen else one.why_not for one in choices]


def test_each_setting_has_a_trial_for_each_value_and_seed_and_the_table_waits(tmp_path: Path, quick: Path) -> None:
    trials = known(ablation_of(tmp_path), tmp_path)
    assert len(trials) == 2 * 3 * 2 and all(planned.tunes for planned in trials)
    assert {planned.trial.seed for planned in trials} == {100, 101}
    assert [planned.label for planned in trials[:3]] == [
        "tuning: token_mixing=tied learning_rate=0.001 seed=100",
        "tuning: token_mixing=tied learning_rate=0.001 seed=101",
        "tuning: token_mixing=tied learning_rate=0.01 seed=100",
    ]
    assert tune.num_waiting(ablation_of(tmp_path), trials) == 4


def test_the_table_is_trained_at_the_value_that_is_best_on_validation(tmp_path: Path, quick: Path) -> None:
    """The trials are ordinary ones: the ids are those of a grid that gives the same values."""
    best = {"tied": 0.01, "untied": 0.1}
    ablation = ablation_of(tmp_path)
    record_all(tmp_path, ablation, lambda planned: float(planned.trial.train.learning_rate == best[mixing(planned)]))
    table = [planned for planned in known(ablation, tmp_path) if not planned.tunes]
    assert [(mixing(one), one.trial.train.learning_rate, one.trial.seed) for one in table] == [
        ("tied", 0.01, 0), ("tied", 0.01, 1), ("untied", 0.1, 0), ("untied", 0.1, 1),
    ]  # fmt: skip
    assert table[0].label == "token_mixing=tied learning_rate=0.01 seed=0"
    for rate, mix in (0.01, "tied"), (0.1, "untied"):
        plain = ablation_of(tmp_path, None, grid={MIXING: [mix], RATE: [rate], "seed": [0, 1]})
        ids = {planned.trial.id for planned in table if mixing(planned) == mix}
        assert ids == {planned.trial.id for planned in known(plain, tmp_path)}


def mixing(planned: GridTrial) -> str:
    return str(planned.trial.model.token_mixing)  # type: ignore[attr-defined]


def test_test_metrics_never_choose(tmp_path: Path, quick: Path) -> None:
    """Records whose test numbers are turned around lead to the same choice; those of validation to another."""
    ablation = ablation_of(tmp_path)
    record_all(tmp_path, ablation, lambda planned: planned.trial.train.learning_rate)
    first = chosen(ablation, tmp_path)
    assert first == [{RATE: 0.1}, {RATE: 0.1}]
    for planned in known(ablation, tmp_path):
        record(tmp_path, planned, planned.trial.train.learning_rate, test=1 - planned.trial.train.learning_rate)
    assert chosen(ablation, tmp_path) == first
    record_all(tmp_path, ablation, lambda planned: 1 - planned.trial.train.learning_rate)
    assert chosen(ablation, tmp_path) == [{RATE: 0.001}, {RATE: 0.001}]


@pytest.mark.parametrize("by", ["best.test.accuracy", "last.test.loss", "last.train.accuracy", "validation", 3])
def test_a_metric_that_is_not_of_validation_is_refused(tmp_path: Path, by: Any) -> None:
    with pytest.raises(MixlabError, match=r"tune: by: expected a metric of validation, got"):
        ablation_of(tmp_path, {**TUNE, "by": by})


def test_of_equal_values_the_first_in_the_list_is_chosen(tmp_path: Path, quick: Path) -> None:
    ablation = ablation_of(tmp_path, {**TUNE, "over": {RATE: [0.01, 0.1, 0.001]}})
    record_all(tmp_path, ablation, lambda planned: 0.5)
    assert chosen(ablation, tmp_path) == [{RATE: 0.01}, {RATE: 0.01}]


def test_a_loss_is_chosen_where_it_is_least() -> None:
    tried = [Tried({RATE: rate}, (loss, loss)) for rate, loss in ((0.1, 3.0), (0.2, 1.0), (0.3, 2.0))]
    assert best(TuneSpec({}, "last.validation.loss", ()), tried) is tried[1]
    assert best(TuneSpec({}, "last.validation.accuracy", ()), tried) is tried[0]


def test_a_value_that_diverged_counts_as_worst_and_a_setting_of_none_has_no_choice(tmp_path: Path, quick: Path) -> None:
    """The one seed of 0.1 that has ended is the best of all; the others of tied have all diverged."""
    scores = {(0.001, 100): 0.3, (0.001, 101): 0.3, (0.01, 100): 0.2, (0.01, 101): 0.3, (0.1, 100): 0.9}
    ablation = ablation_of(tmp_path)
    record_all(
        tmp_path, ablation,
        lambda one: scores.get((one.trial.train.learning_rate, one.trial.seed)) if mixing(one) == "untied" else None,
    )  # fmt: skip
    assert chosen(ablation, tmp_path) == [
        "no value is chosen: all 3 values diverged; give others under tune: over, such as lower ones",
        {RATE: 0.001},
    ]
    table = [planned for planned in known(ablation, tmp_path) if not planned.tunes]
    assert {mixing(planned) for planned in table} == {"untied"}  # the other goes on
    assert tune.num_waiting(ablation, table) == 2


def test_a_failure_that_another_run_may_mend_chooses_nothing(tmp_path: Path, quick: Path) -> None:
    ablation = ablation_of(tmp_path)
    record_all(tmp_path, ablation, lambda planned: 0.5)
    broken = known(ablation, tmp_path)[0]
    record(tmp_path, broken, 0.5, status="failed", cause="killed", reason="its process was killed")
    assert chosen(ablation, tmp_path) == [
        f"no value is chosen: its tuning trial {broken.trial.id} failed (its process was killed); "
        "run or submit it again",
        {RATE: 0.001},
    ]


def test_one_framework_is_tuned_for_all_unless_each_is(tmp_path: Path, quick: Path) -> None:
    """With `each`, a setting is one of a framework."""
    grid = {MIXING: ["tied"], "backend": ["quick", "torch"], "seed": [0]}
    trials = known(ablation_of(tmp_path, grid=grid), tmp_path)
    assert len(trials) == 6 and {planned.trial.backend for planned in trials} == {"quick"}
    each = ablation_of(tmp_path, {**TUNE, "each": "backend"}, grid=grid)
    record_all(
        tmp_path, each,
        lambda one: one.trial.train.learning_rate * (1 if one.trial.backend == "torch" else -1) / 2 + 0.5,
    )  # fmt: skip
    assert chosen(each, tmp_path) == [{RATE: 0.001}, {RATE: 0.1}]
    together = ablation_of(tmp_path, grid=grid)
    assert chosen(together, tmp_path) == [{RATE: 0.001}]
    table = [planned for planned in known(together, tmp_path) if not planned.tunes]
    assert [(one.trial.backend, one.trial.train.learning_rate) for one in table] == [("quick", 0.001), ("torch", 0.001)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": [1, 100]}, "seeds: 1 is a seed of the grid"),
        ({"seeds": []}, "seeds: expected a list of seeds"),
        ({"seeds": [100, 100]}, "seeds: expected each seed once"),
        ({"each": "seed"}, "each: expected backend, or nothing, got 'seed'"),
        ({"each": "backed"}, "got 'backed'; did you mean 'backend'?"),
        ({"over": {"train.lr": [1, 2]}}, "did you mean 'train.learning_rate'"),
        ({"over": {}}, "over: expected a mapping of fields"),
        ({"over": {"train.learning_rat": [1, 2]}}, "did you mean 'train.learning_rate'"),
        ({"over": {RATE: [0.1]}}, "expected two values or more"),
        ({"over": {RATE: [0.1, 0.1]}}, "each once"),
        ({"over": {RATE: [0.1, -1]}}, "expected a number"),
        ({"over": {MIXING: ["tied", "untied"]}}, "model.token_mixing is set by the grid too"),
        ({"over": {"seed": [5, 6]}}, "seed cannot be tuned"),
        ({"over": {"run.threads": [1, 2]}}, "run.threads cannot be tuned"),
        ({"over": {"data.fraction": [0.5, 1.0]}}, "data.fraction cannot be tuned: it changes the examples"),
        ({"ovr": {}}, "'ovr' is not a key of it"),
        ({RATE: [0.1, 0.2]}, "fields stand under 'over'"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_a_sentence(tmp_path: Path, changes: Any, sentence: str) -> None:
    with pytest.raises(MixlabError, match="tune: ") as error:
        ablation_of(tmp_path, {**TUNE, **changes})
    assert sentence in str(error.value) and len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_tuned_field_is_no_row_and_is_not_set_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(MixlabError, match=f"report: {RATE} is tuned"):
        ablation_of(tmp_path, report={"rows": [MIXING, RATE]})
    path = write_yaml(tmp_path / "b.yaml", grid=GRID, tune=TUNE)
    with pytest.raises(MixlabError, match=f"{RATE} is tuned; change its values"):
        load_ablation(path, [f"{RATE}=0.5"])


def test_without_validation_examples_nothing_is_tuned(tmp_path: Path, quick: Path) -> None:
    given = base(backend="quick", data={"validation_fraction": 0.0})
    with pytest.raises(MixlabError, match="has no validation examples to choose by"):
        known(ablation_of(tmp_path, base=given), tmp_path)


def test_mistakes_of_the_table_are_said_before_anything_is_tuned(tmp_path: Path, quick: Path) -> None:
    with pytest.raises(MixlabError, match="nowhere"):
        known(ablation_of(tmp_path, grid={"backend": ["quick", "nowhere"], "seed": [0]}), tmp_path)


def test_a_range_may_be_logarithmic_and_several_fields_are_a_product(tmp_path: Path, quick: Path) -> None:
    over = {RATE: "log(1e-4, 1e-2, 3)", "train": {"weight_decay": [0.0, 0.1]}}
    ablation = ablation_of(tmp_path, {**TUNE, "over": over})
    assert ablation.tune is not None
    assert combinations(ablation.tune) == [
        {RATE: rate, "train.weight_decay": decay} for rate in (1e-4, 1e-3, 1e-2) for decay in (0.0, 0.1)
    ]


def test_what_was_asked_is_kept_and_an_archive_of_before_has_nothing_tuned(tmp_path: Path, quick: Path) -> None:
    store, ablation = Store(tmp_path / "runs"), ablation_of(tmp_path)
    trials = known(ablation, tmp_path)
    archive.keep(store, ablation, trials)
    assert archive.recall(store, "a") == (ablation, trials)
    assert store.ablation_waiting("a") == 4 and len(store.ablation_labels("a")) == 12
    record_all(tmp_path, ablation, lambda planned: 0.5)
    assert len(archive.recall(store, "a")[1]) == 16  # the choice follows from the records, not from the file
    plain = ablation_of(tmp_path, None)
    archive.keep(store, plain, known(plain, tmp_path))
    path = store.ablation("a") / archive.FILE
    tree = json.loads(path.read_text())
    assert "waiting" not in tree and store.ablation_waiting("a") == 0
    del tree["ablation"]["tune"]
    path.write_text(json.dumps(tree))
    assert archive.recall(store, "a")[0].tune is None


def test_two_settings_that_come_to_one_trial_train_it_once(tmp_path: Path, run: Any, quick: Path) -> None:
    """Without weight decay it does not matter what it acts on."""
    grid = {"train.decay": ["kernels", "all"], "seed": [0]}
    tuned = {"over": {"train.weight_decay": [0.0, 0.1]}, "seeds": [100]}
    write_yaml(tmp_path / "a.yaml", base=base(backend="quick"), grid=grid, tune=tuned)
    ablation = load_ablation(tmp_path / "a.yaml")
    record_all(tmp_path, ablation, lambda planned: 1 - planned.trial.train.weight_decay)
    ended: Ended = run("run", "a.yaml", "--jobs", "2")
    assert ended.code == 0, ended.err
    assert len(records(tmp_path / "runs")) == 3 + 1


def test_an_axis_of_mappings_is_tuned_by_its_names_and_a_matched_width_stays_solved(
    tmp_path: Path, quick: Path
) -> None:
    """The table's trials are those of a grid without tuning that gives the chosen value."""
    mixings = [{MIXING: "tied"}, {MIXING: "grouped", "model.token_groups": 2}]
    keys: dict[str, Any] = {
        "base": base(model={"hidden_dim": 16}, backend="quick"),
        "grid": {"mixing": mixings, "seed": [0, 1]},
        "report": {"rows": ["mixing"], "baseline": {"mixing": "tied"}},
        "matched": {"parameters": "model.tokens_mlp_dim"},
    }
    ablation = ablation_of(tmp_path, **keys)
    assert [setting.label for setting in tune.settings(ablation)] == ["mixing=tied", "mixing=grouped 2"]
    record_all(tmp_path, ablation, lambda planned: planned.trial.train.learning_rate)
    trials = known(ablation, tmp_path)
    table = [planned for planned in trials if not planned.tunes]
    given = {**keys, "base": base(model={"hidden_dim": 16}, backend="quick", train={"learning_rate": 0.1})}
    plain = known(ablation_of(tmp_path, None, **given), tmp_path)
    assert [planned.trial.id for planned in table] == [planned.trial.id for planned in plain]
    assert len({planned.trial.model.tokens_mlp_dim for planned in table}) == 2  # type: ignore[attr-defined]
    assert [planned.label.split(" learning_rate")[0] for planned in table] == [
        "mixing=tied", "mixing=tied", "mixing=grouped 2", "mixing=grouped 2",
    ]  # fmt: skip
    store = Store(tmp_path / "runs")
    archive.keep(store, ablation, trials)
    assert archive.recall(store, "a") == (ablation, trials)
