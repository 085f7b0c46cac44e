"""The folder of `make gpu`: what it brings, and its script; nothing is downloaded here."""

import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import mixlab
from backends.errors import MixlabError
from experiments.doctor import offline, parts
from experiments.doctor.packages import canonical
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPT = offline.HERE / "doctor.sh"


def names_of(asks: list[str]) -> set[str]:
    return {canonical(re.split(r"[^\w.-]", ask)[0]) for ask in asks}


def test_all_that_is_asked_for_is_on_the_machine_or_brought_along() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = names_of([*PROJECT["dependencies"], *extras["torch"], *extras["jax"]])
    brought = names_of(offline.lacking())
    assert asked <= offline.on_the_machine() | brought
    assert not offline.on_the_machine() & brought
    assert {"omegaconf", "multiprocess", "dill"} <= brought  # the last two are asked for by datasets alone


def test_what_is_brought_needs_nothing_that_is_neither_there_nor_brought() -> None:
    there = offline.on_the_machine() | names_of(offline.lacking())
    for name in names_of(offline.lacking()):
        needs = [need for need in importlib.metadata.requires(name) or () if "extra ==" not in need and ";" not in need]
        assert names_of(needs) <= there, name


def test_the_list_of_the_machine_names_nothing_that_is_not_needed() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = names_of([*PROJECT["dependencies"], *extras["torch"], *extras["jax"]])
    for name in offline.lacking():
        needed |= names_of(importlib.metadata.requires(name.partition("=")[0]) or [])
    assert offline.on_the_machine() <= needed


def test_a_new_dependency_is_brought_at_its_pin() -> None:
    assert offline.lacking(["simplejson>=3"]) == [f"simplejson=={offline._pins()['simplejson']}"]
    assert offline.lacking(["numpy", "simplejson; python_version < '3.12'"]) == []


def test_a_dependency_without_a_pin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_pins", dict)
    with pytest.raises(MixlabError, match=r"constraints.txt: expected a version of simplejson"):
        offline.lacking(["simplejson"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with two wheels made here in place of those of a registry."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")

    def write(pinned: list[str], wheels: Path) -> None:
        for name in ("brought_along", "numpy"):
            with zipfile.ZipFile(wheels / f"{name}-9.0-py3-none-any.whl", "w") as wheel:
                about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n"
                kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                wheel.writestr(f"{name}/__init__.py", "")
                wheel.writestr(f"{name}-9.0.dist-info/METADATA", about)
                wheel.writestr(f"{name}-9.0.dist-info/WHEEL", kind)
                wheel.writestr(f"{name}-9.0.dist-info/RECORD", "")

    monkeypatch.setattr(offline, "_download", write)
    offline.make(tmp_path / "gpu")
    return tmp_path / "gpu"


@pytest.fixture
def doctor(folder: Path, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """doctor(*words): the script, with a mixlab that prints what it is called with and where things come from."""
    (folder / "code" / "mixlab" / "__main__.py").write_text(
        "import sys, importlib.util\n"
        "print(*sys.argv[1:])\n"
        "print(importlib.util.find_spec('mixlab').origin)\n"
        "for name in ('brought_along', 'numpy'):\n    print(importlib.util.find_spec(name).origin)\n"
    )
    (tmp_path / "mixlab").mkdir()
    (tmp_path / "mixlab" / "__init__.py").write_text("raise SystemExit('the code of another folder')\n")

    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        surroundings = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": ""}
        return subprocess.run(
            ["bash", str(folder / "doctor.sh"), *words], cwd=tmp_path, env=surroundings, capture_output=True, text=True
        )

    return call


def test_the_three_calls_make_every_part_once_with_options_that_there_are(
    doctor: Callable[..., "subprocess.CompletedProcess[str]"], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        mixlab.main(["doctor", "--help"])
    known = capsys.readouterr().out
    made = []
    for call in ("1", "2", "3"):
        done = doctor(call, "out", "--short")
        assert done.returncode == 0, done.stderr
        words = done.stdout.splitlines()[0].split()
        assert words[0] == "doctor" and words[-3:] == ["--out", "out", "--short"]
        assert [word for word in words if word.startswith("--") and word not in known] == []
        assert float(words[words.index("--minutes") + 1]) < 10  # a call has ten minutes
        made += [part for option, part in itertools.pairwise(words) if option == "--part"]
    assert made == list(parts.NAMES)


def test_the_folder_brings_what_is_missing_and_takes_nobodys_place(
    doctor: Callable[..., "subprocess.CompletedProcess[str]"], folder: Path
) -> None:
    _, code, brought, numpy = doctor("1", "out").stdout.splitlines()
    assert Path(code).is_relative_to(folder / "code")
    assert Path(brought).is_relative_to(folder / "site") and not Path(numpy).is_relative_to(folder / "site")


@pytest.mark.parametrize("words", [(), ("1",), ("4", "out")])
def test_a_wrong_call_says_how_it_is_called(
    doctor: Callable[..., "subprocess.CompletedProcess[str]"], words: tuple[str, ...]
) -> None:
    done = doctor(*words)
    assert done.returncode == 2 and "bash doctor.sh 1|2|3 OUT" in done.stderr and not done.stdout


def test_the_code_is_what_git_tracks_as_it_is_on_the_disk(folder: Path) -> None:
    code = folder / "code"
    assert (code / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()
    assert (code / "experiments/bases/small.yaml").is_file() and (code / "backends/jax/program.py").is_file()
    assert not (code / "analysis/results").exists() and not (code / "tests").exists()
    assert list(code.rglob("__pycache__")) == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "thesis.tex").touch()
    with pytest.raises(MixlabError, match="is not a folder that this command made"):
        offline.make(tmp_path)
    assert (tmp_path / "code" / "thesis.tex").exists()


def test_a_folder_that_is_too_large_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_download", lambda pinned, wheels: None)
    monkeypatch.setattr(offline, "MOST_BYTES", 2**20)
    with pytest.raises(MixlabError, match=r"has \d MiB; expected at most 1"):
        offline.make(tmp_path / "gpu")


def test_a_wheel_that_pip_does_not_find_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(MixlabError, match=r"make gpu: pip brought no wheel: ERROR: .*nowhere-to-be-found"):
        offline._download(["nowhere-to-be-found==1"], tmp_path)
