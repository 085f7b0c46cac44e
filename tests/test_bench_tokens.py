"""`mixlab bench tokens`: step time and memory over image sizes, and their exponents in the number of tokens."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from analysis.figures import scaling
from backends.models import folds
from experiments.bench import tokens
from experiments.bench.side import Side
from tests.conftest import Ended

Run = Callable[..., Ended]

SMALL = ("model.num_blocks=1", "model.hidden_dim=8", "model.tokens_mlp_dim=4", "train.batch_size=2")


class Fake:
    """A side that takes S^2 microseconds, and 1,000 bytes for each token beside 5,000 of its own."""

    def __init__(self, side: Side):
        self.side, self.open_s = side, 0.0
        self.tokens = side.trial.model.image_size**2 // 16

    def seconds(self, work: str, times: int) -> float:
        assert work == "train"
        return 1e-6 * times * self.tokens**2

    def about(self) -> dict[str, Any]:
        return {"peak_memory_bytes": 5000 + 1000 * (self.tokens - 4)}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def running(sides: Sequence[Side]) -> Iterator[list[Fake]]:
        yield [Fake(side) for side in sides]

    monkeypatch.setattr(tokens, "running", running)
    monkeypatch.setattr("experiments.bench.rounds.REST_S", 0.0)


@pytest.mark.usefixtures("fakes")
def test_exponents_are_slopes_over_the_tokens_and_memory_is_above_that_of_four_tokens() -> None:
    (found,) = tokens.measure(tokens.plan(["torch"], ["tied"], [64, 16, 32], SMALL), num_rounds=2)
    assert (found.image_sizes, found.tokens) == ([16, 32, 64], [16, 64, 256])
    assert found.time.low == found.time.high == pytest.approx(2.0)
    assert found.memory_bytes == [12_000, 60_000, 252_000] and found.memory == pytest.approx(1.1, abs=0.02)
    assert found.work == pytest.approx(1.0, abs=0.05), "a Mixer's products are linear in the tokens"
    # By hand: the stem 16 x 3 x 8, the block 2 x 8 x 4 and 2 x 8 x 512, each token; the head 8 x 10 of an image.
    assert found.gflops[0] == pytest.approx(6 * 2 * (16 * (16 * 3 * 8 + 64 + 8192) + 80) / 1e9)


def test_attention_is_quadratic_on_paper_and_the_others_are_linear() -> None:
    groups = tokens.plan(["torch"], tokens.MIXINGS, [256, 512], ("model.hidden_dim=8", *SMALL))
    work = {
        group[0].setting.partition(",")[0]: [folds.forward_macs(side.trial.model) for side in group[1:]]
        for group in groups
    }
    assert {name: round(b / a) for name, (a, b) in work.items()} == {"tied": 4, "untied": 4, "attention": 15}


def test_the_command_prints_a_table_and_keeps_numbers_and_a_figure(run: Run, quick: Path, tmp_path: Path) -> None:
    words = ("--backend", "quick", "--mixing", "tied,untied", "--sizes", "8,16", "--rounds", "1")
    ended = run("bench", "tokens", *words, "--out", "t.json", "--figure", "t.svg", *SMALL)
    assert ended.code == 0, ended.err
    assert "quick tied: over the tokens S the step's time grows as S^" in ended.out and "16 " in ended.out
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["bench"] == "tokens" and [one["tokens"] for one in found["found"]] == [[4, 16], [4, 16]]
    assert "quick untied: S^" in (tmp_path / "t.svg").read_text()


@pytest.mark.usefixtures("fakes")
def test_the_figure_draws_what_can_stand_on_a_logarithmic_axis() -> None:
    (found,) = tokens.measure(tokens.plan(["torch"], ["tied"], [8, 16], SMALL), num_rounds=1)
    assert found.memory_bytes[0] == 0 and found.memory is None
    drawn = scaling.draw([found])
    assert [len(texts) for texts in drawn.values.values()] == [2, 1]
    assert drawn.values["values-0"][1] == "torch tied, 16 tokens: 0.256 ms"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sizes", "32"), "expected two image sizes or more"),
        (("--sizes", "32,x"), "expected whole numbers such as 32,64,128, got '32,x'"),
        (("--sizes", "32,33"), "patch"),
        (("--mixing", "tide"), "--mixing: expected some of tied"),
        (("--figure", "t.gif"), "expected a name that ends with .svg, .pdf, .png"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, words: tuple[str, ...], told: str) -> None:
    ended = run("bench", "tokens", *words)
    assert ended.code == 2 and told in ended.err and len(ended.err.strip().splitlines()) == 1
