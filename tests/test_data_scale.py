"""Planning a listing and a prepared set of ImageNet size: seconds and memory; in short, or by `make data-scale`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.machine.environment import ROOT
from tests.conftest import environment

LONG = os.environ.get("MIXLAB_DATA_SCALE") is not None
NUM_CLASSES, EACH = (1000, 1300) if LONG else (40, 100)
NUM = NUM_CLASSES * EACH
MOST_S, MOST_BYTES = 10.0, 2**30  # of 1.3 million files or images
SHARE = NUM / 1_300_000
SLACK_S, SLACK_BYTES = 0.3, 2**19  # of a short form: what does not grow with the number

# Prints seconds of the CPU, and the bytes that Python and NumPy held at most; those cost time, so they come second.
CODE = """
import json, sys, time, tracemalloc
from pathlib import Path
from experiments import data
from experiments.data import limits
from experiments.spec.config import DataConfig

limits.PLANNED_BYTES = -1
source, cache = sys.argv[1:]

def plan(cache):
    config = DataConfig(source=source, image_size=224)
    try:
        info = data.describe(config, Path(cache), "x", data.Purpose.PLANNING)
    except data.NotPrepared as error:
        return str(error)
    return data.notes(config, info, Path(cache)) + [info.num_train]

start = time.process_time()
said = plan(cache + "/first")
spent = time.process_time() - start
tracemalloc.start()
assert plan(cache + "/second") == said
print(json.dumps([said, spent, tracemalloc.get_traced_memory()[1]]))
"""


def planned(source: Path, folder: Path) -> Any:
    """What planning says, in a process of its own; its seconds and memory are held to the limits."""
    command = [sys.executable, "-c", CODE, str(source), str(folder / "cache")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    said, spent, peak = json.loads(done.stdout)
    print(f"\n{NUM:,}: {spent:.2f} s of the CPU, {peak / 2**20:.0f} MiB")
    assert spent < MOST_S * SHARE + (0 if LONG else SLACK_S) and peak < MOST_BYTES * SHARE + SLACK_BYTES
    return said


def test_a_listing_is_planned_in_seconds_and_without_a_gib(tmp_path: Path) -> None:
    for number in range(NUM_CLASSES):
        folder = tmp_path / "set" / "train" / f"n{number:08}"
        folder.mkdir(parents=True)
        for row in range(EACH):
            os.close(os.open(folder / f"n{number:08}_{7 * row}.JPEG", os.O_CREAT | os.O_WRONLY))
    assert f"in {NUM:,} files" in planned(tmp_path / "set", tmp_path)


def test_a_prepared_set_is_planned_in_seconds_and_without_a_gib(tmp_path: Path) -> None:
    """Splits are drawn from the labels, and repeats counted from the hashes: of images that are not there."""
    folder, rng = tmp_path / "out", np.random.default_rng(0)
    folder.mkdir()
    num_test = NUM // 26
    np.save(folder / "labels.npy", np.sort(rng.integers(0, NUM_CLASSES, NUM)).astype(np.int32))
    hashes = np.arange(NUM, dtype=np.uint64)
    hashes[-5:] = hashes[:5]
    np.save(folder / "hashes.npy", rng.permutation(2**20)[:1].astype(np.uint64) + hashes)
    np.save(folder / "offsets.npy", np.zeros(NUM + 1, np.int64))
    np.save(folder / "sizes.npy", np.full((NUM, 2), 300, np.uint16))
    (folder / "images.bin").touch()
    about = {
        "format": 1, "form": "encoded", "content": "0" * 24, "num_train": NUM - num_test, "num_test": num_test,
        "num_classes": NUM_CLASSES, "image_size": None, "image_channels": 3, "kind": "files",
        "classes": [f"n{number:08}" for number in range(NUM_CLASSES)], "notes": [], "recipe": {},
        "files": {path.name: path.stat().st_size for path in folder.iterdir()}, "mixlab": "0",
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))
    *notes, num_train = planned(folder, tmp_path)
    assert num_train == round(0.9 * (NUM - num_test)) and len(notes) == 1
    assert f"of {num_test:,} test examples" in notes[0]


@pytest.mark.skipif(not LONG, reason="make data-scale measures it")
@pytest.mark.parametrize(("words", "least"), [(["--keep"], 0.85), (["--resize", "256"], 0.7)])
def test_preparing_keeps_up_with_a_bare_decoder(tmp_path: Path, words: list[str], least: float) -> None:
    """Seconds of the CPU, so that what else runs here does not count; the start of the command is in it."""
    from tests.bare_decoder import ratio

    assert ratio(tmp_path, words) > least
