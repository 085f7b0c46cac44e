"""The metric against what training costs, and the cells that no other one beats."""

import math
from collections.abc import Iterator

from analysis import inference
from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.report import Report
from analysis.table.wording import metric, number, unit
from analysis.table.wording import scale as scale_of

LOG_RATIO = 8  # of the largest cost to the least, from which the axis is logarithmic


def draw(report: Report) -> Iterator[Drawn]:
    with_cost = [
        label
        for label, cell in report.rows.items()
        if not math.isnan(cell["mean"]) and not math.isnan(cell["training_flops"])
    ]
    if len({report.rows[label]["training_flops"] for label in with_cost}) < 2:
        return
    better = 1 if metric(report.ablation).higher_is_better else -1
    costs = [float(report.rows[label]["training_flops"]) / 1e12 for label in with_cost]
    means = [float(report.rows[label]["mean"]) for label in with_cost]
    front = inference.frontier(costs, [better * mean for mean in means])
    figure, ax = style.new()
    scale = scale_of(report.ablation)
    ax.plot(costs, [scale * mean for mean in means], "o", color="#888888", markersize=4, label="cells")
    ax.step(
        [costs[i] for i in front],
        [scale * means[i] for i in front],
        "s-",
        where="post",
        color="black",
        label="frontier",
    )
    ax.set(
        xscale="log" if max(costs) > LOG_RATIO * min(costs) else "linear",
        xlabel="training TFLOPs of a trial",
        ylabel=f"{report.ablation.report.metric} ({unit(report.ablation)})",
    )
    style.legend(figure, ax)
    named, left_out = style.some(front)
    for place, i in enumerate(named):
        ax.annotate(f"{place + 1}", (costs[i], scale * means[i]), xytext=(3, 4), textcoords="offset points", fontsize=8)
    on_frontier = "; ".join(
        f"{place + 1}, {report.text(with_cost[i])}: {number(report.ablation, means[i])} at {costs[i]:.3g} TFLOPs"
        for place, i in enumerate(named)
    )
    caption = f"The cost counts both passes of every training step. On the frontier: {on_frontier}.{left_out}"
    yield Drawn("frontier", "Result against cost", caption, figure)
