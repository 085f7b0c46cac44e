"""The list of faults that `make mutants` plants fits the code as it is."""

from pathlib import Path

import pytest

from tests.mutants import MUTANTS
from tests.mutants.__main__ import copy_tree, main
from tests.mutants.fault import ROOT, Mutant, planted


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.label)
def test_a_fault_can_be_planted(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert planted(text, mutant) != text
    assert (ROOT / mutant.test_file).is_file()


def test_no_fault_stands_there_twice() -> None:
    assert len({one.label for one in MUTANTS}) == len(MUTANTS)


def test_a_row_that_no_longer_fits_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 times"):
        planted("a = 1\na = 1\n", Mutant("x.py", "a = 1", "a = 2", ""))


def test_a_word_that_chooses_no_fault_is_an_error() -> None:
    with pytest.raises(SystemExit, match="no fault's file or text holds nothing_like_it"):
        main(["nothing_like_it"])


def test_the_copy_that_faults_are_planted_in_holds_all_code(tmp_path: Path) -> None:
    copied = copy_tree(tmp_path / "copy")
    for room in ("analysis", "backends", "experiments", "mixlab", "slurm", "tests"):
        ours, theirs = ({path.relative_to(root) for path in (root / room).rglob("*.py")} for root in (ROOT, copied))
        assert ours and ours == theirs
