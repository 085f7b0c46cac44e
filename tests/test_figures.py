"""The figures of a report, from records written by hand: what they show, in which look, also within a page."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from safetensors.numpy import save

from analysis.figures import draw_all
from analysis.figures.filters import paired
from analysis.figures.inline import inline
from analysis.figures.style import COLOURS, MAX_TICKS, Drawn, LogTicks
from analysis.report import Report
from backends.models.mixer import STEM, TOKEN_MIXING
from experiments.files import write_whole
from experiments.results import first_layers
from experiments.results.store import Store
from tests.conftest import base, command, write_yaml
from tests.test_report_files import BLOCKS, MIXING, RATE, Bench, record

PATCH = "model.patch_size"


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


def drawn(report: Report) -> dict[str, Drawn]:
    """Every figure, drawn twice alike in each kind of file."""
    found = {}
    for figure in draw_all(report):
        for kind, begin in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
            assert figure.files[kind].startswith(begin)
        again = replace(figure)
        assert again.files == figure.files
        found[figure.name] = figure
    return found


def test_each_figure_is_drawn_where_it_has_something_to_show(bench: Any) -> None:
    assert drawn(bench().report()) == {}
    figures = drawn(bench().fill().report())
    assert set(figures) == {
        "sweep_num_blocks",
        "differences",
        "learning_curves",
        "frameworks",
    }  # the flops are all the same
    assert "18 pairs of the same settings and seed" in figures["frameworks"].caption


def test_figures_hold_the_numbers_that_are_shown(bench: Any) -> None:
    grid = {"data.fraction": [0.25, 0.5, 1.0], "seed": [0, 1]}
    made = bench(grid=grid, report={"rows": ["data.fraction"]}).put(*map(record, (0.6, 0.6, 0.7, 0.7, 0.8, 0.8)))
    figures = drawn(made.report())
    sizes = [made.trials[i].trial.info.num_train for i in (0, 2, 4)]
    slope = np.polyfit(np.log(sizes), np.log([0.4, 0.3, 0.2]), 1)[0]
    assert f"N^{slope:.3f}" in figures["data_scale"].caption
    assert "3 sizes (one degree of freedom: ±12.7 standard errors)." in figures["data_scale"].caption
    assert [texts[0] for texts in figures["sweep_fraction"].values.values()] == [
        "fraction 0.25: 60.0 % [60.0, 60.0], n = 2",
        "fraction 0.5: 70.0 % [70.0, 70.0], n = 2",
        "fraction 1: 80.0 % [80.0, 80.0], n = 2",
    ]


def test_permutation_bars_say_the_drop(bench: Any) -> None:
    grid = {"data.permutation": ["none", "patches", "pixels"], "seed": [0, 1]}
    made = bench(grid=grid, report={"rows": ["data.permutation"]})
    figures = drawn(made.put(*map(record, (0.8, 0.9, 0.82, 0.88, 0.5, 0.4))).report())
    assert (
        "patches: +0.0 points [-25.4, 25.4] (2 pairs); pixels: -40.0 points [-167.1, 87.1] (2 pairs)."
        in figures["permutation"].caption
    )


def test_the_frontier_is_what_nothing_cheaper_beats(bench: Any) -> None:
    made = bench(grid={BLOCKS: [1, 2, 4], "seed": [0]}, report={"rows": [BLOCKS]})
    flops = (10**12, 2 * 10**12, 4 * 10**12)
    found = [record(value, training_flops=cost) for value, cost in zip((0.5, 0.4, 0.6), flops, strict=True)]
    svg = drawn(made.put(*found).report())["frontier"].files["svg"].decode()
    assert "1: 1 block<" in svg and "2: 4 blocks<" in svg and "3: " not in svg


def test_units_are_paired_with_their_inverse_low_frequency_first(bench: Any) -> None:
    x = np.arange(8)
    waves = [np.cos(2 * np.pi * k * x / 8)[:, None] * np.ones(8) for k in (3, 1, 2)]
    units = np.array([waves[0], -waves[1], waves[2], -waves[2], waves[1], -waves[0]])
    assert paired(units) == [1, 4, 2, 3, 0, 5]


def test_first_layers_are_drawn_of_a_trial_that_was_really_trained(tmp_path: Path, quick: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"), grid={"seed": [0]})
    path = str(quick)
    assert command(tmp_path, "run", "tiny.yaml", PYTHONPATH=path).code == 0
    store = Store(tmp_path / "runs")
    (trial_id,) = store.trial_ids()
    kept = first_layers.read(store.folder(trial_id))
    assert kept is not None and kept[STEM].shape == (4, 4, 1, 8)
    ended = command(tmp_path, "report", "tiny.yaml", PYTHONPATH=path)
    assert ended.code == 0 and (tmp_path / "runs/ablations/tiny/report/figures/filters.svg").exists()
    write_whole(store.folder(trial_id) / first_layers.FILE, b"damaged")
    assert command(tmp_path, "report", "tiny.yaml", PYTHONPATH=path).code == 0
    assert not (tmp_path / "runs/ablations/tiny/report/figures/filters.svg").exists()  # nor is the old one left


# --- looks -----------------------------------------------------------------------------------------------------------

FOUR = {
    MIXING: ["untied", "tied", "pooling"],
    BLOCKS: [1, 2, 4],
    PATCH: [2, 4],
    "backend": ["torch", "jax"],
    "seed": [0, 1],
}


@pytest.fixture
def four(bench: Any) -> Report:
    """Four axes, of which the compared one is the fastest, 72 trials."""
    report = {"rows": [BLOCKS, PATCH, MIXING], "columns": ["backend"], "baseline": {MIXING: "tied"}}
    made = bench(grid=FOUR, report=report)
    values = [0.5 + 0.001 * (i * 37 % 101) for i in range(72)]
    found = [
        record(value, training_flops=10**12 * one.trial.model.num_blocks)
        for value, one in zip(values, made.trials, strict=True)
    ]
    return made.put(*found).report()


def looks(figure: Drawn) -> dict[tuple[str, str], set[tuple[str, bool]]]:
    """Colours, and whether they are full, of the marks of each setting and framework that has a value."""
    seen: dict[tuple[str, str], set[tuple[str, bool]]] = {}
    for line in figure.figure.findobj(lambda artist: str(artist.get_gid() or "").startswith("values-")):
        for text in figure.values[line.get_gid()]:
            setting, framework = (re.search(f"({'|'.join(words)})", text) for words in (FOUR[MIXING], FOUR["backend"]))
            is_full = to_hex(line.get_markerfacecolor()) == to_hex(line.get_color())
            if setting and framework and "mean of" not in text:
                seen.setdefault((setting[0], framework[0]), set()).add((to_hex(line.get_color()), is_full))
    return seen


def test_a_setting_has_one_colour_in_all_figures_and_a_framework_one_mark(four: Report) -> None:
    figures = {figure.name: figure for figure in draw_all(four)}
    assert set(figures) == {"sweep_num_blocks", "differences", "learning_curves", "frontier", "frameworks"}
    expected = {
        (setting, framework): {(COLOURS[place], framework == "torch")}
        for place, setting in enumerate(("tied", "untied", "pooling"))
        for framework in ("torch", "jax")
    }
    for name in ("sweep_num_blocks", "learning_curves", "frontier"):
        assert looks(figures[name]) == expected, name
    tied = {key: look for key, look in expected.items() if key[0] != "tied"}
    assert looks(figures["differences"]) == tied


def test_curves_are_chosen_by_setting_with_all_its_frameworks(bench: Any) -> None:
    """Twelve settings of two frameworks, of which eight are shown: the baseline and others, each on both."""
    grid = {RATE: [round(0.001 * (i + 1), 3) for i in range(12)], "backend": ["torch", "jax"], "seed": [0]}
    made = bench(grid=grid, report={"rows": [RATE], "columns": ["backend"], "baseline": {RATE: 0.012}})
    (curves,) = (one for one in draw_all(made.put(*[record(0.5)] * 24).report()) if one.name == "learning_curves")
    shown = [re.match(r"learning rate ([\d.]+), (\w+)", texts[0]).groups() for texts in curves.values.values()]
    rates = {rate for rate, _ in shown}
    assert len(rates) == 8 and {"0.012", "0.001", "0.011"} <= rates  # the baseline, and from end to end
    assert set(shown) == {(rate, name) for rate in rates for name in ("torch", "jax")}
    assert "shows 8 of 12 values of learning rate" in curves.caption


def test_a_legend_is_no_higher_than_its_figure_and_each_difference_has_room(four: Report) -> None:
    for figure in draw_all(four):
        pixels = figure.figure.dpi
        for legend in figure.figure.legends:
            box = legend.get_window_extent()
            assert box.y0 >= 0 and box.y1 <= figure.figure.get_figheight() * pixels + 1, figure.name
        if figure.name == "differences":
            (ax,) = figure.figure.axes
            height = ax.get_window_extent().height / pixels
            assert len(ax.get_yticks()) == 12 and height / 12 > 0.2


@pytest.mark.parametrize("ends", [(1e-5, 10), (0.001, 0.009), (0.0011, 0.0019), (1, 1e12), (30, 31)])
def test_a_logarithmic_axis_has_few_round_ticks(ends: tuple[float, float]) -> None:
    ticks = [tick for tick in LogTicks().tick_values(*ends) if ends[0] <= tick <= ends[1]]
    assert 2 <= len(ticks) <= MAX_TICKS and all(len(f"{tick:g}") <= 7 for tick in ticks)


def test_labels_of_ticks_do_not_touch_and_a_cost_is_short(bench: Any) -> None:
    grid = {RATE: [0.001, 0.00125, 0.0015, 0.00175, 0.009], BLOCKS: [1, 2, 4], "seed": [0]}
    made = bench(grid=grid, report={"rows": [RATE, BLOCKS]})
    found = [record(0.5, training_flops=10**9 + 10**8 * one.trial.model.num_blocks) for one in made.trials]
    for figure in draw_all(made.put(*found).report()):
        for ax in figure.figure.axes:
            labels = [label for label in ax.xaxis.get_majorticklabels() if label.get_visible() and label.get_text()]
            boxes = [label.get_window_extent() for label in labels]
            assert all(a.x1 < b.x0 for a, b in pairwise(boxes)), (figure.name, labels)
            assert figure.name != "frontier" or "GFLOPs" in ax.get_xlabel()


def test_a_figure_in_a_page_has_its_values_and_no_colour_of_paper(four: Report) -> None:
    for figure in draw_all(four):
        svg = inline(figure, "a0-")
        assert svg.count("<title>") == sum(map(len, figure.values.values())) > 0
        assert not re.findall(r"#(?:000000|ffffff)", svg) and "currentColor" in svg and "var(--c1)" in svg
        assert "<style" not in svg and len(re.findall(r' id="a0-', svg)) == len(re.findall(r' id="', svg))
        ids = set(re.findall(r' id="([^"]+)"', svg))
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= ids
        assert b"currentColor" not in figure.files["svg"]  # a file stands on white paper


def test_first_layers_are_not_chosen_on_test(bench: Any) -> None:
    made = bench(grid={"seed": [0, 1]}, report={}).put(record(0.5), record(0.5))
    report = made.report()
    frame = report.frame.assign(**{"last.test.accuracy": [0.9, 0.1], "best.validation.accuracy": [0.3, 0.6]})
    dice = np.random.default_rng(0)
    for one in made.trials:
        patch, side = one.trial.model.patch_size, one.trial.info.image_size // one.trial.model.patch_size
        kept = {STEM: np.zeros((patch, patch, 1, 8), np.float32), TOKEN_MIXING: dice.normal(size=(side**2, 8))}
        write_whole(report.store.folder(one.trial.id) / first_layers.FILE, save(kept))
    chosen = [figure for figure in draw_all(replace(report, frame=frame)) if figure.name == "filters"]
    assert made.trials[1].trial.id in chosen[0].caption and "best on validation" in chosen[0].caption


def test_fields_that_are_drawn_together_are_panels_in_a_row(bench: Any) -> None:
    """Not the diagonal of a square of panels, whose other places no sample fills."""
    grid = {RATE: "uniform(0.01, 0.1)", "model.dropout": "uniform(0, 0.2)", MIXING: ["tied", "untied"], "seed": [0]}
    made = bench(grid=grid, samples=3, samples_seed=1, report={"rows": [RATE, "model.dropout", MIXING],
                                                               "baseline": {MIXING: "tied"}})  # fmt: skip
    figures = {one.name: one for one in draw_all(made.put(*(record(0.5 + 0.01 * i) for i in range(6))).report())}
    curves, sweep = figures["learning_curves"].figure, figures["sweep_learning_rate"]
    assert {ax.get_subplotspec().get_geometry()[:2] for ax in curves.axes} == {(2, 3)}  # training above testing
    assert len(sweep.figure.axes) == 1 and "Each learning rate has its own dropout." in sweep.caption
    assert len(curves.axes) == 6 and all("dropout" in ax.get_title() for ax in curves.axes[:3])
