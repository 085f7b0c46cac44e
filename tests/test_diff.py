"""`mixlab diff`: all that differs between two trials is said, and the first step at which their curves part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.parting import parting
from experiments.results import predictions
from experiments.results.store import Store
from tests.conftest import Ended, base, planned, records, write_yaml

Run = Callable[..., Ended]


def point(step: int, loss: float, accuracy: float = 0.5, **splits: Any) -> dict[str, Any]:
    score = {"accuracy": accuracy, "loss": 0.25}
    return {
        "step": step,
        "loss": loss,
        "learning_rate": 0.1,
        "train": score,
        "validation": None,
        "test": score,
        **splits,
    }


def test_curves_that_are_equal_part_nowhere() -> None:
    curve = [point(2, 0.5), point(4, 0.25)]
    found = parting(curve, json.loads(json.dumps(curve)))
    assert (found.steps, found.same_until, found.apart_at, found.first) == ((2, 4), 4, None, {})


def test_the_first_number_that_is_another_in_its_last_bit_parts_two_curves() -> None:
    next_one = 0.25000000000000006
    first, second = [point(2, 0.5), point(4, 0.25), point(6, 0.1)], [point(2, 0.5), point(4, next_one), point(6, 0.3)]
    found = parting(first, second)
    assert (found.same_until, found.apart_at) == (2, 4)
    assert found.first["loss"] == (0.25, next_one) and found.last["loss"] == (0.1, 0.3)
    assert found.first["test accuracy"] == (0.5, 0.5) and found.first["validation loss"] == (None, None)


def test_a_metric_parts_two_curves_as_the_step_loss_does() -> None:
    found = parting([point(2, 0.5)], [point(2, 0.5, accuracy=0.75)])
    assert (found.same_until, found.apart_at) == (None, 2) and found.first["loss"] == (0.5, 0.5)


def test_a_split_that_one_trial_lacks_parts_them() -> None:
    found = parting([point(2, 0.5)], [point(2, 0.5, validation={"accuracy": 0.5, "loss": 0.25})])
    assert found.apart_at == 2 and found.first["validation loss"] == (None, 0.25)


def test_means_of_the_step_loss_over_other_steps_are_not_compared() -> None:
    found = parting([point(2, 0.5), point(4, 0.25)], [point(4, 0.375)])
    assert found.steps == (4,) and found.apart_at is None
    found = parting([point(2, 0.5), point(4, 0.25)], [point(4, 0.375, accuracy=0.75)])
    assert "loss" not in found.first and found.first["train accuracy"] == (0.5, 0.75)


def test_curves_without_a_common_step_have_nothing_in_common() -> None:
    assert parting([point(2, 0.5)], [point(3, 0.5)]).steps == ()


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(run: Run, tmp_path: Path, quick: Path) -> tuple[str, str]:
    """Done trials of two seeds."""
    path = write_yaml(tmp_path / "a.yaml", base=base(backend="quick"), grid={"seed": [0, 1]})
    assert run("run", "a.yaml").code == 0
    first, second = (one.trial.id for one in planned(path, tmp_path / "runs" / "data"))
    return first, second


def change(tmp_path: Path, trial_id: str, file: str, edit: Callable[[Any], Any]) -> None:
    path = tmp_path / "runs" / "trials" / trial_id / file
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def rows(ended: Ended) -> dict[str, list[str]]:
    """The words of each line behind its first."""
    return {line.split()[0]: line.split()[1:] for line in ended.out.splitlines() if line.split()}


def test_two_seeds_differ_in_the_seed_and_from_the_first_evaluation_on(
    run: Run, two: tuple[str, str], tmp_path: Path
) -> None:
    ended = run("diff", two[0][:6], two[1][:6])
    assert ended.code == 0 and ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0].startswith(f"A  trial {two[0]}: done") and lines[1].startswith(f"B  trial {two[1]}: done")
    assert rows(ended)["seed"] == ["0", "1"]
    assert [line.split(":")[0] for line in lines if ": the same, " in line] == ["code", "environment", "data"]
    assert "2 evaluations of A, 2 of B, 2 at the same steps: apart from step 3 on" in ended.out
    curves = [records(tmp_path / "runs")[key]["curve"] for key in two]
    gap = curves[1][0]["loss"] - curves[0][0]["loss"]
    loss = next(line.split() for line in lines if line.startswith("step loss"))
    assert loss[2:5] == [f"{curves[0][0]['loss']:.9g}", f"{curves[1][0]['loss']:.9g}", f"{gap:+.3g}"]
    store = Store(tmp_path / "runs")
    sides = [predictions.read(store.folder(key), "last", "test") for key in two]
    assert sides[0] is not None and sides[1] is not None
    same, alone = int((sides[0].classes == sides[1].classes).sum()), int((sides[0].correct & ~sides[1].correct).sum())
    assert (
        f"last.test: the same class of {same} of {len(sides[0].classes)} examples; A alone is right of {alone}"
        in ended.out
    )


def test_each_kind_of_difference_is_in_its_section(run: Run, two: tuple[str, str], tmp_path: Path) -> None:
    def environment(env: Any) -> Any:
        env["packages"]["numpy"], env["processor"] = "1.0", "another"
        return env

    def record(one: Any) -> Any:
        session = one["sessions"][0]
        moved = {
            **session,
            "commit": "b" * 40,
            "dirty": not session["dirty"],
            "backend": {**session["backend"], "device": "cuda"},
        }
        one["sessions"] = [session, moved]
        one["data"]["kind"] = "another"
        return one

    change(tmp_path, two[1], "env.json", environment)
    change(tmp_path, two[1], "record.json", record)
    spec = tmp_path / "runs" / "trials" / two[1] / "spec.json"
    spec.write_text(spec.read_text().replace('"norm_epsilon": 1e-06', '"norm_epsilon": 1.0000000001e-06'))
    ended = run("diff", *two)
    found = rows(ended)
    assert found["model.norm_epsilon"] == ["1e-06", "1.0000000001e-06"]
    assert found["packages.numpy"][1] == "1.0" and found["processor"][-1] == "another"
    assert found["backend.device"] == ["none", "none,", "then", "cuda"]
    assert found["commit"][-2:] == ["then", "b" * 12] and found["dirty"][-2] == "then"
    assert found["read.kind"][-1] == "another"
    order = [line.split()[0] for line in ended.out.splitlines() if line.split()[1:] == ["A", "B"]]
    assert order == ["spec", "code", "environment", "data"]


def test_the_same_trial_in_two_stores_is_equal_to_the_last_bit(run: Run, two: tuple[str, str], tmp_path: Path) -> None:
    assert run("run", "a.yaml", "--store", "other").code == 0
    ended = run("diff", two[0], two[0], "--other-store", "other")
    assert ended.code == 0 and "2 at the same steps: equal to the last bit, to step 6" in ended.out
    assert "spec: the same, " in ended.out
    curve = tmp_path / "other" / "trials" / two[0] / "metrics.jsonl"
    first, last = curve.read_text().splitlines()
    edited = json.loads(last)
    edited["test"]["loss"] += 2**-40
    curve.write_text(f"{first}\n{json.dumps(edited)}\n")
    ended = run("diff", two[0], two[0], "--other-store", "other")
    assert "equal to the last bit until step 3, apart from step 6 on" in ended.out
    (loss,) = [line.split() for line in ended.out.splitlines() if line.startswith("test loss")]
    assert loss[-2] == f"{2**-40:+.3g}" == loss[-1]


def test_wrong_ids_are_one_sentence(run: Run, two: tuple[str, str]) -> None:
    for words, said in (
        (("zzzz", two[0]), "no trial id starts with 'zzzz'"),
        ((two[0], ""), "2 trial ids start with ''"),
        ((two[0], two[0][:8]), f"expected two trials, got {two[0]} twice"),
        ((two[0], two[1], "--other-store", "nowhere"), "no trial id starts with"),
    ):
        ended = run("diff", *words)
        assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1 and ended.out == ""


def test_a_trial_that_failed_or_has_only_begun_is_compared_as_far_as_it_came(
    run: Run, two: tuple[str, str], tmp_path: Path
) -> None:
    folder = Store(tmp_path / "runs").folder(two[1])
    (folder / "record.json").write_text(
        json.dumps({**json.loads((folder / "record.json").read_text()), "status": "failed", "reason": "boom"})
    )
    ended = run("diff", *two)
    assert ended.code == 0 and f"B  trial {two[1]}: failed: boom" in ended.out and "apart from step 3" in ended.out
    assert "same class" not in ended.out
    for name in ("record.json", "metrics.jsonl", "env.json"):
        (folder / name).unlink()
    ended = run("diff", *two)
    assert ended.code == 0 and f"B  trial {two[1]}: missing" in ended.out and rows(ended)["seed"] == ["0", "1"]
    assert "environment: nothing is known of B" in ended.out
    assert "curves: 2 evaluations of A, 0 of B: nothing to compare" in ended.out
    (folder / "spec.json").unlink()
    (folder / "heartbeat").write_text("{}")
    assert "spec: nothing is known of B" in run("diff", *two).out


@pytest.mark.parametrize("file", ["spec.json", "env.json", "metrics.jsonl"])
def test_a_damaged_file_is_said_and_the_rest_compared(
    run: Run, two: tuple[str, str], tmp_path: Path, file: str
) -> None:
    (tmp_path / "runs" / "trials" / two[0] / file).write_text("{half\n")
    ended = run("diff", *two)
    assert ended.code == 0 and f"{file} is corrupt" in ended.out
    assert rows(ended)["seed"] == ["0", "1"], "the record has the spec too"


def test_trials_without_predictions_say_so(run: Run, two: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "trials" / two[0] / predictions.FILE).unlink()
    assert "predictions: none of the same examples on both sides" in run("diff", *two).out
