"""The few-shot probe: the authors' numbers, and a metric of trials and of weights on any data.

fixtures/fewshot_small.npz holds random features, and what evaluators/fewshot_lsr.py of google-research/big_vision
(0127fb6b) makes of them in float64: all nine cases of 16 features, three of 300, whose rows that none uses are 0.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import backends
from analysis.report import make_report
from analysis.table.render import render_cells
from analysis.terminal.details import show_lines
from backends.contract import ArrayDataset, Program
from backends.errors import MixlabError
from backends.specs import RunSpec
from experiments import data
from experiments.data import Splits
from experiments.design import archive
from experiments.design.ablation import GridTrial, load_ablation
from experiments.design.trials import trials
from experiments.results import metrics
from experiments.results.claims import Claim
from experiments.results.record import make_record
from experiments.results.shape import faults
from experiments.results.store import Store
from experiments.spec.shots import SHOTS
from experiments.spec.trial import Trial, as_tree, trial_from_json
from experiments.training import probe
from experiments.training.evaluate import evaluate_each, fit_probes, predictor
from experiments.training.loop import Loop
from experiments.training.trial_run import TrialRun
from tests.conftest import Ended, base, planned, write_yaml

Run = Callable[..., Ended]

FIXTURE = Path(__file__).parent / "fixtures" / "fewshot_small.npz"
CASES = [(16, seed, shots) for seed in (0, 1, 2) for shots in (1, 5, 10)] + [(300, 0, 1), (300, 1, 5), (300, 2, 10)]
# Two solvers in float64 on the same 5 to 50 rows; seen: 2.2e-14.
TOLERANCE = 1e-10
# Two frameworks in float64 on the same images: features part by 1e-15, and no score of a probe is so near another.
PROBED = base(
    data={"image_size": 8, "num_classes": 3, "num_examples": 120},
    train={"steps": 4, "evaluate_every": 2, "precision": "float64", "learning_rate": 0.05},
    run={"probe_shots": [5, 1], "threads": 1},
)


@pytest.mark.parametrize(("dim", "seed", "shots"), CASES)
def test_the_probe_is_that_of_the_authors(dim: int, seed: int, shots: int) -> None:
    with np.load(FIXTURE) as file:
        held = {name.removeprefix(f"d{dim}/"): file[name] for name in file.files if name.startswith(f"d{dim}/")}
    case = {name.rpartition("/")[2]: x for name, x in held.items() if name.startswith(f"seed{seed}/shots{shots}/")}
    rows = probe.chosen(held["y_train"], 5, shots, seed)
    np.testing.assert_array_equal(rows, case["indices"])
    found = probe.fit(held["x_train"][rows], held["y_train"][rows], 5)
    for name in ("weights", "mean", "std"):
        np.testing.assert_allclose(getattr(found, name), case[name], rtol=0, atol=TOLERANCE)
    if "scores_test" in case:
        np.testing.assert_allclose(found.scores(held["x_test"]), case["scores_test"], rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(found.predicted(held["x_test"]), case["scores_test"].argmax(1))
    if "accuracy" in case:
        assert np.mean(found.predicted(held["x_test"]) == held["y_test"]) == case["accuracy"]


def test_fewer_shots_are_among_more_and_a_seed_is_another_choice() -> None:
    labels = np.arange(60) % 3
    few, many, other = (set(probe.chosen(labels, 3, *which)) for which in ((2, 0), (5, 0), (5, 1)))
    assert few < many and len(few) == 6 and len(many) == 15 and other != many
    assert all(np.bincount(labels[probe.chosen(labels, 3, 5, seed)]).tolist() == [5, 5, 5] for seed in probe.SEEDS)


def trained(one: GridTrial, store: Store) -> tuple[Program, Splits]:
    """Train a trial and write its record, all in this process."""
    trial = one.trial
    store.begin(trial, {})
    splits = data.load(trial.data, trial.info, store.data)
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels))
    run = RunSpec("cpu", trial.train.precision)
    program = backends.load(trial.backend).open(trial.model, trial.optimizer, dataset, run)
    training = TrialRun(trial, store, Claim(store.folder(trial.id)), splits)
    assert [error for _, error in Loop([training], [training.restore()], program, splits).run(lambda: False)] == [None]
    about = data.in_record(trial.data, trial.info, store.data)
    record = make_record(trial, {"status": "done", "reason": None}, {}, 1.0, {"data": about, **training.result(1)})
    assert store.finish(trial.id, record, training.claim)
    training.claim.release()
    return program, splits


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any], dict[str, Trial], Program, Splits]:
    """A folder with a trial of each framework, their records by framework; the program and the data of the last."""
    folder = tmp_path_factory.mktemp("probed")
    report = {"metric": "probe.5shot.accuracy"}
    write_yaml(folder / "one.yaml", base=PROBED, grid={"backend": ["torch", "jax"], "seed": [0]}, report=report)
    store, ablation = Store(folder / "runs"), load_ablation(folder / "one.yaml")
    of = trials(ablation, store.data)
    for one in of:
        program, splits = trained(one, store)
    archive.keep(store, ablation, of)
    records = {one.trial.backend: store.record(one.trial.id, with_curve=True) for one in of}
    return folder, records, {one.trial.backend: one.trial for one in of}, program, splits


def test_a_trial_is_probed_in_each_evaluation_by_its_features(measured: Any) -> None:
    _, records, found, program, splits = measured
    record = records["jax"]
    assert list(faults(record, whole=True)) == []
    assert record["probe"] == {"shots": [1, 5], "seeds": [0, 1, 2], "l2": 1024.0}
    train, test, labels = np.sort(splits.train), splits.test, splits.labels
    (features,) = (one.features for one in program.predict(splits.images))
    for shots in (1, 5):
        each = []
        for seed in (0, 1, 2):
            rows = train[probe.chosen(labels[train], 3, shots, seed)]
            each.append(np.mean(probe.fit(features[rows], labels[rows], 3).predicted(features[test]) == labels[test]))
        name, last = f"probe.{shots}shot.accuracy", record["metrics"]["last"]
        assert last["each_seed"]["test"][name] == each and last["test"][name] == pytest.approx(np.mean(each))
    assert 1 / 3 + 0.1 < last["test"][name] < 1  # of three classes; a probe of nothing has a third
    assert [set(point["validation"]) for point in record["curve"]] == [{"accuracy", "loss", *names_of(1, 5)}] * 2
    assert found["jax"].run.shots == (1, 5)


def names_of(*shots: int) -> set[str]:
    return {f"probe.{one}shot.accuracy" for one in shots}


def test_both_frameworks_probe_the_same(measured: Any) -> None:
    _, records, *_ = measured
    assert [point["each_seed"] for point in records["torch"]["curve"]] == [
        point["each_seed"] for point in records["jax"]["curve"]
    ]


def test_a_probe_stands_in_tables_and_curves_and_test_stays_sealed(measured: Any) -> None:
    folder, records, found, *_ = measured
    ablation, store = load_ablation(folder / "one.yaml"), Store(folder / "runs")
    report = make_report(ablation, trials(ablation, store.data), store)
    value = records["jax"]["metrics"]["last"]["test"]["probe.5shot.accuracy"]
    text = render_cells(report.ablation, report.frame, report.table, "text", report.options)
    assert "last.test.probe.5shot.accuracy in %" in text and f"{100 * value:.1f} ± ? (1)" in text
    assert len(report.labels) == 2
    for label in report.labels:
        assert np.isfinite(report.curve(label, "test.probe.1shot.accuracy")[1]).all()
    assert metrics.sealed("last.test.probe.5shot.accuracy") == "last.validation.probe.5shot.accuracy"
    shown = "\n".join(show_lines(found["jax"].id, store, "last.validation", test=False))
    assert "validation probe.5shot.accuracy" in shown and "test probe" not in shown and "each_seed" not in shown


def test_a_probe_is_no_part_of_an_id(tmp_path: Path, cache: Path) -> None:
    write_yaml(tmp_path / "none.yaml", base={**PROBED, "run": {}})
    write_yaml(tmp_path / "some.yaml", base=PROBED)
    none, some = (planned(tmp_path / f"{name}.yaml", cache)[0].trial for name in ("none", "some"))
    assert none.id == some.id and none.run.shots == () and some.run.shots == (1, 5)
    assert trial_from_json(as_tree(some)) == some
    tree = as_tree(none)
    del tree["run"]["probe_shots"]  # as an earlier version of Mixlab wrote it
    assert trial_from_json(tree) == none


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": {"probe_shots": 3}}, "run.probe_shots: expected some of 1, 5, 10, 25, got 3"),
        ({"run": {"probe_shots": 25}, "data": {"num_examples": 60}}, "25 examples of each of 3 classes exceed the 43"),
    ],
)
def test_shots_that_no_probe_can_have_are_refused(changes: Any, words: str, tmp_path: Path, cache: Path) -> None:
    merged = {key: {**PROBED.get(key, {}), **value} for key, value in changes.items()}
    with pytest.raises(MixlabError, match=words):
        planned(write_yaml(tmp_path / "one.yaml", base={**PROBED, **merged}), cache)


def test_a_report_of_a_probe_that_nobody_asked_for_is_refused(tmp_path: Path, cache: Path) -> None:
    asked = {
        "base": {**PROBED, "run": {"probe_shots": 1}},
        "report": {"metric": "best.validation.probe.5shot.accuracy"},
    }
    path = write_yaml(tmp_path / "one.yaml", **asked)
    with pytest.raises(
        MixlabError, match=r"5shot\.accuracy is measured where it is asked for; set run\.probe_shots to 5"
    ):
        load_ablation(path)
    for word in ("run.probe_shots=5", "run.probe_shots=[5, 1]"):  # a list is no axis: it is how all trials run
        assert load_ablation(path, [word]).report.metric == "best.validation.probe.5shot.accuracy"


def held_back(labels: Any, num_train: int) -> Splits:
    """Examples of three classes, each of which is one pixel that says its place; those behind `num_train` are test."""
    places = np.arange(len(labels), dtype=np.int32)
    return data.Splits(
        dataclasses.make_dataclass("About", [("num_classes", int)])(3),  # type: ignore[arg-type]
        places.astype(np.uint8).reshape(-1, 1, 1, 1), np.asarray(labels, np.int32),
        places[:num_train], np.zeros(0, np.int32), places[num_train:], classes=("cat", "dog", "owl"),
    )  # fmt: skip


def test_each_replica_is_probed_by_a_probe_of_its_own() -> None:
    said = np.eye(3)[np.arange(60) % 3]
    of_replicas = (said, np.roll(said, 1, axis=1))

    def predict(images: Any) -> list[Any]:
        return [SimpleNamespace(logits=own[images.ravel()], features=own[images.ravel()]) for own in of_replicas]

    splits, program = held_back(np.arange(60) % 3, 30), cast(Program, SimpleNamespace(predict=predict))
    said = predictor(program, splits.images)
    probes = fit_probes(said, probe.draw(splits, (5,), ""))
    found = [one.scores for one in evaluate_each(said, splits, splits.test, "softmax", probes)]
    assert [one["probe.5shot.accuracy"] for one in found] == [1.0, 1.0]
    assert [one["accuracy"] for one in found] == [1.0, 0.0]


def test_a_class_with_too_few_examples_is_named() -> None:
    held = held_back([0] * 9 + [1] * 4 + [2] * 9, 22)
    with pytest.raises(MixlabError, match=r"a probe of 5 shots needs as many .* class 'dog' has 4; take fewer shots"):
        probe.draw(held, (1, 5), "run.probe_shots")
    assert probe.draw(held, (1,), "run.probe_shots") is not None and probe.draw(held, (), "") is None


def test_features_of_a_model_that_has_diverged_are_no_error() -> None:
    found = probe.fit(np.array([[np.nan, 1.0], [0.0, 1.0]]), np.array([0, 1]), 2)
    assert np.isnan(found.scores(np.ones((3, 2)))).all()


def test_evaluate_probes_the_weights_of_a_trial_as_the_trial_did(measured: Any, run: Run, tmp_path: Path) -> None:
    folder, records, found, *_ = measured
    words = [f"data.{name}={value}" for name, value in PROBED["data"].items() if name != "source"]
    arguments = ("evaluate", "--store", str(folder / "runs"), "--weights", f"trial:{found['torch'].id}", "--probe")
    for backend in ("torch", "jax"):
        ended = run(*arguments, "synthetic", *words, "--shots", "1,5", "--precision", "float64", "--backend", backend)
        assert ended.code == 0, ended.err
        for shots in (1, 5):
            name, last = f"probe.{shots}shot.accuracy", records["torch"]["metrics"]["last"]
            each = ", ".join(f"{100 * one:.2f}" for one in last["each_seed"]["test"][name])
            assert f"{name} {100 * last['test'][name]:.2f} % (mean of seeds 0, 1, 2: {each})" in ended.out
    other = run(*arguments, "synthetic", *words[:-2], "data.num_classes=5", "data.num_examples=200")
    assert other.code == 0 and "probe.5shot.accuracy" in other.out, "a probe needs no head, and so no classes of it"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--shots", "0"), "expected whole numbers such as 5 or 1,5,10, got '0'"),
        (("--shots", "30"), "a probe of 30 shots needs as many training examples of each class"),
        (("--weights", "trial:zzz"), "no trial id starts with 'zzz'"),
    ],
)
def test_mistakes_of_a_probe_are_one_sentence(measured: Any, run: Run, words: tuple[str, ...], told: str) -> None:
    folder, _, found, *_ = measured
    fields = [f"data.{name}={value}" for name, value in PROBED["data"].items() if name != "source"]
    usual = ("--store", str(folder / "runs"), "--weights", f"trial:{found['torch'].id}", "--probe", "synthetic")
    ended = run("evaluate", *usual, *fields, *words)
    assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1


def test_the_shots_of_a_field_are_those_of_the_metrics() -> None:
    assert {f"last.test.{name}" for name in names_of(*SHOTS)} < set(metrics.names())
