"""What a plan says of a grid: against records that are written by hand, and against what a training leaves."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.planning import hours
from analysis.planning.cost import cost, num_evaluations
from analysis.planning.known import Known
from analysis.planning.known import training_flops as flops
from analysis.terminal import plan_lines
from analysis.terminal.shows_lines import Asked
from experiments.design.ablation import load_ablation
from experiments.design.trials import trials
from experiments.results import ceilings
from experiments.results.metrics import SPLITS
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store
from experiments.spec.trial import Trial, as_tree
from tests.conftest import Ended, base, records, write_yaml

MIXING = "model.token_mixing"
GRID = {MIXING: ["tied", "untied", "pooling"], "seed": [0, 1, 2]}
REPORT = {"rows": [MIXING], "baseline": {MIXING: "tied"}}
CPU = {"device": "cpu", "threads": "2"}
# By settings, then seeds. Differences to tied: 0.1, 0.1, 0.4 (squares about the mean: 0.06) and 0, 0, 0.3 (0.06).
ACCURACY = ((0.5, 0.6, 0.3), (0.6, 0.7, 0.7), (0.5, 0.6, 0.6))
SD = math.sqrt((0.06 + 0.06) / (2 + 2))
SLACK = 1.25  # of bytes against what lies on the disk: the records of a machine with longer names are larger


class Bench:
    """An ablation and a store whose records are written by hand."""

    def __init__(self, folder: Path, cache: Path, **keys: Any):
        path = write_yaml(folder / "one.yaml", **{"grid": GRID, "report": REPORT, **keys})
        self.ablation = load_ablation(path)
        self.trials = trials(self.ablation, cache)
        self.store = Store(folder / "runs")

    @property
    def known(self) -> Known:
        return Known(self.ablation, self.trials, self.store)

    def text(self, asked: Asked = Asked()) -> str:  # noqa: B008
        return "\n".join(plan_lines.summary(self.known, asked))

    def put(self, trial: Trial, accuracy: Any = 0.5, about: dict[str, str] = CPU, **seconds: float) -> None:
        """A record of a trial; accuracy: on all splits, or by split; seconds: as in records."""
        of_split = accuracy if isinstance(accuracy, dict) else dict.fromkeys(SPLITS, accuracy)
        numbers_of = {name: {"accuracy": one, "loss": 1.0} for name, one in of_split.items()}
        point = {"step": 6, **dict.fromkeys(SPLITS), **numbers_of}
        spent = {"compile": 1.0, "train": 12.0, "evaluate": 3.0, **seconds}
        numbers = {"steps": trial.num_steps, "images_per_s": 1.0, "parameters": 2, "peak_memory_bytes": 4}
        record = {
            **{"schema": RECORD_SCHEMA, "id": trial.id, "status": "done", "reason": None, "notes": []},
            **{"spec": as_tree(trial), "environment": {"processor": "a processor", "backend": about}},
            **{"sessions": [{"first_step": 0, "backend": about}], "seconds": spent, "curve": []},
            **{**numbers, "forward_flops_per_image": 5, "training_flops": flops(trial)},
            "metrics": {"last": point, "best": point},
        }
        self.store.finish(trial.id, record)

    def put_all(self) -> "Bench":
        for planned, accuracy in zip(self.trials, [x for row in ACCURACY for x in row], strict=True):
            self.put(planned.trial, accuracy)
        return self


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


# --- time -------------------------------------------------------------------------------------------------------------


def test_hours_at_a_rate_that_is_told_are_those_of_the_flops_that_are_left(tmp_path: Path, cache: Path) -> None:
    made = Bench(tmp_path, cache)

    def at_rate() -> list[str]:
        told = plan_lines.summary(made.known, rate=1e6)
        return [line for line in told if "at a sustained 1 MFLOP/s, as --rate says" in line]

    for left in (made.trials, made.trials[1:], []):
        if left != made.trials:
            for planned in made.trials[: len(made.trials) - len(left)]:
                made.put(planned.trial)
        whole_h = sum(flops(planned.trial) for planned in left) / 1e6 / 3600
        assert [line.split(" at ")[0] for line in at_rate()] == [f"time    {plan_lines.duration(whole_h)}"] * bool(left)


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "nan"])
def test_a_rate_that_is_none_is_a_sentence(rate: str, run: Callable[..., Ended], tmp_path: Path) -> None:
    ended = run("plan", str(write_yaml(tmp_path / "one.yaml")), f"--rate={rate}")
    said = f"command line: --rate: expected a number above 0 in FLOP/s, such as 1.25e14, got {rate!r}"
    assert ended.code == 2 and said in ended.err


def test_hours_are_those_of_records_of_the_same_model_scaled_to_the_steps(bench: Any) -> None:
    made = bench(grid={"seed": [0, 1, 2], "train.steps": [6]}, report={})
    made.put(made.trials[0].trial)
    longer = bench(grid={"seed": [0, 1, 2], "train.steps": [6, 12]}, report={"rows": ["train.steps"]})
    assert len(longer.trials) == 6
    (found,) = hours.hours(longer.known)
    # left: two seeds of 6 steps, three of 12; evaluated every 3 steps, so that they have twice the evaluations
    expected = 2 * (1 + 12 + 3) + 3 * (1 + 24 + 6)
    assert found.low == found.high == pytest.approx(expected / 3600)
    assert (found.machine, found.num_same, found.num_records) == ("a processor with 2 threads", 5, 1)


def test_hours_of_other_models_lie_between_the_fastest_and_the_slowest(bench: Any) -> None:
    made = bench()
    tied, other = made.trials[0].trial, made.trials[3].trial
    made.put(tied, train=12.0)
    made.put(other, train=100.0)
    (found,) = hours.hours(made.known)
    rates = [flops(tied) / 16, flops(other) / 104]
    pooling = [planned.trial for planned in made.trials[6:]]
    same = 2 * 16 + 2 * 104
    assert (found.num_same, found.num_other, found.num_unknown) == (4, 3, 0)
    for got, rate in ((found.low, max(rates)), (found.high, min(rates))):
        assert got == pytest.approx((same + sum(map(flops, pooling)) / rate) / 3600)


def test_hours_of_other_models_are_told_to_be_guessed(bench: Any) -> None:
    made = bench()
    made.put(made.trials[0].trial)
    assert "6 trials guessed from the FLOP/s of other models there" in made.text()


def test_records_of_another_backend_or_device_say_nothing(bench: Any) -> None:
    other = bench(base=base(backend="jax"))
    other.put(other.trials[0].trial)
    assert hours.hours(bench().known) == []
    made = bench(base=base(run={"device": "cuda"}))
    made.put(made.trials[0].trial)
    assert hours.hours(made.known) == []
    made.put(made.trials[1].trial, about={"device": "NVIDIA H100"})
    assert [one.machine for one in hours.hours(made.known)] == ["NVIDIA H100"]


def test_without_a_record_a_ceiling_gives_a_bound(bench: Any) -> None:
    made = bench()
    assert "not known: the store has neither a record" in made.text()
    ceilings.keep(made.store, "a processor", "float32", 2.0)
    ceilings.keep(made.store, "another", "bfloat16", 2.0)
    (found,) = hours.hours(made.known)
    assert found.low == pytest.approx(sum(flops(one.trial) for one in made.trials) / 2e9 / 3600)
    assert (found.machine, found.precision) == ("a processor", "float32") and "at least " in made.text()


def test_a_checkpoint_lessens_what_is_left(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    made.put(made.trials[0].trial)
    whole = hours.hours(made.known)[0].low
    key = made.trials[1].trial.id
    made.store.folder(key).mkdir()
    monkeypatch.setattr(
        "experiments.results.checkpoint.read_progress", lambda path: {"step": 3} if key in str(path) else {}
    )
    assert whole - hours.hours(made.known)[0].low == pytest.approx((12 + 3) / 2 / 3600)
    assert cost(made.known).flops_left == pytest.approx(
        sum(flops(one.trial) for one in made.trials[1:]) - flops(made.trials[1].trial) / 2
    )


# --- disk, memory and FLOPs against a training ------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["last", "best", "none"])
def test_disk_and_flops_are_near_what_a_training_leaves(run: Any, tmp_path: Path, keep: str) -> None:
    path = write_yaml(
        tmp_path / "tiny.yaml", base=base(run={"keep": keep}, model={"hidden_dim": 32}), grid={"seed": [0]}
    )
    store = Store(tmp_path / "runs")
    ablation = load_ablation(path)
    planned = trials(ablation, store.data)
    found = cost(Known(ablation, planned, store))
    assert run("run", "tiny.yaml").code == 0
    (record,) = records(store.root).values()
    assert record["training_flops"] == found.flops == found.flops_left
    assert len(record["curve"]) == num_evaluations(planned[0].trial)
    folder = store.folder(planned[0].trial.id)
    weights = sum(file.stat().st_size for file in folder.glob("weights.safetensors"))
    others = sum(file.stat().st_size for file in folder.iterdir()) - weights
    assert weights / SLACK <= found.disk.weights <= weights and (weights == 0) == (keep == "none")
    assert others / SLACK <= found.disk.results <= others * SLACK
    data = sum(file.stat().st_size for file in store.data.rglob("*.npy"))
    assert data / SLACK <= found.disk.data <= data


def test_checkpoints_are_as_large_as_planned(tmp_path: Path, cache: Path) -> None:
    """Of the last state and the one before; arrays alone, without the names in the head of a file."""
    from backends.state import state_shapes

    made = Bench(tmp_path, cache, base=base(train={"ema_decay": 0.9}), grid={"seed": [0]}, report={})
    trial = made.trials[0].trial
    shapes = state_shapes(trial.model, trial.optimizer).values()
    assert cost(made.known).disk.running == 2 * 4 * sum(map(math.prod, shapes))


@pytest.mark.parametrize("option", ["--sd", "--detect"])
@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "much", ""])
def test_a_wrong_number_is_one_sentence(run: Any, tmp_path: Path, option: str, word: str) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    ended: Ended = run("plan", "tiny.yaml", f"{option}={word}")
    assert ended.code == 2 and not ended.out and len(ended.err.splitlines()) == 1
    assert f"command line: {option}: expected a number above 0" in ended.err and f"got {word!r}" in ended.err


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_summary_stands_first_and_a_long_list_ends_early(run: Any, tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", grid={"seed": list(range(50))})
    short = run("plan", "tiny.yaml").out.splitlines()
    assert short[0] == "tiny: 50 trials: 50 missing"
    assert [line.split()[0] for line in short[1:6]] == ["work", "time", "disk", "memory", "shows"]
    assert short[-1] == "... and 10 more trials; mixlab plan --all lists them"
    every = run("plan", "tiny.yaml", "--all").out.splitlines()
    assert len(every) == len(short) - 1 + 10 and every[: len(short) - 1] == short[:-1]


def test_a_plan_of_a_thousand_trials_takes_about_a_second(tmp_path: Path, cache: Path) -> None:
    """Of this process's own time, with the modules there; seen: 0.25 s."""
    made = Bench(tmp_path, cache, grid={"model.num_blocks": [1, 2], "seed": list(range(500))}, report={})
    began = time.process_time()
    planned = trials(made.ablation, cache)
    text = plan_lines.lines(Known(made.ablation, planned, made.store), every=True)
    assert len(text) > 1000 and time.process_time() - began < 2.0
