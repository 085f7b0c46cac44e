"""A first ablation is written from a few questions, or like one that Mixlab ships."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design import first
from experiments.design.ablation import load_ablation
from experiments.design.trials import trials
from tests.conftest import ROOT, planned


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def answer(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with lines that somebody types: answer("one.yaml", "", "model.num_blocks")."""

    def answer(path: str, *lines: str) -> Any:
        monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{line}\n" for line in lines)))
        return run("init", path)

    return answer


def test_the_defaults_make_an_ablation_that_plans(answer: Any, run: Any, tmp_path: Path) -> None:
    ended = answer("sub/my question.yaml", *[""] * len(first.QUESTIONS))
    assert ended.code == 0 and ended.out == "wrote sub/my question.yaml; next: mixlab plan sub/my question.yaml\n"
    made = load_ablation(tmp_path / "sub" / "my question.yaml")
    assert made.name == "my_question" and made.question == "Does untying the token-mixing MLP help?"
    assert made.axes == {
        "model.token_mixing": ["tied", "untied"],
        "backend": ["torch", "jax"],
        "seed": [0, 1, 2, 3, 4],
    }
    assert made.report.baseline == {"model.token_mixing": "tied"} and made.base["model.hidden_dim"] == 64
    assert "20 trials: 20 missing" in run("plan", "sub/my question.yaml").out


def test_answers_become_the_ablation(answer: Any, tmp_path: Path) -> None:
    lines = ["What: of #this?", "train.learning_rate", "log(1e-3, 1e-1, 3)", "cifar10", "synthetic", "jax", "2"]
    assert answer("one.yaml", *lines).code == 0
    made = load_ablation(tmp_path / "one.yaml")
    assert made.question == "What: of #this?" and made.base["data.source"] == "synthetic"
    assert made.axes == {"train.learning_rate": [0.001, 0.01, 0.1], "backend": ["jax"], "seed": [0, 1]}
    assert made.report.columns == () and made.report.baseline == {"train.learning_rate": 0.001}
    assert made.base["model.num_blocks"] == 8


def test_the_values_of_another_field_have_no_default(answer: Any, tmp_path: Path) -> None:
    ended = answer("one.yaml", "", "model.dropout", "", "0, 0.1", "", "", "", "")
    assert ended.code == 0 and load_ablation(tmp_path / "one.yaml").axes["model.dropout"] == [0.0, 0.1]
    assert "tied" not in ended.err and "model.dropout: expected one value or several, got no values" in ended.err


def test_a_wrong_answer_is_asked_for_again(answer: Any, tmp_path: Path) -> None:
    lines = ["", "model.blocks", "seed", "run.threads", "model.num_blocks", "2", "2, many", "2, 2", "2, null", "smal"]
    bases = sorted(path.stem for path in (ROOT / "experiments" / "bases").glob("*.yaml"))
    ended = answer("one.yaml", *lines, "small", "", "tensorflow", "torch", "0", "3")
    assert ended.code == 0
    assert load_ablation(tmp_path / "one.yaml").axes["model.num_blocks"] == [2, None]
    for sentence in (
        "answer: 'model.blocks' is not a field of a trial",
        "answer: seed is asked for below; name another field",
        "answer: run.threads says how a trial runs",
        "answer: expected two different values or more, such as tied, untied, got '2'",
        "answer: model.num_blocks: expected a whole number",
        "got '2, 2'",
        f"answer: 'smal' is no base; allowed: {', '.join(bases)}; did you mean 'small'?",
        "answer: expected a number of seeds from 1 to 999, got '0'",
    ):
        assert sentence in " ".join(ended.err.split())


def test_questions_that_end_early_write_nothing(answer: Any, tmp_path: Path) -> None:
    ended = answer("one.yaml", "", "model.num_blocks")
    assert ended.code == 2 and "the questions ended without an answer; nothing was written" in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", first.shipped())
def test_each_shipped_ablation_can_be_begun_from(run: Any, tmp_path: Path, cache: Path, name: str) -> None:
    assert run("init", "mine.yaml", "--like", name).code == 0
    made = load_ablation(tmp_path / "mine.yaml")
    assert made.name == "mine"
    shipped = planned(ROOT / "experiments" / "ablations" / f"{name}.yaml", cache)
    assert [one.trial.id for one in trials(made, cache)] == [one.trial.id for one in shipped]


def test_no_file_is_written_over(run: Any, answer: Any, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("mine")
    (tmp_path / "link.yaml").symlink_to("nowhere")
    for ended in (run("init", "one.yaml", "--like", "tying"), answer("one.yaml"), answer("link.yaml")):
        assert ended.code == 2 and "it is there already, and is left as it is; give another name" in ended.err
    assert (tmp_path / "one.yaml").read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_a_file_that_comes_while_somebody_answers_is_left(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    text = first.like("tying", path)
    path.write_text("mine")
    with pytest.raises(MixlabError, match="it is there already"):
        first.write(path, text)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("one.yaml",), "there is no terminal to ask on; give --like NAME; allowed: data_scale, demo, "),
        (("one.yaml", "--like", "tieing"), "experiments/ablations has no 'tieing'; allowed: "),
        (("one.yaml", "--like", "tieing"), "did you mean 'tying'?"),
        (("one.txt", "--like", "tying"), "expected a file that ends in .yaml, got 'one.txt'"),
    ],
)
def test_what_cannot_be_begun_is_refused(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    ended = run("init", *arguments)
    assert ended.code == 2 and sentence in ended.err and not list(tmp_path.iterdir())
