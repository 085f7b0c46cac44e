"""The data of a trial, from its source to arrays of uint8: the functions that other rooms use."""

from experiments.data.remarks import in_record, notes, of_trials
from experiments.data.splits import Splits, describe, facts, load, pixel_order, repeats

__all__ = ["Splits", "describe", "facts", "in_record", "load", "notes", "of_trials", "pixel_order", "repeats"]
