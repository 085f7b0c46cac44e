"""Memory: the estimate that admits a trial against the peak that it reaches, for settings of every kind."""

from functools import partial

from experiments.bench import memory
from experiments.doctor.check import Asked, Check, Verdict, differs, ok

LIMIT_S = 120.0
LOW, HIGH = 0.8, 1.25  # of the ratio: below, a trial is begun that does not fit; above, one is refused that does
SHORT = ("float32", "bfloat16")  # whose peaks repeat


def checks(asked: Asked) -> list[Check]:
    """Each setting of memory.EIGHT, by each backend."""
    return [
        Check(f"{backend}: {name}", partial(_measure, name, backend, asked), LIMIT_S, backend)
        for name in (SHORT if asked.short else memory.EIGHT)
        for backend in asked.backends
    ]


def _measure(name: str, backend: str, asked: Asked) -> Verdict:
    measured = memory.measure(name, backend, asked.device)
    estimate, peak, ratio = measured.estimate_bytes, measured.peak_bytes, measured.ratio
    text = f"estimate {estimate / 2**20:,.0f} MiB, peak {peak / 2**20:,.0f} MiB, ratio {ratio:.2f}"
    figures = {"estimate_bytes": estimate, "peak_bytes": peak, "ratio": ratio}
    return (ok if LOW <= ratio <= HIGH else differs)(text, **figures)
