"""Learning curves: the mean over seeds and the band from the least to the most, train and test."""

from collections.abc import Iterator

import numpy as np

from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.report import Report
from analysis.table.wording import metric, number, unit
from analysis.table.wording import scale as scale_of
from experiments.results.metrics import STEP


def draw(report: Report) -> Iterator[Drawn]:
    value = metric(report.ablation).name
    with_curve = [label for label in report.labels if len(report.curve(label, STEP)[0]) > 1]
    with_curve = [label for label in with_curve if not np.isnan(report.rows[label]["mean"])]
    if not with_curve:
        return
    shown, left_out = style.some(with_curve)
    figure, axes = style.new(7.2, 3.4, ncols=2, sharey=True)
    scale = scale_of(report.ablation)
    ends = []
    for place, label in enumerate(shown):
        for ax, split in zip(axes, ("train", "test"), strict=True):
            steps, values = report.curve(label, f"{split}.{value}")
            if np.isnan(values).all():
                continue
            look = style.look(place) | {"markevery": max(1, len(steps) // 5)}
            ax.plot(steps, scale * values.mean(0), label=report.text(label), linewidth=1.2, **look)
            ax.fill_between(
                steps, scale * values.min(0), scale * values.max(0), color=look["color"], alpha=0.15, linewidth=0
            )
        _, values = report.curve(label, f"test.{value}")
        if np.isfinite(values[:, -1]).all():
            last = number(report.ablation, float(values[:, -1].mean()))
            ends.append(f"{report.text(label)}: {last} (n = {len(values)})")
    for ax, split in zip(axes, ("train", "test"), strict=True):
        ax.set(title=split, xlabel="step")
    axes[0].set_ylabel(f"{value} ({unit(report.ablation)})")
    style.legend(figure, axes[0])
    at_end = f" At the last step on test, in {unit(report.ablation)}: {'; '.join(ends)}." if ends else ""
    caption = f"Lines are means over seeds, bands reach from the least to the most.{at_end}{left_out}"
    yield Drawn("learning_curves", "Learning curves", caption, figure)
