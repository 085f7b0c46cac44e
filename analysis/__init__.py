"""Records to tables, figures and a report. In a notebook: `analysis.load("runs", "tying")`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.frame import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load` comes with pandas, which the command line's lists do without."""
    if name != "load":
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    from analysis.frame import load

    return load
