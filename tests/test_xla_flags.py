"""Flags that a user gives to XLA are kept, and take none of ours away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.errors import MixlabError
from backends.jax import device
from backends.specs import RunSpec
from tests.conftest import ROOT, TIMEOUT_S, environment

EXACT, SAME_BITS = "--xla_allow_excess_precision=false", "--xla_gpu_deterministic_ops=true"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has set nothing yet."""
    monkeypatch.setattr(device, "_added", set())
    monkeypatch.setenv("XLA_FLAGS", "")


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        ("", [EXACT, SAME_BITS], []),
        ("--xla_dump_to=/tmp/x", ["--xla_dump_to=/tmp/x", EXACT, SAME_BITS], []),
        (EXACT, [EXACT, SAME_BITS], []),
        (
            "--xla_allow_excess_precision=true",
            ["--xla_allow_excess_precision=true", SAME_BITS],
            ["excess_precision=true"],
        ),
        ("--xla_allow_excess_precision", ["--xla_allow_excess_precision", SAME_BITS], ["excess_precision=true"]),
        (
            "--xla_gpu_deterministic_ops=false",
            ["--xla_gpu_deterministic_ops=false", EXACT],
            ["deterministic_ops=false"],
        ),
        ("--xla_gpu_deterministic_ops=1", ["--xla_gpu_deterministic_ops=1", EXACT], []),
        # the name of ours within another's name, or within a value, is no setting of ours
        (
            "--xla_gpu_deterministic_ops_x=1 --xla_dump_to=xla_allow_excess_precision",
            ["--xla_gpu_deterministic_ops_x=1", "--xla_dump_to=xla_allow_excess_precision", EXACT, SAME_BITS],
            [],
        ),
    ],
)
def test_ours_are_added_unless_the_user_sets_that_very_flag(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str,
    expected: list[str],
    said: list[str],
) -> None:
    monkeypatch.setenv("XLA_FLAGS", given)
    for _ in range(2):  # for each trial of a process
        device.set_numerics(RunSpec())
    assert os.environ["XLA_FLAGS"].split() == expected
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said) and all(word in line for word, line in zip(said, lines, strict=True))
    assert all("which stays" in line for line in lines)


def test_a_file_of_flags_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XLA takes what does not begin with '-' for the name of a file; flags behind the name would make it another."""
    (tmp_path / "flags").write_text("--xla_dump_to=/tmp/x\n--xla_gpu_deterministic_ops=true\n")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    device.set_numerics(RunSpec())
    assert os.environ["XLA_FLAGS"].split() == ["--xla_dump_to=/tmp/x", SAME_BITS, EXACT]
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "gone"))
    with pytest.raises(MixlabError, match=r"XLA_FLAGS: expected flags .* or a file of them, got .*gone'"):
        device.set_numerics(RunSpec())


def test_xla_takes_the_flags_of_both() -> None:
    script = (
        "import os, jax; from backends.specs import RunSpec; from backends.jax import device\n"
        "device.set_numerics(RunSpec()); print(jax.numpy.ones(3).sum(), os.environ['XLA_FLAGS'])"
    )
    given = environment(XLA_FLAGS="--xla_cpu_enable_fast_math=false")
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=ROOT, env=given, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3.0", "--xla_cpu_enable_fast_math=false", EXACT, SAME_BITS]


@pytest.mark.parametrize(
    "question", ["free_memory_bytes(run)", "about(run)", "open(*nothing, run)", "memory_bytes(*nothing, None, run)"]
)
def test_whatever_is_asked_of_the_backend_first_sets_the_flags_before_a_device_reads_them(question: str) -> None:
    """A worker asks for the needed and the free memory before it opens a program; XLA reads its flags once."""
    script = f"""
import os
import jax
import backends
from backends.specs import RunSpec

def first_look(*, backend=None):
    print(os.environ.get("XLA_FLAGS"), flush=True)
    os._exit(0)
jax.local_devices = first_look
run, nothing = RunSpec(), (None, None, None)
backends.load("jax").{question}
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.stdout.split() == [EXACT, SAME_BITS], done.stderr
