"""Where the pixels of a trial come from: what `auto` takes, what is refused, and what a plan says of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import MixlabError
from experiments import data
from experiments.data.ahead import Room
from experiments.machine import memory
from experiments.running import fit, storage
from experiments.running.storage import choose
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial
from tests import prepared_sets
from tests.conftest import command, write_yaml

NUM, SIDE = 30, 8
BYTES = NUM * SIDE * SIDE * 3
SEVERAL_BYTES = BYTES - NUM // 2 * SIDE * 3  # every second image lacks a row
ON_HOST = AugmentConfig(inception="tf")
PLENTY = 2**40


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images as arrays and as files, and others of two sizes as files."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    images = list(rng.integers(0, 256, (NUM, SIDE, SIDE, 3), np.uint8))
    several = [image[: SIDE - i % 2] for i, image in enumerate(images)]
    labels = [i % 3 for i in range(NUM)]
    held = {"array": ("array", images), "encoded": ("encoded", images), "several": ("encoded", several)}
    return {name: prepared_sets.write(folder / name, form, own, labels, 6) for name, (form, own) in held.items()}


def held(source: Path, cache: Path, asked: str, augment: AugmentConfig = ON_HOST) -> tuple[Trial, data.Splits]:
    """A trial on a set, and its images."""
    config = DataConfig(source=str(source), augment=augment, image_size=SIDE)
    model, train = ModelConfig(patch_size=4, hidden_dim=8, num_blocks=1), TrainConfig(batch_size=4, steps=2)
    trial = resolve(TrialConfig(model, config, train), data.describe(config, cache, "test"), "test")
    trial = replace(trial, data=replace(trial.data, storage=asked))  # a plan refuses what cannot be before
    return trial, data.load(trial.data, trial.info, cache)


def chosen(monkeypatch: pytest.MonkeyPatch, available: int, free: int | None, *of_trial: Any) -> str:
    """What is taken with so much memory of the machine, and of the device, if it has its own."""
    trial, splits = held(*of_trial)
    monkeypatch.setattr(memory, "available_bytes", lambda: available)
    return choose(trial, splits, free)


# (form of the set, bytes that the machine has, what is taken)
ON_MACHINE = [
    ("array", BYTES, "memory"),
    ("array", BYTES - 1, "disk"),
    ("encoded", BYTES, "memory"),
    ("encoded", BYTES - 1, "encoded"),
    ("several", SEVERAL_BYTES, "memory"),
    ("several", SEVERAL_BYTES - 1, "encoded"),
]


@pytest.mark.parametrize(("form", "available", "expected"), ON_MACHINE)
def test_auto_takes_memory_where_the_images_fit_into_the_machine(
    form: str, available: int, expected: str, sets: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(monkeypatch, available, None, sets[form], cache, "auto") == expected


def test_each_process_of_a_machine_has_images_of_its_own(
    sets: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, splits = held(sets["array"], cache, "auto")
    for available, expected in ((4 * BYTES, "memory"), (4 * BYTES - 1, "disk")):
        monkeypatch.setattr(memory, "available_bytes", lambda available=available: available)
        assert choose(trial, splits, None, num_here=4) == expected


@pytest.mark.parametrize(("form", "else_taken"), [("array", "disk"), ("encoded", "encoded")])
def test_auto_takes_memory_where_the_whole_trial_fits_into_the_device_too(
    form: str, else_taken: str, sets: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device has the images on it, unless they are augmented on the host."""
    of_trial = (sets[form], cache, "auto", AugmentConfig(flip=True))
    trial, _ = held(*of_trial)
    needed = fit.need(trial, False).total
    assert needed > BYTES
    assert chosen(monkeypatch, PLENTY, needed, *of_trial) == "memory"
    assert chosen(monkeypatch, PLENTY, needed - 1, *of_trial) == else_taken
    assert chosen(monkeypatch, BYTES - 1, PLENTY, *of_trial) == else_taken


def test_auto_decodes_no_more_before_the_first_step_than_planning_does(
    sets: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at_once, taken in ((BYTES, "memory"), (BYTES - 1, "encoded")):
        monkeypatch.setattr(storage, "DECODED_AT_ONCE", at_once)
        assert chosen(monkeypatch, PLENTY, None, sets["encoded"], cache, "auto") == taken
    assert chosen(monkeypatch, PLENTY, None, sets["array"], cache, "auto") == "memory"  # which are decoded


@pytest.mark.parametrize(
    ("form", "asked"), [("array", "memory"), ("array", "disk"), ("encoded", "memory"), ("encoded", "disk"),
                        ("encoded", "encoded"), ("several", "memory"), ("several", "encoded")],
)  # fmt: skip
def test_what_is_asked_for_is_taken_whatever_the_memory(
    form: str, asked: str, sets: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for available in (1, PLENTY):
        assert chosen(monkeypatch, available, available, sets[form], cache, asked) == asked


def test_arrays_are_not_read_as_encoded(sets: dict[str, Path], cache: Path) -> None:
    trial, splits = held(sets["array"], cache, "encoded")
    with pytest.raises(MixlabError) as error:
        choose(trial, splits, None)
    assert str(error.value) == (
        f"trial {trial.id}: data.storage: encoded needs images that are encoded, and {str(sets['array'])!r} holds "
        f"arrays; set it to disk, or prepare the source with --keep or --encode"
    )


def test_images_of_several_sizes_are_not_laid_out_on_disk_where_they_are_cropped(
    sets: dict[str, Path], cache: Path
) -> None:
    trial, splits = held(sets["several"], cache, "disk")
    with pytest.raises(MixlabError) as error:
        choose(trial, splits, None)
    assert str(error.value) == (
        f"trial {trial.id}: data.storage: disk has the images of {str(sets['several'])!r} decoded in the size of the "
        f"trial, and data.augment.inception crops them as they are stored; set it to encoded or memory, or prepare the "
        f"source with --resize, to the size to crop from"
    )
    framed, of_framed = held(sets["several"], cache, "disk", AugmentConfig())
    assert choose(framed, of_framed, None) == "disk"  # squares


def test_memory_that_is_asked_for_and_not_there_is_refused_with_both_numbers(
    sets: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, splits = held(sets["array"], cache, "memory", AugmentConfig(flip=True))
    many = replace(splits, about=replace(splits.about, num_train=10**7))
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**30)
    with pytest.raises(MixlabError, match=rf"^trial {trial.id}: .* decodes to 1\.79 GiB .* and 1\.00 GiB of memory"):
        storage.stored(trial, many, "memory", cache)


@pytest.mark.parametrize(
    ("asked", "augment", "streams"),
    [("memory", {}, False), ("disk", {}, True), ("auto", {}, False), ("memory", {"inception": "tf"}, True)],
)
def test_a_plan_says_what_the_pixels_take_that_are_read_ahead(
    asked: str, augment: dict[str, Any], streams: bool, sets: dict[str, Path], tmp_path: Path
) -> None:
    """The number is that of the steps that are held, whatever the set holds."""
    base = {
        "model": {"hidden_dim": 8, "num_blocks": 1, "patch_size": 64},
        "data": {"source": str(sets["array"]), "storage": asked, "augment": augment, "image_size": 256},
        "train": {"steps": 3, "batch_size": 20},
    }
    path = write_yaml(tmp_path / "one.yaml", base=base, grid={"seed": [0]})
    ended = command(tmp_path, "plan", str(path))
    assert ended.code == 0, ended.err
    lines = [line.strip() for line in ended.out.splitlines() if "read ahead" in line]
    batch_bytes = 20 * 256 * 256 * 3
    room = Room(batch_bytes)
    assert room.chunk + room.ahead > 1
    assert (
        lines == [f"of it {(room.chunk + room.ahead) * batch_bytes / 2**20:,.0f} MiB of pixels, read ahead"] * streams
    )
