"""Names of devices: what stands for what, and what is said of those that are not there. No device is needed."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
import torch

import backends
from backends import devices
from backends.errors import MixlabError
from backends.jax import device as jax_device
from backends.specs import RunSpec
from backends.torch import device as torch_device
from experiments.running import place
from tests.conftest import Ended, base, write_yaml

WRONG = ["gpuu", "cuda:x", "cuda:-1", "cuda:", "cpu:0", "tpu:0 ", "auto:1", "", "Cuda", "cuda:\u0661", "x" * 400]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", ("auto", 0)),
        ("cpu", ("cpu", 0)),
        ("cuda", ("cuda", 0)),
        ("cuda:1", ("cuda", 1)),
        ("gpu", ("cuda", 0)),
        ("gpu:12", ("cuda", 12)),
        ("tpu", ("tpu", 0)),
        ("tpu:3", ("tpu", 3)),
    ],
)
def test_a_name_is_a_kind_and_a_place(name: str, expected: tuple[str, int]) -> None:
    assert devices.read(name) == expected


@pytest.mark.parametrize("name", WRONG)
def test_an_unknown_name_is_one_sentence_wherever_it_is_read(name: str) -> None:
    for read in (devices.read, jax_device.open_device, torch_device.open_device):
        with pytest.raises(
            MixlabError, match=r"run\.device: expected a device, got '.*; allowed: auto, cpu, cuda"
        ) as found:
            read(name)
        assert len(str(found.value)) <= 300 and "\n" not in str(found.value)


@dataclass(frozen=True)
class Fake:
    """A device as JAX shows it."""

    platform: str
    id: int


def given(patch: pytest.MonkeyPatch, **numbers: int) -> None:
    """Let both frameworks find so many GPUs and TPU chips."""
    there = {kind: [Fake({"cuda": "gpu"}.get(kind, kind), i) for i in range(n)] for kind, n in numbers.items() if n}
    there["cpu"] = [Fake("cpu", 0)]

    def found(*, backend: str | None = None) -> list[Fake]:
        if backend is None:
            return next(iter(there.values()))
        if backend not in there:
            raise RuntimeError(f"Unknown backend {backend}.\nAvailable backends are {list(there)}")
        return there[backend]

    patch.setattr(jax, "local_devices", found)
    patch.setattr(torch.cuda, "device_count", lambda: numbers.get("cuda", 0))
    patch.setattr(torch.cuda, "is_available", lambda: numbers.get("cuda", 0) > 0)


@pytest.mark.parametrize(
    ("there", "name", "in_jax", "in_torch"),
    [
        ({"cuda": 2}, "auto", ("gpu", 0), "cuda:0"),
        ({"cuda": 2}, "cuda", ("gpu", 0), "cuda:0"),
        ({"cuda": 2}, "cuda:1", ("gpu", 1), "cuda:1"),
        ({"cuda": 2}, "gpu", ("gpu", 0), "cuda:0"),
        ({"cuda": 2}, "gpu:1", ("gpu", 1), "cuda:1"),
        ({"cuda": 2}, "cpu", ("cpu", 0), "cpu"),
        ({"tpu": 4}, "auto", ("tpu", 0), "cpu"),
        ({"tpu": 4}, "tpu", ("tpu", 0), None),
        ({"tpu": 4}, "tpu:3", ("tpu", 3), None),
        ({}, "auto", ("cpu", 0), "cpu"),
    ],
)
def test_a_name_opens_the_same_device_in_both_frameworks(
    there: dict[str, int], name: str, in_jax: tuple[str, int], in_torch: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **there)
    opened = jax_device.open_device(name)
    assert (opened.platform, opened.id) == in_jax
    if in_torch is not None:
        assert torch_device.open_device(name) == torch.device(in_torch)


@pytest.mark.parametrize(
    ("there", "name", "names"),
    [
        ({"cuda": 2}, "cuda:2", "auto, cpu, cuda:0, cuda:1"),
        ({"cuda": 1}, "gpu:7", "auto, cpu, cuda:0"),
        ({}, "cuda", "auto, cpu"),
        ({}, "gpu", "auto, cpu"),
    ],
)
@pytest.mark.parametrize("open_device", [jax_device.open_device, torch_device.open_device])
def test_a_device_that_is_not_there_is_one_sentence_with_those_that_are(
    there: dict[str, int], name: str, names: str, open_device: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **there)
    with pytest.raises(MixlabError) as found:
        open_device(name)
    text = str(found.value)
    assert (
        text.startswith(f"run.device: expected a device of this machine ({names}), got {name!r}") and "\n" not in text
    )


def test_a_tpu_that_is_not_there_is_said_with_the_reason_that_jax_has(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, tpu=2)
    with pytest.raises(MixlabError, match=r"\(auto, cpu, tpu:0, tpu:1\), got 'tpu:2'$"):
        jax_device.open_device("tpu:2")
    given(monkeypatch)
    with pytest.raises(MixlabError, match=r"\(auto, cpu\), got 'tpu': Unknown backend tpu\.$"):
        jax_device.open_device("tpu")


def test_a_framework_that_finds_no_device_at_all_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*, backend: str | None = None) -> list[Fake]:
        raise RuntimeError("The TPU is in use by process 7")

    monkeypatch.setattr(jax, "local_devices", broken)
    with pytest.raises(MixlabError, match="got 'auto': The TPU is in use by process 7"):
        jax_device.open_device("auto")


@pytest.mark.parametrize("name", ["tpu", "tpu:0"])
def test_torch_says_that_a_tpu_needs_jax(name: str) -> None:
    with pytest.raises(MixlabError, match=f"run.device: '{name}' needs backend jax, got torch; set backend=jax"):
        torch_device.open_device(name)


@pytest.mark.parametrize(
    ("there", "precision", "sentence"),
    [
        ({"tpu": 1}, "float32", None),
        ({"tpu": 1}, "bfloat16", None),
        ({"tpu": 1}, "tf32", "train.precision: tf32 needs a CUDA device, got 'tpu'; use float32"),
        ({"tpu": 1}, "float64", "train.precision: float64 needs a CPU or a CUDA device, got 'tpu'; use float32"),
        ({"cuda": 1}, "tf32", None),
        ({"cuda": 1}, "float64", None),
        ({}, "float64", None),
        ({}, "tf32", "train.precision: tf32 needs a CUDA device, got 'cpu'; use float32"),
    ],
)
def test_a_precision_that_a_device_does_not_have_is_refused(
    there: dict[str, int], precision: str, sentence: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **there)
    run = RunSpec("auto", precision)
    if sentence is None:
        jax_device.check(run)
        return
    with pytest.raises(MixlabError, match=sentence):
        jax_device.check(run)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])
def test_about_has_the_flags_that_matter_on_its_device(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_allow_excess_precision=false")
    flags = jax_device.flags_for(Fake(platform, 0)).split()
    assert ("--xla_gpu_deterministic_ops=true" in flags) == (platform == "gpu")
    assert "--xla_allow_excess_precision=false" in flags


@pytest.mark.parametrize(
    ("device", "before", "after"),
    [
        (None, {}, {}),
        ("cuda", {}, {}),
        ("tpu", {"TPU_VISIBLE_CHIPS": "2,3"}, {"TPU_VISIBLE_CHIPS": "2,3"}),
        ("cuda:1", {}, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("gpu:1", {"CUDA_VISIBLE_DEVICES": "4,GPU-5"}, {"CUDA_VISIBLE_DEVICES": "GPU-5"}),
        ("auto:0", {"CUDA_VISIBLE_DEVICES": "4,5"}, {"CUDA_VISIBLE_DEVICES": "4"}),
        ("tpu:1", {}, {"TPU_VISIBLE_CHIPS": "1"}),
        ("tpu:0", {"TPU_VISIBLE_CHIPS": "2,3"}, {"TPU_VISIBLE_CHIPS": "2"}),
    ],
)
def test_a_process_sees_the_device_of_its_place_alone(
    device: str | None, before: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [name for name in os.environ if name.startswith(("CUDA_", "TPU_"))]
    environment = {name: value for name, value in os.environ.items() if name not in ours} | before
    monkeypatch.setattr(os, "environ", environment)
    place._show_one_device(device)
    one_chip = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    expected = after | (one_chip if device in ("tpu:0", "tpu:1") else {})
    assert {name: value for name, value in environment.items() if name.startswith(("CUDA_", "TPU_"))} == expected


@pytest.mark.parametrize("backend", backends.names())
def test_what_a_worker_asks_of_a_device_that_is_not_there_is_a_sentence(backend: str) -> None:
    """It asks for the free memory first, before anything has checked the device."""
    for question in (backends.load(backend).free_memory_bytes, backends.load(backend).about):
        with pytest.raises(MixlabError, match=r"run\.device: expected a device of this machine"):
            question(RunSpec("cuda:99"))


@pytest.mark.parametrize("name", ["cuda:99", "gpu:99", "tpu"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_run_on_a_device_that_is_not_there_ends_with_a_sentence(
    run: Callable[..., Ended], backend: str, name: str, tmp_path: Path
) -> None:
    path = write_yaml(tmp_path / "a.yaml", base=base(backend=backend, run={"device": name}), grid={"seed": [0]})
    ended = run("run", str(path))
    assert ended.code in (1, 2) and "Traceback" not in ended.err + ended.out
    assert (
        f"run.device: {name!r} needs backend jax" in ended.err + ended.out or f"got {name!r}" in ended.err + ended.out
    )


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("run", "a.yaml", "--devices", "cuda:x"), "command line: --devices"),
        (("run", "a.yaml", "run.device=gpuu"), "run.device"),
        (("plan", "a.yaml", "run.device=cuda:-1"), "run.device"),
        (("parity", "a.yaml", "--pair", "torch,jax:float32:gpuu"), "command line: --pair"),
        (("evaluate", "--weights", "x.npz", "digits", "--device", "gpuu"), "command line: --device"),
    ],
)
def test_an_unknown_name_is_a_mistake_of_the_users(
    run: Callable[..., Ended], words: tuple[str, ...], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(tmp_path / "a.yaml", base=base(), grid={"seed": [0]})
    monkeypatch.chdir(tmp_path)
    ended = run(*words)
    assert ended.code == 2 and f"{where}: expected a device, got" in ended.err and "Traceback" not in ended.err
