"""One-line faults that the tests must see: `make mutants` plants each in a copy of the tree and prints those that live.

A row is what stands in a file once, what is put in its place, and the smallest choice of tests that must fail for it.
When a line is rewritten, its row is too: tests/test_mutants.py fails on a row that no longer fits. A fault that changes
nothing (an equivalent one) is no row.
"""

from tests.mutants import (
    of_asking,
    of_augmentation,
    of_data,
    of_exports,
    of_groups,
    of_halving,
    of_ids,
    of_operators,
    of_pixels,
    of_planning,
    of_reports,
    of_slurm,
    of_stores,
    of_tuning,
    of_weights,
    of_yaml,
)
from tests.mutants.fault import Mutant

PARTS = (
    of_asking,
    of_ids,
    of_yaml,
    of_data,
    of_pixels,
    of_augmentation,
    of_stores,
    of_slurm,
    of_reports,
    of_exports,
    of_weights,
    of_tuning,
    of_halving,
    of_planning,
    of_operators,
    of_groups,
)
MUTANTS = tuple(Mutant(file, *row) for part in PARTS for file, rows in part.FAULTS.items() for row in rows)
