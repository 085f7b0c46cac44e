"""What a record says of the code that ran: the commit, and whether the code differed from it."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.machine import environment
from slurm import snapshot

TRACKED = (
    *(f"{package}/__init__.py" for package in snapshot.PACKAGES),
    *("experiments/data/splits.py", "experiments/ablations/tying.yaml", "analysis/page/templates/page.html"),
    *("analysis/results/report.md", "tests/test_it.py", "README.md", "pyproject.toml", "Makefile"),
)


@pytest.fixture
def is_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], bool]]:
    """is_dirty("a.py"): with another text in that file of a repository in which all else is committed."""
    for name in TRACKED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    (tmp_path / ".gitignore").write_text("runs/\n")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    hidden = ("config", "status.showUntrackedFiles", "no")  # as some have set it
    for words in (("init", "-q"), hidden, ("add", "."), (*who, "commit", "-q", "-m", "all")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(environment, "ROOT", tmp_path)

    def is_dirty(name: str) -> bool:
        path = tmp_path / name
        before = path.read_text() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("2\n")
        environment.environment.cache_clear()
        found = environment.environment()["dirty"]
        assert isinstance(found, bool)
        path.unlink() if before is None else path.write_text(before)
        return found

    yield is_dirty
    environment.environment.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        *(f"{package}/__init__.py" for package in snapshot.PACKAGES),
        *("experiments/data/splits.py", "experiments/new.py", "backends/new/deep/model.py"),
        *("analysis/page/templates/page.html", "pyproject.toml"),
    ],
)
def test_code_that_differs_from_the_commit_is_dirty(is_dirty: Callable[[str], bool], name: str) -> None:
    assert is_dirty(name)


@pytest.mark.parametrize(
    "name",
    [
        *("mine.yaml", "experiments/ablations/mine.yaml", "experiments/ablations/tying.yaml", "notes.ipynb"),
        *("analysis/results/report.md", "analysis/results/mine/table.tex", "README.md", "Makefile"),
        *("analysis/results/mine/plot.py", "backends/README.md", ".github/CONTRIBUTING.md"),
        *("tests/test_it.py", "scripts/plot.py", "runs/snapshots/x/experiments/streams.py"),
    ],
)
def test_what_is_not_the_code_is_not_dirty(is_dirty: Callable[[str], bool], name: str) -> None:
    assert not is_dirty(name)


def test_code_that_is_gone_is_dirty(is_dirty: Callable[[str], bool]) -> None:
    (environment.ROOT / "experiments" / "data" / "splits.py").unlink()
    assert is_dirty("mine.yaml")


def test_outside_git_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    environment.environment.cache_clear()
    found = environment.environment()
    environment.environment.cache_clear()
    assert found["commit"] is None and found["dirty"] is None
