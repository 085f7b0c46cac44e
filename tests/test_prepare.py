"""Planning decodes what is small, once; what is large is decoded by `mixlab data prepare`, and by training."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.errors import MixlabError
from experiments import data
from experiments.data import decoded, fingerprints, known, limits, pictures
from experiments.data.limits import NotPrepared, Purpose
from experiments.design import trials
from experiments.design.ablation import load_ablation
from experiments.machine import memory
from tests.conftest import Ended, base, environment, fresh_cache, write_yaml
from tests.sources import WHERE, config, image_folder, parquet_folder, png

cache = fresh_cache
Mixlab = Callable[..., Ended]
SUBMIT = ("--cluster", "cluster.yaml", "--dry-run")
PLANNING = ("plan", "status", "report", "submit")
SMALL = 24 * 6 * 6  # bytes of the images of `parquet_folder`


class Counts:
    """How often a pixel was decoded, a file hashed, a source opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.pixels = self.hashed = self.opened = 0
        for holder, name, what in (
            (pictures.Decoder, "_pixels", "pixels"),
            (fingerprints, "_hash_files", "hashed"),
            (decoded, "read_source", "opened"),
        ):
            monkeypatch.setattr(holder, name, self._counted(getattr(holder, name), what))

    def _counted(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            setattr(self, what, getattr(self, what) + 1)
            return function(*arguments)

        return counted


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


@pytest.fixture
def mixlab(run: Mixlab, fake: Any, tmp_path: Path, quick: Path) -> Mixlab:
    """A command as a process of its own would begin it: it knows nothing but the store."""
    limit = "echo 'MaxArraySize = 100'; echo 'MaxJobCount = 100'"
    fake(squeue="true", sacct="true", sacctmgr="true", sbatch="echo 'sbatch: fits' >&2", scontrol=limit)
    (tmp_path / "cluster.yaml").write_text("cpus: 1\n")

    def mixlab(*words: str) -> Ended:
        trials._describe.cache_clear()
        return run(*words, *(SUBMIT if words[0] == "submit" else ()))

    return mixlab


def asks_for(folder: Path, source: Path | str, **fields: Any) -> None:
    """An ablation of the source."""
    tree = {**base(backend="quick"), "data": {"source": str(source), **fields}}
    tree["model"] = {"hidden_dim": 8, "num_blocks": 1, "patch_size": 2}
    write_yaml(folder / "a.yaml", base=tree)


def allow(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(limits, "PLANNED_BYTES", num_bytes)


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def named_command(ended: Ended) -> list[str]:
    """The words of the command that a refusal names, as a shell reads them."""
    assert ended.code == 2 and ended.err.count("\n") == 1 and len(ended.err) <= 400, ended.err
    first, *words = shlex.split(ended.err.partition("; prepare it: ")[2])
    assert first == "mixlab" and words[:2] == ["data", "prepare"]
    return words


@pytest.mark.parametrize("command", PLANNING)
def test_of_a_prepared_source_planning_reads_neither_pixels_nor_files(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    asks_for(tmp_path, parquet_folder(tmp_path / "set"))
    assert mixlab("data", "prepare", "a.yaml").code == 0
    allow(monkeypatch, 0)
    counts = Counts(monkeypatch)
    ended = mixlab(command, "a.yaml")
    assert ended.code == 0, ended.err
    assert (counts.pixels, counts.hashed, counts.opened) == (0, 0, 0)


@pytest.mark.parametrize("command", PLANNING)
@pytest.mark.parametrize("kind", ["decoded", "files", "synthetic"])
def test_what_is_too_large_is_not_decoded_but_named_with_the_command_that_does(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, counts: Counts, command: str, kind: str
) -> None:
    folder = parquet_folder(tmp_path / "set")
    if kind == "synthetic":
        asks_for(tmp_path, "synthetic", image_size=64, num_examples=100)
        allow(monkeypatch, 100 * 64 * 64 * 3 - 1)
    elif kind == "decoded":
        asks_for(tmp_path, folder, image_size=32)
        allow(monkeypatch, max(total(folder), 24 * 32 * 32 - 1))
    else:
        asks_for(tmp_path, folder)
        allow(monkeypatch, total(folder) - 1)
    ended = mixlab(command, "a.yaml")
    words = named_command(ended)
    assert counts.pixels == 0 and "a.yaml: data.source: " in ended.err
    assert kind != "files" or counts.hashed + counts.opened == 0
    assert mixlab(*words).code == 0 and counts.pixels > 0
    counts.pixels = 0
    assert mixlab(command, "a.yaml").code == 0 and counts.pixels == 0


def test_what_is_as_large_as_planning_may_decode_is_decoded_once(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    folder = parquet_folder(tmp_path / "set")
    asks_for(tmp_path, folder, image_size=16)
    allow(monkeypatch, 24 * 16 * 16)
    assert total(folder) <= limits.PLANNED_BYTES
    for command in (*PLANNING, "plan"):
        ended = mixlab(command, "a.yaml")
        assert ended.code == 0, ended.err
    assert counts.pixels == 24 and counts.hashed == counts.opened == 1


def test_a_source_that_was_found_too_large_is_not_opened_again_until_it_changes(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    folder = parquet_folder(tmp_path / "set")
    asks_for(tmp_path, folder, image_size=32)
    allow(monkeypatch, 24 * 32 * 32 - 1)
    first, second = mixlab("plan", "a.yaml"), mixlab("plan", "a.yaml")
    assert first == second and counts.opened == counts.hashed == 1
    parquet_folder(folder, num_train=10)
    assert mixlab("plan", "a.yaml").code == 0 and counts.pixels == 14


def test_the_command_names_the_overrides_and_the_store(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks_for(tmp_path, parquet_folder(tmp_path / "a set"))
    allow(monkeypatch, 0)
    store, overrides = ("--store", "my $$ runs"), ("data.image_size=[8, 16]", "data.validation_fraction=0.25")
    words = named_command(mixlab("plan", "a.yaml", *overrides, *store))
    assert words == ["data", "prepare", "a.yaml", *overrides, *store]
    prepared = mixlab(*words)
    assert prepared.code == 0 and [" 8 x 8 x 1 " in prepared.out, " 16 x 16 x 1 " in prepared.out] == [True, True]
    assert len(list((tmp_path / "my $ runs" / "data").glob("*/images.npy"))) == 2
    assert mixlab("plan", "a.yaml", *overrides, *store).code == 0
    own = ("run.data_cache=elsewhere",)
    assert named_command(mixlab("plan", "a.yaml", *own, *store)) == ["data", "prepare", "a.yaml", *own]


def test_an_ablation_knows_its_file_whatever_its_overrides(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "a with b.yaml", name="a")
    for overrides in ((), ("train.steps=9",), ("train.learning_rate=0.001",) * 9):
        assert load_ablation(path, overrides).file == str(path)


def test_a_source_is_prepared_by_its_name_and_its_fields(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    folder = image_folder(tmp_path / "set")
    allow(monkeypatch, 0)
    shown = mixlab("data", "show", "set", "data.image_size=8")
    assert shown.code == 0 and "a trial cannot use it yet" in shown.out and counts.pixels == 0
    refused = mixlab("data", "show", "set", "data.image_size=8", "--sheet", "x.png")
    words = named_command(refused)
    assert words == ["data", "prepare", "set", "data.image_size=8"]
    for _ in range(2):
        ended = mixlab(*words)
        assert ended.code == 0 and ended.out.startswith("set: 16 images of 8 x 8 x 1 in 2 classes, 0.00 MiB in ")
        assert Path(ended.out.split(" in ")[-1].strip(), "images.npy").exists() and counts.pixels == 16
    asks_for(tmp_path, folder, image_size=8)
    assert mixlab("plan", "a.yaml").code == 0 and counts.pixels == 16
    assert mixlab("data", "show", "set", "data.image_size=8", "--sheet", "x.png").code == 0


def test_prepare_decodes_what_is_known_and_was_removed(tmp_path: Path, mixlab: Mixlab, counts: Counts) -> None:
    asks_for(tmp_path, parquet_folder(tmp_path / "set"))
    assert mixlab("plan", "a.yaml").code == 0 and counts.pixels == 24
    assert mixlab("clean", "--remove", "data").code == 0
    assert mixlab("plan", "a.yaml").code == 0 and counts.pixels == 24
    assert mixlab("data", "prepare", "a.yaml").code == 0 and counts.pixels == 48
    assert len(list((tmp_path / "runs" / "data").glob("*/images.npy"))) == 1


@pytest.mark.parametrize("how", ["terminated", "interrupted", "failed"])
def test_a_prepare_that_does_not_come_to_its_end_leaves_nothing_half(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    asks_for(tmp_path, parquet_folder(tmp_path / "set"))
    really, seen = pictures.Decoder._pixels, []

    def end(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == 20:
            if how == "failed":
                raise MixlabError("boom")
            if how == "interrupted":
                raise KeyboardInterrupt  # as Ctrl-C does; a process in the background may ignore its signal
            os.kill(os.getpid(), signal.SIGTERM)
        return really(*arguments)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(pictures.Decoder, "_pixels", end)
            ended = mixlab("data", "prepare", "a.yaml")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.code == {"terminated": 128 + signal.SIGTERM, "interrupted": 130, "failed": 2}[how]
    left = [path.name for path in (tmp_path / "runs" / "data").iterdir()]
    assert left == ["seen"]  # the hash of the files, which is whole
    assert mixlab("data", "prepare", "a.yaml").code == 0 and mixlab("plan", "a.yaml").code == 0


# --- memory -----------------------------------------------------------------------------------------------------------


def test_planning_does_not_look_at_the_memory_and_training_does(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks_for(tmp_path, parquet_folder(tmp_path / "set"))
    monkeypatch.setattr(memory, "available_bytes", lambda: SMALL - 1)
    for command in PLANNING:
        ended = mixlab(command, "a.yaml")
        assert ended.code == 0, ended.err
    assert mixlab("run", "a.yaml", "--dry-run").code == 0 and mixlab("data", "prepare", "a.yaml").code == 0
    ended = mixlab("run", "a.yaml", "data.storage=memory")
    assert ended.code == 2 and ": data.source: " in ended.err and "GiB of memory are available" in ended.err
    assert not (tmp_path / "runs" / "trials").exists()


@pytest.mark.parametrize("prepared", [False, True], ids=["decoded", "prepared"])
def test_a_run_looks_at_the_memory_where_images_are_asked_to_be_there(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, prepared: bool
) -> None:
    folder = parquet_folder(tmp_path / "set")
    if prepared:
        assert mixlab("data", "prepare", str(folder), "out", "--jobs", "1").code == 0
    asks_for(tmp_path, tmp_path / "out" if prepared else folder)
    assert mixlab("data", "prepare", "a.yaml").code == 0
    monkeypatch.setattr(memory, "available_bytes", lambda: SMALL - 1)
    ended = mixlab("run", "a.yaml", "data.storage=memory")
    assert ended.code == 2 and ": data.source: " in ended.err and "GiB of memory are available" in ended.err
    assert not (tmp_path / "runs" / "trials").exists()
    for storage in ("auto", "disk"):
        ended = mixlab("run", "a.yaml", f"data.storage={storage}")
        assert ended.code == 0, ended.err


def test_training_decodes_nothing_that_exceeds_the_memory(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    asks_for(tmp_path, parquet_folder(tmp_path / "set"))
    monkeypatch.setattr(memory, "available_bytes", lambda: SMALL - 1)
    ended = mixlab("run", "a.yaml")
    assert ended.code == 2 and "24 images of 6 x 6 x 1 bytes" in ended.err and counts.pixels == 0
    assert "GiB of memory are available" in ended.err


def test_training_decodes_what_planning_does_not(
    tmp_path: Path, mixlab: Mixlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks_for(tmp_path, parquet_folder(tmp_path / "set"))
    allow(monkeypatch, 0)
    named_command(mixlab("run", "a.yaml", "--dry-run"))
    ended = mixlab("run", "a.yaml")
    assert ended.code == 0, ended.err
    monkeypatch.setattr(memory, "available_bytes", lambda: 1)
    again = mixlab("run", "a.yaml")
    assert again.code == 0 and again.out == ended.out  # nothing is left to train


# --- what is known before decoding ------------------------------------------------------------------------------------


def refusal(given: Any, cache: Path) -> str:
    with pytest.raises(NotPrepared) as caught:
        data.describe(given, cache, WHERE, Purpose.PLANNING)
    return str(caught.value)


def test_a_refusal_says_how_large_the_images_are_and_whose_size_that_is(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    folder = image_folder(tmp_path / "set", num=300)
    (folder / "train" / "dog" / "9.png").write_bytes(png(1, size=(7, 9)))  # a question that decoding would ask
    allow(monkeypatch, total(folder))
    assert f"({600:,} images of 512 x 512 x 1 bytes); " in refusal(config(folder, image_size=512), cache)
    monkeypatch.setattr(limits, "decoded_bytes", lambda about: 3 * 2**30)
    said = refusal(config(folder), cache)
    assert "decodes to 3.00 GiB (600 images of 6 x 6 x 1 bytes, if all are as wide as the first)" in said
    assert counts.pixels == 0


def test_a_refusal_by_the_listing_says_how_much_there_is_to_read(tmp_path: Path, cache: Path, counts: Counts) -> None:
    folder = image_folder(tmp_path / "set")
    with (folder / "train" / "cat" / "large.png").open("wb") as file:
        file.truncate(3 * 2**30)  # which takes no space
    said = refusal(config(folder, image_size=8), cache)
    assert "holds 3.00 GiB in 17 files; planning reads 1 GiB at most" in said
    assert counts.hashed == counts.opened == counts.pixels == 0 and not cache.exists()


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [
        (2 * 2**30, "says that it takes 2.00 GiB; planning downloads 1 GiB at most"),
        (None, "does not say how large it is; planning downloads 1 GiB at most"),
        ("1 GB", "does not say how large it is"),
        (2**30, ""),
    ],
)
def test_of_the_hub_planning_downloads_what_is_said_to_be_small(
    cache: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: Any, said: str
) -> None:
    import datasets

    builder = SimpleNamespace(hash="1", info=SimpleNamespace(download_size=num_bytes))
    images = [{"bytes": png(row), "path": None} for row in range(8)]
    held = datasets.Dataset.from_dict(
        {"img": images, "label": [0, 1] * 4},
        datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")}),
    )
    downloads: list[Any] = []
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **_: downloads.append(names) or {"train": held})
    given = config("someone/something", test_fraction=0.5)
    if said:
        for _ in range(2):
            assert said in refusal(given, cache) and not downloads
        assert data.prepare(given, cache, WHERE).num_train == 8
    assert data.describe(given, cache, WHERE, Purpose.PLANNING).num_train == 4 and len(downloads) == 1


def test_a_trial_whose_images_were_removed_is_decoded_again_by_training(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(parquet_folder(tmp_path / "set"))
    info = data.describe(given, cache, WHERE)
    for entry in cache.glob("*/images.npy"):
        entry.unlink()
    allow(monkeypatch, 0)
    assert data.describe(given, cache, WHERE, Purpose.PLANNING) == info
    assert len(data.load(given, info, cache).labels) == 24


def test_the_size_of_a_source_counts_every_split_that_is_used() -> None:
    about = known.About("", 10, 5, 2, 4, 3)
    assert limits.decoded_bytes(about) == np.zeros((15, 4, 4, 3), np.uint8).nbytes


# --- bars -------------------------------------------------------------------------------------------------------------


def test_a_terminal_sees_a_bar_and_a_pipe_one_line(tmp_path: Path) -> None:
    image_folder(tmp_path / "set", num=40)
    words = [sys.executable, "-m", "mixlab", "data", "prepare", "set"]
    piped = subprocess.run(
        [*words, "--store", "a"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"mixlab: reading set into a/data, once for all trials\n", piped.stderr)
    ours, theirs = pty.openpty()
    shown = subprocess.Popen(
        [*words, "--store", "b"], cwd=tmp_path, env=environment(TERM="xterm"), stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(ours)
    out, _ = shown.communicate()
    assert shown.returncode == 0 and out.decode().replace(" in b/", " in a/") == piped.stdout
    assert b"reading" in text and b"decoding set" in text and b"100%" in text
