"""Devices: what the NVIDIA driver says of them, and what each framework sees and can compute on."""

import csv
import dataclasses
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import backends
from backends.bench import DeviceSeen
from backends.errors import MixlabError, first_line
from backends.specs import RunSpec
from experiments.doctor.check import Asked, Verdict, differs, not_run, ok

GIB = 2**30
# Files that a driver makes for its devices. `dxg` is that of Windows' subsystem for Linux.  Source: the NVIDIA driver's
# README, "The NVIDIA kernel module"; libtpu opens accel0, or vfio/0 on newer machines.
FOLDER = Path("/dev")
FILES = {"cuda": ("nvidia[0-9]*", "dxg"), "tpu": ("accel[0-9]*", "vfio/[0-9]*")}
# Source: nvidia-smi --help-query-gpu. An older driver may not know the last ones, and then answers nothing.
FIELDS = ("index", "name", "driver_version", "memory.total", "memory.used")
MORE_FIELDS = ("utilization.gpu", "compute_mode", "mig.mode.current", "ecc.errors.uncorrected.volatile.total")
ANSWER_S = 8.0  # a GPU that sleeps takes some seconds to say what it is
IN_USE_MIB, BUSY_PERCENT = 1024, 10  # by others: what is measured beside them is not the device's speed
LEAST_BYTES = 2 * GIB  # free on a device: the frameworks' own 0.5 GiB, and a small model
ROWS = 256  # of the matrix product that shows that a device computes


def present(kind: str) -> bool:
    """Tell whether a driver has made a file for a device of this kind."""
    return any(any(FOLDER.glob(pattern)) for pattern in FILES[kind])


def look_at_driver(asked: Asked) -> Verdict:
    """What nvidia-smi says. Where another device than a GPU was asked for, its silence is no fault."""
    has_files = present("cuda")
    if not (program := shutil.which("nvidia-smi")):
        if not has_files and not asked.is_cuda:
            return not_run("this machine has no NVIDIA device")
        seen = "the driver's files are in /dev" if has_files else "there is no NVIDIA device in /dev"
        how = "it comes with the driver; a container needs --gpus all, --nv or srun --gres=gpu:1"
        return not_run(f"nvidia-smi is not on the PATH, and {seen}; {how}", is_fault=asked.is_cuda)
    try:
        gpus = _query(program)
    except TimeoutError:
        return not_run(
            f"nvidia-smi had not answered after {ANSWER_S:g} s: the driver hangs; reboot the machine, or look for "
            f"NVRM lines in dmesg",
            is_fault=True,
        )
    except (OSError, ValueError) as error:
        return (differs if asked.is_cuda else not_run)(f"nvidia-smi: {first_line(error)}")
    return _of_gpus(gpus)


def _of_gpus(gpus: Sequence[dict[str, str]]) -> Verdict:
    """The verdict on what each GPU has."""
    faults, remarks = [], []
    for gpu in gpus:
        if _number(gpu.get("ecc.errors.uncorrected.volatile.total")) > 0:
            faults.append(f"GPU {gpu['index']} has had memory errors that ECC could not correct: reset or replace it")
        if gpu.get("compute_mode") == "Prohibited":
            faults.append(f"GPU {gpu['index']} is closed to programs (compute mode Prohibited)")
        if gpu.get("compute_mode") == "Exclusive_Process":
            remarks.append(f"GPU {gpu['index']} takes one process at a time (compute mode Exclusive_Process)")
        if _number(gpu["memory.used"]) > IN_USE_MIB or _number(gpu.get("utilization.gpu")) > BUSY_PERCENT:
            remarks.append(f"GPU {gpu['index']} is in use: times measured now are too long")
        if gpu.get("mig.mode.current") == "Enabled":
            remarks.append(f"GPU {gpu['index']} is cut into parts (MIG)")
    names = [f"{gpu['index']} {gpu['name']} with {_number(gpu['memory.total']) / 1024:.1f} GiB" for gpu in gpus]
    text = f"driver {gpus[0]['driver_version']}; {len(gpus)} of them: " if len(gpus) > 1 else ""
    text = text or f"driver {gpus[0]['driver_version']}; "
    said = "; ".join([*faults[:2], text + ", ".join(names[:2]), *remarks[:2]])
    return (differs if faults else ok)(said, gpus=list(gpus))


def _query(program: str) -> list[dict[str, str]]:
    """Each GPU's fields, as nvidia-smi writes them.

    Raises: TimeoutError: it does not answer.   ValueError: it says something else; OSError: it cannot be started.
    """
    try:
        return _rows(program, (*FIELDS, *MORE_FIELDS))
    except ValueError:
        return _rows(program, FIELDS)


def _rows(program: str, fields: Sequence[str]) -> list[dict[str, str]]:
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=ANSWER_S)
    except subprocess.TimeoutExpired as error:
        process.kill()  # and no wait: inside a driver it may never end
        raise TimeoutError from error
    rows = [[cell.strip() for cell in row] for row in csv.reader(output.splitlines()) if row]
    if process.returncode or not rows or any(len(row) != len(fields) for row in rows):
        raise ValueError(output.strip() or f"it ended with exit code {process.returncode} and said nothing")
    return [dict(zip(fields, row, strict=True)) for row in rows]


def _number(text: str | None) -> float:
    """A number as nvidia-smi writes it; 0 for what the device does not have, such as [N/A]."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def look(backend: str, asked: Asked) -> Verdict:
    """Import a framework, and compute a product on the device that was asked for."""
    seer, run = backends.load_devices(backend), RunSpec(device=asked.device)
    versions = seer.versions()
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    try:
        seen = seer.seen(run)
    except MixlabError as error:
        why = "; ".join(filter(None, (first_line(error), seer.reason(run))))
        return differs(f"{said}: {why}", versions=versions)
    backends.load_ceilings(backend).product(run, ROWS)()
    devices = [dataclasses.asdict(device) for device in seen]
    text = f"{said}; {'; '.join(map(_device, seen[:2]))}{f' and {len(seen) - 2} more' if len(seen) > 2 else ''}"
    short = [one for one in seen[:1] if one.free_bytes is not None and one.free_bytes < LEAST_BYTES]
    if short:
        text += f"; expected {LEAST_BYTES / GIB:g} GiB free: end what else uses the device"
    return (differs if short else ok)(text, versions=versions, devices=devices)


def _device(device: DeviceSeen) -> str:
    if device.free_bytes is None or device.total_bytes is None:
        return device.kind
    return f"{device.kind}, {device.free_bytes / GIB:.1f} of {device.total_bytes / GIB:.1f} GiB free"
