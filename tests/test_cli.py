"""The command line from end to end: a user's commands, what they print, what they leave, and how they end."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import mixlab
from tests.conftest import (
    Ended,
    base,
    command,
    end,
    files,
    is_alive,
    planned,
    records,
    results,
    start,
    wait_until,
    workers,
    write_yaml,
)

Run = Callable[..., Ended]

GRID = {"model.token_mixing": ["tied", "untied"], "seed": [0, 1]}
REPORT = {"rows": ["model.token_mixing"], "columns": ["backend"], "baseline": {"model.token_mixing": "tied"}}

# On a device of 20 ms a step a trial of 40 steps takes a second: time enough to be met at work.
SLOW_STEP_S = "0.02"
LOSS_TOLERANCE = 1e-3  # of 200 steps in two frameworks in float32; see experiments/parity/tolerances.py
SLOW = base(train={"steps": 40, "evaluate_every": 20}, backend="quick", run={"checkpoint_every_s": 0.0})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and its store `runs`, trained once on torch. Tests copy it."""
    folder = tmp_path_factory.mktemp("trained")
    write_yaml(folder / "tiny.yaml", grid=GRID, report=REPORT, question="Does untying help?")
    ended = command(folder, "run", "tiny.yaml")
    assert ended.code == 0, ended.err
    (folder / "first.txt").write_text(ended.out)
    (folder / "progress.txt").write_text(ended.err)
    return folder


@pytest.fixture
def done(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained folder, to work in."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def means(store: Path, metric: tuple[str, ...] = ("last", "test", "accuracy")) -> dict[str, list[float]]:
    """The metric of each trial by token mixing, read from the records with nothing of the project."""
    found: dict[str, list[float]] = {}
    for record in records(store).values():
        value: Any = record["metrics"]
        for part in metric:
            value = value[part]
        found.setdefault(record["spec"]["model"]["token_mixing"], []).append(value)
    return found


def assert_mistake(ended: Ended, *parts: str) -> None:
    """Exit code 2 and one sentence that holds the parts; no traceback."""
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err
    lines = ended.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("mixlab: "), ended.err
    for part in parts:
        assert part in lines[0]


# --- plan, run, status, report, show -----------------------------------------------------------------------------


def test_plan_lists_each_trial_with_its_counts_and_writes_no_trial(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", grid=GRID)
    ended = run("plan", "tiny.yaml")
    assert ended.code == 0
    lines = ended.out.splitlines()
    trials = planned(tmp_path / "tiny.yaml", tmp_path / "runs" / "data")
    assert lines[0] == "tiny: 4 trials: 4 missing"
    lines = lines[lines.index("") + 1 :]
    assert [line.split()[0] for line in lines[2:]] == [one.trial.id for one in trials]
    assert all("missing" in line and " 6 " in line for line in lines[2:])
    # By hand, C = 8, S = 4, D_S = 4, D_C = 32: stem 4*4*8+8, token MLP 4*4+4+4*4+4 (untied: 8 times), channel MLP
    # 8*32+32+32*8+8, three norms 2*8, head 8*2+2.
    rest = 136 + 552 + 3 * 16 + 18
    assert f" {rest + 40} " in lines[2] and f" {rest + 8 * 40:,} " in lines[4]
    assert not (tmp_path / "runs" / "trials").exists() and not (tmp_path / "runs" / "ablations").exists()


def test_run_trains_every_trial_and_prints_the_table_on_validation(trained: Path) -> None:
    found = records(trained / "runs")
    assert len(found) == 4 and {record["status"] for record in found.values()} == {"done"}
    assert {record["steps"] for record in found.values()} == {6}
    table = (trained / "first.txt").read_text()
    for mixing, numbers in means(trained / "runs", ("last", "validation", "accuracy")).items():
        mean, spread = 100 * statistics.mean(numbers), 100 * statistics.stdev(numbers)
        assert re.search(rf"^{mixing} +{mean:.1f} ± {spread:.1f} \(2\)", table, re.MULTILINE), table
    progress = (trained / "progress.txt").read_text()
    assert progress.count(": done") == 4 and "[4/4]" in progress


def test_a_record_holds_what_was_promised(trained: Path) -> None:
    for key, record in records(trained / "runs").items():
        assert record["id"] == key and record["schema"] == 2 and record["sessions"][0]["first_step"] == 0
        assert [point["step"] for point in record["curve"]] == [3, 6]
        assert record["metrics"]["last"] == record["curve"][-1]
        validation = [point["validation"]["accuracy"] for point in record["curve"]]
        assert record["metrics"]["best"] == record["curve"][validation.index(max(validation))]
        assert set(record["seconds"]) == {"compile", "train", "evaluate"} and record["seconds"]["train"] > 0
        for name in ("images_per_s", "parameters", "forward_flops_per_image", "training_flops", "peak_memory_bytes"):
            assert record[name] > 0, name
        assert {"commit", "dirty", "packages", "backend"} <= set(record["environment"])
        assert record["environment"]["backend"]["device"]


def test_a_second_run_trains_nothing_and_prints_the_same_table(run: Run, done: Path) -> None:
    before = files(done / "runs" / "trials")
    ended = run("run", "tiny.yaml")
    assert ended.code == 0 and ended.out == (done / "first.txt").read_text()
    assert files(done / "runs" / "trials") == before


def test_a_run_of_more_seeds_trains_only_those(run: Run, done: Path, quick: Path) -> None:
    before = files(done / "runs" / "trials")
    write_yaml(done / "more.yaml", grid={"backend": ["torch", "quick"], "seed": [0, 1]})
    assert run("run", "more.yaml").code == 0
    after = files(done / "runs" / "trials")
    assert before.items() <= after.items() and len(records(done / "runs")) == 4 + 2


@pytest.mark.parametrize("given", ["tiny", "tiny.yaml"])
def test_status_by_name_and_by_file(run: Run, done: Path, given: str) -> None:
    ended = run("status", given)
    assert ended.code == 0
    assert ended.out.count(" done ") == 4 and ended.out.splitlines()[0] == "4 trials: 4 done"


def test_status_of_all_counts_each_ablation(run: Run, done: Path) -> None:
    write_yaml(done / "other.yaml", grid={"seed": [0, 1]})
    trials = planned(done / "other.yaml", done / "runs" / "data")
    shutil.rmtree(done / "runs" / "trials" / trials[0].trial.id)
    folder = done / "runs" / "ablations" / "other"
    folder.mkdir()
    (folder / "trials.txt").write_text("".join(f"{one.trial.id}\t{one.label}\n" for one in trials))
    rows = {line.split()[0]: line.split()[1:] for line in run("status").out.splitlines()}
    assert rows["ablation"] == ["done", "running", "failed", "missing"]
    assert rows["tiny"] == ["3", "0", "0", "1"] and rows["other"] == ["1", "0", "0", "1"]


def test_status_of_an_empty_store_says_so(run: Run) -> None:
    ended = run("status")
    assert ended.code == 0 and "no ablation has been run" in ended.out


def test_status_of_an_unknown_name_gives_the_nearest(run: Run, done: Path) -> None:
    assert_mistake(run("status", "tinny"), "'tinny'", "did you mean 'tiny'?")


@pytest.mark.parametrize("metric", ["last.test.accuracy", "best.train.loss"])
def test_report_numbers_are_those_of_the_records(run: Run, done: Path, metric: str) -> None:
    write_yaml(done / "tiny.yaml", grid=GRID, report={**REPORT, "metric": metric})
    expected = means(done / "runs", tuple(metric.split(".")))
    cells = {
        cell["model.token_mixing"]: cell
        for cell in json.loads(run("report", "tiny.yaml", "--format", "json").out)["cells"]
    }
    rows = csv.DictReader(io.StringIO(run("report", "tiny.yaml", "--format", "csv").out))
    lines = {row["model.token_mixing"]: row for row in rows}
    assert list(cells) == list(lines) == ["tied", "untied"]
    for mixing, numbers in expected.items():
        difference = statistics.mean(numbers) - statistics.mean(expected["tied"])
        for cell in (cells[mixing], lines[mixing]):
            assert float(cell["mean"]) == pytest.approx(statistics.mean(numbers), rel=1e-12)
            assert float(cell["std"]) == pytest.approx(statistics.stdev(numbers), rel=1e-9, abs=1e-14)
            if mixing == "tied":
                assert not cell["difference"]  # the baseline itself
            else:
                assert float(cell["difference"]) == pytest.approx(difference, abs=1e-14)
            assert int(cell["n"]) == int(cell["planned"]) == 2
            assert [int(cell[state]) for state in ("failed", "running", "missing")] == [0, 0, 0]


def test_report_as_text_is_what_run_printed_and_markdown_holds_the_same_cells(run: Run, done: Path) -> None:
    """But for the metric, which is of validation in a run."""
    printed = run("report", "tiny.yaml", "--metric", "last.validation.accuracy").out
    assert (done / "first.txt").read_text() == f"{printed}\ntest numbers: mixlab report tiny\n"
    text = run("report", "tiny.yaml").out
    rows = [line for line in text.splitlines() if line.startswith(("tied", "untied"))]
    table = [line for line in run("report", "tiny.yaml", "--format", "markdown").out.splitlines() if line[:1] == "|"]
    assert table[1] == "|---|---|"
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]] == [
        re.split(r"  +", row) for row in rows
    ]


def test_show_takes_the_beginning_of_an_id(run: Run, done: Path) -> None:
    for key, record in records(done / "runs").items():
        ended = run("show", key[:6], "--test")
        assert ended.code == 0 and f"trial {key}: done" in ended.out
        assert f"token_mixing: {record['spec']['model']['token_mixing']}" in ended.out
        for point in record["curve"]:
            assert re.search(rf"^ +{point['step']} .*{point['test']['loss']:.4f}", ended.out, re.MULTILINE)


def test_show_of_an_ambiguous_or_unknown_beginning_lists_what_there_is(run: Run, done: Path) -> None:
    assert_mistake(run("show", ""), "4 trial ids start with ''")
    assert_mistake(run("show", "zzz"), "no trial id starts with 'zzz'", sorted(records(done / "runs"))[0])


def test_only_trains_one_trial(run: Run, tmp_path: Path, quick: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"))
    chosen = planned(tmp_path / "tiny.yaml", tmp_path / "runs" / "data")[1].trial.id
    assert run("run", "tiny.yaml", "--only", chosen[:8]).code == 0
    assert list(records(tmp_path / "runs")) == [chosen]
    assert_mistake(run("run", "tiny.yaml", "--only", "zzz"), "--only", "'zzz'", chosen)
    assert "2 trials: 1 done, 1 missing" in run("status", "tiny").out


def test_a_dry_run_lists_and_trains_nothing(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    ended = run("run", "tiny.yaml", "--dry-run")
    assert ended.code == 0 and ended.out == run("plan", "tiny.yaml").out
    assert not (tmp_path / "runs" / "trials").exists() and not (tmp_path / "runs" / "ablations").exists()


def test_overrides_change_the_trials_and_stand_in_the_store(run: Run, tmp_path: Path, quick: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"))
    ended = run("run", "tiny.yaml", "--store", "elsewhere", "train.steps=4", "seed=[5,6,7]", "train.evaluate_every=2")
    assert ended.code == 0, ended.err
    found = records(tmp_path / "elsewhere").values()
    assert {(record["steps"], record["spec"]["seed"]) for record in found} == {(4, 5), (4, 6), (4, 7)}
    assert not (tmp_path / "runs").exists()
    kept = (tmp_path / "elsewhere" / "ablations" / "tiny" / "ablation.yaml").read_text()
    assert "# override: train.steps=4\n" in kept and yaml.safe_load(kept)["base"]["train"]["steps"] == 6


# --- exit codes ---------------------------------------------------------------------------------------------------


def test_a_trial_that_diverges_is_failed_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    wild = base(train={"steps": 30, "evaluate_every": 30, "optimizer": "sgd", "clip_norm": 0.0, "schedule": "constant"})
    # The rate that diverges is first, so that the others run after it.
    write_yaml(tmp_path / "wild.yaml", base=wild, grid={"train.learning_rate": [1000.0, 0.01], "seed": [0, 1]})
    ended = run("run", "wild.yaml")
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    states = {(r["spec"]["train"]["learning_rate"], r["spec"]["seed"]): r for r in records(tmp_path / "runs").values()}
    assert [states[0.01, seed]["status"] for seed in (0, 1)] == ["done", "done"]
    for seed in (0, 1):
        assert states[1000.0, seed]["status"] == "failed"
        assert re.fullmatch(r"diverged at step \d+", states[1000.0, seed]["reason"])
        assert states[1000.0, seed]["steps"] == int(states[1000.0, seed]["reason"].split()[-1])
    assert "2 failed" in ended.out and "(2)" in ended.out and "nan" not in ended.out.lower()
    # A divergence comes again: the second run trains nothing, and still says that a trial failed.
    before = files(tmp_path / "runs" / "trials")
    again = run("run", "wild.yaml")
    assert again.code == 1 and again.out == ended.out and files(tmp_path / "runs" / "trials") == before
    assert run("status", "wild").out.count("diverged at step") == 2


@pytest.mark.parametrize("name", list(mixlab.COMMANDS))
def test_each_command_explains_itself_with_an_example(run: Run, name: str) -> None:
    ended = run(name, "--help")
    assert ended.code == 0 and f"Example: mixlab {name}" in ended.out
    assert mixlab.COMMANDS[name].HELP.split(":")[0].split()[0] in ended.out


def test_help_names_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0 and all(f"    {name} " in ended.out for name in mixlab.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "COMMAND"),
        (("trian", "tiny.yaml"), "trian"),
        (("plan",), "ablation"),
        (("plan", "tiny.yaml", "--sotre", "x"), "--sotre"),
        (("report", "tiny.yaml", "--format", "yaml"), "yaml"),
        (("run", "tiny.yaml", "--jobs", "two"), "two"),
        (("show", "3f", "4a"), "4a"),
    ],
)
def test_an_unknown_command_or_option_ends_with_2(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], part: str
) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    ended = run(*arguments)
    assert ended.code == 2 and part in ended.err and "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("plan", "tinny.yaml"), ("tinny.yaml", "no such file", "did you mean 'tiny.yaml'?")),
        (("plan", "none/tiny.yaml"), ("none/tiny.yaml", "no such file")),
        (("status", "tinny.yaml"), ("tinny.yaml", "no such file")),
        (("run", "tiny.yaml", "--jobs", "0"), ("--jobs", "at least 1")),
        (("plan", "tiny.yaml", "seed"), ("'seed'", "key=value")),
        (("plan", "tiny.yaml", "=3"), ("command line", "''")),
        (("plan", "tiny.yaml", "seed=[0"), ("seed: expected a list of YAML", "got '[0'")),
        (("plan", "tiny.yaml", "seed="), ("seed", "command line")),
        (("plan", "tiny.yaml", "seed=[]"), ("seed", "no values")),
        (("plan", "tiny.yaml", "seed=[[0]]"), ("seed", "expected a whole number (at least 0), got [0]")),
        (
            ("plan", "tiny.yaml", "train.clip_norm=null"),
            ("train.clip_norm", "expected a number (at least 0), got null"),
        ),
        (("plan", "tiny.yaml", "model.share_blocks=7"), ("model.share_blocks", "expected true or false, got 7")),
        (("plan", "tiny.yaml", "model.token_mixing=grouped"), ("model.token_groups", "needs a number", "1, 2, 4, 8")),
        (("plan", "."), (".: it is a folder", "tiny.yaml")),
        (("plan", "tiny.yaml", "run.device=banana"), ("tiny.yaml with run.device=banana", "allowed: auto, cpu, cuda")),
        (("plan", "tiny.yaml", "train.steps=2", "train.epochs=3"), ("train.steps and train.epochs", "got both")),
        (("plan", "tiny.yaml", "train.epochs=2", "train.steps=3"), ("train.steps and train.epochs", "got both")),
        (("status", "tiny", "seed=3"), ("seed=3", "need a YAML file")),
        (
            ("plan", "tiny.yaml", "data.source=synthetic", "data.num_examples=2000000000"),
            ("GiB", "fewer data.num_examples"),
        ),
        (("plan", "tiny.yaml", "seed={a: 1}"), ("seed",)),
        (("plan", "tiny.yaml", "sede=3"), ("'sede'", "did you mean 'seed'?")),
        (("plan", "tiny.yaml", "train.step=3"), ("'train.step'", "did you mean 'train.steps'?")),
        (("plan", "tiny.yaml", "hidden_dim=3"), ("'hidden_dim'", "did you mean 'model.hidden_dim'?")),
        (
            ("plan", "tiny.yaml", "train.steps=many"),
            ("train.steps", "expected a whole number (at least 1) or null, got 'many'"),
        ),
        (("plan", "tiny.yaml", "train.batch_size=???"), ("train.batch_size", "???")),
        (("plan", "tiny.yaml", "seed=${nothing}"), ("seed", "nothing")),
        (("run", "tiny.yaml", "--resume-on", "jxa"), ("backend", "did you mean 'jax'?")),
        (("plan", "tiny.yaml", "backend=troch"), ("backend", "did you mean 'torch'?")),
        (("plan", "tiny.yaml", "model.patch_size=3"), ("tiny.yaml", "model.patch_size", "3", "1, 2, 4, 8")),
    ],
)
def test_a_mistake_is_one_sentence(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    assert_mistake(run(*arguments), *parts)


@pytest.mark.parametrize("name", ["plan", "run", "report", "status"])
def test_a_store_that_is_a_file_is_named(run: Run, tmp_path: Path, name: str) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    (tmp_path / "notes.txt").write_text("mine")
    assert_mistake(run(name, "tiny.yaml", "--store", "notes.txt"), "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_mistake_ends_the_process_with_2(tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    assert_mistake(command(tmp_path, "plan", "tiny.yaml", "train.batch_size=1000"), "train.batch_size", "1000", "43")


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_backend_that_is_not_installed_comes_with_its_install_command(tmp_path: Path, name: str) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend=name))
    absent = tmp_path / "absent"
    (absent / name).mkdir(parents=True)
    (absent / name / "__init__.py").write_text(f"raise ModuleNotFoundError('no {name}', name={name!r})\n")
    ended = command(tmp_path, "run", "tiny.yaml", PYTHONPATH=str(absent))
    lines = [line for line in ended.err.splitlines() if line.startswith("mixlab: ")]
    assert ended.code == 2 and len(lines) == 1 and "Traceback" not in ended.err, ended.err
    assert f"pip install -c constraints.txt -e '.[{name}]'" in lines[0] and "not installed" in lines[0]
    assert not records(tmp_path / "runs") and not list((tmp_path / "runs").glob("trials/*/heartbeat"))


def test_a_mistake_that_only_a_backend_can_see_ends_with_2_and_leaves_no_record(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(train={"precision": "tf32"}, run={"device": "cpu"}))
    ended = run("run", "tiny.yaml")
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "mixlab: " in ended.err and "train.precision" in ended.err and "float32" in ended.err
    assert not records(tmp_path / "runs")


# --- Ctrl-C and kills ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with long.yaml, two trials of a second or more on torch with all that is random, and its whole store."""
    folder = tmp_path_factory.mktemp("undisturbed")
    long = base(
        model={"dropout": 0.1, "stochastic_depth": 0.1, "num_blocks": 2},
        data={"augment": {"flip": True, "crop": 1, "mixup": 0.2}},
        train={"steps": 60, "evaluate_every": 20, "ema_decay": 0.9},
        run={"checkpoint_every_s": 0.0, "threads": 1},
    )
    write_yaml(folder / "long.yaml", base=long)
    ended = command(folder, "run", "long.yaml", "--store", "whole")
    assert ended.code == 0, ended.err
    return folder


def checkpoints(store: Path) -> list[Path]:
    return list(store.glob("trials/*/checkpoint.safetensors"))


def test_ctrl_c_saves_and_the_command_it_names_goes_on_to_the_same_bits(
    long_trial: Path, tmp_path: Path, started: list
) -> None:
    folder = tmp_path / "a folder"  # the command that is named must survive a shell
    folder.mkdir()
    shutil.copy(long_trial / "long.yaml", folder / "my long.yaml")
    arguments = ("run", "my long.yaml", "--store", "cut", "seed=[0,1]")
    process = start(folder, *arguments)
    started.append(process)
    wait_until(lambda: checkpoints(folder / "cut"), "a checkpoint was written")
    os.killpg(process.pid, signal.SIGINT)
    ended = end(process)
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err and ended.out == ""
    assert len(checkpoints(folder / "cut")) == 1 and not list((folder / "cut").glob("trials/*/heartbeat"))
    status = command(folder, "status", "long", "--store", "cut").out
    assert re.search(r"missing .* stopped, its last checkpoint is of step \d+", status), status
    last = ended.err.strip().splitlines()[-1]
    found = re.search(r"stopped with (\d) of 2 trials done; go on with: mixlab (.*)$", last)
    assert found, ended.err
    assert int(found[1]) == len(records(folder / "cut")) < 2
    assert tuple(shlex.split(found[2])) == arguments
    again = command(folder, *shlex.split(found[2]))
    assert again.code == 0, again.err
    assert {len(record["sessions"]) for record in records(folder / "cut").values()} == {1, 2}
    assert results(folder / "cut") == results(long_trial / "whole")
    assert not checkpoints(folder / "cut")


def test_a_trial_goes_on_in_the_other_framework_and_says_so(long_trial: Path, tmp_path: Path, started: list) -> None:
    shutil.copy(long_trial / "long.yaml", tmp_path)
    process = start(tmp_path, "run", "long.yaml", "seed=[0]")
    started.append(process)
    wait_until(lambda: checkpoints(tmp_path / "runs"), "a checkpoint was written")
    os.killpg(process.pid, signal.SIGINT)
    assert end(process).code == 130
    again = command(tmp_path, "run", "long.yaml", "seed=[0,1]", "--resume-on", "jax")
    assert again.code == 0, again.err
    found, whole = records(tmp_path / "runs"), records(long_trial / "whole")
    names = {key: [session["backend"]["name"] for session in record["sessions"]] for key, record in found.items()}
    assert sorted(names.values()) == [["torch"], ["torch", "jax"]]  # the one without a checkpoint stays where it was
    (both,) = [key for key, sessions in names.items() if len(sessions) == 2]
    assert found[both]["sessions"][1]["first_step"] > 0
    assert f"{both} (seed=0) was trained on torch, then jax" in again.out
    for one, other in zip(found[both]["curve"], whole[both]["curve"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=LOSS_TOLERANCE)
        assert one["test"]["loss"] == pytest.approx(other["test"]["loss"], rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3])
def test_ctrl_c_while_a_worker_starts_is_quiet(tmp_path: Path, started: list, quick: Path, delay_s: float) -> None:
    """The worker may be anywhere in its imports when the signal comes, as a terminal sends it to both."""
    write_yaml(tmp_path / "slow.yaml", base=SLOW)
    process = start(tmp_path, "run", "slow.yaml", PYTHONPATH=str(quick), QUICK_STEP_S=SLOW_STEP_S)
    started.append(process)
    wait_until(lambda: workers(process.pid), "a worker began")
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    ended = end(process)
    assert ended.code == 130 and "go on with" in ended.err
    assert "Traceback" not in ended.err, ended.err


def test_ctrl_c_between_two_trials_starts_none(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """The signal comes while the worker of a trial is being made: the trial must not run to its end unstoppably."""
    from experiments.running import local

    many = {"steps": 6000, "evaluate_every": 6000}  # several seconds
    write_yaml(tmp_path / "slow.yaml", base=base(train=many, backend="quick"))
    hire = local.LocalRun._hire

    def interrupted(self: local.LocalRun, slot: local.Slot, backend: str) -> None:
        hire(self, slot, backend)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(local.LocalRun, "_hire", interrupted)
    ended = run("run", "slow.yaml")
    assert ended.code == 130 and not records(tmp_path / "runs"), ended.err


@pytest.mark.parametrize("who", ["parent", "worker"])
def test_a_killed_process_loses_nothing_and_the_next_run_completes(
    tmp_path: Path, started: list, quick: Path, who: str
) -> None:
    write_yaml(tmp_path / "slow.yaml", base=SLOW, grid={"seed": [0, 1, 2]})
    variables = {"PYTHONPATH": str(quick), "QUICK_LOG": str(tmp_path / "log")}
    process = start(tmp_path, "run", "slow.yaml", QUICK_STEP_S=SLOW_STEP_S, **variables)
    started.append(process)
    path = wait_until(lambda: checkpoints(tmp_path / "runs"), "a checkpoint was written")[0]
    (worker,) = workers(process.pid)
    os.kill(process.pid if who == "parent" else worker, signal.SIGKILL)
    ended = end(process)
    wait_until(lambda: not is_alive(worker), "the worker ended")
    killed = path.parent.name
    assert path.exists()
    if who == "worker":
        assert ended.code == 1 and "Traceback" not in ended.err
        assert f"{killed} seed=0: failed" in ended.err and "SIGKILL" in ended.err
        states = {key: record["status"] for key, record in records(tmp_path / "runs").items()}
        assert states.pop(killed) == "failed" and list(states.values()) == ["done", "done"]  # the others went on
        status = command(tmp_path, "status", "slow")
        assert "SIGKILL" in status.out and "3 trials: 2 done, 1 failed" in status.out
    else:
        assert ended.code == -signal.SIGKILL and not records(tmp_path / "runs")
    again = command(tmp_path, "run", "slow.yaml", **variables)
    assert again.code == 0, again.err
    found = records(tmp_path / "runs")
    assert len(found) == 3 and {record["status"] for record in found.values()} == {"done"}
    assert len(found[killed]["sessions"]) == 2
    whole = command(tmp_path, "run", "slow.yaml", "--store", "whole", **variables)
    assert whole.code == 0 and results(tmp_path / "runs") == results(tmp_path / "whole")


def test_a_worker_that_is_told_to_stop_stops_the_run(tmp_path: Path, started: list, quick: Path) -> None:
    """What a scheduler sends to a worker is meant for all: no other trial is begun to be stopped at once."""
    write_yaml(tmp_path / "slow.yaml", base=SLOW, grid={"seed": [0, 1, 2]})
    process = start(tmp_path, "run", "slow.yaml", PYTHONPATH=str(quick), QUICK_STEP_S=SLOW_STEP_S)
    started.append(process)
    wait_until(lambda: checkpoints(tmp_path / "runs"), "a checkpoint was written")
    os.kill(workers(process.pid)[0], signal.SIGTERM)
    ended = end(process)
    assert ended.code == 130 and "stopped with 0 of 3 trials done" in ended.err, ended.err
    assert ended.err.count(": start") == 1


def test_a_worker_killed_after_its_record_was_written_leaves_the_trial_done(tmp_path: Path, quick: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"), grid={"seed": [0]})
    command(tmp_path, "run", "tiny.yaml", PYTHONPATH=str(quick), QUICK_DIES="after the record")
    (record,) = records(tmp_path / "runs").values()
    assert record["status"] == "done" and record["curve"]


def test_status_shows_a_trial_that_runs(tmp_path: Path, started: list, quick: Path) -> None:
    write_yaml(tmp_path / "slow.yaml", base=SLOW, grid={"seed": [0]})
    process = start(tmp_path, "run", "slow.yaml", PYTHONPATH=str(quick), QUICK_STEP_S="0.2")
    started.append(process)
    wait_until(lambda: checkpoints(tmp_path / "runs"), "a checkpoint was written")
    ended = command(tmp_path, "status", "slow")
    assert ended.code == 0 and "1 running" in ended.out and f"process {workers(process.pid)[0]} on " in ended.out


def test_two_processes_share_one_store_and_train_each_trial_once(tmp_path: Path, started: list, quick: Path) -> None:
    write_yaml(tmp_path / "slow.yaml", base=base(train={"steps": 20}, backend="quick"), grid={"seed": [0, 1, 2, 3, 4]})
    variables = {"PYTHONPATH": str(quick), "QUICK_LOG": str(tmp_path / "log"), "QUICK_STEP_S": SLOW_STEP_S}
    started += [start(tmp_path, "run", "slow.yaml", **variables) for _ in range(2)]
    one, two = map(end, started)
    assert one.code == two.code == 0, one.err + two.err
    assert one.out == two.out and "(5)" in one.out
    trained = [tuple(map(int, line.split())) for line in (tmp_path / "log").read_text().splitlines()]
    assert sum(steps for _, steps, _ in trained) == 5 * 20
    assert {len(record["sessions"]) for record in records(tmp_path / "runs").values()} == {1}
    claims = one.err + two.err
    assert claims.count(": done") >= 5 and "busy" not in claims


def test_two_jobs_train_at_once_and_give_the_same_results(tmp_path: Path, quick: Path, run: Run) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"), grid={"seed": [0, 1, 2, 3]})
    assert run("run", "tiny.yaml", "--jobs", "2").code == 0
    assert run("run", "tiny.yaml", "--store", "one").code == 0
    assert results(tmp_path / "runs") == results(tmp_path / "one") and len(records(tmp_path / "one")) == 4


def test_a_corrupt_record_and_checkpoint_are_named_set_aside_and_made_again(
    run: Run, tmp_path: Path, quick: Path
) -> None:
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"))
    assert run("run", "tiny.yaml").code == 0
    good = results(tmp_path / "runs")
    path = next((tmp_path / "runs").glob("trials/*/record.json"))
    path.write_text(path.read_text()[:100])
    (path.parent / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    assert "is corrupt" in run("report", "tiny.yaml").out
    ended = run("run", "tiny.yaml")
    assert ended.code == 0 and "Traceback" not in ended.err
    for name in ("record.json", "checkpoint.safetensors"):
        assert f"{name} is corrupt" in ended.err and (path.parent / f"{name}.corrupt-0").exists()
    assert results(tmp_path / "runs") == good


def test_what_a_killed_process_left_half_written_is_gone_when_the_trial_is_done(
    run: Run, tmp_path: Path, quick: Path
) -> None:
    """Else each kill in the middle of a checkpoint leaves a file of its size for ever."""
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"), grid={"seed": [0]})
    (one,) = planned(tmp_path / "tiny.yaml", tmp_path / "runs" / "data")
    folder = tmp_path / "runs" / "trials" / one.trial.id
    folder.mkdir(parents=True)
    for name in (".checkpoint.safetensors.4194304.tmp", ".record.json.4194304.tmp"):
        (folder / name).write_bytes(b"half")
    assert run("run", "tiny.yaml").code == 0
    kept = {"filters.safetensors", "predictions.safetensors.gz", "weights.safetensors"}
    assert {path.name for path in folder.iterdir()} == {*kept, "env.json", "metrics.jsonl", "record.json", "spec.json"}


def test_a_pipe_that_closes_early_is_quiet(tmp_path: Path, started: list) -> None:
    write_yaml(tmp_path / "tiny.yaml", grid={"seed": list(range(2))})
    process = start(tmp_path, "plan", "tiny.yaml")
    started.append(process)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert "Traceback" not in end(process).err
