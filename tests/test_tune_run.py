"""A tuned ablation from its file to its table, killed in each phase, and what each command says of both phases."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.figures import draw_all
from analysis.figures.looks import looks_of
from analysis.figures.style import Drawn
from analysis.frame import load
from analysis.page.answer import sentences
from analysis.report import Report, make_report
from analysis.table.latex import escape
from analysis.table.render import rendered_of
from analysis.tuned import tuned_text
from experiments.design import archive, seen
from experiments.design.ablation import Ablation, GridTrial
from experiments.results.store import Store
from mixlab import report as report_command
from tests.conftest import (
    TIMEOUT_S,
    Ended,
    base,
    command,
    end,
    kill_tree,
    records,
    results,
    start,
    wait_until,
    write_yaml,
)
from tests.test_halving import point
from tests.test_tune import MIXING, RATE, TUNE, ablation_of, known, mixing, record, record_all

# Digits are trained by torch in some seconds a trial; 8 trials choose for 4.
DIGITS: dict[str, Any] = {
    "base": {
        "model": {"hidden_dim": 8, "num_blocks": 1, "patch_size": 4},
        "data": {"source": "digits"},
        "train": {"steps": 60, "batch_size": 32, "evaluate_every": 20},
        "run": {"checkpoint_every_s": 0.05, "threads": 1},
    },
    "grid": {MIXING: ["tied", "untied"], "seed": [0, 1]},
    "tune": {"over": {RATE: [0.0003, 0.01]}, "seeds": [100, 101]},
    "report": {"rows": [MIXING], "baseline": {MIXING: "tied"}},
}


def table_of(folder: Path, store: str) -> str:
    return command(folder, "report", "digits.yaml", "--store", store, "--format", "text").out


def phases(store: Path, tuning: set[str]) -> tuple[int, int]:
    """How many trials of the tuning, and how many of the table, are recorded."""
    there = set(records(store))
    return len(there & tuning), len(there - tuning)


def test_kills_in_each_phase_leave_the_table_of_an_undisturbed_run(
    tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    """`kill -9` of all processes: while trials tune, as the last of them has ended, while the table is trained."""
    write_yaml(tmp_path / "digits.yaml", **DIGITS)
    whole = command(tmp_path, "run", "digits.yaml", "--store", "whole")
    assert whole.code == 0, whole.err
    tuning = {key for key, one in records(tmp_path / "whole").items() if one["spec"]["seed"] >= 100}
    assert len(tuning) == 8 and len(records(tmp_path / "whole")) == 12
    store = tmp_path / "killed"
    for least in ((1, 0), (8, 0), (8, 1)):
        process = start(tmp_path, "run", "digits.yaml", "--store", "killed")
        started.append(process)
        wait_until(lambda: phases(store, tuning) >= least, f"{least} trials are recorded")  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        kill_tree(process.pid)
        process.wait(TIMEOUT_S)
        assert phases(store, tuning) < (8, 4)
    ended = end(start(tmp_path, "run", "digits.yaml", "--store", "killed"))
    assert ended.code == 0, ended.err
    assert results(store) == results(tmp_path / "whole")
    assert table_of(tmp_path, "killed") == table_of(tmp_path, "whole")
    assert "learning_rate=0.01 of 2 values" in table_of(tmp_path, "killed")


def quick_yaml(folder: Path, **keys: Any) -> None:
    given = {"base": base(backend="quick"), "grid": DIGITS["grid"], "tune": TUNE, "report": DIGITS["report"], **keys}
    write_yaml(folder / "a.yaml", **given)


def test_each_command_knows_both_phases(tmp_path: Path, run: Any, quick: Path) -> None:
    quick_yaml(tmp_path)
    planned = run("plan", "a.yaml").out
    assert len(re.findall(r"^[0-9a-f]{12} .*tuning: ", planned, re.MULTILINE)) == 12
    assert "12 trials: 12 missing" in planned
    assert "and 4 trials of the table, whose values are chosen when the others have ended" in planned
    assert "and 4 trials of the table" in run("run", "a.yaml", "--dry-run").out
    first = re.findall(r"^[0-9a-f]{12}", planned, re.MULTILINE)[0]
    assert run("run", "a.yaml", "--only", first).code == 0 and len(records(tmp_path / "runs")) == 1
    status = run("status", "a").out
    assert "12 trials: 1 done, 11 missing" in status
    assert "token_mixing=tied: no value is chosen yet: 5 tuning trials have not ended" in status
    assert "4 trials of the table wait for a choice; run or submit it again when the others have ended" in status
    nothing: Ended = run("report", "a", "--format", "text")
    assert nothing.code == 2 and "the table has no trials yet" in nothing.err and "Traceback" not in nothing.err
    ended: Ended = run("run", "a.yaml")
    assert ended.code == 0, ended.err
    on_validation = run("report", "a", "--format", "text", "--metric", "last.validation.accuracy").out
    assert len(records(tmp_path / "runs")) == 16 and ended.out.startswith(on_validation)
    assert "tuned for each setting by the mean best.validation.accuracy of seeds 100, 101" in ended.out
    run("report", "a")
    page = (tmp_path / "runs" / "ablations" / "a" / "report" / "report.md").read_text()
    assert " Each setting was tuned over " in page
    status = run("status", "a").out
    assert "16 trials: 16 done" in status and "wait for a choice" not in status
    planned = run("plan", "a.yaml").out
    assert "16 trials: 16 done" in planned and run("plan", "a").out == planned
    assert "'seed=[0]': overrides need a YAML file, not the name" in run("plan", "a", "seed=[0]").err
    assert "no such file" in run("plan", "b").err
    assert run("run", "a.yaml", "--dry-run").out == "nothing to run: all 16 trials have ended\n"
    run("clean", "--remove", "orphans")
    assert len(records(tmp_path / "runs")) == 16
    run("clean", "--trials-of", "a")
    assert len(records(tmp_path / "runs")) == 0


def test_a_setting_whose_values_all_diverge_is_an_error_and_the_others_go_on(
    tmp_path: Path, run: Any, quick: Path
) -> None:
    """Rates above 1 diverge on this backend; that one setting alone does so is put into the store."""
    quick_yaml(tmp_path, tune={**TUNE, "over": {RATE: [2.0, 3.0]}})
    ended: Ended = run("run", "a.yaml")
    assert ended.code == 1 and ended.out == ""
    assert "token_mixing=tied: no value is chosen: all 2 values diverged" in ended.err
    ablation = ablation_of(tmp_path, {**TUNE, "over": {RATE: [0.01, 0.02]}}, report=DIGITS["report"])
    record_all(
        tmp_path,
        ablation,
        lambda planned: None if mixing(planned) == "tied" else planned.trial.train.learning_rate,
    )
    ended = run("run", "a.yaml")
    assert ended.code == 1 and "token_mixing=tied: no value is chosen: all 2 values diverged" in ended.err
    assert "2 of 4 trials of the table are not in it: no value is chosen for them" in ended.out
    assert "untied" in ended.out and len(known(ablation, tmp_path)) == 8 + 2
    trained = [one for one in records(tmp_path / "runs").values() if one["status"] == "done" and one["spec"]]
    assert {one["spec"]["model"]["token_mixing"] for one in trained} == {"untied"}


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        (0.1, "learning_rate=0.1 of 3 values, best.validation.accuracy 90.00 %; learning_rate is at the edge of its "
              "range: 0.1 of 0.001..0.1; widen it"),
        (0.001, "learning_rate is at the edge of its range: 0.001 of 0.001..0.1; widen it"),
        (0.01, "learning_rate=0.01 of 3 values, best.validation.accuracy 90.00 %\n"),
    ],
)  # fmt: skip
def test_the_table_names_the_values_and_marks_those_at_an_edge(
    tmp_path: Path, run: Any, quick: Path, best: float, sentence: str
) -> None:
    quick_yaml(tmp_path)
    record_all(
        tmp_path, ablation_of(tmp_path, report=DIGITS["report"]),
        lambda planned: 0.9 if planned.trial.train.learning_rate == best else 0.5,
    )  # fmt: skip
    out = run("run", "a.yaml").out
    assert f"token_mixing=tied: learning_rate={best:g} of 3 values" in out and sentence in out
    assert ("edge" in out) == (best != 0.01)


def test_a_field_that_can_go_no_further_is_at_no_edge(tmp_path: Path, run: Any, quick: Path) -> None:
    tuned = {"over": {"train.weight_decay": [0.0, 0.1]}, "seeds": [100]}
    quick_yaml(tmp_path, tune=tuned)
    record_all(tmp_path, ablation_of(tmp_path, tuned), lambda planned: 1 - planned.trial.train.weight_decay)
    assert "edge" not in run("run", "a.yaml").out


def test_a_trial_that_two_ablations_tune_is_trained_once(tmp_path: Path, run: Any, quick: Path) -> None:
    quick_yaml(tmp_path)
    assert run("run", "a.yaml").code == 0
    before = Store(tmp_path / "runs").trial_ids()
    quick_yaml(tmp_path, name="b", grid={MIXING: ["tied", "untied"], "seed": [0, 1, 2]})
    assert run("run", "a.yaml").code == 0
    assert len(set(Store(tmp_path / "runs").trial_ids()) - set(before)) == 2  # one seed more of each setting


def test_a_figure_shows_how_much_each_setting_depends_on_what_is_tuned(tmp_path: Path, run: Any, quick: Path) -> None:
    """Over each tuned field at the best of the other; a value that diverged has no point."""
    over = {RATE: [0.001, 0.01, 2.0], "train.weight_decay": [0.0, 0.1]}
    ablation = ablation_of(tmp_path, {"over": over, "seeds": [100]}, report=DIGITS["report"])

    def score(planned: GridTrial) -> float | None:
        train = planned.trial.train
        return None if train.learning_rate > 1 else train.learning_rate + train.weight_decay

    record_all(tmp_path, ablation, score)
    store = Store(tmp_path / "runs")
    drawn = {one.name: one for one in draw_all(make_report(ablation, known(ablation, tmp_path), store))}
    caption = drawn["tuning_learning_rate"].caption
    assert "token_mixing=tied: 10.1 at 0.001, 11.0 at 0.01 (chosen), none at 2." in caption
    assert "at the best of the other tuned fields" in caption
    assert "token_mixing=untied: 1.0 at 0, 11.0 at 0.1 (chosen)." in drawn["tuning_weight_decay"].caption
    (axes,) = drawn["tuning_learning_rate"].figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [list(line.get_ydata()) for line in lines] == [[pytest.approx(10.1), pytest.approx(11.0)]] * 2
    rings = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [list(line.get_xdata()) for line in rings] == [[0.01]] * 2
    assert (
        tuned_text(ablation)
        == "Each setting was tuned over 6 values of learning rate and weight decay by best.validation.accuracy."
    )
    assert tuned_text(ablation_of(tmp_path, None)) == "No setting was tuned."


def tuning_figure(folder: Path, ablation: Ablation, *missing: tuple[str, int]) -> tuple[Report, Drawn]:
    """The report, and its figure of RATE. Args: missing: settings whose trials at the last rate have not ended."""
    for planned in known(ablation, folder):
        model, rate = planned.trial.model, planned.trial.train.learning_rate
        if planned.tunes and ((model.token_mixing, model.num_blocks) not in missing or rate < 0.1):
            record(folder, planned, 0.5 + rate)
    report = make_report(ablation, known(ablation, folder), Store(folder / "runs"))
    (drawn,) = (one for one in draw_all(report) if one.name == "tuning_learning_rate")
    return report, drawn


def test_the_figure_of_tuning_has_the_colours_and_the_words_of_the_others(tmp_path: Path, quick: Path) -> None:
    """A setting whose value is not chosen yet has a line without a ring."""
    grid = {"mixing": [{MIXING: "tied"}, {MIXING: "untied"}], "model.num_blocks": [1, 2], "seed": [0]}
    labels = {"mixing": {"untied": "one each"}, RATE: "step $x$"}
    asked = {"rows": ["mixing", "model.num_blocks"], "baseline": {"mixing": "tied"}}
    report, drawn = tuning_figure(
        tmp_path, ablation_of(tmp_path, grid=grid, labels=labels, report=asked), ("untied", 2)
    )
    looks, figure = looks_of(report), drawn.figure
    assert [ax.get_title() for ax in figure.axes] == ["1 block", "2 blocks"]
    for ax, blocks, num_rings in zip(figure.axes, (1, 2), (2, 1), strict=True):
        lines = [line.get_color() for line in ax.lines if len(line.get_xdata()) > 1]
        assert lines == [looks.of((name, blocks))["color"] for name in ("tied", "untied")] and len(set(lines)) == 2
        assert sum(len(line.get_xdata()) == 1 for line in ax.lines) == num_rings
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["tied (baseline)", "one each"]
    assert figure.get_supxlabel() == r"step \$x\$" and drawn.title == "Tuned step $x$"
    assert "mixing=one each num_blocks=1, step $x$=0.1: 60.0 %" in [one for own in drawn.values.values() for one in own]


def test_a_setting_that_has_no_look_of_its_own_is_counted(tmp_path: Path, quick: Path) -> None:
    """As long as the table has but one setting, another one would look the same."""
    _, drawn = tuning_figure(tmp_path, ablation_of(tmp_path, report=DIGITS["report"]), ("untied", 1))
    (axes,) = drawn.figure.axes
    assert sum(len(line.get_xdata()) > 1 for line in axes.lines) == 1
    assert "token_mixing=untied" not in drawn.caption and "The figure shows 1 of 2 settings." in drawn.caption


def test_a_report_by_name_by_file_and_by_its_archive_is_the_same(tmp_path: Path, run: Any, quick: Path) -> None:
    """Also one whose archive was written before the choice."""
    quick_yaml(tmp_path)
    first = re.findall(r"^[0-9a-f]{12}", run("plan", "a.yaml").out, re.MULTILINE)[0]
    assert run("run", "a.yaml", "--only", first).code == 0
    early = tmp_path / "early.json"
    early.write_text((tmp_path / "runs" / "ablations" / "a" / "resolved.json").read_text())
    assert run("run", "a.yaml").code == 0
    texts = [run("report", word, "--format", "text").out for word in ("a", "a.yaml", str(early))]
    assert texts[0] == texts[1] == texts[2] and "(2)" in texts[0]
    frame = load(tmp_path / "runs", "a")
    assert len(frame) == 4 and set(frame["seed"]) == {0, 1}
    assert all("learning_rate=" in text for text in frame["tuning"])
    written = run("report", "a")
    assert written.code == 0, written.err
    page = (tmp_path / "runs" / "ablations" / "a" / "report" / "report.html").read_text()
    assert "Tuned learning_rate" in page and "of 3 values, best.validation.accuracy" in page


def test_a_page_of_several_leaves_out_one_whose_table_waits(tmp_path: Path, run: Any, quick: Path) -> None:
    quick_yaml(tmp_path)
    write_yaml(tmp_path / "b.yaml", base=base(backend="quick"))
    ended: Ended = run("report", "b.yaml", "a.yaml", "--out", "out")
    assert ended.code == 0 and ended.out.startswith("b\n") and (tmp_path / "out" / "report.html").exists()
    assert "mixlab: left out: a.yaml: the table has no trials yet" in ended.err
    alone = run("report", "a.yaml")
    assert alone.code == 2 and "a.yaml: the table has no trials yet" in alone.err and "left out" not in alone.err


def end_of(folder: Path, ablation: Ablation, mix: str, tunes: bool, score: float | None = 0.5) -> None:
    """Record the trials of a setting that tune, or its trials of the table, which are known by then."""
    for planned in known(ablation, folder):
        if planned.tunes == tunes and mixing(planned) == mix:
            record(folder, planned, score)


STEPS = [("tied", True), ("tied", False), ("untied", True), ("untied", False)]


@pytest.mark.parametrize("diverges", [False, True])
def test_watch_waits_for_the_choice_and_for_the_table_that_follows_it(
    tmp_path: Path, run: Any, quick: Path, monkeypatch: pytest.MonkeyPatch, diverges: bool
) -> None:
    """Each look comes after another setting has ended a phase; what diverges for all values is not waited for."""
    quick_yaml(tmp_path)
    ablation = ablation_of(tmp_path, report=DIGITS["report"])
    steps = iter(STEPS[:-1] if diverges else STEPS)

    def sleep(seconds: float) -> None:
        mix, tunes = next(steps)
        end_of(tmp_path, ablation, mix, tunes, None if diverges and mix == "untied" else 0.5)

    written: list[int] = []
    monkeypatch.setattr(report_command, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(report_command, "_write", lambda reports, arguments: written.append(len(reports[0].frame)))
    ended: Ended = run("report", "a.yaml", "--watch")
    assert ended.code == 0, ended.err
    lines = ended.err.splitlines()
    assert "the table has no trials yet: token_mixing=tied: no value is chosen yet: 6 tuning trials" in lines[0]
    counts = [line for line in lines if line.endswith("trials have ended")]
    last = "2 of 2" if diverges else "4 of 4"
    assert counts[0] == "0 of 4 trials have ended" and counts[-1] == f"{last} trials have ended"
    assert written[0] == 2 and written[-1] == (2 if diverges else 4)
    assert list(steps) == [] and ended.out.count("last.test.accuracy in %") == 1


def test_watch_ends_where_nothing_is_left_to_choose_from(
    tmp_path: Path, run: Any, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_yaml(tmp_path)
    monkeypatch.setattr(report_command, "time", None)  # it does not sleep
    record_all(tmp_path, ablation_of(tmp_path), lambda planned: None)
    ended: Ended = run("report", "a.yaml", "--watch")
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "the table has no trials: token_mixing=tied: no value is chosen: all 3 values diverged" in ended.err
    assert "run or submit it" not in ended.err and "give others under tune: over, such as lower ones" in ended.err
    status = run("status", "a.yaml").out
    assert "give others under tune: over" in status and "wait for a choice" not in status


@pytest.mark.parametrize("look", ["report", "export", "show"])
def test_a_table_that_grows_by_its_choices_has_not_grown_after_a_look(
    tmp_path: Path, run: Any, quick: Path, look: str
) -> None:
    """A setting that still tunes while test numbers are shown is of the grid; one that joins later is not."""
    joined, text = "joined the grid after a report with test numbers", ("--format", "text")
    quick_yaml(tmp_path)
    ablation = ablation_of(tmp_path, report=DIGITS["report"])
    for step in STEPS[:2]:
        end_of(tmp_path, ablation, *step)
    if look == "report":
        first: Ended = run("report", "a.yaml", *text)
        assert first.code == 0 and "2 of 4 trials of the table are not in it" in first.out
        assert "interim: 2 of 4 trials are done" in first.out  # those that wait for a value have not ended
    elif look == "export":
        for planned in known(ablation, tmp_path)[-2:]:
            record(tmp_path, planned, 0.5, curve=[point(6, 0.5)])
        assert run("export", "a.yaml", "--to", "tensorboard", "out", "--test").code == 0
    else:
        store, trials = Store(tmp_path / "runs"), known(ablation, tmp_path)
        archive.keep(store, ablation, trials)
        seen.note(store, [planned.trial.id for planned in trials if not planned.tunes][:1])
    assert len(list((tmp_path / "runs" / "ablations" / "a" / "unsealed").iterdir())) == 1
    for step in STEPS[2:]:
        end_of(tmp_path, ablation, *step)
    whole = run("report", "a.yaml", *text).out
    assert "untied" in whole and joined not in whole
    grid = {MIXING: ["tied", "untied", "pooling"], "seed": [0, 1]}
    quick_yaml(tmp_path, grid=grid)
    larger = ablation_of(tmp_path, grid=grid, report=DIGITS["report"])
    for tunes in (True, False):
        end_of(tmp_path, larger, "pooling", tunes)
    assert f"2 of 6 trials {joined}" in run("report", "a.yaml", *text).out


BLOCKS = "model.num_blocks"
FOUR = {"grid": {MIXING: ["tied", "untied"], BLOCKS: [1, 2], "seed": [0]},
        "report": {"rows": [MIXING, BLOCKS], "baseline": {MIXING: "tied"}}}  # fmt: skip


def report_of(folder: Path, score: Callable[[GridTrial], float | None]) -> Report:
    """Of four settings, with a record of every trial."""
    ablation = ablation_of(folder, **FOUR)
    record_all(folder, ablation, score)
    for planned in known(ablation, folder):
        if not planned.tunes:
            record(folder, planned, 0.5, 0.5 + 0.01 * planned.trial.model.num_blocks)
    return make_report(ablation, known(ablation, folder), Store(folder / "runs"))


ONE = (
    "all 4 settings: learning_rate=0.1 of 3 values, "
    "best.validation.accuracy 61.00 to 62.00 %; learning_rate is at the edge of "
)
SEVERAL = (
    "all 4 settings: learning_rate=0.001 (token_mixing=tied num_blocks=1, token_mixing=untied num_blocks=1), "
    "learning_rate=0.1 (token_mixing=tied num_blocks=2, token_mixing=untied num_blocks=2) of 3 values, "
    "best.validation.accuracy 90.00 %; learning_rate is at the edge of its range: 0.001 of 0.001..0.1; widen it; "
    "learning_rate is at the edge of its range: 0.1 of 0.001..0.1; widen it"
)


@pytest.mark.parametrize(
    ("score", "num_at_edge", "line"),
    [
        (lambda rate, blocks: 0.5 + rate + 0.01 * blocks, 4, f"{ONE}its range: 0.1 of 0.001..0.1; widen it"),
        (lambda rate, blocks: 0.9 if rate == {1: 0.001, 2: 0.1}[blocks] else 0.5, 4, SEVERAL),
        (lambda rate, blocks: 0.9 if rate == 0.01 else None if rate == 0.1 else 0.5, 0,
         "all 4 settings: learning_rate=0.01 of 3 values, best.validation.accuracy 90.00 %; "
         "8 of 24 tuning trials diverged, which counts as worst"),
        (lambda rate, blocks: 0.9 if rate == {1: 0.01, 2: 0.1}[blocks] else 0.5, 2, None),
    ],
)  # fmt: skip
def test_an_answer_says_how_many_chose_at_an_edge_and_settings_that_agree_have_one_note(
    tmp_path: Path, quick: Path, score: Any, num_at_edge: int, line: str | None
) -> None:
    report = report_of(tmp_path, lambda one: score(one.trial.train.learning_rate, one.trial.model.num_blocks))
    told, edge = sentences(report)[0], f"; the chosen value is at the edge of the range for {num_at_edge} of 4."
    assert "Each setting was tuned over 3 values of learning rate by best.validation.accuracy" in told
    assert (edge in told) == (num_at_edge > 0) and ("edge" in told) == (num_at_edge > 0)
    (caption,) = (one.caption for one in draw_all(report) if one.name == "tuning_learning_rate")
    rendered = rendered_of(report)
    of_settings = [text for text in rendered.notes if text.startswith("token_mixing=") and "of 3 values" in text]
    if line is None:
        assert len(of_settings) == 4 and "all 4 settings" not in caption + rendered.text("text")
    else:
        assert rendered.notes[0] == line and not of_settings and caption.endswith(f" {line}.")
        assert all(rendered.text(style).count(escape(line)) == 1 for style in ("latex", "siunitx"))
