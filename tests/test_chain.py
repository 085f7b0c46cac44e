"""`stages:`: trials that begin from the weights of others of the same settings and seed, in one YAML."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design import ablation, archive
from experiments.design import trials as resolving
from experiments.design.ablation import GridTrial
from experiments.results import kept
from experiments.results.record import make_record
from experiments.results.store import Store
from experiments.running.rounds import ready, rounds
from slurm import packing, submission
from slurm.cluster import ClusterSpec
from slurm.needs import Needs
from slurm.request import Request
from slurm.work import Work
from tests.conftest import Ended, base, records, results, write_yaml

STAGES: dict[str, Any] = {
    "pretrain": {"train.learning_rate": 0.01},
    "finetune": {"from": "pretrain", "data.num_classes": 3},
}
GRID = {"model.token_mixing": ["tied", "untied"], "seed": [0, 1]}


@pytest.fixture(autouse=True)
def quick_backend(quick: Path) -> None:
    """The backend of these trials."""


def write(folder: Path, stages: Any = STAGES, **keys: Any) -> Path:
    given = {"base": base(backend="quick"), "grid": GRID, "stages": stages, **keys}
    return write_yaml(folder / "chain.yaml", **given)


def planned(folder: Path, cache: Path, *words: str, **keys: Any) -> list[GridTrial]:
    whole = ablation.load_ablation(write(folder, **keys), words)
    return resolving.trials(whole, cache, store=Store(folder / "runs"))


def of_stage(trials: list[GridTrial], name: str) -> list[GridTrial]:
    return [one for one in trials if one.stage == name]


def test_each_begins_from_the_trial_of_its_own_point_and_seed(tmp_path: Path, cache: Path) -> None:
    trials = planned(tmp_path, cache)
    before, after = of_stage(trials, "pretrain"), of_stage(trials, "finetune")
    assert [one.trial.start_id for one in after] == [one.trial.id for one in before]
    assert [one.settings for one in after] == [one.settings for one in before] and len(after) == 4
    assert all(one.aside for one in before) and all(one.in_table for one in after)
    assert {one.trial.train.init_from for one in after} == {f"trial:{one.trial.id}/last" for one in before}
    assert all(one.trial.train.learning_rate == 0.01 and one.trial.info.num_classes == 2 for one in before)
    assert all(one.trial.train.learning_rate == 0.001 and one.trial.info.num_classes == 3 for one in after)
    assert after[0].label == "finetune: token_mixing=tied seed=0"
    shifted = planned(tmp_path, cache, stages={**STAGES, "pretrain": {"train.learning_rate": 0.02}})
    assert not {one.trial.id for one in shifted} & {one.trial.id for one in trials}


def test_a_grid_of_a_stage_multiplies_it_and_what_begins_from_it(tmp_path: Path, cache: Path) -> None:
    mixes = [{"name": "low", "train.learning_rate": 0.01}, {"name": "high", "train.learning_rate": 0.1}]
    stages = {
        "pretrain": {"grid": {"rate": mixes, "train.weight_decay": [0.0, 0.5]}},
        "finetune": {"from": "pretrain", "grid": {"train.batch_size": [4, 8]}},
        "probe": {"from": "finetune", "train": {"steps": 1, "learning_rate": 0.0}},
    }
    rows = ["pretrain.rate", "pretrain.train.weight_decay", "finetune.train.batch_size"]
    trials = planned(tmp_path, cache, grid={"seed": [0, 1]}, stages=stages, report={"rows": rows})
    sizes = [len(of_stage(trials, name)) for name in stages]
    assert sizes == [8, 16, 16]
    by_id = {one.trial.id: one.trial for one in trials}
    for one in of_stage(trials, "probe"):
        told, fine = one.settings, by_id[one.trial.start_id or ""]
        first = by_id[fine.start_id or ""]
        assert told["axis.pretrain.rate"] == {0.01: "low", 0.1: "high"}[first.train.learning_rate]
        assert told["axis.pretrain.train.weight_decay"] == f"{first.train.weight_decay:g}"
        assert told["axis.finetune.train.batch_size"] == str(fine.train.batch_size)
        assert one.trial.train.weight_decay == 0 and one.trial.train.batch_size == 8 and one.trial.seed == first.seed
    with pytest.raises(MixlabError, match=r"pretrain.rate varies in the grid and is neither a row nor a column"):
        planned(tmp_path, cache, grid={"seed": [0, 1]}, stages=stages, report={"rows": rows[1:]})


def test_the_table_is_of_the_last_stage_or_of_the_one_that_is_named(tmp_path: Path, cache: Path) -> None:
    whole = ablation.load_ablation(write(tmp_path, report={"stage": "pretrain"}))
    assert whole.report.stage == "pretrain" and whole.base["train.learning_rate"] == 0.01
    assert ablation.load_ablation(write(tmp_path)).report.stage == "finetune"
    words = ["report.stage=pretrain", "train.steps=9"]
    trials = planned(tmp_path, cache, *words)
    assert {one.stage for one in trials if one.in_table} == {"pretrain"} and len(trials) == 8
    assert {one.trial.num_steps for one in trials} == {9}


def test_the_data_of_all_stages_is_prepared(tmp_path: Path) -> None:
    found = resolving.data_configs(ablation.load_ablation(write(tmp_path)))
    assert [config.num_classes for config in found] == [2, 3]


@pytest.mark.parametrize("mixing", [["tied", "untied"], [["tied", "identity"], ["identity", "tied"]]])
def test_a_chain_comes_back_from_the_archive(tmp_path: Path, cache: Path, mixing: Any) -> None:
    grid = {"model.token_mixing": mixing, "seed": [0]}
    stages = {"pretrain": {"model.pyramid": []}, "finetune": {"from": "pretrain"}}
    path = write(tmp_path, grid=grid, stages=stages, base=base(backend="quick", model={"num_blocks": 2}))
    whole, store = ablation.load_ablation(path), Store(tmp_path / "runs")
    trials = resolving.trials(whole, cache, store=store)
    archive.keep(store, whole, trials)
    assert archive.recall(store, "chain") == (whole, trials)
    assert archive.laid_out(whole, ["report.stage=pretrain"]).report.stage == "pretrain"


def test_the_weights_that_begin_a_stage_are_those_that_will_be_kept(tmp_path: Path, cache: Path) -> None:
    for part, which in ((0.5, "best"), (0.0, "last")):  # without validation there is no best
        trials = planned(tmp_path, cache, "run.keep=best", f"data.validation_fraction={part}")
        assert {(one.trial.train.init_from or "").partition("/")[2] for one in of_stage(trials, "finetune")} == {which}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"stages": {"b": {"from": "a"}}}, r"stages: b: from: expected a stage above it, got 'a'"),
        ({"stages": {"a": {}, "b": {"from": "a", "seed": 3}}}, r"stages: b: seed is an axis of the grid"),
        ({"stages": {"a": {}, "b": {"from": "a", "grid": {"seed": [3]}}}}, r"b: grid: seed is an axis of the grid"),
        (
            {"stages": {"a": {}, "b": {"from": "a", "train.init_from": "x"}}},
            r"b: train.init_from: .*begin from those of",
        ),
        (
            {"stages": {"a": {}, "b": {"from": "a", "grid": {"train.init_from": ["x"]}}}},
            r"b: train.init_from: .*begin from those of",
        ),
        (
            {"stages": {"a": {}, "b": {"matched": {"parameters": "model.hidden_dim"}}}},
            r"stages: b: matched: it cannot stand beside stages",
        ),
        ({"stages": {"a": {"run.keep": "none"}, "b": {"from": "a"}}}, r"the trials of 'a' keep no weights"),
        ({"stages": {"a": {}, "b": {"from": "a", "model.hidden_dim": 16}}}, r"b: train.init_from: .*model.hidden_dim"),
        ({"stages": {"a": 3}}, r"stages: a: expected a mapping of fields, got 3"),
        ({"stages": []}, r"stages: expected a mapping of names to fields"),
        ({"report": {"stage": "probe"}}, r"report: stage: expected a stage, got 'probe'; allowed: pretrain, finetune"),
        ({"stages": None, "report": {"stage": "a"}}, r"report: stage: the ablation has no stages"),
        ({"matched": {"parameters": "model.hidden_dim"}}, r"matched: it cannot stand beside stages"),
        ({"tune": {"over": {"train.learning_rate": [1, 2]}, "seeds": [9]}}, r"tune: it cannot stand beside stages"),
    ],
)
def test_what_makes_no_chain_is_one_sentence(tmp_path: Path, cache: Path, keys: Any, sentence: str) -> None:
    with pytest.raises(MixlabError, match=sentence):
        planned(tmp_path, cache, **keys)


def test_an_axis_of_one_stage_is_no_word_of_the_command_line(tmp_path: Path, cache: Path) -> None:
    stages = {"a": {"grid": {"train.momentum": [0.5, 0.6]}, "train.optimizer": "sgd"}}
    with pytest.raises(MixlabError, match=r"command line: train.momentum is an axis of the stage 'a' alone"):
        planned(tmp_path, cache, "train.momentum=0.1", stages=stages)


# --- on this machine ----------------------------------------------------------------------------------------------


def test_what_begins_from_others_waits_for_them(tmp_path: Path, cache: Path) -> None:
    trials = planned(tmp_path, cache)
    assert ready(trials) == of_stage(trials, "pretrain") and ready(trials[4:]) == trials[4:]
    whole, store = ablation.load_ablation(write(tmp_path)), Store(tmp_path / "runs")
    given = [todo for _, todo in rounds(whole, trials, store, print)]  # nothing is done, as if all had failed
    assert given == [trials[:4], trials[4:]]


def test_a_chain_runs_to_its_table_and_a_second_run_trains_nothing(
    run: Callable[..., Ended], quick: Path, tmp_path: Path
) -> None:
    path = str(write(tmp_path, grid={"seed": [0, 1]}))
    ended = run("run", path)
    assert ended.code == 0 and "begins from trial:" in ended.err and "(2)" in ended.out
    found = records(tmp_path / "runs")
    assert len(found) == 4 and sum("start" in record for record in found.values()) == 2
    assert "nothing to run" in run("run", path, "--dry-run").out
    status = run("status", "chain").out
    assert "pretrain: seed=0" in status and "finetune: seed=1" in status and "4 done" in status
    told = [run("report", "chain", *words, "--format", "csv").out for words in ([], ["report.stage=pretrain"])]
    asked = [run("report", str(path), *words, "--format", "csv").out for words in ([], ["report.stage=pretrain"])]
    assert told == asked and told[0] != told[1]


def test_the_start_that_failed_fails_what_begins_from_it_and_a_kill_between_loses_nothing(
    run: Callable[..., Ended], quick: Path, tmp_path: Path
) -> None:
    boom = {"train.label_smoothing": 0.25}  # the backend raises an error
    stages = {"pretrain": boom, "finetune": {"from": "pretrain", "train.label_smoothing": 0.0}}
    path = str(write(tmp_path, stages=stages, grid={"seed": [0]}))
    assert run("run", path).code == 1
    first, second = sorted(records(tmp_path / "runs").values(), key=lambda record: str(record["cause"]))
    assert first["cause"] == "error" and second["cause"] == "start_missing"
    assert second["reason"] == f"train.init_from: trial {first['id']} has failed: {first['reason']}"
    # as after a kill between the stages: the first is done, and nothing is there of the second
    path = str(write(tmp_path, grid={"seed": [0]}))
    assert run("run", path, "--store", "whole").code == 0
    ids = {one.stage: one.trial.id for one in planned(tmp_path, tmp_path / "whole" / "data", grid={"seed": [0]})}
    ended = run("run", path, "--store", "cut", "--only", ids["finetune"])
    assert ended.code == 2 and f"which is not done; run that first: --only {ids['pretrain']}" in ended.err
    assert run("run", path, "--store", "cut", "--only", ids["pretrain"]).code == 0
    assert run("run", path, "--store", "cut").code == 0
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    (Store(tmp_path / "cut").folder(ids["pretrain"]) / kept.FILE).unlink()
    assert run("run", path, "--store", "cut").code == 0  # all is done, and nothing begins from it
    (Store(tmp_path / "cut").folder(ids["finetune"]) / "record.json").unlink()
    ended = run("run", path, "--store", "cut", "--dry-run")
    assert ended.code == 2 and f"trial {ids['pretrain']} has no weights: they were removed" in ended.err


def test_trials_that_are_named_together_wait_for_each_other_too(
    run: Callable[..., Ended], cache: Path, tmp_path: Path
) -> None:
    stages = {"pretrain": {"data.num_classes": 3}, "finetune": {"from": "pretrain"}}  # by structure the other way round
    trials = planned(tmp_path, cache, stages=stages, grid={"seed": list(range(40))})
    pairs = zip(of_stage(trials, "pretrain"), of_stage(trials, "finetune"), strict=True)
    seed, digit = next((one.trial.seed, one.trial.id[0]) for one, two in pairs if one.trial.id[0] == two.trial.id[0])
    path = str(write(tmp_path, stages=stages, grid={"seed": [seed]}))
    ended = run("run", path, "--only", digit)
    assert ended.code == 0, ended.err
    assert [record["status"] for record in records(tmp_path / "runs").values()] == ["done", "done"]


def test_a_stage_that_fails_beside_the_table_is_told_by_the_exit_code(
    run: Callable[..., Ended], quick: Path, tmp_path: Path
) -> None:
    boom = {"from": "pretrain", "train.label_smoothing": 0.25}  # the backend raises an error
    path = write(tmp_path, stages={"pretrain": {}, "boom": boom}, grid={"seed": [0]}, report={"stage": "pretrain"})
    assert run("run", str(path)).code == 1


# --- on Slurm -----------------------------------------------------------------------------------------------------


def test_stages_are_arrays_of_their_own_and_the_later_ones_depend_on_the_jobs_of_the_earlier(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = planned(tmp_path, cache)
    packs = packing.packs(trials[::-1], lambda one: Needs(pack=3))
    assert [pack.level for pack in packs] == [0, 0, 1, 1]
    assert [{one.stage for one in pack.trials} for pack in packs] == [{"pretrain"}] * 2 + [{"finetune"}] * 2
    arrays = packing.arrays(packs, 1000)
    assert [len(array) for array in arrays] == [2, 2]
    asked: list[set[str]] = []

    def jobs_of(store: Store, ids: Any) -> list[str]:
        asked.append(set(ids))
        return ["7"]

    monkeypatch.setattr(submission.following, "jobs_of", jobs_of)
    store, first = Store(tmp_path / "runs"), trials[0].trial
    failed = {"status": "failed", "reason": "error", "cause": "error"}  # as before it was sent again
    store.begin(first, {})
    store.finish(first.id, make_record(first, failed, {}, 1.0, None))
    assert [submission._jobs_before(store, array) for array in arrays] == [[], ["7"]]
    assert asked == [{one.trial.id for one in trials[:4]}]
    assert [pack.level for pack in packing.packs(trials[4:], lambda one: Needs(pack=9))] == [0]
    sent: list[Any] = []

    class Sent:
        def __init__(self, *about: Any) -> None: ...

        def submit(self, jobs: Any, hold: bool, after: Any) -> str:
            sent.append(after)
            return str(len(sent))

    monkeypatch.setattr(submission, "Batch", Sent)
    monkeypatch.setattr(submission, "release", lambda folder, warn: None)
    request = Request(ablation.load_ablation(tmp_path / "chain.yaml"), trials, ClusterSpec(), store, cache)
    submission._send(request, store.ablation("chain"), arrays, tmp_path)
    assert sent == [[], ["7"]]


def test_what_begins_from_a_lost_trial_is_not_begun_by_a_job(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = planned(tmp_path, cache, grid={"seed": [0]})
    work: Any = SimpleNamespace(store=Store(tmp_path / "runs"))
    assert [Work._waits(work, one) for one in trials] == [False, True]
    assert f"{trials[1].trial.id} not begun: it begins from the weights of trial {trials[0].trial.id}" in (
        capsys.readouterr().out
    )
