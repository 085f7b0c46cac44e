"""The data of a trial, from where it lies to arrays of uint8: what other rooms use of it."""

from experiments.data.remarks import in_record, notes, of_trials
from experiments.data.splits import Splits, describe, facts, load, pixel_order, repeats

__all__ = ["Splits", "describe", "facts", "in_record", "load", "notes", "of_trials", "pixel_order", "repeats"]
