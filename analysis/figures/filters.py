"""The first layers of a trained model, where its token mixing has a kernel over the tokens, as images.

Token-mixing units stand beside their nearest inverse; below is the stem.

Source: arXiv 2105.01601, figures 5 and 6: units in pairs of opposite phase, low frequency first.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.report import Report
from backends.models.mixer import STEM, TOKEN_MIXING
from experiments.results import first_layers, metrics

MAX_UNITS, COLUMNS = 64, 16
MAX_READ = 20  # trials whose file is looked for
CHOOSES = f"{metrics.BEST}.validation.{metrics.CHOOSES.name}"


def draw(report: Report) -> Iterator[Drawn]:
    """Draw the first layers of the trial that is best on validation among those that kept theirs.

    Without validation data it is the first of the grid: nothing is chosen on test.
    """
    done = report.frame[report.frame["status"] == "done"]
    if CHOOSES in done:
        done = done.sort_values(CHOOSES, ascending=not metrics.CHOOSES.higher_is_better, kind="stable")
    for _, trial in done.head(MAX_READ).iterrows():
        kept = first_layers.read(report.store.folder(str(trial["id"])))
        if kept is not None and _fits(kept, trial):
            yield _draw(kept, trial)
            return


def _draw(kept: dict[str, Any], trial: Any) -> Drawn:
    side = int(trial["info.image_size"]) // int(trial["model.patch_size"])
    units = _images(kept[TOKEN_MIXING][_first_patch(trial) :], side)
    order = paired(units)[:MAX_UNITS]
    stem = np.moveaxis(kept[STEM], -1, 0)[:MAX_UNITS]
    stem = stem if stem.shape[-1] in (1, 3) else stem.mean(-1)
    heights = [math.ceil(len(part) / COLUMNS) for part in (order, stem)]
    figure, axes = style.new(6.4, 0.8 + 0.4 * sum(heights), nrows=2, height_ratios=heights)
    axes[0].imshow(_sheet([units[i] for i in order]), cmap="gray", vmin=0, vmax=1)
    axes[0].set_title("first token-mixing layer: units with their nearest inverse")
    axes[1].imshow(_sheet([_scaled(part) for part in stem]), cmap="gray", vmin=0, vmax=1)
    axes[1].set_title("stem: filters of the patches")
    for ax in axes:
        ax.axis("off")
    match = correlations(units)[order[: len(order) // 2 * 2 : 2], order[1::2]]
    mixing = trial["model.token_mixing"]
    first = mixing[0] if isinstance(mixing, tuple) else mixing  # of the first block
    channel = " of the first channel" if first == "untied" else ""
    likeness = f" Correlation with the inverse: {np.mean(match):.2f} on average." if len(match) else ""
    layer = f"the first token-mixing layer{channel} over the {side} x {side} tokens"
    is_best = CHOOSES in trial and not math.isnan(trial[CHOOSES] or math.nan)
    chosen = "is the best on validation" if is_best else "is the first of the grid"
    caption = (
        f"Trial {trial['id']} ({trial['settings']}) {chosen} of the trials that kept their first layers. Above: "
        f"{len(order)} of {len(units)} units of {layer}, each beside the one nearest to its inverse, low frequency "
        f"first.{likeness} Below: {len(stem)} stem filters. Each is scaled to its own range."
    )
    return Drawn("filters", "First layers", caption, figure)


def _fits(kept: dict[str, Any], trial: Any) -> bool:
    """Tell whether the file holds what a model of this size has."""
    stem, kernel = kept.get(STEM), kept.get(TOKEN_MIXING)
    side = int(trial["info.image_size"]) // int(trial["model.patch_size"])
    if stem is None or kernel is None or stem.ndim != 4 or kernel.ndim != 2:
        return False
    return len(kernel) >= side**2 + _first_patch(trial)


def _first_patch(trial: Any) -> int:
    """The row of the first patch: behind that of a class token, where there is one."""
    return int(trial.get("model.pool", "mean") == "cls")


def _images(kernel: Any, side: int) -> Any:
    """Units over the tokens, (units, side, side), scaled; of grouped token mixing those over the first group."""
    rows = side * side
    return np.array([_scaled(unit) for unit in kernel[:rows].T.reshape(-1, side, side)])


def paired(units: Any) -> list[int]:
    """Places of units, low frequency first, each followed by the one left that is nearest to its inverse."""
    left, order = [int(i) for i in np.argsort([frequency(unit) for unit in units], kind="stable")], []
    likeness = correlations(units)
    while left:
        unit = left.pop(0)
        order.append(unit)
        if left:
            order.append(min(left, key=lambda other: likeness[unit, other]))
            left.remove(order[-1])
    return order


def frequency(unit: Any) -> float:
    """Mean spatial frequency, in cycles a token, of a unit's power without its mean."""
    power = np.abs(np.fft.fft2(unit - unit.mean())) ** 2
    rows, columns = np.meshgrid(*(np.fft.fftfreq(size) for size in unit.shape), indexing="ij")
    total = power.sum()
    return float((np.hypot(rows, columns) * power).sum() / total) if total else 0.0


def correlations(units: Any) -> Any:
    """Correlations of all pairs, (units, units): -1 for exact inverses, 0 for a unit that is the same everywhere."""
    flat = units.reshape(len(units), -1)
    flat = flat - flat.mean(1, keepdims=True)
    norms = np.sqrt((flat * flat).sum(1, keepdims=True))
    flat = np.divide(flat, norms, out=np.zeros_like(flat), where=norms > 0)
    return flat @ flat.T


def _scaled(image: Any) -> Any:
    """The image scaled to [0, 1], with zero at 0.5, a middle grey."""
    most = np.abs(image).max()
    return 0.5 + image / (2 * most) if most else np.full_like(image, 0.5)


def _sheet(images: list[Any]) -> Any:
    """Images side by side in rows of COLUMNS, with a white pixel between."""
    height, width, *channels = images[0].shape
    rows = math.ceil(len(images) / COLUMNS)
    sheet = np.ones((rows * (height + 1) - 1, min(COLUMNS, len(images)) * (width + 1) - 1, *channels))
    for i, image in enumerate(images):
        row, column = divmod(i, COLUMNS)
        sheet[row * (height + 1) :, column * (width + 1) :][:height, :width] = image
    return sheet
