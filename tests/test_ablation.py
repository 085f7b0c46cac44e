"""An ablation in YAML and on the command line becomes the trials that it asks for, or one sentence."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design.ablation import Ablation, load_ablation
from experiments.design.names import settings
from experiments.design.trials import trials
from experiments.results.metrics import DEFAULT
from tests.conftest import TINY, base, planned, write_yaml

BLOCKS = "model.num_blocks"
MIXING = "model.token_mixing"
GROUPED = {MIXING: "grouped", "model.token_groups": 4}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """The ablation of these keys of YAML: load("seed=[0]", grid=...)."""

    def load(*overrides: str, **keys: Any) -> Ablation:
        return load_ablation(write_yaml(tmp_path / "one.yaml", **keys), overrides)

    return load


def assert_refused(
    load: Any, *parts: str, overrides: tuple[str, ...] = (), cache: Path | None = None, **keys: Any
) -> None:
    """One line that holds the parts; what is found only with the data needs a cache."""
    with pytest.raises(MixlabError) as caught:
        ablation = load(*overrides, **keys)
        if cache:
            trials(ablation, cache)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"


# --- grids --------------------------------------------------------------------------------------------------------


def test_axes_are_multiplied_the_last_varies_fastest(load: Any) -> None:
    ablation = load(grid={BLOCKS: [1, 2], MIXING: ["tied", "untied"], "seed": [0, 1]})
    expected = itertools.product([1, 2], ["tied", "untied"], [0, 1])
    assert [tuple(point.values()) for point in ablation.points] == list(expected)
    assert ablation.axes == {BLOCKS: [1, 2], MIXING: ["tied", "untied"], "seed": [0, 1]}


def test_one_value_is_an_axis_too(load: Any) -> None:
    assert load(grid={BLOCKS: 2, "seed": [0, 1]}).points == ({BLOCKS: 2, "seed": 0}, {BLOCKS: 2, "seed": 1})


def test_an_axis_of_mappings_sets_its_fields_together(load: Any) -> None:
    ablation = load(grid={"setting": [{MIXING: "tied"}, GROUPED, {"model": {"num_blocks": 3}}], "seed": [0, 1]})
    expected = [({MIXING: "tied"}), GROUPED, {BLOCKS: 3}]
    assert list(map(settings, ablation.points)) == [{**one, "seed": seed} for one in expected for seed in (0, 1)]


def test_a_list_of_mappings_is_each_grid_after_the_other(load: Any) -> None:
    ablation = load(grid=[{BLOCKS: [1, 2]}, {MIXING: "untied", "seed": [0, 1]}])
    assert list(ablation.points) == [
        {BLOCKS: 1},
        {BLOCKS: 2},
        {MIXING: "untied", "seed": 0},
        {MIXING: "untied", "seed": 1},
    ]


def test_the_points_reach_the_trials(load: Any, cache: Path) -> None:
    found = trials(load(grid={BLOCKS: [1, 2], "setting": [{MIXING: "untied"}, GROUPED], "seed": [0, 1]}), cache)
    assert [
        (one.trial.model.num_blocks, one.trial.model.token_mixing, one.trial.model.token_groups, one.trial.seed)
        for one in found
    ] == [(b, *mixing, s) for b in (1, 2) for mixing in (("untied", 1), ("grouped", 4)) for s in (0, 1)]
    assert all(one.trial.train.steps == 6 and one.trial.model.hidden_dim == 8 for one in found)
    assert [one.label for one in found][:3:2] == [
        "num_blocks=1 setting=untied seed=0",
        "num_blocks=1 setting=grouped 4 seed=0",
    ]


def test_exclude_leaves_out_what_matches_all_fields_of_a_rule(load: Any) -> None:
    grid = {BLOCKS: [1, 2], MIXING: ["tied", "untied"], "seed": [0, 1]}
    ablation = load(grid=grid, exclude=[{BLOCKS: 2, "model": {"token_mixing": "untied"}}, {"seed": 1, BLOCKS: 1}])
    assert [tuple(point.values()) for point in ablation.points] == [
        (1, "tied", 0),
        (1, "untied", 0),
        (2, "tied", 0),
        (2, "tied", 1),
    ]


def test_the_name_is_that_of_the_file_where_none_is_given(load: Any) -> None:
    assert load(name=None).name == load(name="one").name == "one"


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"grid": {"seed": [0, 1, 0]}}, ("grid", "(seed=0) repeats the trial (seed=0)")),
        ({"grid": [{"seed": [0]}, {"seed": [0, 1]}]}, ("grid", "repeats")),
        ({"grid": {"model.tokens_mlp_dim": [None, 4]}}, ("tokens_mlp_dim=4", "repeats", "tokens_mlp_dim=None")),
        ({"grid": None}, ("grid", "empty")),
        ({"grid": {}}, ("grid", "empty")),
        ({"grid": []}, ("grid", "empty")),
        ({"grid": [{}]}, ("grid", "empty")),
        ({"grid": {"seed": []}}, ("grid", "seed", "no values")),
        ({"grid": "seed"}, ("grid", "'seed'", "mapping")),
        ({"grid": 5}, ("grid", "5", "mapping")),
        ({"grid": [5]}, ("grid", "5", "mapping")),
        ({"grid": {"seed": [[0]]}}, ("grid", "seed", "expected a whole number (at least 0), got [0]")),
        ({"grid": {"setting": [{"seed": [0, 1]}]}}, ("grid: setting: seed: expected a whole", "got [0, 1]")),
        ({"grid": {"seed": [0], "setting": [{"seed": 1}]}}, ("grid", "two axes set seed")),
        ({"grid": {"setting": [{"seed": 1}], "other": [{"seed": 1}]}}, ("grid", "two axes set seed")),
        ({"grid": {"setting": [{BLOCKS: 1}, 5]}}, ("grid", "'setting'")),
        ({"grid": {BLOCKS: ["many"]}}, ("grid", BLOCKS, "many")),
        ({"grid": {BLOCKS: [0]}}, (BLOCKS, "expected a whole number (at least 1, at most 1000) or null, got 0")),
        ({"grid": {"train.learning_rate": "logunifrom(1e-4, 1e-2)", "samples": 3}}, ("did you mean 'loguniform'?",)),
        ({"num_blocks": 2}, ("'num_blocks' is not a key of an ablation; did you mean 'model.num_blocks'?",)),
        ({BLOCKS: [1, 2]}, (f"{BLOCKS}: [1, 2] is an axis; put it under 'grid'",)),
        ({"train": {"learning_rate": "log(1e-4, 1e-2, 3)"}}, ("'log(1e-4, 1e-2, 3)' is an axis; put it under",)),
        ({"exclude": [{"seed": 7}]}, ("exclude", "{'seed': 7}", "matches no trial")),
        ({"exclude": [{BLOCKS: 1}]}, ("exclude", "matches no trial")),
        ({"exclude": [{"seed": 0}, {"seed": 1}]}, ("grid", "exclude takes out every trial")),
        ({"exclude": ["seed"]}, ("exclude", "'seed'", "mapping")),
        ({"exclude": [{}]}, ("exclude", "{}", "mapping")),
        ({"exclude": {"seed": 0}}, ("exclude", "mapping")),
        ({"exclude": 5}, ("exclude", "5")),
        ({"name": "a b"}, ("name", "'a b'", "folder")),
        ({"name": "../up"}, ("name", "'../up'")),
        ({"name": ""}, ("name", "''")),
        ({"base": 5}, ("5: ", "no such file")),
        ({"base": [1]}, ("base", "[1]", "mapping")),
        ({"base": "bases.yaml"}, ("bases.yaml", "no such file")),
        ({"report": 5}, ("report", "5", "mapping")),
        ({"report": {"rows": "seed"}}, ("report", "rows", "list of fields")),
        ({"report": {"baseline": 5}}, ("report", "baseline", "5")),
        ({"report": {"baseline": {"seed": 0}}}, ("report", "baseline", "seed", "expected a row or a column")),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(load: Any, cache: Path, keys: dict[str, Any], parts: tuple[str, ...]) -> None:
    assert_refused(load, *parts, cache=cache, **keys)


# --- the report ---------------------------------------------------------------------------------------------------


def test_a_report_has_backends_as_columns_and_the_rest_as_rows(load: Any) -> None:
    report = load(grid={BLOCKS: [1, 2], MIXING: ["tied"], "backend": ["torch", "jax"], "seed": [0, 1]}).report
    assert (report.rows, report.columns, report.metric, dict(report.baseline)) == (
        (BLOCKS,),
        ("backend",),
        DEFAULT,
        {},
    )
    report = load(grid={"setting": [{MIXING: "tied"}, GROUPED], "seed": [0, 1]}).report
    assert (report.rows, report.columns) == (("axis.setting",), ())


def test_a_report_may_name_what_does_not_vary(load: Any) -> None:
    assert load(report={"rows": [BLOCKS], "columns": ["backend"]}).report.rows == (BLOCKS,)


def test_a_field_that_varies_must_be_a_row_or_a_column(load: Any) -> None:
    """Else cells would average over it. A field that only some points set varies too."""
    assert_refused(
        load, "report", BLOCKS, "neither a row nor a column", grid={BLOCKS: [1, 2]}, report={"rows": [MIXING]}
    )
    given = {"grid": [{MIXING: "untied"}, {BLOCKS: 2}], "report": {"rows": [MIXING]}}
    assert_refused(load, "report", BLOCKS, "neither a row nor a column", **given)


def test_an_axis_of_the_command_line_is_a_row_unless_it_has_a_place(load: Any) -> None:
    rows = load("model.hidden_dim=[8,16]", "seed=[3,4]", report={"rows": [MIXING], "columns": ["backend"]}).report.rows
    assert rows == (MIXING, "model.hidden_dim")
    assert load("model.hidden_dim=[8,16]", report={"columns": ["model.hidden_dim"]}).report.rows == ()


def test_an_override_that_takes_the_baseline_away_leaves_none(load: Any) -> None:
    given = {"grid": {MIXING: ["tied", "untied"]}, "report": {"rows": [MIXING], "baseline": {MIXING: "tied"}}}
    assert load(f"{MIXING}=untied", **given).report.baseline == {}
    assert load(f"{MIXING}=tied", **given).report.baseline == {MIXING: "tied"}


def test_equivalence_names_a_field_that_varies_and_a_margin(load: Any) -> None:
    grid = {MIXING: ["tied", "untied"], "backend": ["torch", "jax"], "seed": [0, 1]}
    asked = {"equivalence": {"between": "backend", "margin": 0.01}}
    found = load(grid=grid, report=asked).report.equivalence
    assert found is not None and (found.between, found.margin) == ("backend", 0.01)
    assert load(grid=grid, report={"equivalence": {"margin": 0.01}}).report.equivalence == found
    assert load("backend=jax", grid=grid, report=asked).report.equivalence is None
    in_nats = {"metric": "last.test.loss", "equivalence": {"margin": 2}}
    assert load(grid=grid, report=in_nats).report.equivalence.margin == 2


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (0.01, ("equivalence", "0.01", "{between: backend, margin: 0.01}")),
        ({"between": "backend"}, ("equivalence", "margin: 0.01")),
        ({"margin": 0.01, "betwen": "backend"}, ("did you mean 'between'?",)),
        ({"margin": 0.01, "between": "bakend"}, ("did you mean 'backend'?",)),
        ({"margin": 0.01, "between": "model.num_blocks"}, ("model.num_blocks does not vary",)),
        ({"margin": 0.01, "between": "seed"}, ("got seed, by which trials are paired",)),
        ({"margin": 1}, ("margin: expected a fraction", "0.01 is one point", "got 1")),
        ({"margin": 0}, ("margin: expected a fraction", "got 0")),
        ({"margin": "1 %"}, ("margin: expected a number, got '1 %'",)),
        ({"margin": True}, ("margin: expected a number, got true",)),
    ],
    ids=str,
)
def test_an_equivalence_that_cannot_be_meant_is_refused(load: Any, given: Any, parts: tuple[str, ...]) -> None:
    grid = {"backend": ["torch", "jax"], "seed": [0, 1]}
    assert_refused(load, *parts, grid=grid, report={"equivalence": given})


# --- bases --------------------------------------------------------------------------------------------------------


def test_a_base_is_found_beside_the_yaml_and_may_stand_on_another(load: Any, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "low.yaml").write_text(json.dumps(TINY))
    (tmp_path / "high.yaml").write_text(json.dumps({"base": "low/low.yaml", "model": {"num_blocks": 2}}))
    ablation = load(base={"base": "high.yaml", "train.steps": 9})
    assert ablation.base[BLOCKS] == 2 and ablation.base["train.steps"] == 9 and ablation.base["model.hidden_dim"] == 8
    written = load(base=base(model={"num_blocks": 2}, train={"steps": 9}))
    assert [one.trial.id for one in trials(ablation, cache)] == [one.trial.id for one in trials(written, cache)]


def test_a_base_that_stands_on_itself_is_refused(load: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml")
    assert_refused(load, "b.yaml", "itself", base="a.yaml")


def test_a_missing_base_names_the_nearest_file(load: Any, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("{}")
    assert_refused(load, "smal.yaml", "no such file", "did you mean 'small.yaml'?", base="smal.yaml")


# --- overrides ----------------------------------------------------------------------------------------------------


def test_an_override_sets_the_base(load: Any, cache: Path) -> None:
    found = trials(load("train.steps=9", "model.pre_head_norm=false", "train.learning_rate=1e-2"), cache)
    assert [(one.trial.train.steps, one.trial.model.pre_head_norm) for one in found] == [(9, False)] * 2
    assert found[0].trial.train.learning_rate == 0.01


def test_an_override_replaces_an_axis_in_its_place(load: Any) -> None:
    grid = {BLOCKS: [1, 2], "seed": [0, 1]}
    assert load(f"{BLOCKS}=[3,4,5]", grid=grid).axes == {BLOCKS: [3, 4, 5], "seed": [0, 1]}
    assert load(f"{BLOCKS}=3", grid=grid).points == ({BLOCKS: 3, "seed": 0}, {BLOCKS: 3, "seed": 1})
    both = load(f"{BLOCKS}=3", grid=[{BLOCKS: [1], "seed": [0]}, {BLOCKS: [1], "seed": [1]}])
    assert both.points == ({BLOCKS: 3, "seed": 0}, {BLOCKS: 3, "seed": 1})
    one = load(f"{BLOCKS}=3", grid=[{BLOCKS: [1]}, {"seed": [1]}])
    assert one.points == ({BLOCKS: 3}, {"seed": 1})


def test_a_list_makes_an_axis(load: Any) -> None:
    ablation = load(f"{BLOCKS}=[1,2]")
    assert ablation.points == tuple({"seed": seed, BLOCKS: blocks} for seed in (0, 1) for blocks in (1, 2))
    assert ablation.report.rows == (BLOCKS,)


def test_the_last_of_two_overrides_counts(load: Any) -> None:
    assert load("train.steps=9", "train.steps=8").base["train.steps"] == 8


def test_an_override_of_epochs_takes_steps_back_and_the_other_way(load: Any, cache: Path) -> None:
    assert trials(load("train.epochs=2"), cache)[0].trial.train.steps == 10  # 43 examples in batches of 8
    epochs = base(train={"steps": None, "epochs": 3})
    assert trials(load("train.steps=4", base=epochs), cache)[0].trial.train.steps == 4
    varied = trials(load("train.epochs=[1,2]"), cache)
    assert sorted({one.trial.train.steps for one in varied}) == [5, 10]


def test_an_override_may_narrow_an_axis_that_exclude_speaks_of(load: Any) -> None:
    """`exclude` was right for the grid as it is written; a run of a part of it need not break it."""
    grid = {BLOCKS: [1, 2], "seed": [0, 1]}
    assert len(load(f"{BLOCKS}=1", grid=grid, exclude=[{BLOCKS: 2, "seed": 1}]).points) == 2


def test_an_override_of_a_field_that_changes_with_others_is_refused(load: Any) -> None:
    grid = {"setting": [{MIXING: "tied"}, GROUPED]}
    assert_refused(load, "command line", MIXING, "'setting'", overrides=(f"{MIXING}=tied",), grid=grid)


def test_the_text_that_is_kept_holds_the_yaml_and_the_overrides(load: Any, tmp_path: Path) -> None:
    text = load("seed=[3]", "train.steps=9").text
    assert text == (tmp_path / "one.yaml").read_text() + "# override: seed=[3]\n# override: train.steps=9\n"


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: x\ngrid:\n  seed: [0, 1\n", ("line 4", "not YAML")),
        ("name: x\n\tgrid: 3\n", ("line 2", "not YAML")),
        ("grid: {seed: [0]}\ngrid: {seed: [1]}\n", ("line 2", "not YAML", "duplicate")),
        ("grid: {seed: [0]}\nquestion: what: this\n", ("line 2", "not YAML")),
        ("", ("grid", "empty")),
        ("- seed\n", ("list", "mapping")),
        ("5\n", ("mapping",)),
        ("seed\n", ("text", "mapping")),
        ("grid: {seed: ['${nothing}']}\n", ("nothing",)),
        ("grid: {seed: ['${nothing:1}']}\n", ("nothing",)),
        ("grid: {seed: ['${grid.seed}']}\n", ("Interpolation",)),
        ("grid: {seed: ['${']}\n", ("one.yaml",)),
    ],
)  # fmt: skip
def test_what_is_not_an_ablation_is_refused_with_its_place(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(MixlabError) as caught:
        load_ablation(tmp_path / "one.yaml")
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).startswith(str(tmp_path / "one.yaml"))
    for part in parts:
        assert part in str(caught.value)


def test_interpolations_within_the_file_are_resolved(load: Any) -> None:
    ablation = load(base=base(train={"warmup_steps": "${base.train.steps}"}))
    assert ablation.base["train.warmup_steps"] == 6


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {path}']",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{path}']]",
        "!!python/object/new:subprocess.Popen [['touch', '{path}']]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!os.system",
    ],
)
@pytest.mark.parametrize("where", ["yaml", "base", "override"])
def test_yaml_never_runs_code(tmp_path: Path, value: str, where: str) -> None:
    value = value.replace("{path}", str(tmp_path / "ran"))
    path = write_yaml(tmp_path / "one.yaml", base="base.yaml")
    (tmp_path / "base.yaml").write_text(json.dumps(TINY))
    overrides = []
    if where == "override":
        overrides = [f"seed=[{value}]"]
    else:
        file = tmp_path / ("base.yaml" if where == "base" else "one.yaml")
        file.write_text(f"question: {value}\n" if where == "yaml" else f"data.source: {value}\n")
    with pytest.raises(MixlabError) as caught:
        load_ablation(path, overrides)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_a_tag_on_the_command_line_is_a_text(tmp_path: Path, load: Any) -> None:
    value = f"!!python/object/apply:os.system ['touch {tmp_path / 'ran'}']"
    assert load(f"data.source={value}").base["data.source"] == value and not (tmp_path / "ran").exists()


def test_a_resolver_of_the_command_line_runs_no_code(tmp_path: Path, cache: Path) -> None:
    for value in ("${eval:1+1}", "${hydra:x}", "${oc.create:{}}"):
        with pytest.raises(MixlabError):
            planned(write_yaml(tmp_path / "one.yaml"), cache, f"data.source={value}")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write_yaml(tmp_path / "tying.yaml")
    with pytest.raises(MixlabError, match=r"tieing\.yaml: there is no such file; .*did you mean 'tying\.yaml'\?"):
        load_ablation(tmp_path / "tieing.yaml")


def test_a_folder_and_a_file_that_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_bytes(bytes(range(128, 256)))
    for path in (tmp_path, tmp_path / "image.yaml"):
        with pytest.raises(MixlabError, match=r"cannot be read as text|is a folder, not a file") as caught:
            load_ablation(path)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "one.yaml")
    path.chmod(0)
    with pytest.raises(MixlabError, match="cannot be read"):
        load_ablation(path)


SHIPPED = sorted((Path(__file__).parent.parent / "experiments" / "ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_each_ablation_of_the_project_resolves(path: Path, cache: Path) -> None:
    ablation = load_ablation(path)
    found = trials(ablation, cache)
    assert ablation.name == path.stem and ablation.question.endswith("?")
    assert {one.trial.backend for one in found} == {"torch", "jax"}
    assert len([one for one in found if one.in_table]) == len(ablation.points)


def test_the_project_ships_the_ablations_that_it_promises() -> None:
    assert {path.stem for path in SHIPPED} >= {
        *("demo", "tying", "grouping", "depth", "patch_size", "data_scale", "permutation", "position_embedding")
    }


def test_the_backend_is_a_row_where_the_report_says_so(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "one.yaml", grid={"backend": ["torch", "jax"]}, report={"rows": ["backend"]})
    report = load_ablation(path).report
    assert (report.rows, report.columns) == (("backend",), ())
