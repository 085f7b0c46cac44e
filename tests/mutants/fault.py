"""A fault of one line, and where it is planted."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
Row = tuple[str, str, str]  # what stands in the file once, what is put in its place, the tests: see Mutant.tests


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str  # stands in the file exactly once
    new: str
    tests: str  # that must fail: `claims -k beats` are those of tests/test_claims.py with that word

    @property
    def label(self) -> str:
        return f"{self.file}: {self.old.strip()} -> {self.new.strip() or 'nothing'}"

    @property
    def test_file(self) -> str:
        return f"tests/test_{self.tests.partition(' ')[0]}.py"

    @property
    def words(self) -> str:
        """For pytest's -k; empty: all of the file."""
        return self.tests.partition(" -k ")[2]


def planted(text: str, mutant: Mutant) -> str:
    """Raises: ValueError: the line is not there, or not once."""
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.label}: what it replaces stands there {text.count(mutant.old)} times; once is needed"
        )
    return text.replace(mutant.old, mutant.new)
