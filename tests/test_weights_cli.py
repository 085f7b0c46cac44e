"""`mixlab weights` and `mixlab evaluate`: what they print, what they leave, and how they end."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import backends
from backends.contract import ArrayDataset
from backends.specs import RunSpec
from experiments import data, evaluation
from experiments.design.ablation import COMMAND_LINE
from experiments.results.claims import Claim
from experiments.results.store import Store
from experiments.training.loop import Loop
from experiments.training.trial_run import TrialRun
from experiments.weights import weight_files
from tests.conftest import Ended, base, command, planned, write_yaml
from tests.test_cli import assert_mistake
from tests.test_weights import FILES, FIXTURES, SGD, random_model

Run = Callable[..., Ended]

SYNTHETIC = ("synthetic", "data.num_classes=7", "data.num_examples=40")
# Two frameworks in float64 on the same weights and images; the loss is printed to six decimals.
LOSS_TOLERANCE = 1e-6


@pytest.fixture
def fixtures(tmp_path: Path) -> Path:
    """The working folder, with the five files under the names of their formats."""
    for name, file in FILES.items():
        shutil.copy(FIXTURES / file, tmp_path / f"{name}.npz")
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_inspect_names_format_model_and_parameters(run: Run, fixtures: Path, name: str) -> None:
    ended = run("weights", "inspect", f"{name}.npz")
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert ended.code == 0 and lines["format"].split()[0] == name
    assert lines["model"].startswith("3 blocks, patch size 8, C 24, D_S 1")
    assert lines["input"] == "32 x 32 x 3, 7 classes"
    # By hand, C = 24, S = 16, P = 8: D_S = 10, D_C = 40 in the official one, 12 and 48 in the others.
    tokens, channels = (10, 40) if name == "official" else (12, 48)
    block = 4 * 24 + 2 * 16 * tokens + tokens + 16 + 2 * 24 * channels + channels + 24
    norm = 0 if name == "lavish619" else 2 * 24
    assert lines["parameters"] == f"{8 * 8 * 3 * 24 + 24 + 3 * block + norm + 24 * 7 + 7:,} (float32)"


def test_inspect_knows_the_variants_of_the_paper_and_its_own_options(run: Run, tmp_path: Path) -> None:
    sizes = {"image_size": 32, "hidden_dim": 512, "num_blocks": 8, "tokens_mlp_dim": 256, "channels_mlp_dim": 2048}
    model, params = random_model(**sizes, patch_size=16, token_mixing="grouped", token_groups=2)
    weight_files.write(tmp_path / "s16.safetensors", weight_files.Weights("mixlab", model, params), None)
    ended = run("weights", "inspect", "s16.safetensors")
    assert "S/16: 8 blocks" in ended.out and "token_mixing grouped" in ended.out and "mixlab" in ended.out


def test_convert_to_timm_and_back_leaves_the_same_numbers_and_says_what_differs(run: Run, fixtures: Path) -> None:
    ended = run("weights", "convert", "official.npz", "there.safetensors", "--to", "timm")
    assert ended.code == 0 and ended.err == ""
    lines = ended.out.splitlines()
    assert lines[0] == "wrote there.safetensors in the format timm"
    assert lines[1] == "group       params; params_after_5 lies beside it: --group NAME takes it"
    assert lines[2].startswith("left out    'grads (") and " arrays)', 'images', " in lines[2]
    assert lines[3:] == ["note: the code of timm computes differently: activation gelu, here gelu_tanh"]
    assert run("weights", "convert", "there.safetensors", "back.npz").code == 0
    first, last = (weight_files.read(fixtures / name).params for name in ("official.npz", "back.npz"))
    assert {name: x.tobytes() for name, x in first.items()} == {name: x.tobytes() for name, x in last.items()}


def test_the_form_of_the_project_says_of_nothing_that_it_differs(run: Run, fixtures: Path) -> None:
    ended = run("weights", "convert", "lavish619.npz", "own.safetensors")
    assert ended.code == 0 and ended.out.startswith("wrote own.safetensors in the format mixlab\n")
    assert "note" not in ended.out
    assert "no norm before the head" in run("weights", "inspect", "own.safetensors").out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("weights", "inspect", "tim.npz"), ("tim.npz", "no such file", "did you mean 'timm.npz'?")),
        (("weights", "inspect", "cut.npz"), ("cut.npz", "fetch it again")),
        (("weights", "convert", "lavish619.npz", "out.npz"), ("out.npz", "pre_head_norm False", "'mixlab'")),
        (("weights", "convert", "timm.npz", "out.pth"), ("out.pth", "out.safetensors")),
        (("evaluate", "--weights", "cut.npz", *SYNTHETIC), ("cut.npz", "fetch it again")),
        (("evaluate", "--weights", "timm.npz"), ("expected a source of data", "digits")),
        (("evaluate", "--weights", "timm.npz", "synthetic"), ("expected 7 classes", "'synthetic' has 10")),
        (("evaluate", "--weights", "timm.npz", "digits"), ("data.image_channels", "1", "data.image_channels=3")),
        (
            ("evaluate", "--weights", "timm.npz", *SYNTHETIC, "data.image_size=8"),
            ("data.image_size: expected 32", "got 8"),
        ),
        (("evaluate", "--weights", "timm.npz", *SYNTHETIC, "data.fractoin=1"), ("did you mean 'data.fraction'?",)),
        (
            ("evaluate", "--weights", "timm.npz", *SYNTHETIC, "train.steps=3"),
            ("expected a field of the data (data.source, data.subset, ...), got train.steps",),
        ),
        (("evaluate", "--weights", "timm.npz", *SYNTHETIC, "digits"), ("'synthetic' and 'digits'", "leave one out")),
        (("evaluate", "--weights", "timm.npz", "data.source=synthetic", "data.num_classes=1"), ("at least 2",)),
        (("evaluate", "--weights", "timm.npz", *SYNTHETIC, "--backend", "troch"), ("did you mean 'torch'?",)),
        (("evaluate", "--weights", "timm.npz", *SYNTHETIC, "--device", "cuda:9"), ("run.device", "'cuda:9'")),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("weights", "evaluate") else "",
)
def test_a_mistake_is_one_sentence(
    run: Run, fixtures: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    (fixtures / "cut.npz").write_bytes((fixtures / "timm.npz").read_bytes()[:1000])
    assert_mistake(run(*arguments), *parts)
    assert not list(fixtures.glob("out.*"))


def test_a_pth_is_read_where_torch_is_not_installed(fixtures: Path) -> None:
    with np.load(fixtures / "timm.npz") as file:
        state = {name.removeprefix("state_dict/"): file[name] for name in file.files if name.startswith("state_dict/")}
    torch.save({"model": {name: torch.tensor(x) for name, x in state.items()}}, fixtures / "model.pth")
    absent = fixtures / "absent"
    (absent / "torch").mkdir(parents=True)
    (absent / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('no torch', name='torch')\n")
    ended = command(fixtures, "weights", "inspect", "model.pth", PYTHONPATH=str(absent))
    assert ended.code == 0, ended.err
    assert "format      timm" in ended.out and "group       model" in ended.out


@pytest.mark.parametrize("name", FILES)
def test_evaluate_agrees_on_both_backends_and_with_logits_taken_by_hand(run: Run, fixtures: Path, name: str) -> None:
    arguments = ("evaluate", "--weights", f"{name}.npz", *SYNTHETIC, "--precision", "float64", "--backend")
    outputs = {backend: run(*arguments, backend) for backend in backends.names()}
    found = weight_files.read(fixtures / f"{name}.npz")
    config = evaluation.read_data(SYNTHETIC, found.model)
    cache = fixtures / "runs" / "data"
    splits = data.load(config, data.describe(config, cache, COMMAND_LINE), cache)
    images = splits.images[splits.test] / 127.5 - 1
    labels = splits.labels[splits.test]
    dataset = ArrayDataset(images, labels)
    program = backends.load("torch").open(found.model, SGD, dataset, RunSpec(precision="float64"))
    params = {f"params/{key}": x for key, x in found.params.items()}
    program.load([params | {f"momentum/{key}": 0 * x for key, x in found.params.items()}])
    logits = program.predict(images)[0].logits
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for ended in outputs.values():
        assert ended.code == 0, ended.err
        lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
        assert lines["format"].split()[0] == name and lines["test"] == "8 examples of synthetic"
        assert lines["accuracy"] == f"{100 * np.mean(logits.argmax(1) == labels):.2f} %"
        assert float(lines["loss"].split()[0]) == pytest.approx(-logs[np.arange(8), labels].mean(), abs=LOSS_TOLERANCE)


def test_evaluate_of_a_trials_checkpoint_is_what_the_trial_found_itself(run: Run, tmp_path: Path) -> None:
    """The last evaluation of a trial, with its average of the parameters, from its checkpoint and from a conversion."""
    averaged = base(
        model={"token_mixing": "untied"},
        data={"permutation": "pixels"},
        train={"ema_decay": 0.5, "learning_rate": 0.05, "precision": "float64"},
        run={"checkpoint_every_s": 0.0, "threads": 1},
    )
    write_yaml(tmp_path / "one.yaml", base=averaged, grid={"seed": 0})
    store = Store(tmp_path / "runs")
    trial = planned(tmp_path / "one.yaml", store.data)[0].trial
    store.begin(trial, {})
    splits = data.load(trial.data, trial.info, store.data)
    order = data.pixel_order("pixels", 8, trial.model.patch_size, 0)
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
    program = backends.load("torch").open(trial.model, trial.optimizer, dataset, RunSpec(precision="float64"))
    training = TrialRun(trial, store, Claim(store.folder(trial.id)), splits)
    assert [error for _, error in Loop([training], [training.restore()], program, splits).run(lambda: False)] == [None]
    expected = training.progress.curve[-1]["test"]
    checkpoint = str(store.folder(trial.id) / "checkpoint.safetensors")
    assert run("weights", "convert", checkpoint, "own.safetensors").code == 0
    words = [f"data.{name}={value}" for name, value in (averaged["data"]).items() if name != "source"]
    for file in (checkpoint, "own.safetensors"):
        ended = run("evaluate", "--weights", file, "synthetic", *words, "--precision", "float64")
        assert ended.code == 0, ended.err
        assert f"accuracy    {100 * expected['accuracy']:.2f} %" in ended.out
        assert f"loss        {expected['loss']:.6f}" in ended.out


def test_show_lists_the_layers_with_their_sum(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "one.yaml", grid={"seed": 0})
    trial = planned(tmp_path / "one.yaml", tmp_path / "runs" / "data")[0].trial
    Store(tmp_path / "runs").begin(trial, {})
    shown = run("show", trial.id).out
    layers = [line.split() for line in shown[shown.index("layers:") : shown.index("curve:")].splitlines()[3:]]
    # By hand, C = 8, S = 4, D_S = 4, D_C = 32, K = 2, one block, patches of 4 x 4 grey pixels.
    assert [(line[0], line[-1]) for line in layers if line] == [
        ("stem", "136"),
        ("MixerBlock_0/LayerNorm_0", "16"),
        ("MixerBlock_0/token_mixing/Dense_0", "20"),
        ("MixerBlock_0/token_mixing/Dense_1", "20"),
        ("MixerBlock_0/LayerNorm_1", "16"),
        ("MixerBlock_0/channel_mixing/Dense_0", "288"),
        ("MixerBlock_0/channel_mixing/Dense_1", "264"),
        ("pre_head_layer_norm", "16"),
        ("head", "18"),
        ("total", "794"),
    ]
    assert "MixerBlock_0/channel_mixing/Dense_0  4 x 32" in shown


def test_show_of_a_spec_that_is_no_model_still_shows_the_rest(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "trials" / "3f9c00000000"
    folder.mkdir(parents=True)
    for text in ("{}", "[]", "{", '{"model": {"hidden_dim": "x"}}'):
        (folder / "spec.json").write_text(text)
        ended = run("show", "3f9c")
        assert ended.code == 0 and "names no model that can be read" in ended.out and "no evaluation yet" in ended.out
