"""Values that are lists: one a block, or of numbers. How they are written, read back, named and shown."""

import csv
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from analysis import run_sets
from analysis.export.run import Asked
from analysis.export.runs import read_runs
from analysis.one_trial import read
from analysis.terminal.diff import diff_lines
from backends.errors import MixlabError
from experiments.design import archive
from experiments.design.ablation import load_ablation
from experiments.spec import values as values_of
from experiments.spec.fields import text
from experiments.spec.overrides import read_override
from slurm.cluster_keys import cluster_from, tree_of
from tests.conftest import base, planned, write_yaml
from tests.test_report_files import MIXING, Bench, record

PYRAMID = "model.pyramid"
HALF = ["tied", "identity"]  # one word a block


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (("tied",), "1 tied"),
        (("tied", "tied", "attention"), "2 tied + attention"),
        (("tied", "attention", "tied"), "tied + attention + tied"),
        (("tied", "attention") * 6, "6 (tied + attention)"),
        (("tied", "tied", "attention") * 2, "2 (2 tied + attention)"),
        (("tied",) * 12, "12 tied"),
        (["tied", "attention"], "tied + attention"),
        ((2, 2, 6, 2), "[2, 2, 6, 2]"),
        ((0.5, 1e-6), "[0.5, 1e-06]"),
        ((), "[]"),
    ],
)
def test_a_list_is_told_by_its_runs_and_one_of_numbers_in_brackets(value: Any, shown: str) -> None:
    assert text(value) == shown


def test_no_two_lists_of_words_are_told_alike() -> None:
    words = [tuple("ab"[i >> place & 1] for place in range(n)) for n in range(1, 9) for i in range(2**n)]
    assert len({text(one) for one in words} | {"a", "b"}) == len(words) + 2


# --- as they are written ------------------------------------------------------------------------------------------


def values(path: Path, cache: Path, *overrides: str) -> list[Any]:
    return [one.trial.model.token_mixing for one in planned(path, cache, *overrides)]


def test_a_list_is_one_value_in_a_base_and_at_the_top_and_an_axis_under_grid(tmp_path: Path, cache: Path) -> None:
    below = base(model={"num_blocks": 2, "token_mixing": HALF})
    as_base = write_yaml(tmp_path / "one.yaml", base=below, grid={"seed": [0]})
    assert values(as_base, cache) == [("tied", "identity")]
    at_top = write_yaml(
        tmp_path / "two.yaml", base=base(model={"num_blocks": 2}), model={"token_mixing": HALF}, grid={"seed": [0]}
    )
    assert values(at_top, cache) == [("tied", "identity")]
    axis = write_yaml(tmp_path / "three.yaml", base=base(model={"num_blocks": 2}), grid={MIXING: ["tied", HALF]})
    assert values(axis, cache) == ["tied", ("tied", "identity")]
    several = write_yaml(
        tmp_path / "four.yaml", base=below, grid={"how": [{MIXING: ["identity", "tied"], "name": "b"}]}
    )
    assert values(several, cache) == [("identity", "tied")]
    with pytest.raises(MixlabError, match=r"seed: \[0, 1\] is an axis; put it under 'grid'"):
        load_ablation(write_yaml(tmp_path / "five.yaml", base=base(), seed=[0, 1], grid={"model.num_blocks": [1]}))


def test_on_the_command_line_a_list_is_an_axis_and_a_list_in_it_one_value(tmp_path: Path, cache: Path) -> None:
    path = write_yaml(tmp_path / "one.yaml", base=base(model={"num_blocks": 2}), grid={MIXING: ["tied"], "seed": [0]})
    assert values(path, cache, f"{MIXING}=[tied,untied]") == ["tied", "untied"]
    assert values(path, cache, f"{MIXING}=[[tied,identity]]") == [("tied", "identity")]
    assert values(path, cache, f"{MIXING}=[tied, [identity, tied]]") == ["tied", ("identity", "tied")]
    by_word, by_yaml = (planned(path, cache, word)[0].trial for word in (f"{PYRAMID}=[[0]]", f"{PYRAMID}=[[0],[]]"))
    assert by_word == by_yaml and by_word.model.pyramid == (0,)  # type: ignore[attr-defined]
    with pytest.raises(MixlabError) as caught:
        planned(path, cache, f"{PYRAMID}=[0]")
    assert str(caught.value).endswith("model.pyramid: a value of it is a list, and an axis a list of such; for this "
                                      "one value write [[0]]")  # fmt: skip


@pytest.mark.parametrize("word", [f"{MIXING}=[tied,identity]", f"{MIXING}=[[tied,identity]]"])
def test_where_there_are_no_axes_a_list_is_one_value(word: str) -> None:
    assert read_override(word, "here", axes=False) == (MIXING, ("tied", "identity"))


def test_of_a_list_and_its_plain_word_there_is_one_trial(tmp_path: Path, cache: Path) -> None:
    path = write_yaml(tmp_path / "one.yaml", base=base(model={"num_blocks": 2}), grid={"seed": [0]})
    ids = [planned(path, cache, f"{MIXING}={word}")[0].trial.id for word in ("identity", "[[identity,identity]]")]
    assert ids[0] == ids[1]
    with pytest.raises(MixlabError, match=r"repeats the trial \(seed=0 token_mixing=identity\)"):
        planned(path, cache, f"{MIXING}=[identity,[identity,identity]]")


@dataclass(frozen=True)
class Fields:
    """Of each kind that holds a list."""

    blocks: tuple[int, ...] = ()
    stages: Optional[tuple[int, ...]] = None
    depth: int | tuple[int, ...] = 1
    width: int = 1


def test_a_field_is_known_to_hold_lists_and_nothing_else() -> None:
    names = [f.name for f in dataclasses.fields(Fields)]
    assert [name for name in names if values_of.is_list(Fields, name)] == ["blocks", "stages"]
    assert [name for name in names if values_of.may_be_list(Fields, name)] == ["blocks", "stages", "depth"]


# --- as they are kept and shown -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Bench:
    """Two axes of lists, without a trial of them, one value of which has a label and is the baseline."""
    grid = {MIXING: ["tied", HALF, HALF[::-1]], PYRAMID: [[], [0]], "backend": ["torch", "jax"], "seed": [0, 1]}
    made = Bench(
        tmp_path_factory.mktemp("lists"),
        cache,
        base={"model": {"num_blocks": 2}, "data": {"source": "digits"}},
        grid=grid,
        exclude=[{MIXING: HALF[::-1], PYRAMID: [0]}],
        labels={MIXING: {"[tied, identity]": "half"}, PYRAMID: {"[]": "none"}},
        report={"rows": [PYRAMID], "columns": [MIXING, "backend"], "baseline": {MIXING: HALF}},
    )
    dice = np.random.default_rng(0)
    gain = {"tied": 0.0, ("tied", "identity"): 0.1, ("identity", "tied"): 0.2}
    found = [record(round(0.5 + gain[one.settings[MIXING]] + dice.normal(0, 0.01), 4)) for one in made.trials]
    specs = [json.loads(json.dumps(archive.to_tree(one)["spec"])) for one in made.trials]
    return made.put(*({**one, "spec": spec} for one, spec in zip(found, specs, strict=True)))


def test_a_rule_of_exclude_and_a_baseline_can_be_lists(bench: Bench, tmp_path: Path) -> None:
    assert len(bench.trials) == 5 * 2 * 2
    assert bench.ablation.report.baseline == {MIXING: ("tied", "identity")}
    with pytest.raises(
        MixlabError, match=r"no trial has model.token_mixing \['tied', 'tied'\]; allowed: tied, tied \+ identity"
    ):
        Bench(tmp_path, bench.store.root, base={"model": {"num_blocks": 2}}, grid={MIXING: ["tied", HALF]},
              report={"baseline": {MIXING: ["tied", "tied"]}})  # fmt: skip


def test_the_archive_gives_lists_back_as_they_were(bench: Bench) -> None:
    ablation, trials = archive.recall(bench.store, bench.ablation.name)
    assert ablation == bench.ablation and archive.is_kept(bench.store, ablation)
    assert [one.settings for one in trials] == [one.settings for one in bench.trials]
    assert [one.trial.id for one in trials] == [one.trial.id for one in bench.trials]


def test_tables_and_figures_show_lists_and_their_labels(bench: Bench) -> None:
    folder = bench.write()
    table, latex = ((folder / f"table.{ending}").read_text() for ending in ("txt", "tex"))
    heads = next(line for line in table.splitlines() if line.startswith("pyramid"))
    assert "half torch" in heads and "identity + tied jax" in heads
    assert [line.split()[0] for line in table.splitlines() if line.startswith(("none ", "[0] "))] == ["none", "[0]"]
    assert "\n{}[0] & " in latex and "identity + tied torch" in latex
    rows = list(csv.DictReader((folder / "tidy.csv").read_text().splitlines()))
    assert {row[MIXING] for row in rows} == {"tied", "tied + identity", "identity + tied"}
    assert {row[PYRAMID] for row in rows} == {"[]", "[0]"}
    assert {"sweep_pyramid.svg", "differences.svg"} <= {path.name for path in (folder / "figures").iterdir()}
    assert "identity + tied" in (folder / "report.html").read_text()


def test_exported_runs_name_lists_in_words(bench: Bench) -> None:
    told = read_runs(bench.ablation, bench.trials, bench.store, Asked())
    assert {run.config[PYRAMID] for run in told.runs} == {"[]", "[0]"}
    assert any("half" in run.group and "pyramid=none" in run.group for run in told.runs)


def test_compare_and_diff_show_lists(bench: Bench) -> None:
    first, second = (bench.trials[i].trial.id for i in (0, 4))
    lines = diff_lines(read(bench.store, first), read(bench.store, second))
    (line,) = [line for line in lines if line.startswith(PYRAMID)]
    assert line.split() == [PYRAMID, "[]", "[0]"]
    side = run_sets.read_run_set(str(bench.store.root), bench.store.root)
    key = dict(run_sets.key_of(side.records[second]))
    assert key[PYRAMID] == [0] and text(key[PYRAMID]) == "[0]"


def test_a_rule_of_a_cluster_file_matches_a_list(bench: Bench) -> None:
    half = {"match": {MIXING: [HALF]}, "time": 5}
    spec = cluster_from({"partition": "p", "when": [half, {"match": {PYRAMID: [[0]]}, "time": 9}]}, "c.yaml")
    for cluster in (spec, cluster_from(json.loads(json.dumps(tree_of(spec))), "c.yaml")):
        rules = cluster.when
        matched = [[rule.matches(one, bench.ablation.base) for one in bench.trials] for rule in rules]
        assert matched[0] == [one.settings[MIXING] == ("tied", "identity") for one in bench.trials]
        assert matched[1] == [one.settings[PYRAMID] == (0,) for one in bench.trials]
    assert str(spec.when[0]) == "model.token_mixing: tied + identity"
