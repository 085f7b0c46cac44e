"""A grid that is not complete is told to be interim, and no * is set: a test at each look is more than one test."""

from pathlib import Path
from typing import Any

import pytest

from analysis.figures import difference
from analysis.page.answer import sentences
from tests.test_report_files import MIXING, Bench, record

INTERIM = "interim: 5 of 6 trials are done"
ACCURACIES = (0.5, 0.51, 0.52, 0.7, 0.712, 0.725)
FILES = ("table.txt", "table.md", "table.tex", "report.md", "report.html")


@pytest.fixture
def made(tmp_path: Path, cache: Path) -> Bench:
    grid = {MIXING: ["tied", "untied"], "seed": [0, 1, 2]}
    made = Bench(tmp_path, cache, grid=grid, report={"rows": [MIXING], "baseline": {MIXING: "tied"}})
    made.put(*map(record, ACCURACIES))
    return made


def last_record(made: Bench) -> Path:
    return made.store.folder(made.trials[-1].trial.id) / "record.json"


def test_every_form_of_a_report_says_that_it_is_interim_and_has_no_star(made: Bench) -> None:
    last_record(made).unlink()
    folder, told = made.write(), sentences(made.report())
    assert told[0].startswith("Interim: 5 of 6 trials are done. ")
    for name in FILES:
        text = (folder / name).read_text()
        assert INTERIM in text and "p < 0.05" not in text and "+20.1*" not in text
    assert "70.6 ± 0.8 (2 of 3) +20.1" in made.text()  # its number stays
    assert f"{INTERIM}; a test at each look is more than one test, so no * is set" in made.text()


def test_no_mark_of_a_figure_is_full_before_all_trials_have_ended(made: Bench) -> None:
    def mark_and_caption() -> tuple[str, str]:
        (drawn,) = difference.draw(made.report())
        (mark,) = (line for line in drawn.figure.axes[0].lines if line.get_marker() not in ("", "None", None))
        return str(mark.get_markerfacecolor()), drawn.caption

    whole, caption = mark_and_caption()
    assert whole != "white" and "before all trials have ended" not in caption
    last_record(made).unlink()
    interim, caption = mark_and_caption()
    assert interim == "white" and "distinguishable, which none is called before all trials have ended" in caption


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_grid_whose_trials_have_all_ended_has_its_star(made: Bench, status: str) -> None:
    """One that has failed is not waited for."""
    accuracies: Any = (*ACCURACIES[:-1], ACCURACIES[-1] if status == "done" else None)
    made.put(
        *(record(one, status=status if place == 5 else "done", reason="boom") for place, one in enumerate(accuracies))
    )
    assert "* p < 0.05" in made.text() and "interim" not in made.text()
    assert "nterim" not in sentences(made.report())[0]


def test_a_grid_of_which_nothing_is_done_is_not_called_interim(made: Bench) -> None:
    for planned in made.trials:
        (made.store.folder(planned.trial.id) / "record.json").unlink()
    assert "interim" not in made.text() and sentences(made.report())[0].startswith("No answer yet")
