"""What the doctor says of a machine: each of its verdicts can be the other one."""

import errno
import os
import resource
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import backends
from backends.errors import MixlabError
from experiments import clock
from experiments.doctor import devices, disk, host, machine, packages
from experiments.doctor.check import Asked, Verdict
from experiments.machine import memory

GIB = 2**30
H100 = "0, NVIDIA H100 80GB HBM3, 580.159.04, 81559, 4, 0, Default, Disabled, 0"


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return of_device("cpu", tmp_path)


def of_device(device: str, folder: Path) -> Asked:
    return Asked(device, ("torch", "jax"), {}, folder, folder, short=True)


def test_every_check_has_a_name_of_its_own_and_a_limit(asked: Asked) -> None:
    names = [check.name for check in machine.checks(asked)]
    assert len(set(names)) == len(names) > 8
    assert all(0 < check.limit_s <= 180 for check in machine.checks(asked))
    assert {check.backend for check in machine.checks(asked)} == {"", "torch", "jax"}


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """project(dependencies, torch, python): a pyproject.toml of the code that runs."""

    def write(dependencies: list[str], torch: tuple[str, ...] = (), python: str = ">=3.11") -> None:
        (tmp_path / "pyproject.toml").write_text(
            f'[project]\nrequires-python = "{python}"\ndependencies = {dependencies!r}\n'
            f"[project.optional-dependencies]\ntorch = {list(torch)!r}\n"
        )
        monkeypatch.setattr(packages, "ROOT", tmp_path)

    return write


def test_the_packages_of_this_environment_are_those_that_are_asked_for(asked: Asked) -> None:
    for backend in ("", "torch", "jax"):
        verdict = packages.look(backend, asked)
        assert verdict.word == "ok", verdict.text
    assert verdict.figures["packages"]["jax"] == distribution("jax").version in verdict.text


@pytest.mark.parametrize(
    ("dependencies", "torch", "says"),
    [
        (["numpy>=99"], [], f"numpy is {distribution('numpy').version} (mixlab asks for numpy>=99)"),
        (
            ["numpy"],
            ["nowhere-to-be-found>=2"],
            "nowhere-to-be-found is missing (mixlab asks for nowhere-to-be-found>=2)",
        ),
    ],
)
def test_a_package_that_is_out_of_range_or_missing_is_named_with_the_command(
    asked: Asked, project: Callable[..., None], dependencies: list[str], torch: list[str], says: str
) -> None:
    project(dependencies, torch)
    verdict = packages.look("torch", asked)
    assert verdict.is_fault and says in verdict.text
    assert f"{sys.executable} -m pip install -c constraints.txt -e '.[torch]'" in verdict.text


def test_what_an_extra_asks_for_counts_for_its_backend_alone(asked: Asked, project: Callable[..., None]) -> None:
    project(["numpy"], ["nowhere-to-be-found"])
    assert packages.look("", asked).word == packages.look("jax", asked).word == "ok"


def test_a_python_out_of_range_is_a_fault(asked: Asked, project: Callable[..., None]) -> None:
    project([], python=">=99")
    verdict = packages.look("", asked)
    assert verdict.is_fault and "expected >=99" in verdict.text and sys.executable in verdict.text


def test_a_requirement_of_another_system_does_not_count(asked: Asked, project: Callable[..., None]) -> None:
    project(["nowhere-to-be-found; sys_platform == 'win32'", "numpy"])
    assert packages.look("", asked).word == "ok"


def test_what_a_package_asks_for_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a package `one` that needs `two[more]`, which needs `three`, and a newer `one` with that extra."""
    texts = {"one": ["two[more]", "four; extra == 'unasked'"], "two": ["three", "one>2; extra == 'more'"]}
    for name, needs in texts.items():
        folder = tmp_path / f"{name}-2.0.dist-info"
        folder.mkdir()
        lines = "".join(f"Requires-Dist: {need}\n" for need in needs)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = packages.Found()
    found.look(["one>=1"], "mixlab")
    assert found.versions == {"one": "2.0", "two": "2.0"}
    assert found.faults == ["three is missing (two asks for three)", "one is 2.0 (two asks for one>2)"]


def test_a_build_of_a_version_is_that_version() -> None:
    found = packages.Found()
    found.look([f"torch=={distribution('torch').version.partition('+')[0]}"], "mixlab")
    assert found.faults == []


# --- the driver -------------------------------------------------------------------------------------------------------


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """smi(script): that is nvidia-smi, and the only program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(script: str) -> None:
        path = folder / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def driver(device: str, folder: Path) -> Verdict:
    return devices.look_at_driver(of_device(device, folder))


def test_a_gpu_is_told_with_its_driver_and_memory(smi: Callable[[str], None], tmp_path: Path) -> None:
    smi(f"echo '{H100}'")
    verdict = driver("cuda", tmp_path)
    assert verdict.text == "driver 580.159.04; 0 NVIDIA H100 80GB HBM3 with 79.6 GiB"
    assert verdict.word == "ok" and verdict.figures["gpus"][0]["memory.total"] == "81559"


def test_two_gpus_are_counted(smi: Callable[[str], None], tmp_path: Path) -> None:
    smi(f"echo '{H100}'; echo '1{H100[1:]}'")
    assert "2 of them: 0 NVIDIA H100 80GB HBM3 with 79.6 GiB, 1 NVIDIA" in driver("cuda", tmp_path).text


@pytest.mark.parametrize(
    ("ends", "says", "is_fault"),
    [
        ("4, 0, Default, Disabled, 3", "memory errors", True),
        ("4, 0, Prohibited, Disabled, 0", "closed to programs", True),
        ("4, 0, Exclusive_Process, Disabled, 0", "one process at a time", False),
        ("4, 80, Default, Disabled, 0", "in use", False),
        ("9000, 0, Default, Disabled, 0", "in use", False),
        ("4, [N/A], Default, Enabled, [N/A]", "(MIG)", False),
    ],
)
def test_the_state_of_a_gpu_is_told(
    smi: Callable[[str], None], tmp_path: Path, ends: str, says: str, is_fault: bool
) -> None:
    smi(f"echo '{H100.partition('4, 0')[0]}{ends}'")
    verdict = driver("cuda", tmp_path)
    assert says in verdict.text and verdict.is_fault == is_fault and "H100" in verdict.text


def test_an_older_driver_is_asked_for_what_it_knows(smi: Callable[[str], None], tmp_path: Path) -> None:
    smi(
        f'case "$1" in *mig*) echo \'Field "mig.mode.current" is not a valid field to query.\'; exit 2;; esac\n'
        f"echo '{', '.join(H100.split(', ')[:5])}'"
    )
    assert driver("cuda", tmp_path).text == "driver 580.159.04; 0 NVIDIA H100 80GB HBM3 with 79.6 GiB"


@pytest.mark.parametrize(("device", "word"), [("cuda", "differs"), ("cuda:1", "differs"), ("cpu", "not run")])
def test_a_driver_that_fails_is_a_fault_where_a_gpu_was_asked_for(
    smi: Callable[[str], None], tmp_path: Path, device: str, word: str
) -> None:
    smi("echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    verdict = driver(device, tmp_path)
    assert (verdict.word, verdict.is_fault) == (word, device != "cpu") and "has failed" in verdict.text


def test_a_driver_that_hangs_is_a_verdict(
    smi: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "ANSWER_S", 0.2)
    smi(f"exec {sys.executable} -c 'import signal; signal.pause()'")
    verdict = driver("cpu", tmp_path)
    assert verdict.word == "not run" and verdict.is_fault and "had not answered after 0.2 s" in verdict.text


@pytest.mark.usefixtures("smi")
@pytest.mark.parametrize("has_files", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_driver_is_a_fault_where_a_gpu_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_files: bool, device: str
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(devices, "FOLDER", tmp_path if has_files else tmp_path / "bin")
    verdict = driver(device, tmp_path)
    assert verdict.word == "not run" and verdict.is_fault == (device == "cuda")
    assert ("files are in /dev" in verdict.text) == has_files


# --- frameworks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_framework_tells_its_version_and_device(backend: str, asked: Asked) -> None:
    verdict = devices.look(backend, asked)
    assert verdict.word == "ok" and verdict.text.endswith("; cpu")
    assert verdict.figures["versions"][backend].partition("+")[0] in verdict.text


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_device_that_is_not_there_is_a_fault_with_the_reason(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.load_devices(backend), "reason", lambda run: "the driver is too old")
    verdict = devices.look(backend, of_device("cuda:7", tmp_path))
    assert verdict.is_fault and "expected a device of this machine" in verdict.text
    assert verdict.text.endswith("; the driver is too old")


class FakeDevices:
    """A framework that sees a GPU."""

    def __init__(self, free_gib: float) -> None:
        self.free_gib = free_gib

    def versions(self) -> dict[str, str]:
        return {"torch": "2"}

    def seen(self, run: Any) -> list[Any]:
        from backends.bench import DeviceSeen

        return [DeviceSeen("H100", int(self.free_gib * GIB), 80 * GIB)] * 4


@pytest.mark.parametrize(("free_gib", "word"), [(70, "ok"), (1, "differs")])
def test_the_memory_that_a_device_has_left_is_told(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, free_gib: float, word: str
) -> None:
    monkeypatch.setattr(backends, "load_devices", lambda name: FakeDevices(free_gib))
    verdict = devices.look("torch", asked)
    assert verdict.word == word
    assert f"H100, {free_gib:.1f} of 80.0 GiB free" in verdict.text and "and 2 more" in verdict.text


def test_a_device_that_cannot_compute_is_no_device(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def product(run: Any, rows: int) -> Callable[[], None]:
        raise MixlabError("no kernel image is available for execution on the device")

    monkeypatch.setattr(backends, "load_ceilings", lambda name: SimpleNamespace(product=product))
    with pytest.raises(MixlabError, match="no kernel image"):
        devices.look("torch", asked)


# --- memory and cores -------------------------------------------------------------------------------------------------


def test_memory_that_is_not_enough_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 5 * GIB)
    assert host.look_at_memory().word == "ok" and "5.0 of " in host.look_at_memory().text
    monkeypatch.setattr(memory, "available_bytes", lambda: GIB)
    assert host.look_at_memory().is_fault and "expected 2 GiB" in host.look_at_memory().text


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control group of this process, two below the root."""
    folder = tmp_path / "groups" / "job" / "task"
    folder.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/job/task\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
    return folder


def test_the_limits_of_a_control_group_are_told(group: Path) -> None:
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text(f"{3 * GIB // 2}\n")
    (group / "cpu.max").write_text("150000 100000\n")
    (group.parent / "cpu.max").write_text("50000 100000\n")
    assert "may take 1.5 GiB" in host.look_at_memory().text
    assert host.cores_of_quota() == 0.5 and "set run.threads=1" in host.look_at_cores().text


def test_no_limit_is_said_where_there_is_none(group: Path) -> None:
    (group / "memory.max").write_text("max\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert host.cores_of_quota() is None
    assert "control group" not in host.look_at_memory().text + host.look_at_cores().text


def test_a_loaded_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1e3, 0.0, 0.0))
    assert "times measured now are too long" in host.look_at_cores().text
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert "load" not in host.look_at_cores().text


# --- disk and clock ---------------------------------------------------------------------------------------------------


def test_a_disk_is_measured_and_nothing_is_left_on_it(asked: Asked) -> None:
    verdict = disk.look(asked)
    assert verdict.figures["mb_per_s"] > 0 and verdict.figures["files_per_s"] > 0 and "files/s" in verdict.text
    assert list(asked.folder.iterdir()) == []


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = {"/": "ext4", str(tmp_path): "nfs4", f"{tmp_path}/a": "lustre", f"{tmp_path}/ab": "vfat"}
    parts = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounts.items()]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert [disk.file_system(tmp_path / name) for name in ("a/b", "c", "ab")] == ["lustre", "nfs4", "vfat"]


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_large_file_is_a_fault(asked: Asked) -> None:
    with files_of_at_most(2**16):
        verdict = disk.look(asked)
    assert verdict.is_fault and "File too large; choose another disk with --out" in verdict.text
    assert list(asked.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("write_new", OSError(errno.ENOSPC, "full"), "no space is left"),
        ("replace", OSError(errno.EDQUOT, "full"), "the disk quota is used up"),
    ],
)
def test_a_full_disk_is_a_fault(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, name: str, error: OSError, says: str
) -> None:
    def full(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(disk, name, full)
    assert disk.look(asked).is_fault and says in disk.look(asked).text


def test_a_disk_that_gives_back_other_bytes_is_a_fault(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "write_new", lambda path, content: path.write_bytes(content[:-1] + b"?"))
    monkeypatch.setattr(os, "urandom", lambda number: b"\0" * number)
    assert "other bytes than were written" in disk.look(asked).text and disk.look(asked).is_fault


def test_a_disk_without_hard_links_or_with_links_that_replace_is_a_fault(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(first: Path, second: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    assert disk.look(asked).is_fault and "permission is denied" in disk.look(asked).text
    monkeypatch.setattr(os, "link", lambda first, second: None)
    assert disk.look(asked).is_fault and "two processes could claim one trial" in disk.look(asked).text


@pytest.mark.parametrize(
    ("name", "least", "says"),
    [
        ("LEAST_FREE_BYTES", 2**60, "for checkpoints"),
        ("LEAST_MB_PER_S", 1e9, "expected 1e+09 MB/s"),
        ("LEAST_FILES_PER_S", 1e9, "and 1e+09 files/s"),
    ],
)
def test_a_disk_that_is_small_or_slow_is_a_fault(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, name: str, least: float, says: str
) -> None:
    monkeypatch.setattr(disk, name, least)
    assert disk.look(asked).is_fault and says in disk.look(asked).text


@pytest.mark.parametrize(("apart_s", "is_fault"), [(0.0, False), (-30.0, False), (90.0, True), (-90.0, True)])
def test_a_clock_that_is_off_is_a_fault_from_where_the_living_are_called_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart_s: float, is_fault: bool
) -> None:
    monkeypatch.setattr(clock, "_touched", lambda folder: time.time() + apart_s)
    verdict = disk.look_at_clock(tmp_path)
    assert verdict.is_fault == is_fault and abs(verdict.figures["apart_s"] - apart_s) < 5
    assert not is_fault or f"{apart_s:+.0f}" in verdict.text
    clock.forget()


@pytest.mark.parametrize("by_s", [-3600.0, -disk.SLEEP_S, 3600.0])
def test_a_clock_that_is_set_or_stands_still_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_s: float
) -> None:
    begun = dict.fromkeys(disk._clocks(), 0.0)
    ended = dict.fromkeys(begun, disk.SLEEP_S) | {"boottime": disk.SLEEP_S + by_s}
    answers = iter([begun, ended])
    monkeypatch.setattr(disk, "_clocks", lambda: next(answers))
    verdict = disk.look_at_clock(tmp_path)
    assert verdict.is_fault and "boottime went on by" in verdict.text


def test_this_machines_clocks_are_in_order(tmp_path: Path) -> None:
    assert disk.look_at_clock(tmp_path).word == "ok"
