"""Step time and memory over the number of tokens, on logarithmic axes, where an exponent is a slope."""

from collections.abc import Sequence
from typing import Any

from analysis.figures import style
from analysis.figures.style import COLOURS, DIM, LINES, MARKERS, Drawn, Values
from experiments.bench.tokens import Scaling


def draw(found: Sequence[Scaling]) -> Drawn:
    """Draw a panel of time and one of memory; a colour for each mixing, a line for each backend."""
    figure, (times, memories) = style.new(6.6, 3.0, ncols=2)
    shown, handles, words = Values(), [], []
    mixings = list(dict.fromkeys(one.mixing for one in found))
    names = list(dict.fromkeys(one.backend for one in found))
    for one in found:
        place, row = mixings.index(one.mixing) % len(COLOURS), names.index(one.backend) % len(LINES)
        look: dict[str, Any] = {"color": COLOURS[place], "marker": MARKERS[place], "linestyle": LINES[row]}
        look |= {"markersize": 3.5, "linewidth": 1.1, "fillstyle": "none" if row else "full"}
        handles.append(_line(times, one, [1e3 * spread.median for spread in one.step_s], "ms", look, shown))
        _line(memories, one, [size / 2**20 for size in one.memory_bytes], "MiB", look, shown)
        words.append(f"{one.backend} {one.mixing}: {exponents(one)}")
    for ax, what in ((times, "step (ms)"), (memories, "memory of a step (MiB)")):
        _guides(ax, found[0].tokens)
        ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel=what)
        style.plain_ticks(ax.xaxis)
        style.plain_ticks(ax.yaxis)
    style.draw_legend(figure, handles, words, "exponents of time and memory over tokens")
    patch, batch = found[0].spec["model"]["patch_size"], found[0].spec["train"]["batch_size"]
    caption = (
        f"Patches of {patch} x {patch} pixels, batches of {batch}; medians of rounds in which every image size has its "
        f"turn. Memory: the peak less that of the same model on four tokens. Grey: slopes of 1 and 2."
    )
    return Drawn("tokens", "Step time and memory over the number of tokens", caption, figure, shown.texts)


def exponents(one: Scaling) -> str:
    """`S^1.02, S^0.97`: of time and of memory."""
    return f"S^{one.time.median:.2f}, " + ("—" if one.memory is None else f"S^{one.memory:.2f}")


def _line(ax: Any, one: Scaling, values: Sequence[float], unit: str, look: dict[str, Any], shown: Values) -> Any:
    """Draw what is above 0, as a logarithmic axis shows no other."""
    points = [(tokens, value) for tokens, value in zip(one.tokens, values, strict=True) if value > 0]
    (line,) = ax.plot([tokens for tokens, _ in points], [value for _, value in points], **look)
    shown.add(line, [f"{one.backend} {one.mixing}, {tokens:,} tokens: {value:,.3g} {unit}" for tokens, value in points])
    return line


def _guides(ax: Any, tokens: Sequence[int]) -> None:
    """Draw lines of slope 1 and 2 through the lowest point of the smallest size."""
    first = [line.get_ydata()[0] for line in ax.get_lines() if len(line.get_ydata())]
    if not first:
        return
    for power in (1, 2):
        values = [min(first) * (one / tokens[0]) ** power for one in tokens]
        ax.plot(tokens, values, color=DIM, linewidth=0.7, alpha=0.6, zorder=0)
