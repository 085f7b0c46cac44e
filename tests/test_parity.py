"""`mixlab parity`: two processes that meet in files, what it prints, and how it ends; and the table of tolerances."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from analysis.terminal import parity_lines
from analysis.terminal.parity_lines import Climbed
from backends.models.mixer_spec import MixerSpec
from backends.specs import PRECISION
from experiments.design.ablation import load_ablation, load_base
from experiments.parity import trials
from experiments.parity.ladder import RUNGS
from experiments.parity.pair import Side
from experiments.parity.rungs import Difference, Rung, compare, moves
from experiments.parity.tolerances import ROUNDOFF, TABLE, Tolerance, tolerance
from experiments.spec.config import TrialConfig
from tests.conftest import ROOT, TINY, Ended, base, is_alive, start, wait_until, write_yaml
from tests.test_cli import assert_mistake

Run = Callable[..., Ended]
FLOAT64 = "torch:float64,jax:float64"

# A backend of another project that is torch with another activation.
FAULTY = """
import torch

from backends import torch as ours
from backends.torch import layers

layers.ACTIVATIONS = {**layers.ACTIVATIONS, "gelu_tanh": torch.nn.functional.gelu}
BACKEND = ours.BACKEND
"""


SMALLEST = MixerSpec(
    image_size=8,
    image_channels=1,
    num_classes=2,
    patch_size=4,
    hidden_dim=8,
    num_blocks=1,
    tokens_mlp_dim=4,
    channels_mlp_dim=32,
)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend `faulty`, in this process's list and in the processes that it starts."""
    folder = tmp_path / "installed"
    about = folder / "faulty_backend-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "faulty_backend.py").write_text(FAULTY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-backend\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mixlab.backends]\nfaulty = faulty_backend:BACKEND\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", ""))))


def write_base(path: Path, **values: Any) -> Path:
    path.write_text(yaml.safe_dump(base(**values)))
    return path


def test_torch_and_jax_hold_on_every_rung_in_float64(run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "tiny.yaml")
    ended = run("parity", "tiny.yaml", "--pair", FLOAT64, "--steps", "12", "--plot", "parts.png")
    assert ended.code == 0, ended
    lines = ended.out.splitlines()
    assert lines[0].startswith("tiny: torch:float64 (2.") and " against jax:float64 (0." in lines[0]
    assert "learning rate 0.001, clipped to 0.1" in lines[1]  # the default, in batches of 8 of 8
    assert [line.split()[:2] for line in lines[5:-3]] == [
        [*name.split(), "ok"][:2] for name in RUNGS if name not in ("ranks", "compile")
    ]
    assert lines[-2] == "every rung holds"
    assert (tmp_path / "parts.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_json_has_each_rung_with_its_numbers_and_both_sides(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "two.yaml", base=TINY, grid={"model.token_mixing": ["tied", "untied"], "seed": [0, 1]})
    ended = run("parity", "two.yaml", "--steps", "4", "--json")
    assert ended.code == 0 and ended.err == ""
    found = json.loads(ended.out, parse_constant=pytest.fail)
    assert [model["model"] for model in found] == ["two token_mixing=tied", "two token_mixing=untied"]  # not each seed
    for model in found:
        assert model["passed"] and [side["side"] for side in model["sides"]] == ["torch", "jax"]
        assert model["sides"][0]["torch"] and model["sides"][1]["jax"]
        rungs = {rung["rung"]: rung for rung in model["rungs"]}
        once = ["long call", "replicas", "remat"] if model is found[1] else []
        assert list(rungs) == [name for name in RUNGS if name not in ("offset", "ranks", "compile", *once)]
        assert 0 < rungs["trajectory"]["relative"] <= rungs["trajectory"]["tolerance"]
        assert rungs["gradients"]["tensor"].split("/")[-1] in ("kernel", "bias", "scale")


def test_markdown_has_a_row_for_each_model_with_the_rung_that_is_nearest_to_its_tolerance() -> None:
    def rung(name: str, relative: float, limit: float) -> Rung:
        made = Rung(name, Tolerance(limit, "a reason"))
        made.note(Difference(name, (), relative, relative), name, "there")
        return made

    sides = (Side("torch"), Side("jax"))
    near = [rung("activations", 1e-6, 1e-5), rung("gradients", 9e-5, 1e-4), rung("weights", 0.0, 0.0)]
    apart = [rung("activations", 2e-5, 1e-5), rung("gradients", 1e-5, 1e-4)]
    ladders = [
        Climbed(title, sides, "batches of 8", [], [{}, {}], rungs) for title, rungs in (("a", near), ("b", apart))
    ]
    assert parity_lines.markdown(ladders).splitlines() == [
        "torch against jax; batches of 8.",
        "",
        "| model | activations | gradients | nearest to its tolerance |",
        "| --- | --- | --- | --- |",
        "| a | 1.0e-06 | 9.0e-05 | gradients: 9.0e-05 of 1e-04 |",
        "| b | 2.0e-05 | 1.0e-05 | they part first at activations: there |",
    ]


def test_the_first_line_and_json_say_what_is_not_covered(run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "tiny.yaml", train={"batch_size": 24})
    words = ("parity", "tiny.yaml", "--steps", "2", "--pair", "torch:float64,torch:float64")
    first = run(*words).out.splitlines()[0]
    assert (
        first.startswith("tiny: torch:float64 (2.")
        and "; not covered: more than 2 steps, more than 70 in one call" in first
    )
    assert "other class counts than 2 and 1001, more than 2 replicas, run.compile (--with compile)" in first
    assert "batches above" not in first  # all 24 are taken, as 65,536 elements of dropout are more
    (model,) = json.loads(run(*words, "--json").out)
    assert "; not covered: " + ", ".join(model["not_covered"]) == first[first.index(";") :]


def test_checks_that_cost_are_made_where_they_tell_something_and_the_rest_is_named(tmp_path: Path) -> None:
    grid = {"model.token_mixing": ["tied", "untied"], "model.activation": ["gelu", "relu"]}
    path = write_yaml(tmp_path / "four.yaml", base=TINY, grid=grid)
    planned = trials.trials(load_base(path, ()), 2, tmp_path / "cache")
    first = {"long", "wide", "replicas", "remat"}
    assert [set(one.checks) for one in planned] == [first, {"wide"}, {"wide"}, set()]
    each = "more than 2 steps", "run.compile (--with compile)", "other devices and threads"
    assert trials.not_covered(planned[0]) == [
        each[0],
        "more than 70 in one call",
        "other class counts than 2 and 1001",
        "more than 2 replicas",
        *each[1:],
    ]
    assert trials.not_covered(planned[3]) == [
        each[0],
        "more than 2 in one call",
        "other class counts than 2",
        "replicas",
        "run.remat",
        *each[1:],
    ]
    for asked in ({"asked": ["compile"]}, {"overrides": ["run.compile=true"]}):
        path = write_yaml(tmp_path / "one.yaml", base=TINY, grid={"seed": [0]})
        ablation = load_base(path, asked.get("overrides", ()))
        (one,) = trials.trials(ablation, 2, tmp_path / "cache", asked.get("asked", ()))
        assert "compile" in one.checks and "run.compile (--with compile)" not in trials.not_covered(one)


def test_each_augmentation_is_a_trial_of_its_own_and_batches_hold_whole_repeats(tmp_path: Path) -> None:
    path = ROOT / "experiments/parity/augment.yaml"
    planned = trials.trials(load_ablation(path), 2, tmp_path / "cache")
    assert len(planned) == len(yaml.safe_load(path.read_text())["grid"]["augment"])
    for one in planned:
        augment = one.trial.data.augment
        assert one.trial.train.batch_size % augment.repeat == one.wide_batch % augment.repeat == 0
        assert not (augment.crop and augment.inception) and augment.flip
    assert "more than 32 in one call" in trials.not_covered(planned[0])


def test_the_wide_batch_is_the_trials_own_or_one_that_counts_beyond_16_bits() -> None:
    model = dataclasses.replace(SMALLEST, image_size=32, hidden_dim=128, tokens_mlp_dim=64, channels_mlp_dim=512)
    assert [trials.wide_batch(model, size) for size in (4, 16, 128)] == [4, 16, 16]
    assert 16 * 64 * 128 > 2**16  # examples, tokens, channels: the fewest that dropout acts on
    assert trials.wide_batch(SMALLEST, 4096) == 2049  # 32 numbers an example


def test_sides_that_part_give_exit_code_1_and_the_first_place(run: Run, tmp_path: Path, faulty: None) -> None:
    write_base(tmp_path / "tiny.yaml", train={"precision": "float64"})
    ended = run("parity", "tiny.yaml", "--pair", "torch,faulty", "--steps", "4", "--json")
    assert ended.code == 1
    (model,) = json.loads(ended.out)
    first = next(rung for rung in model["rungs"] if not rung["passed"])
    assert first["rung"] == "activations" and first["place"].startswith("MixerBlock_0/token_mixing/activation: ")
    ended = run("parity", "tiny.yaml", "--pair", "faulty,torch", "--steps", "4")
    assert ended.code == 1
    assert "they part first at activations: MixerBlock_0/token_mixing/activation" in ended.out


def test_a_coarser_precision_is_held_to_its_roundoff(run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "tiny.yaml", model={"hidden_dim": 32, "num_blocks": 1, "patch_size": 4})
    ended = run("parity", "tiny.yaml", "--pair", "torch:float32,torch:bfloat16", "--steps", "4", "--json")
    assert ended.code == 0, ended
    rungs = {rung["rung"]: rung for rung in json.loads(ended.out)[0]["rungs"]}
    # One block: 2 half-blocks, stem and head; the root of that times 2^-8, times 4 for the norms.
    assert rungs["activations"]["tolerance"] == 2 * 4 * 2.0**-8
    assert 1e-4 < rungs["activations"]["relative"] < 2 * 4 * 2.0**-8
    assert rungs["trajectory"]["tolerance"] is None  # none is promised


def test_another_interpreter_serves_a_side(run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "tiny.yaml")
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    assert run("parity", "tiny.yaml", "--steps", "2", "--python", f"jax={other}").code == 0
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert "experiments.parity.side" in asked


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--pair", "torch"], ["--pair", "'torch'", "two of backend[:precision[:device]]"]),
        (["--pair", "torch,jxa"], ["--pair", "'jxa'", "did you mean 'jax'?"]),
        (["--pair", "torch:float23,jax"], ["--pair", "did you mean 'float32'?"]),
        (["--pair", "torch:float32:cuda:9,jax"], ["run.device", "'cuda:9'"]),
        (["--pair", "torch 2,jax"], ["--pair", "a number of devices behind torch, such as x2", "'2'"]),
        (["--pair", "torch x2,jax"], ["--pair", "divides train.microbatches 1", "'torch x2'"]),
        (["--python", "jax=/bin/nowhere"], ["--python", "backend=path"]),
        (["--python", "jax=/bin/sh", "--pair", "torch,torch"], ["--python", "'jax=/bin/sh'", "allowed: torch"]),
        (["--python", "jax=nowhere"], ["--python", "'jax=nowhere'", "backend=path"]),
        (["--steps", "1"], ["--steps", "at least 2"]),
        (["--with", "compiel"], ["--with", "'compiel'", "did you mean 'compile'?"]),
        (["--plot", "parts.gif"], ["--plot", "parts.gif", ".png"]),
        (["--plot", "nowhere/parts.png"], ["--plot", "nowhere"]),
        (["model.hiden_dim=8"], ["did you mean 'model.hidden_dim'?"]),
        (["train.batch_size=0"], ["train.batch_size: expected a whole number (at least 1), got 0"]),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_mistake_is_one_sentence(run: Run, tmp_path: Path, words: list[str], parts: list[str]) -> None:
    write_base(tmp_path / "tiny.yaml")
    assert_mistake(run("parity", "tiny.yaml", "--steps", "2", *words), *parts)


def test_a_side_that_ends_early_is_named_with_its_last_word(run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "tiny.yaml")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module named jax >&2\nexit 3\n")
    broken.chmod(0o755)
    ended = run("parity", "tiny.yaml", "--steps", "2", "--python", f"jax={broken}")
    assert_mistake(ended, "the process of jax", "exit code 3", "no module named jax")


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_sides_end_with_the_command(how: str, tmp_path: Path, started: list["subprocess.Popen[str]"]) -> None:
    import psutil

    write_base(tmp_path / "tiny.yaml")
    process = start(tmp_path, "parity", "tiny.yaml", "--steps", "100000", TMPDIR=str(tmp_path))
    started.append(process)
    sides = wait_until(
        lambda: [child.pid for child in psutil.Process(process.pid).children()] if process.poll() is None else [0],
        "both sides are at work",
    )
    wait_until(lambda: list(tmp_path.glob("mixlab-parity-*/*/*/steps-*")), "the trajectory has begun")
    process.kill() if how == "kill" else process.terminate()
    wait_until(lambda: not any(map(is_alive, sides)), "the sides have ended")
    if how == "terminate":
        wait_until(lambda: process.poll() is not None, "the command has ended")
        assert not list(tmp_path.glob("mixlab-parity-*"))


# --- what is compared ----------------------------------------------------------------------------------------------


def test_the_whole_config_has_everything_on_and_keeps_what_was_set() -> None:
    config = trials.whole(TrialConfig(), 200)
    assert config.model.dropout and config.model.stochastic_depth and config.train.clip_norm == trials.CLIP_NORM
    assert config.data.augment.flip and config.data.augment.crop and config.data.augment.mixup
    assert config.train.weight_decay and config.train.ema_decay and config.train.warmup_steps
    again = trials.whole(config, 200)
    assert again == config


def test_a_difference_is_relative_to_the_largest_element_and_has_an_index() -> None:
    found = compare("x", np.array([[1.0, 4.0], [2.0, 0.0]]), np.array([[1.0, 4.0], [2.5, 0.1]]))
    assert (found.index, found.absolute, found.relative) == ((1, 0), 0.5, 0.125)
    assert compare("x", np.array([np.nan, 1.0]), np.array([np.nan, 1.0])).absolute == np.inf
    assert compare("x", np.array([np.nan, 1.0]), np.array([1.0, 1.0])).absolute == np.inf
    assert compare("x", np.array([np.inf]), np.array([1.0])).absolute == np.inf
    assert compare("x", np.zeros(3), np.zeros(3)).relative == 0
    assert compare("x", np.zeros(2), np.array([0.0, 1e-9]), scale=1e-3).relative == pytest.approx(1e-6)
    assert compare("x", np.zeros(2), np.array([0.0, 1e-9])).relative == 1
    assert compare("x", np.zeros(2), np.array([0.0, 1e-9]), scale=0.0).relative == np.inf


def test_a_parameter_whose_gradient_is_rounding_alone_is_set_against_the_largest_move_of_all() -> None:
    names = ("params/key/bias", "params/out/bias")
    before = {name: np.zeros(2) for name in names}
    after = {names[0]: np.array([1e-3, 0.0]), names[1]: np.array([1.0, 0.0])}
    usual, idle = (moves((after, after), before, ("float64",) * 2, 1.0, idle=one) for one in ((), {"key/bias"}))
    assert usual[names[0]] == pytest.approx(0.1) and idle[names[0]] == pytest.approx(1.0)
    assert usual[names[1]] == idle[names[1]]


def test_every_rung_has_a_tolerance_for_every_pair_of_precisions() -> None:
    for precisions in [(a, b) for a in PRECISION for b in PRECISION]:
        for name in RUNGS:
            if name in ("parameters", "plan") or (name == "offset" and set(precisions) != {"float64"}):
                continue
            assert tolerance(name, precisions, SMALLEST).reason
    # the promised ones
    assert [TABLE["float64"][name].limit for name in ("activations", "gradients", "step", "trajectory")] == [
        1e-12,
        1e-11,
        1e-12,
        1e-8,
    ]
    assert [TABLE["float32"][name].limit for name in ("activations", "gradients", "losses")] == [1e-5, 1e-4, 1e-3]
    assert set(ROUNDOFF) == set(PRECISION)


def test_a_run_that_diverges_on_both_sides_does_not_pass(run: Run, tmp_path: Path) -> None:
    write_base(tmp_path / "tiny.yaml", train={"optimizer": "sgd", "learning_rate": 1000.0, "schedule": "constant"})
    ended = run("parity", "tiny.yaml", "--pair", "torch,torch", "--steps", "30", "train.clip_norm=0.1")
    assert ended.code == 1
    assert "is not finite at step" in ended.out


def test_an_ablation_without_its_grid_is_refused(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "one.yaml", grid=None)
    assert_mistake(run("parity", "one.yaml"), "one.yaml", "'name'", "without a grid")
