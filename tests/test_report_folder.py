"""The folder of a report holds what the report wrote, and what is somebody else's."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analysis.page import writing
from tests.test_report_files import BLOCKS, Bench, record


def test_a_report_takes_no_file_of_another_name(tmp_path: Path, cache: Path) -> None:
    made = Bench(tmp_path, cache, grid={BLOCKS: [1, 2], "seed": [0, 1]}, report={"rows": [BLOCKS]})
    made.put(*map(record, (0.5, 0.6, 0.7, 0.8)))
    folder = made.write()
    (folder / "figures" / "photo.pdf").write_bytes(b"mine")
    (folder / "figures" / "filters.pdf").write_bytes(b"mine too")
    made.write()
    assert (folder / "figures" / "photo.pdf").read_bytes() == b"mine"
    assert (folder / "figures" / "filters.pdf").read_bytes() == b"mine too"


def figures(**contents: str) -> list[Any]:
    """Figures by name, each of one file."""
    return [SimpleNamespace(name=name, files={"svg": content.encode()}) for name, content in contents.items()]


def test_figures_that_are_no_longer_drawn_are_removed_and_no_file_of_anybody_else(tmp_path: Path) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir() if path.name != writing.DRAWN)

    write = writing._write_figures
    write(figures(sweep_mixing="a", sweep_depth="b", frontier="c"), tmp_path)
    (tmp_path / "sweep_depth.svg").write_text("drawn by hand")
    (tmp_path / "sweep_width.svg").write_text("mine")
    write(figures(frontier="d"), tmp_path)
    assert names() == ["frontier.svg", "sweep_depth.svg", "sweep_width.svg"]  # sweep_mixing alone was as written
    write(figures(sweep_width="e"), tmp_path)
    write([], tmp_path)
    assert names() == ["sweep_depth.svg"]
    write(figures(frontier="f"), tmp_path)
    (tmp_path / writing.DRAWN).write_text("{")
    write(figures(curves="g"), tmp_path)
    assert names() == ["curves.svg", "frontier.svg", "sweep_depth.svg"]  # nobody remembers whose it is


def test_a_list_of_drawn_figures_leads_out_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.svg").write_text("x")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / writing.DRAWN).write_text(json.dumps({"../mine.svg": writing._key(b"x")}))
    writing._write_figures([], tmp_path / "figures")
    assert (tmp_path / "mine.svg").exists()
