"""Images a second of `mixlab data prepare` as a share of those of a bare decoder, Pillow in a loop, on one core."""

import io
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.machine.environment import ROOT
from tests.conftest import environment

NUM, DISTINCT = 10_000, 400  # JPEGs of 500 x 375 pixels, quality 90, 68 KB in the mean
BARE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image

for path in Path(sys.argv[1]).rglob("*.jpeg"):
    with Image.open(path) as image:
        pixels = image.convert("RGB")
        np.asarray(pixels.resize((256, 256), Image.Resampling.BILINEAR) if sys.argv[2] == "resize" else pixels)
"""


def ratio(folder: Path, words: list[str]) -> float:
    """The share. Args: words: options of the command."""
    write_jpegs(folder / "set")
    kind = "resize" if "--resize" in words else "keep"
    bare = seconds(folder, [sys.executable, "-c", BARE, "set", kind])
    command = [sys.executable, "-m", "mixlab", "data", "prepare", "set", "out", "--jobs", "1", *words]
    ours = seconds(folder, command)
    print(f"\n{' '.join(words)}: {NUM / ours:,.0f} images/s, {NUM / bare:,.0f} of the bare decoder: {bare / ours:.2f}")
    return bare / ours


def seconds(folder: Path, command: list[str]) -> float:
    """Seconds of the CPU that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env={**environment(), "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_jpegs(folder: Path) -> None:
    """Smooth noise with a little grain, upright and lying."""
    rng = np.random.default_rng(0)
    for number in range(DISTINCT):
        height, width = (375, 500) if number % 3 else (500, 375)
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = (smooth + rng.integers(-5, 6, (height, width, 1))).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        for copy in range(NUM // DISTINCT):
            path = folder / f"c{copy}" / f"{number:04}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
