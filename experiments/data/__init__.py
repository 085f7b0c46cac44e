"""The data of a trial, from its source to arrays of uint8: the functions that other rooms use."""

from experiments.data.limits import NotPrepared, Purpose, decoded_bytes
from experiments.data.permutation import pixel_order
from experiments.data.remarks import in_record, notes, of_trials, right_fingerprint
from experiments.data.splits import Splits, check_memory, describe, facts, first_images, load, prepare, repeats

__all__ = [
    "NotPrepared",
    "Purpose",
    "Splits",
    "check_memory",
    "decoded_bytes",
    "describe",
    "facts",
    "first_images",
    "in_record",
    "load",
    "notes",
    "of_trials",
    "pixel_order",
    "prepare",
    "repeats",
    "right_fingerprint",
]
