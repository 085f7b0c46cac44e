"""What MIXLAB_DEBUG=1 adds to an error, in a command and in a worker: the chain of its causes."""

from pathlib import Path

import pytest

from backends.errors import MixlabError, show_chain
from experiments.running.failures import failure
from tests.conftest import Ended, base, command, write_yaml

OFF: list[dict[str, str]] = [{}, {"MIXLAB_DEBUG": "0"}, {"MIXLAB_DEBUG": ""}]
ON = {"MIXLAB_DEBUG": "1"}


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """A Parquet file that pyarrow cannot read."""
    (tmp_path / "digits.parquet").write_bytes(b"PAR1 and nothing else")
    return f"data.source={tmp_path / 'digits.parquet'}"


@pytest.fixture
def broken_package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with the backend `broken`, which is installed and does not load."""
    folder = tmp_path / "broken"
    about = folder / "broken_backend-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "broken_backend.py").write_text("raise ImportError('libmissing.so.1: no such file')\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-backend\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mixlab.backends]\nbroken = broken_backend:BACKEND\n")
    return folder


def last_line(ended: Ended) -> str:
    return ended.err.strip().splitlines()[-1]


@pytest.mark.parametrize("variables", OFF)
def test_a_mistake_is_one_sentence(tmp_path: Path, damaged: str, variables: dict[str, str]) -> None:
    ended = command(tmp_path, "data", "show", damaged, **variables)
    assert ended.code == 2 and ended.err.startswith("mixlab: ") and len(ended.err.splitlines()) == 1, ended.err


def test_a_command_prints_the_cause_and_then_the_same_sentence(tmp_path: Path, damaged: str) -> None:
    plain, chain = (command(tmp_path, "data", "show", damaged, **variables) for variables in ({}, ON))
    assert chain.code == 2 and last_line(chain) == plain.err.strip()
    cause, _, effect = chain.err.partition("The above exception was the direct cause of the following exception")
    assert "pyarrow.lib.ArrowInvalid: " in cause and "backends.errors.MixlabError: " in effect, chain.err


def test_a_worker_prints_the_cause_to_the_log_of_its_run(tmp_path: Path, broken_package: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="broken"))
    variables = {"PYTHONPATH": str(broken_package)}
    plain = command(tmp_path, "run", "tiny.yaml", **variables)
    chain = command(tmp_path, "run", "tiny.yaml", **variables, **ON)
    assert plain.code == chain.code == 2 and last_line(chain) == last_line(plain)
    assert "libmissing.so.1" in last_line(plain) and "Traceback" not in plain.err
    assert "ImportError: libmissing.so.1" in chain.err and "backends.errors.BackendMissing: " in chain.err, chain.err


def test_a_failed_trial_prints_its_chain_where_it_becomes_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = MixlabError("data: it cannot be read")
    error.__cause__ = OSError(5, "Input/output error")
    assert failure(error).reason == "data: it cannot be read" and capsys.readouterr().err == ""
    monkeypatch.setenv("MIXLAB_DEBUG", "1")
    assert failure(error).reason == "data: it cannot be read"
    assert "Input/output error" in capsys.readouterr().err


def test_the_chain_is_printed_to_standard_error_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is what scripts read."""
    monkeypatch.setenv("MIXLAB_DEBUG", "1")
    show_chain(MixlabError("a mistake"))
    printed = capsys.readouterr()
    assert printed.out == "" and "MixlabError: a mistake" in printed.err


def test_the_help_names_the_variable(tmp_path: Path) -> None:
    ended = command(tmp_path, "--help")
    assert ended.code == 0 and "MIXLAB_DEBUG=1" in ended.out
