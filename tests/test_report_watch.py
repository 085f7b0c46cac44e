"""`mixlab report --watch` follows a running grid."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.conftest import (
    Ended,
    base,
    end,
    kill_tree,
    planned,
    records,
    start,
    wait_until,
    write_yaml,
)

SLOW = base(train={"steps": 40, "evaluate_every": 20}, backend="quick")


@contextlib.contextmanager
def ending(process: "subprocess.Popen[str]") -> "Iterator[subprocess.Popen[str]]":
    try:
        yield process
    finally:
        kill_tree(process.pid)


def test_the_page_is_written_anew_as_trials_end_and_the_table_printed_at_the_end(
    tmp_path: Path, quick: Path, run: Callable[..., Ended]
) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=SLOW, grid={"seed": [0, 1]})
    first, _ = planned(tmp_path / "tiny.yaml", tmp_path / "runs" / "data")
    page = tmp_path / "runs" / "ablations" / "tiny" / "report" / "report.md"
    variables = {"PYTHONPATH": str(quick)}
    with ending(start(tmp_path, "report", "tiny.yaml", "--watch", **variables)) as watch:
        wait_until(page.exists, "a page of no trial is there")
        before = page.read_text()
        start(tmp_path, "run", "tiny.yaml", "--only", first.trial.id, **variables).communicate()
        wait_until(lambda: page.read_text() != before, "the page has the first trial")
        assert watch.poll() is None
        start(tmp_path, "run", "tiny.yaml", **variables).communicate()
        watched = end(watch)
    assert watched.code == 0 and len(records(tmp_path / "runs")) == 2
    counts = [line for line in watched.err.splitlines() if line.endswith("trials have ended")]
    assert counts[0] == "0 of 2 trials have ended" and counts[-1] == "2 of 2 trials have ended"
    assert watched.out.count("last.test.accuracy in %") == 1 and "(2)" in watched.out
    assert watched.out == run("report", "tiny.yaml").out


def test_ctrl_c_ends_it_in_one_line_and_leaves_a_whole_page(tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    page = tmp_path / "runs" / "ablations" / "tiny" / "report" / "report.html"
    with ending(start(tmp_path, "report", "tiny.yaml", "--watch")) as watch:
        wait_until(page.exists, "the page is there")
        os.killpg(watch.pid, signal.SIGINT)
        ended = end(watch)
    assert ended.code == 130 and ended.err.splitlines()[-1] == "mixlab: stopped" and "Traceback" not in ended.err
    assert page.read_text().rstrip().endswith("</html>") and not ended.out


def test_what_prints_cannot_watch(run: Callable[..., Ended], tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    ended = run("report", "tiny.yaml", "--watch", "--format", "text")
    assert ended.code == 2 and "--watch" in ended.err and len(ended.err.splitlines()) == 1
