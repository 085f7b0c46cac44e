"""Programs for devices that are not here: what a target is, which programs are compiled, and what is said of them."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from jax.errors import JaxRuntimeError

from analysis.terminal import target_lines
from backends.errors import MixlabError
from backends.jax.memory import is_full, used
from backends.jax.targets import estimated_cycles, gpu_description
from backends.targets import GIB, Program, Target, parse
from experiments.bench import targets
from experiments.bench.targets import Compiled, remedy
from experiments.design.ablation import GridTrial
from experiments.spec.trial import Trial
from tests.conftest import Ended, base, planned, write_yaml

Run = Callable[..., Ended]
H100 = Target("cuda", "h100")
V5E = Target("tpu", "v5e", "2x2")


@pytest.fixture
def grid(tmp_path: Path) -> Callable[..., list[GridTrial]]:
    def grid(**axes: object) -> list[GridTrial]:
        return planned(write_yaml(tmp_path / "a.yaml", base=base(backend="jax"), grid=axes), tmp_path / "cache")

    return grid


@pytest.fixture
def trial(grid: Callable[..., list[GridTrial]]) -> Trial:
    return grid(seed=[0])[0].trial


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tpu:v5e:2x2", V5E),
        ("tpu:v5p:2x2x1", Target("tpu", "v5p", "2x2x1")),
        ("tpu:v6e:4x4", Target("tpu", "v6e", "4x4")),
        ("cuda:h100", H100),
    ],
)
def test_a_target_is_read(text: str, target: Target) -> None:
    assert parse(text, "here") == target and str(target) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a target, got ''"),
        ("cpu", "allowed: tpu:v4:2x2x2"),
        ("cuda:h10", "did you mean 'cuda:h100'?"),
        ("cuda:h100:2x2", "got 'cuda:h100:2x2'"),
        ("tpu:v5e", "expected a topology of 2 numbers, such as 2x2, after tpu:v5e:, got ''"),
        ("tpu:v5e:2x2x2", "got '2x2x2'"),
        ("tpu:v4:2x2", "expected a topology of 3 numbers"),
        ("tpu:v5e:0x2", "got '0x2'"),
    ],
)
def test_what_is_no_target_is_refused_in_one_sentence(text: str, words: str, run: Run, tmp_path: Path) -> None:
    ended = run("plan", str(write_yaml(tmp_path / "a.yaml", base=base(backend="jax"))), "--target", text)
    assert ended.code == 2 and words in ended.err and len(ended.err) < 300
    assert ended.err.startswith("mixlab: command line: --target: ")


def test_the_chips_of_a_topology_name_the_machine() -> None:
    assert V5E.variables["TPU_ACCELERATOR_TYPE"] == "v5litepod-4"
    assert parse("tpu:v4:2x2x1", "here").variables["TPU_ACCELERATOR_TYPE"] == "v4-8"  # two cores a chip
    assert V5E.memory_bytes == 16 * GIB and H100.memory_bytes == 84942979072


def test_torch_does_not_compile_ahead(run: Run, tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "a.yaml", base=base(backend="torch"))
    ended = run("plan", str(path), "--target", "cuda:h100")
    assert ended.code == 2 and "backend torch; add backend=jax" in ended.err


@pytest.mark.parametrize(("text", "extra"), [("cuda:h100", "cuda-aot"), ("tpu:v5e:2x2", "tpu-aot")])
def test_a_missing_compiler_is_said_with_the_command(
    text: str, extra: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    ended = run("plan", str(write_yaml(tmp_path / "a.yaml", base=base(backend="jax"))), "--target", text)
    assert ended.code == 2 and f"pip install -c constraints.txt -e '.[{extra}]'" in ended.err


@pytest.mark.parametrize("precision", ["float64", "tf32"])
def test_a_precision_that_the_target_lacks_is_refused_before_anything_is_compiled(
    precision: str, run: Run, tmp_path: Path
) -> None:
    path = str(write_yaml(tmp_path / "a.yaml", base=base(backend="jax")))
    ended = run("plan", path, f"train.precision={precision}", "--target", "tpu:v5e:2x2")
    assert ended.code == 2 and f"tpu:v5e:2x2 has no {precision}" in ended.err
    ended = run("plan", path, f"train.precision={precision}", "--target", "cuda:h100")
    assert "has no" not in ended.err


def test_trials_that_differ_in_numbers_are_one_program(grid: Callable[..., list[GridTrial]]) -> None:
    trials = grid(**{"seed": [0, 1], "train.learning_rate": [0.1, 0.2], "data.fraction": [0.5, 1.0]})
    assert [number for _, number in targets.distinct(trials)] == [8]


@pytest.mark.parametrize(
    "axis",
    [
        {"train.batch_size": [8, 16]},
        {"train.precision": ["float32", "bfloat16"]},
        {"model.dropout": [0.0, 0.1]},
        {"data.augment.mixup": [0.0, 0.4]},
        {"data.permutation": ["none", "pixels"]},
        {"data.num_examples": [60, 80]},
        {"model.hidden_dim": [8, 12]},
    ],
    ids=lambda axis: next(iter(axis)),
)
def test_trials_of_other_shapes_are_another_program(
    axis: dict[str, list[object]], grid: Callable[..., list[GridTrial]]
) -> None:
    ((name, values),) = axis.items()
    trials = [one for value in values for one in grid(**{name: [value], "seed": [0]})]
    assert [number for _, number in targets.distinct(trials)] == [1, 1]


def test_remat_is_another_program(trial: Trial) -> None:
    again = replace(trial, run=replace(trial.run, remat=True))
    assert len(targets.distinct([GridTrial(trial, {}), GridTrial(again, {})])) == 2


def test_what_the_compiler_says_is_printed(trial: Trial) -> None:
    program = Program(61.4, 5 * GIB, GIB, 2.5e12, 3.25e10, 39_000_000)
    header, _, names, _, row, *rest = target_lines.lines(V5E, [Compiled(trial, "seed=0", 3, program)])
    assert header == "tpu:v5e:2x2: 16.0 GiB a device"
    assert names.split()[:2] == ["settings", "trials"]
    model_gflop = row.split()[5]
    assert row.split() == ["seed=0", "3", "61", "5.00", "31%", model_gflop, "2,500.0", "32.5", "39.0"]
    assert not [line for line in rest if "does not fit" in line] and "nothing ran on a device" in rest[-1]


def test_what_the_compiler_does_not_say_is_not_given(trial: Trial) -> None:
    lines = target_lines.lines(H100, [Compiled(trial, "seed=0", 1, Program(3.0, GIB, 0))])
    assert lines[4].count("not given") == 3


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (Program(9.0, 17 * GIB, GIB), "set run.remat=true, or a smaller train.batch_size"),
        (Program(9.0, 17 * GIB, GIB, step_bytes=2 * GIB), "set a smaller model: a step fits, the evaluation"),
        (Program(9.0, None, refusal="RESOURCE_EXHAUSTED: ..."), "set run.remat=true"),
        (Program(9.0, 15 * GIB, refusal="RESOURCE_EXHAUSTED: of what is left"), "set run.remat=true"),
    ],
)
def test_what_does_not_fit_is_said_with_what_helps(program: Program, words: str, trial: Trial) -> None:
    lines = target_lines.lines(V5E, [Compiled(trial, "seed=0", 1, program)])
    assert "too large" in lines[4]
    (sentence,) = [line for line in lines if "does not fit" in line]
    assert sentence.startswith("seed=0: does not fit into 16.0 GiB; ") and words in sentence


@pytest.mark.parametrize(
    ("peak", "arguments", "words"),
    [
        (31 * GIB, GIB, "train.batch_size=32"),  # 15 of 30 GiB are left for what grows with the batch of 64
        (32 * GIB, 2 * GIB, "train.batch_size=16"),  # 29.9: the power of two below
        (40 * GIB, 17 * GIB, "a smaller model"),
    ],
)
def test_with_remat_a_batch_that_fits_is_named(peak: int, arguments: int, words: str, trial: Trial) -> None:
    own = replace(trial, run=replace(trial.run, remat=True), train=replace(trial.train, batch_size=64))
    assert remedy(Compiled(own, "", 1, Program(9.0, peak, arguments)), 16 * GIB).startswith(words)


def test_estimates_of_cycles_are_summed() -> None:
    text = 'a, backend_config={"estimated_cycles":"120"}\nb, backend_config={"x":1,"estimated_cycles":"7"}'
    assert estimated_cycles(text) == 127
    assert estimated_cycles("no such thing") is None


def test_the_need_is_read_from_a_refusal() -> None:
    full = JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm.")
    assert is_full(full) and used(full) == 20.5 * GIB
    assert used(JaxRuntimeError("RESOURCE_EXHAUSTED: nothing more")) is None
    assert not is_full(JaxRuntimeError("INVALID_ARGUMENT: no such chip"))


def test_a_gpu_is_described_as_xla_reads_it() -> None:
    text = gpu_description("h100")
    assert "core_count: 132" in text and "device_memory_size: 84942979072" in text and "major: 9" in text
    assert text.count("{") == text.count("}")


def test_a_compiler_that_does_not_end_is_ended(trial: Trial) -> None:
    with pytest.raises(MixlabError, match="did not end in 0 s"):
        targets._in_process(H100, trial, timeout_s=0.0)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(find_spec("libtpu") is not None, reason="the compiler is there")
def test_what_fails_in_the_process_comes_back_as_a_sentence(trial: Trial) -> None:
    with pytest.raises(MixlabError, match=r"--target: no compiler for 'tpu:v5e:2x2': "):
        targets._in_process(V5E, trial)


@pytest.mark.targets
@pytest.mark.parametrize("target", ["cuda:h100", "tpu:v5e:2x2"])
@pytest.mark.parametrize("model", ["cifar", "S/16"])
def test_the_training_program_compiles_for_a_device_that_is_not_here(
    model: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.bench import config

    wanted = parse(target, "here")
    if not targets._is_there(wanted.package):
        pytest.skip(f"needs the extra {wanted.extra}: make test-targets")
    precision, batch = ("float32", 128) if model == "cifar" else ("bfloat16", 64)
    settings = [f"train.precision={precision}", f"train.batch_size={batch}", "backend=jax"]
    trial = config.trial(model, settings)
    (one,) = targets.compiled(wanted, [GridTrial(trial, {"model": model})], lambda text: None)
    with capsys.disabled():
        print("\n".join(["", *target_lines.lines(wanted, [one])]))
    assert one.program.peak_bytes is not None and 2**28 < one.program.peak_bytes < wanted.memory_bytes
    assert not one.program.refusal
    if wanted.platform == "tpu":
        assert one.program.flops is not None and one.program.cycles is not None
        own = 6 * targets.folds.forward_macs(trial.model) * batch
        assert 0.9 * own < one.program.flops < 1.3 * own
