"""The data of a trial, from where it lies to arrays of uint8: what other rooms use of it."""

from experiments.data.splits import Splits, describe, facts, load, pixel_order

__all__ = ["Splits", "describe", "facts", "load", "pixel_order"]
