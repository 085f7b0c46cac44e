"""The ablations that are shipped say what they ask, and can be planned."""

from pathlib import Path

import pytest

from experiments.design import ablation
from experiments.design import trials as resolving
from tests.conftest import ROOT

ABLATIONS = sorted((ROOT / "experiments" / "ablations").glob("*.yaml"))
HEAD = ("# Question: ", "# Command:  ", "# Cost:     ", "# Expected: ")


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_a_shipped_ablation_opens_with_what_it_asks_and_can_be_planned(path: Path, tmp_path: Path) -> None:
    lines = path.read_text().splitlines()
    assert all(any(line.startswith(head) and len(line) > len(head) for line in lines[:6]) for head in HEAD)
    found = ablation.load_ablation(path)
    assert found.name == path.stem
    assert found.question in lines[0]
    planned = resolving.trials(found, tmp_path)
    assert {p.trial.backend for p in planned} == {"torch", "jax"}
    assert len({p.trial.seed for p in planned}) >= 3
