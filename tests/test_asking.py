"""How an ablation may ask: names of settings, labels, fields at its top, drawn axes, a report from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.errors import MixlabError
from experiments.design import archive
from experiments.design.ablation import Ablation, load_ablation, load_base
from experiments.design.names import settings
from experiments.design.trials import trials
from experiments.results.store import Store
from slurm.cluster_file import read_cluster, stored_cluster
from slurm.cluster_keys import tree_of
from tests.conftest import TINY, write_yaml

BLOCKS, MIXING, WIDTH = "model.num_blocks", "model.token_mixing", "model.tokens_mlp_dim"
RATE = "train.learning_rate"
AXIS = "axis.mixing"
NAMED = {"mixing": [{MIXING: "tied"}, {MIXING: "tied", WIDTH: 27}, {"name": "free", MIXING: "untied"}], "seed": [0, 1]}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """The ablation of these keys of YAML: load("seed=[0]", grid=...)."""

    def load(*overrides: str, **keys: Any) -> Ablation:
        return load_ablation(write_yaml(tmp_path / "one.yaml", **keys), overrides)

    return load


def refused(load: Any, *overrides: str, **keys: Any) -> str:
    """The one line that refuses an ablation."""
    with pytest.raises(MixlabError) as caught:
        load(*overrides, **keys)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) <= 400
    return str(caught.value)


# --- names of settings --------------------------------------------------------------------------------------------


def test_the_values_of_an_axis_of_mappings_are_named_by_their_values_or_by_name(load: Any) -> None:
    report = {"rows": ["mixing"], "baseline": {"mixing": "tied"}}
    ablation = load(grid=NAMED, report=report)
    assert ablation.axes[AXIS] == ["tied", "tied 27", "free"]
    assert (ablation.report.rows, ablation.report.baseline) == ((AXIS,), {AXIS: "tied"})
    assert load(grid=NAMED).report.rows == (AXIS,)


def test_a_named_setting_trains_what_its_fields_train(load: Any, cache: Path) -> None:
    named = [one.trial.id for one in trials(load(grid=NAMED), cache)]
    plain = [{key: value for key, value in one.items() if key != "name"} for one in NAMED["mixing"]]  # type: ignore
    by_hand = [trials(load(grid={**{k: [v] for k, v in one.items()}, "seed": [0, 1]}), cache) for one in plain]
    assert named == [one.trial.id for several in by_hand for one in several]


def test_exclude_takes_out_a_setting_by_its_name(load: Any) -> None:
    ablation = load(grid=NAMED, exclude=[{"mixing": "tied 27", "seed": 1}, {"mixing": "free"}])
    assert [(point[AXIS], point["seed"]) for point in ablation.points] == [("tied", 0), ("tied", 1), ("tied 27", 0)]


def test_the_fields_of_a_named_axis_may_be_the_rows_as_well(load: Any) -> None:
    assert load(grid=NAMED, report={"rows": [MIXING, WIDTH]}).report.rows == (MIXING, WIDTH)
    assert load(grid=NAMED, report={"rows": [WIDTH], "columns": [MIXING]}).report.columns == (MIXING,)
    assert load(grid=NAMED, report={"baseline": {MIXING: "tied"}}).report.rows == (MIXING, WIDTH)
    assert "model.tokens_mlp_dim varies" in refused(load, grid=NAMED, report={"rows": [MIXING]})


def test_an_axis_that_sets_the_seed_is_no_row_by_itself(load: Any) -> None:
    grid = {"draw": [{"seed": 0, RATE: 0.1}, {"seed": 1, RATE: 0.1}], BLOCKS: [1, 2]}
    assert load(grid=grid).report.rows == (BLOCKS,)


def test_the_command_line_chooses_settings_by_their_names(load: Any) -> None:
    report = {"rows": ["mixing"], "baseline": {"mixing": "tied"}}
    assert load("mixing=[free, tied]", grid=NAMED, report=report).axes[AXIS] == ["free", "tied"]
    assert load("mixing=free", grid=NAMED, report=report).report.baseline == {}
    text = refused(load, "mixing=tied 72", grid=NAMED)
    assert "command line: mixing: expected the name of one of its values" in text and "did you mean 'tied 27'?" in text


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"grid": {"mixing": [{"model.dropout": 0.1}, {"model.stochastic_depth": 0.1}]}},
         ("grid: mixing: two of its values are called '0.1'", "give one a name in its mapping", "{name: 0.1 2, ...}")),
        ({"grid": {"mixing": [{"name": 5.0, MIXING: "tied"}, {"name": " ", MIXING: "untied"}]}},
         ("grid: mixing: name: expected text, got ' '",)),
        ({"grid": NAMED, "report": {"rows": ["mixin"]}},
         ("report: rows: 'mixin' is neither a field nor an axis of the grid; did you mean 'mixing'?",)),
        ({"grid": NAMED, "report": {"baseline": {"mixing": "tide"}}},
         ("report: baseline: no trial has mixing 'tide'; allowed: tied, tied 27, free; did you mean 'tied'?",)),
        ({"grid": NAMED, "report": {"rows": ["mixing"], "baseline": {MIXING: "tied"}}},
         ("report: baseline: expected a row or a column, got model.token_mixing; allowed: mixing",)),
        ({"grid": NAMED, "exclude": [{"mixing": "tide"}]},
         ("exclude: {'mixing': 'tide'} matches no trial", "allowed: tied, tied 27, free; did you mean 'tied'?")),
        ({"grid": NAMED, "exclude": [{"mixing": ["tied"]}]}, ("exclude: mixing: expected the name of one of its",)),
        ({"grid": [NAMED, {BLOCKS: [2]}], "report": {"rows": ["mixing"]}},
         ("report: rows: mixing is no axis of each mapping of the grid; name its fields: model.token_mix",)),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_meant_is_refused(load: Any, keys: dict[str, Any], parts: tuple[str, ...]) -> None:
    text = refused(load, **keys)
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"


def test_the_archive_keeps_names_labels_and_what_is_matched(load: Any, tmp_path: Path, cache: Path) -> None:
    ablation = load(
        grid={"mixing": [{MIXING: "tied"}, {MIXING: "untied"}], "seed": [0]},
        labels={"mixing": {"untied": "per channel"}},
        report={"baseline": {"mixing": "tied"}, "matched": ["parameters"]},
        matched={"parameters": "model.channels_mlp_dim"},
        model={"hidden_dim": 16},
    )
    found, store = trials(ablation, cache), Store(tmp_path / "runs")
    archive.keep(store, ablation, found)
    assert archive.recall(store, "one") == (ablation, found)
    assert store.ablation_labels("one")[found[0].trial.id] == "mixing=tied seed=0"


def test_an_archive_of_before_is_readable(load: Any, tmp_path: Path, cache: Path) -> None:
    ablation = load(grid={MIXING: ["tied", "untied"], "seed": [0]})
    found, store = trials(ablation, cache), Store(tmp_path / "runs")
    archive.keep(store, ablation, found)
    path = store.ablation("one") / archive.FILE
    tree = json.loads(path.read_text())
    for key in ("named", "labels", "matched"):
        del tree["ablation"][key]
    del tree["ablation"]["report"]["matched"]
    path.write_text(json.dumps(tree))
    assert archive.recall(store, "one") == (ablation, found)


# --- labels -------------------------------------------------------------------------------------------------------


def test_labels_name_values_fields_and_axes(load: Any) -> None:
    words = {
        "mixing": {"_": "token MLP", "tied 27": "tied,  wide"},
        "backend": "framework",
        RATE: {"0.1": "fast"},
        "model.variant": {"null": "own sizes"},
    }
    ablation = load(grid={**NAMED, RATE: [0.1, 0.2]}, labels=words)
    assert ablation.labels == {
        AXIS: {"_": "token MLP", "tied 27": "tied, wide"},
        "backend": {"_": "framework"},
        RATE: {"0.1": "fast"},
        "model.variant": {"None": "own sizes"},
    }


def test_a_run_of_a_part_of_the_grid_keeps_the_labels(load: Any) -> None:
    words = {"mixing": {"tied 27": "wide"}, MIXING: {"untied": "per channel"}}
    assert load("mixing=tied", grid=NAMED, labels=words).labels[AXIS] == {"tied 27": "wide"}


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        ({"mixing": {"tied 72": "wide"}}, "labels: mixing: no trial has the value 'tied 72'; allowed: tied, tied 27"),
        ({BLOCKS: {"7": "deep"}}, "labels: model.num_blocks: no trial has the value '7'; allowed: 1"),
        ({BLOCKS: {"many": "deep"}}, "labels: model.num_blocks: no trial has the value 'many'"),
        ({"model.blocks": {"7": "deep"}}, "labels: 'model.blocks' is not a field"),
        ({"mixin": {"tied": "x"}}, "did you mean 'mixing'?"),
        ({"mixing": {"tied": " "}}, "labels: mixing: tied: expected text as a label, got ' '"),
        ({"mixing": {"tied": ["x"]}}, "expected text as a label"),
        ({"mixing": ["tied"]}, "labels: mixing: expected a mapping of values to labels"),
        ({"mixing": {"tied": "free"}}, "labels: mixing: two of its values would read 'free'"),
        (["mixing"], "labels: expected a mapping of fields to labels"),
    ],
)
def test_a_label_that_names_no_value_is_refused(load: Any, labels: Any, part: str) -> None:
    assert part in refused(load, grid=NAMED, labels=labels)


# --- fields at the top --------------------------------------------------------------------------------------------


def test_fields_at_the_top_win_over_the_base_and_lose_to_the_grid(load: Any) -> None:
    low = {"base": {"train.steps": 5, "train.batch_size": 4}, "train.steps": 6, "seed": 1}
    ablation = load(base=low, train={"steps": 7}, grid={"seed": [2]}, **{"data.source": "digits", "seed": 9})
    found = {"train.steps": 7, "train.batch_size": 4, "data.source": "digits", "seed": 9}
    assert {name: value for name, value in ablation.base.items() if value is not None} == found
    assert ablation.points == ({"seed": 2},)
    assert load("train.steps=8", base=low, train={"steps": 7}).base["train.steps"] == 8


def test_an_ablation_needs_no_base(load: Any, cache: Path) -> None:
    alone, based = load(base=None, **TINY), load()
    assert [one.trial.id for one in trials(alone, cache)] == [one.trial.id for one in trials(based, cache)]


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"modle": {"num_blocks": 2}}, "'modle' is not a key of an ablation; "),
        ({"modle": {"num_blocks": 2}}, "did you mean 'model'?"),
        ({"model": {"num_block": 2}}, "'model.num_block' is not a field of a trial; "),
        ({"model.num_block": 2}, "did you mean 'model.num_blocks'?"),
        ({"model": {"num_blocks": 2}, "model.num_blocks": 3}, "model.num_blocks is set twice"),
        ({"model": 5}, "model: expected a mapping of fields, got 5"),
        ({"train": {"steps": "many"}}, "train.steps: expected a whole number"),
    ],
)
def test_a_wrong_field_at_the_top_is_refused(load: Any, keys: dict[str, Any], part: str) -> None:
    assert part in refused(load, **keys)


# --- the report on the command line -------------------------------------------------------------------------------


def test_the_command_line_sets_the_parts_of_the_report(load: Any) -> None:
    given = {"grid": {**NAMED, BLOCKS: [1, 2]}, "report": {"rows": [BLOCKS, "mixing"], "baseline": {BLOCKS: 1}}}
    words = ["report.metric=best.test.loss", "report.rows=[mixing]", "report.columns=[model.num_blocks]"]
    report = load(*words, "report.baseline.mixing=tied 27", "report.matched=[steps]", **given).report
    assert (report.metric, report.rows, report.columns) == ("best.test.loss", (AXIS,), (BLOCKS,))
    assert report.baseline == {BLOCKS: 1, AXIS: "tied 27"} and report.matched == ("steps",)
    assert load("report.baseline=null", **given).report.baseline == {}
    nested = {**given, "report": {"baseline": {"model": {"num_blocks": 1}}}}
    assert load("report.baseline.model.num_blocks=2", **nested).report.baseline == {BLOCKS: 2}


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("report.metrc=best.test.loss", "report: 'metrc' is not a key of a report; allowed: rows, "),
        ("report.metrc=best.test.loss", "did you mean 'metric'?"),
        ("report.metric=best.tset.loss", "report: metric: expected a metric, got 'best.tset.loss'"),
        ("report.rows=[mixin]", "did you mean 'mixing'?"),
        ("report.rows=[", "command line: report.rows, line 1, column 2: it is not YAML"),
        ("report.baseline.mixing=tide", "did you mean 'tied'?"),
        ("report.metric.x=5", "command line: report.metric.x: report.metric has no parts"),
        ("report.metric=", "command line: expected key=value, got 'report.metric='"),
        ("report.matched=[step]", "report: matched: 'step' is not a quantity"),
        ("reprt.metric=best.test.loss", "command line: 'reprt.metric' is not a field"),
        ("matched={parameters: model.channels_mlp_dim}", "command line: 'matched' stands in the YAML alone"),
        ("tune.each=backend", "command line: 'tune' stands in the YAML alone; change it there"),
    ],
)
def test_a_wrong_part_of_the_report_is_refused(load: Any, word: str, part: str) -> None:
    assert part in refused(load, word, grid=NAMED, report={"metric": "last.test.loss"})


def test_a_report_by_name_takes_words_of_the_report_alone(run: Any, load: Any, tmp_path: Path, cache: Path) -> None:
    grid = {MIXING: ["tied", "untied"], "setting": [{BLOCKS: 1}, {BLOCKS: 2}], "seed": [0]}
    ablation = load(grid=grid, report={"rows": [MIXING, "setting"], "baseline": {MIXING: "tied"}})
    archive.keep(Store(tmp_path / "runs"), ablation, trials(ablation, cache))
    usual = run("report", "one", "--format", "markdown").out
    words = ["report.metric=last.test.loss", "report.rows=[setting]", "report.columns=[model.token_mixing]"]
    changed = run("report", "one", *words, "report.baseline.setting=2", "--format", "markdown")
    assert "last.test.accuracy" in usual and "difference to token_mixing=tied" in usual
    assert "last.test.loss" in changed.out and "| setting | tied | untied |" in changed.out
    assert "difference to setting=2 token_mixing=tied" in changed.out
    refused_word = run("report", "one", "report.metric=last.test.loss", "seed=[0]")
    assert refused_word.code == 2 and "'seed=[0]': overrides need a YAML file" in refused_word.err
    assert "did you mean 'metric'?" in run("report", "one", "report.metrc=last.test.loss").err


@pytest.mark.parametrize("command", ["plan", "run", "report"])
def test_the_report_is_set_for_each_command(run: Any, tmp_path: Path, command: str) -> None:
    path = write_yaml(tmp_path / "one.yaml", grid=NAMED)
    words = ["--dry-run"] if command == "run" else []
    assert run(command, str(path), "report.metric=best.test.loss", *words).code == 0
    ended = run(command, str(path), "report.metrc=best.test.loss", *words)
    assert ended.code == 2 and "did you mean 'metric'?" in ended.err


def test_a_base_has_no_report_to_change(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(TINY))
    with pytest.raises(MixlabError, match=r"'report.metric=best.test.loss' changes an ablation .* this is a base"):
        load_base(tmp_path / "base.yaml", ["report.metric=best.test.loss"])


# --- drawn axes ---------------------------------------------------------------------------------------------------


DRAWN = {RATE: "loguniform(1e-4, 1e-2)", "model.dropout": "uniform(0, 0.3)"}


def test_drawn_axes_are_one_axis_whose_first_samples_stay(load: Any) -> None:
    few = load(grid={**DRAWN, "seed": [0, 1], "samples": 3, "samples_seed": 7})
    many = load(grid={**DRAWN, "seed": [0, 1]}, samples=5, samples_seed=7)
    assert len(few.points) == 6 and len(many.points) == 10 and many.points[:6] == few.points
    assert load("samples=5", grid={**DRAWN, "seed": [0, 1], "samples": 3, "samples_seed": 7}).points == many.points
    assert load("samples_seed=8", grid={**DRAWN, "seed": [0, 1]}, samples=5, samples_seed=7).points != many.points
    assert few.report.rows == (RATE, "model.dropout")


def test_a_drawn_trial_is_that_of_its_values_by_hand(load: Any, cache: Path) -> None:
    drawn = trials(load(grid={**DRAWN, "samples": 2, "samples_seed": 0}), cache)
    for one in drawn:
        written = {name: [float(f"{value:.6g}")] for name, value in settings(one.settings).items()}
        assert [other.trial.id for other in trials(load(grid=written), cache)] == [one.trial.id]


def test_a_geometric_axis_stands_in_yaml_and_on_the_command_line(load: Any) -> None:
    assert load(grid={RATE: "log(1e-3, 1e-1, 3)"}).axes == {RATE: [0.001, 0.01, 0.1]}
    assert load(f"{RATE}=log(1e-3, 1e-1, 3)", grid={"seed": [0]}).axes == {"seed": [0], RATE: [0.001, 0.01, 0.1]}


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"grid": DRAWN}, f"grid: {RATE}: 'loguniform(1e-4, 1e-2)' is drawn, and samples is not given"),
        ({"grid": DRAWN, "samples": 3}, "samples_seed is not given; add it beside the axis or at the top"),
        ({"grid": {"seed": [0], "samples": 3}}, "grid: samples: no axis beside it is drawn"),
        ({"samples": 3}, "samples: no axis is drawn"),
        ({"grid": DRAWN, "samples": 0, "samples_seed": 0}, "samples: expected a whole number from 1 on, got 0"),
        ({"grid": DRAWN, "samples": 2, "samples_seed": -1}, "samples_seed: expected a whole number from 0 on, got -1"),
        ({"grid": {"run.threads": "uniform(1, 4)"}, "samples": 2, "samples_seed": 0}, "says how a trial runs"),
    ],
)
def test_axes_that_cannot_be_drawn_are_refused(load: Any, keys: dict[str, Any], part: str) -> None:
    assert part in refused(load, **keys)


# --- what a setting needs of a cluster ----------------------------------------------------------------------------


def needs_of(folder: Path, ablation: Ablation, cache: Path, rule: str) -> list[Any]:
    path = folder / "cluster.yaml"
    path.write_text(f"when: [{rule}]")
    cluster, base = read_cluster(path), ablation.base
    stored = stored_cluster(json.loads(json.dumps(tree_of(cluster))), "cluster.json")
    found = trials(ablation, cache)
    needs = [cluster.needs(one.trial.backend, one, base) for one in found]
    assert needs == [stored.needs(one.trial.backend, one, base) for one in found]
    return needs


def test_a_rule_of_a_cluster_may_name_a_setting(load: Any, tmp_path: Path, cache: Path) -> None:
    rule = "{match: {mixing: [tied 27, free], seed: 1}, time: 2-0, gpus: 2, memory_gb: 16}"
    found = needs_of(tmp_path, load(grid=NAMED), cache, rule)
    usual = (60, 0, 4.0)
    assert [(one.time, one.gpus, one.memory_gb) for one in found] == [usual] * 3 + [(2880, 2, 16.0), usual] + [
        (2880, 2, 16.0)
    ]


def test_a_rule_of_a_cluster_gives_a_variant_its_time_gpus_and_memory(load: Any, tmp_path: Path, cache: Path) -> None:
    rule = "{match: {model.variant: L/16}, time: 2-0, gpus: 2, memory_gb: 64}"
    data = {**TINY["data"], "image_size": 32}
    sizes = {"base": {"data": data, "train": TINY["train"]}, "grid": {"model.variant": ["S/16", "L/16"]}}
    small, large = needs_of(tmp_path, load(**sizes), cache, rule)
    assert (small.time, small.gpus, small.memory_gb) == (60, 0, 4.0)
    assert (large.time, large.gpus, large.memory_gb) == (2880, 2, 64.0)


@pytest.mark.parametrize(
    ("match", "part"),
    [
        ("{sed: 1}", "match: 'sed' is not a field of a trial"),
        ("{mixing: [[tied]]}", "match: mixing: expected names of an axis' values"),
        ("{mixing: []}", "match: mixing: it has no values"),
    ],
)
def test_a_rule_that_names_nothing_is_refused(tmp_path: Path, match: str, part: str) -> None:
    (tmp_path / "cluster.yaml").write_text(f"when: [{{match: {match}, time: 5}}]")
    with pytest.raises(MixlabError) as caught:
        read_cluster(tmp_path / "cluster.yaml")
    assert part in str(caught.value)
