"""What each storage holds of images: as they are stored where they are cropped so, and no more than is counted."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from backends.errors import MixlabError
from experiments import data
from experiments.results.store import Store
from experiments.running import storage
from experiments.spec.config import RandAugmentConfig
from tests import prepared_sets
from tests.conftest import Ended, base, records, write_yaml
from tests.reading import noise
from tests.test_streamed_trials import NUM, SIDE, trial_of, worked


def of_storages(source: Path, cache: Path, storages: Sequence[str], **augment: Any) -> dict[str, Any]:
    """What a worker records of a trial of 8 pixels a side by the storage of its images, or why it cannot be."""
    found: dict[str, Any] = {}
    for how in storages:
        try:
            trial = trial_of(source, cache, "torch", how, augment, image_size=SIDE)
        except MixlabError as error:
            found[how] = str(error)
            continue
        events, record = worked(trial, Store(cache / how), cache)
        assert record is None or record["data"]["storage"] == how
        found[how] = record["curve"] if record else events[-1].failure.reason  # type: ignore[union-attr]
    return found


def larger(folder: Path, shapes: Sequence[tuple[int, int]], seed: int = 0) -> Path:
    images = [noise(1, *shapes[i % len(shapes)], 3, seed=NUM * seed + i)[0] for i in range(NUM)]
    return prepared_sets.write(folder, "encoded", images, [i % 3 for i in range(NUM)], 12)


def test_inception_crops_images_as_they_are_stored_from_every_storage(tmp_path: Path) -> None:
    """What disk decodes into the cache has the size of the trial: it is refused, or other pixels had the same id."""
    source = larger(tmp_path / "set", [(12, 12)])
    found = of_storages(source, tmp_path, ("memory", "encoded", "disk"), inception="tf")
    assert isinstance(found["memory"], list) and found["memory"] == found["encoded"]
    told = "data.augment.inception crops them as they are stored; set it to encoded or memory"
    assert told in found["disk"]
    trial = trial_of(source, tmp_path, "torch", "auto", {"inception": "tf"}, image_size=SIDE)
    splits = data.load(trial.data, trial.info, tmp_path)
    with pytest.raises(MixlabError, match=told):  # which was planned by a Mixlab that did not know
        storage.choose(replace(trial, data=replace(trial.data, storage="disk")), splits, None)


def test_what_needs_no_stored_images_has_those_of_several_sizes_on_disk(tmp_path: Path) -> None:
    source = larger(tmp_path / "set", [(9, 10), (12, 8)])
    augment = {"color_jitter": 0.2, "randaugment": RandAugmentConfig(num=1)}
    found = of_storages(source, tmp_path, ("memory", "encoded", "disk"), **augment)
    assert isinstance(found["memory"], list) and found["memory"] == found["encoded"] == found["disk"]
    assert "set it to encoded or memory" in of_storages(source, tmp_path / "a", ("disk",), inception="tf")["disk"]


@pytest.mark.parametrize(
    ("form", "settings", "told"),
    [
        ("array", ["data.storage=encoded"], "data.storage: encoded needs images that are encoded"),
        ("encoded", ["data.storage=disk", "data.augment={inception: tf}", "data.image_size=6"], "set it to encoded or"),
    ],
)
def test_a_storage_that_cannot_be_is_refused_when_it_is_planned(
    form: str, settings: list[str], told: str, run: Callable[..., Ended], tmp_path: Path
) -> None:
    images = list(noise(NUM, SIDE, SIDE, 3))
    prepared_sets.write(tmp_path / "set", form, images, [i % 3 for i in range(NUM)], 12)
    given = {key: value for key, value in base().items() if key != "data"}
    values = {name: yaml.safe_load(value) for name, _, value in (one.partition("=") for one in settings)}
    write_yaml(tmp_path / "a.yaml", base={**given, "data.source": "set", **values}, grid={"seed": [0]})
    for command in ("plan", "run"):
        ended = run(command, "a.yaml")
        assert ended.code == 2 and ended.err.startswith("mixlab: a.yaml: data.storage: ") and told in ended.err
    assert not (tmp_path / "runs" / "trials").exists()


def test_a_set_that_is_cut_off_is_no_matter_to_status_and_report(run: Callable[..., Ended], tmp_path: Path) -> None:
    source = larger(tmp_path / "set", [(SIDE, SIDE)])
    given = {key: value for key, value in base().items() if key != "data"}
    write_yaml(tmp_path / "a.yaml", base={**given, "data.source": "set"}, grid={"seed": [0]})
    assert run("run", "a.yaml").code == 0
    os.truncate(source / "images.bin", 200)
    assert "1 done" in run("status", "a.yaml").out and run("report", "a.yaml").code == 0
    planned = run("plan", "a.yaml")
    assert planned.code == 2 and "is damaged: images.bin: expected" in planned.err


def test_data_that_is_lost_fails_its_trial_and_the_run_goes_on(run: Callable[..., Ended], tmp_path: Path) -> None:
    """The trials of other data are trained; that of the lost one goes on when it is back."""
    sources = [larger(tmp_path / name, [(SIDE, SIDE)], seed) for seed, name in enumerate(("lost", "there"))]
    images, content = sources[0] / "images.bin", (sources[0] / "images.bin").read_bytes()
    values = {**base(backend="torch"), "data": {"storage": "encoded"}}
    write_yaml(tmp_path / "a.yaml", base=values, grid={"data.source": list(map(str, sources)), "seed": [0]})
    offsets = np.load(sources[0] / "offsets.npy")
    images.write_bytes(bytes(offsets[1]) + content[offsets[1] :])  # as long as before: it is seen when it is read
    ended = run("run", "a.yaml")
    found = {record["spec"]["data"]["source"]: record for record in records(tmp_path / "runs").values()}
    assert ended.code == 1 and [found[str(one)]["status"] for one in sources] == ["failed", "done"], ended.err
    assert found[str(sources[0])]["cause"] == "data_missing"
    assert re.search(r"trial .*: data: image 0 of .* it .* when it is run or submitted again", ended.err), ended.err
    images.write_bytes(content)
    assert run("run", "a.yaml").code == 0


@pytest.mark.parametrize("augment", [{"inception": "tf"}, {"color_jitter": 0.1}], ids=["as stored", "framed"])
def test_memory_counts_the_images_that_it_holds(
    augment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whole: those of an inception crop as they are stored, all others in the size of the trial."""
    source = larger(tmp_path / "set", [(30, 50), (40, 20)])
    held = NUM * 3 * ((30 * 50 + 40 * 20) // 2 if "inception" in augment else SIDE**2)
    auto, memory_ = (trial_of(source, tmp_path, "torch", how, augment, image_size=SIDE) for how in ("auto", "memory"))
    splits = data.load(auto.data, auto.info, tmp_path)
    stored = storage.stored(memory_, splits, "memory", tmp_path)
    assert sum(stored.source.read(i).nbytes for i in range(NUM)) == held  # type: ignore[union-attr]
    files = trial_of(source, tmp_path, "torch", "encoded", augment, image_size=SIDE)
    assert storage.held_bytes(auto) == storage.held_bytes(memory_) == held and storage.held_bytes(files) == 0
    assert storage.needed_bytes(memory_) - storage.needed_bytes(files) == held
    for available, how in ((held, "memory"), (held - 1, "encoded")):
        monkeypatch.setattr(storage.memory, "available_bytes", lambda available=available: available)
        assert storage.choose(auto, splits, None) == how and storage.held_bytes(auto) == (how == "memory") * held
    with pytest.raises(MixlabError, match=r"take|decodes to .* of memory are available"):
        storage.stored(memory_, splits, "memory", tmp_path)
    monkeypatch.setattr(storage.memory, "available_bytes", lambda: 2**40)
    monkeypatch.setattr(storage, "DECODED_AT_ONCE", held - 1)
    assert storage.choose(auto, splits, None) == "encoded" and storage.held_bytes(auto) == 0
