"""Faults that are planted in operators and axes of the block are caught at their layer, with the hint that it declares.

As in test_parity_faults.py, both sides run in this process on torch in float64, and what is planted in one is all that
differs. `python -m pytest tests/test_operator_faults.py -s` prints where each was caught.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backends import torch as torch_backend
from backends.models import folds, tables
from backends.torch import layers as torch_layers
from backends.torch import program as torch_train
from backends.torch.layers import tap, weights
from backends.torch.models import mixer as torch_mixer
from backends.torch.models import mixing as torch_mixing
from backends.torch.models.mixer import MixerBlock, MlpMixer
from experiments.parity import side
from experiments.parity.job import Job
from experiments.parity.ladder import Ladder
from experiments.parity.rungs import Rung
from tests.parity_bench import Plant, forget, job

STEPS = 2  # of the trajectory: what is planted here is seen in one
CHANGES: dict[str, dict[str, Any]] = {
    "attention": {"token_mixing": "attention", "num_heads": 2, "position_embedding": "learned", "pool": "cls"},
    "sincos2d": {"token_mixing": "attention", "num_heads": 4, "position_embedding": "sincos2d"},
    "gating": {"token_mixing": "gating", "layer_scale": 0.5},
    "pooling": {"token_mixing": "pooling", "norm": "affine"},
    "random": {"token_mixing": "random"},
    "fourier": {"token_mixing": "fourier", "norm": "rms", "norm_epsilon": 0.01},
    "depthwise": {"token_mixing": "depthwise", "stem": "overlap"},
    "shift": {"token_mixing": "shift", "norm_place": "post"},
    "linear": {"token_mixing": "linear", "norm": "affine", "layer_scale": 0.5},
    "pyramid": {"pyramid": (0,), "patch_size": 2, "representation": True},
}
MIXING = "MixerBlock_0/token_mixing"
# name -> key of CHANGES, plant, the rung, and the layer there; None: the layer is in the words of another rung
FAULTS: dict[str, tuple[str, Plant, str, str]] = {}


def fault(name: str, model: str, place: str, rung: str = "activations") -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        FAULTS[name] = (model, plant, rung, place)
        return plant

    return note


def operator(name: str, change: Callable[[Tensor, Any], Tensor], part: str = "") -> Plant:
    """The value of an operator's last layer is another: change(x, the module of token mixing)."""

    def forward(mixing: Any, x_bsc: Tensor, own: str, chance: Any) -> Tensor:
        return tap(change(x_bsc, mixing), f"{own}/{part or name}", chance)

    return lambda patch: patch.setitem(torch_mixing.OPERATORS, name, forward)


def attention(attend: Callable[..., Tensor], heads: Callable[[Tensor, int], Tensor] | None = None) -> Plant:
    """Attention that weighs the values in another way, of heads that are cut in another way."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
        if heads:
            patch.setattr(torch_mixing, "_heads", heads)

    return plant


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None, axis: int = -1) -> Tensor:
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    return scores.softmax(axis) @ value


@fault("head split by strides", "attention", f"{MIXING}/heads")
def strided_heads(patch: pytest.MonkeyPatch) -> None:
    def heads(x_bsc: Tensor, num: int) -> Tensor:
        b, s, c = x_bsc.shape
        return x_bsc.reshape(b, s, c // num, num).permute(0, 3, 1, 2)

    attention(attend, heads)(patch)


@fault("scale missing", "attention", f"{MIXING}/heads")
def no_scale(patch: pytest.MonkeyPatch) -> None:
    attention(lambda q, k, v: attend(q, k, v, scale=1.0))(patch)


@fault("scale of the whole width", "attention", f"{MIXING}/heads")
def scale_of_the_width(patch: pytest.MonkeyPatch) -> None:
    attention(lambda q, k, v: attend(q, k, v, scale=1 / math.sqrt(q.shape[-1] * q.shape[1])))(patch)


@fault("softmax over queries", "attention", f"{MIXING}/heads")
def softmax_over_queries(patch: pytest.MonkeyPatch) -> None:
    attention(lambda q, k, v: attend(q, k, v, axis=-2))(patch)


@fault("query and key exchanged", "attention", f"{MIXING}/heads")
def exchanged(patch: pytest.MonkeyPatch) -> None:
    attention(lambda q, k, v: attend(k, q, v))(patch)


@fault("class token at the end", "attention", "cls_token")
def token_at_the_end(patch: pytest.MonkeyPatch) -> None:
    def with_cls(self: Any, x_bsc: Tensor, chance: Any) -> Tensor:
        return tap(torch.cat([x_bsc, self.cls_token.expand(len(x_bsc), 1, -1)], 1), "cls_token", chance)

    patch.setattr(MlpMixer, "_with_cls", with_cls)


@fault("mean for the class token", "attention", "features")
def mean_for_the_token(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MlpMixer, "_features", lambda self, x_bsc, chance: tap(x_bsc.mean(1), "features", chance))


@fault("position embedding transposed", "sincos2d", "position_embedding")
def row_first(patch: pytest.MonkeyPatch) -> None:
    made = tables.sincos2d

    def transposed(side: int, channels: int) -> Any:
        return made(side, channels).reshape(side, side, -1).swapaxes(0, 1).reshape(side * side, -1)

    patch.setattr(tables, "sincos2d", transposed)


@fault("waves divided by q and not q - 1", "sincos2d", "position_embedding")
def other_rates(patch: pytest.MonkeyPatch) -> None:
    made = tables.sincos2d
    patch.setattr(tables, "sincos2d", lambda side, channels: made(side, channels + 4)[:, :channels])


@fault("gate halves swapped", "gating", f"{MIXING}/gate_norm")
def halves(patch: pytest.MonkeyPatch) -> None:
    dropout = torch_layers.dropout

    def changed(x: Tensor, name: str, chance: Any) -> Tensor:
        y = dropout(x, name, chance)
        return y.roll(y.shape[-1] // 2, -1) if name.endswith("token_mixing/dropout_0") else y

    patch.setattr(torch_mixing, "dropout", changed)


@fault("epsilon of the gate as of the others", "gating", f"{MIXING}/gate_norm")
def gate_epsilon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_mixing, "GATE_EPSILON", 1e-6)


@fault("layer scale on the skip-connection", "gating", f"{MIXING}/layer_scale")
def scaled_skip(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_mixing, "layer_scale", lambda module, x, name, chance: tap(x, name, chance))

    def changed(self: Any, x: Tensor, i: int, part: str, block: str, chance: Any) -> Tensor:
        module, name = self.get_submodule(part), f"{block}/{part}"
        y = torch_layers.stochastic_depth(
            module(self._norm(x, i, block, chance), name, chance), f"{name}/stochastic_depth", chance
        )
        return tap(weights(module, "layer_scale").scale * x + y, name, chance)

    patch.setattr(MixerBlock, "_branch", changed)


@fault("layer scale behind the sum", "linear", MIXING)
def scaled_sum(patch: pytest.MonkeyPatch) -> None:
    scales: dict[str, Tensor] = {}
    stochastic_depth = torch_layers.stochastic_depth

    def layer_scale(module: Any, x: Tensor, name: str, chance: Any) -> Tensor:
        scales[name] = weights(module, "layer_scale").scale
        return tap(x * scales[name], name, chance)

    def unscaled(x: Tensor, name: str, chance: Any) -> Tensor:
        return stochastic_depth(x, name, chance) / scales[name.replace("stochastic_depth", "layer_scale")]

    patch.setattr(torch_mixing, "layer_scale", layer_scale)
    patch.setattr(torch_mixer, "layer_scale", layer_scale)
    patch.setattr(torch_mixer, "stochastic_depth", unscaled)


@fault("pooling counts padding", "pooling", f"{MIXING}/pooling")
def counts_padding(patch: pytest.MonkeyPatch) -> None:
    pool = torch.nn.functional.avg_pool2d
    patch.setattr(
        torch.nn.functional, "avg_pool2d", lambda x, *a, **k: pool(x, *a, **(k | {"count_include_pad": True}))
    )


@fault("pooling without the identity taken off", "pooling", f"{MIXING}/pooling")
def keeps_the_token(patch: pytest.MonkeyPatch) -> None:
    pool = torch.nn.functional.avg_pool2d
    patch.setattr(torch.nn.functional, "avg_pool2d", lambda x, *rest, **words: pool(x, *rest, **words) + x)


@fault("an affine that takes a mean off", "pooling", "MixerBlock_0/Affine_0")
def centred_affine(patch: pytest.MonkeyPatch) -> None:
    affine = torch_layers.affine
    changed = lambda module, name, x: affine(module, name, x - x.mean(-1, keepdim=True))  # noqa: E731
    patch.setattr(torch_layers, "affine", changed)


@fault("rows for columns of the random matrix", "random", f"{MIXING}/random")
def columns(patch: pytest.MonkeyPatch) -> None:
    operator("random", lambda x, mixing: weights(mixing, "random").matrix.T @ x)(patch)


@fault("constant matrix trained", "random", f"params/{MIXING}/random/matrix: torch trains it", rung="step")
def trained_constant(patch: pytest.MonkeyPatch) -> None:
    train = torch_train.TorchProgram.train

    def changed(self: Any, plans: Any) -> Any:
        found = train(self, plans)
        self.state.constants = self.state.constants * (1 - 1e-4)  # as weight decay does
        return found

    patch.setattr(torch_train.TorchProgram, "train", changed)


@fault("sines left out", "fourier", f"{MIXING}/fourier")
def no_sines(patch: pytest.MonkeyPatch) -> None:
    operator("fourier", lambda x, _: torch.fft.fft(torch.fft.fft(x, dim=2).real, dim=1).real)(patch)


@fault("cosine for sine", "fourier", f"{MIXING}/fourier")
def cosine_for_sine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tables, "sines", tables.cosines)


@fault("a root of the size taken off", "fourier", f"{MIXING}/fourier")
def unitary(patch: pytest.MonkeyPatch) -> None:
    operator("fourier", lambda x, _: torch.fft.fft2(x, dim=(1, 2), norm="ortho").real)(patch)


@fault("rms norm takes a mean off", "fourier", "MixerBlock_0/RMSNorm_0")
def centred_rms(patch: pytest.MonkeyPatch) -> None:
    rms = torch.nn.functional.rms_norm
    patch.setattr(torch.nn.functional, "rms_norm", lambda x, *rest: rms(x - x.mean(-1, keepdim=True), *rest))


@fault("rms norm with epsilon outside of the root", "fourier", "MixerBlock_0/RMSNorm_0")
def epsilon_outside(patch: pytest.MonkeyPatch) -> None:
    def rms(x: Tensor, _: Any, scale: Tensor, epsilon: float) -> Tensor:
        return x / ((x * x).mean(-1, keepdim=True).sqrt() + epsilon) * scale

    patch.setattr(torch.nn.functional, "rms_norm", rms)


def convolution(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Plant:
    """A depthwise convolution of another input with another kernel."""
    conv2d = torch.nn.functional.conv2d

    def changed(x: Tensor, kernel: Tensor, *rest: Any, **options: Any) -> Tensor:
        return conv2d(*change(x, kernel), *rest, **options)

    return lambda patch: patch.setattr(torch.nn.functional, "conv2d", changed)


@fault("depthwise kernel turned", "depthwise", f"{MIXING}/depthwise")
def turned(patch: pytest.MonkeyPatch) -> None:
    convolution(lambda x, kernel: (x, kernel.flip(-1, -2)))(patch)


@fault("depthwise kernel transposed", "depthwise", f"{MIXING}/depthwise")
def transposed_kernel(patch: pytest.MonkeyPatch) -> None:
    convolution(lambda x, kernel: (x, kernel.mT))(patch)


@fault("overlapping stem one pixel off", "depthwise", "patches")
def pixel_off(patch: pytest.MonkeyPatch) -> None:
    windows = torch_mixer.windows
    patch.setattr(torch_mixer, "windows", lambda images, *sizes: windows(images.roll(1, 2), *sizes))


@fault("shift in the wrong direction", "shift", f"{MIXING}/shift")
def other_direction(patch: pytest.MonkeyPatch) -> None:
    shifted = torch_mixing.shifted
    patch.setattr(torch_mixing, "shifted", lambda x, axis, step: shifted(x, axis, -step))


@fault("shift around the edge", "shift", f"{MIXING}/shift")
def around(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch_mixing, "shifted", lambda x, axis, step: x.roll(step, axis))


@fault("post-norm as pre-norm", "shift", f"{MIXING}/shift")
def pre_for_post(patch: pytest.MonkeyPatch) -> None:
    branch = MixerBlock._branch

    def changed(self: Any, x: Tensor, i: int, part: str, block: str, chance: Any) -> Tensor:
        of_pre = MixerBlock.__new__(MixerBlock)
        of_pre.__dict__ = {**self.__dict__, "spec": dataclasses.replace(self.spec, norm_place="pre")}
        return branch(of_pre, x, i, part, block, chance)

    patch.setattr(MixerBlock, "_branch", changed)


@fault("post-norm of the branch and not of the sum", "shift", MIXING)
def norm_of_the_branch(patch: pytest.MonkeyPatch) -> None:
    def changed(self: Any, x: Tensor, i: int, part: str, block: str, chance: Any) -> Tensor:
        y = self.get_submodule(part)(x, f"{block}/{part}", chance)
        y = torch_layers.stochastic_depth(y, f"{block}/{part}/stochastic_depth", chance)
        return tap(x + self._norm(y, i, block, chance), f"{block}/{part}", chance)

    patch.setattr(MixerBlock, "_branch", changed)


@fault("pyramid skips by every second token", "pyramid", f"{MIXING}/skip")
def every_second(patch: pytest.MonkeyPatch) -> None:
    def halved(x_bsc: Tensor) -> Tensor:
        grid = torch_mixing.grid(x_bsc)
        return grid[:, ::2, ::2].reshape(len(x_bsc), -1, x_bsc.shape[-1])

    patch.setattr(torch_mixer, "halved", halved)


@fault("representation without its tanh", "pyramid", "features")
def no_tanh(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "tanh", lambda x: x)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Job]:
    """The side without a fault, of each model that is asked for."""
    root, jobs = tmp_path_factory.mktemp("sound"), {}

    def get(model: str) -> Job:
        if model not in jobs:
            made = job({"model": CHANGES[model]}, root / model, root / "cache", "float64")
            jobs[model] = dataclasses.replace(made, num_steps=STEPS)
            jobs[model].folder.mkdir()
            forget()
            side.climb(torch_backend.BACKEND, jobs[model])
        return jobs[model]

    return get


def first_failed(sound: Job, folder: Path) -> Rung | None:
    """Where the side that has a fault parts from the sound one.

    The sound side's trajectory is read away, so that its files are copied for each fault.
    """
    kept, other = (dataclasses.replace(sound, folder=folder / name) for name in ("sound", "faulty"))
    for one in (kept, other):
        one.folder.mkdir()
    for path in sound.folder.iterdir():
        (kept.folder / path.name).write_bytes(path.read_bytes())
    side.climb(torch_backend.BACKEND, other)
    return next((rung for rung in Ladder((kept, other), lambda _: None).climb() if not rung.passed), None)


@pytest.fixture
def fresh() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("model", CHANGES)
def test_two_sound_sides_agree(sound: Callable[[str], Job], tmp_path: Path, model: str) -> None:
    assert first_failed(sound(model), tmp_path) is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_at_its_layer_with_its_hint(
    sound: Callable[[str], Job], tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, plant, rung, layer = FAULTS[name]
    kept = sound(model)
    forget()
    plant(monkeypatch)
    first = first_failed(kept, tmp_path)
    assert first is not None, "the fault is not caught: a hole in the ladder"
    print(f"\n{name:45} {first.name:12} {first.place}")
    assert first.name == rung
    if rung == "activations":
        assert first.place == f"{layer}: look at {folds.hints(kept.trial.model)[layer]}"
    else:
        assert layer in first.place
