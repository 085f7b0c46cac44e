"""The ladder catches faults that are planted in MetaFormers and ConvMixers, each at its layer.

The sides run in this process, both on torch in float64: what is planted in the code of one is all that differs.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.nn import functional as F

from backends import torch as torch_backend
from backends.models.convolution import Window
from backends.torch import layers as torch_layers
from backends.torch.models import convmixer, metaformer
from experiments import data
from experiments.parity import side, trials
from experiments.parity.job import Job
from experiments.parity.rungs import Rung
from experiments.spec.config import AugmentConfig, ModelConfig, TrialConfig
from experiments.spec.resolve import resolve
from tests.parity_bench import SOURCE, STEPS, TRAIN, Plant, climbed, fresh_code

META: dict[str, Any] = {"family": "metaformer", "patch_size": 2, "depths": (1, 1), "dims": (6, 8)}
MODELS: dict[str, dict[str, Any]] = {
    "pool": META,
    "base": {**META, "metaformer": "baseline", "token_mixers": ("identity", "pooling"), "scaled_stages": (0, 1)},
    "conv": {"family": "convmixer", "patch_size": 3, "hidden_dim": 8, "num_blocks": 2, "kernel_size": 3},
}
FAULTS: dict[str, tuple[str, Plant, str, str]] = {}  # name -> model, plant, rung, beginning of the place
BLOCK = "Stage_0/MetaFormerBlock_0"


def fault(name: str, model: str, place: str, rung: str = "activations") -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        FAULTS[name] = (model, plant, rung, place)
        return plant

    return note


@fault("pooling counts padding", "pool", f"{BLOCK}/token_mixing/pooling: ")
def padding_counted(patch: pytest.MonkeyPatch) -> None:
    def neighbours(x_bhwc: Tensor) -> Tensor:
        x_bchw = x_bhwc.permute(0, 3, 1, 2)
        return (F.avg_pool2d(x_bchw, 3, stride=1, padding=1) - x_bchw).permute(0, 2, 3, 1)

    patch.setattr(metaformer, "neighbours", neighbours)


@fault("pooling keeps the place itself", "pool", f"{BLOCK}/token_mixing/pooling: ")
def itself(patch: pytest.MonkeyPatch) -> None:
    neighbours = metaformer.neighbours
    patch.setattr(metaformer, "neighbours", lambda x: neighbours(x) + x)


@fault("a norm over channels alone", "pool", f"{BLOCK}/GroupNorm_0: ")
def over_channels(patch: pytest.MonkeyPatch) -> None:
    def group_norm(module: Any, name: str, groups: int, epsilon: float, x: Tensor) -> Tensor:
        return torch_layers.layer_norm(module, name, epsilon, x)

    patch.setattr(metaformer, "group_norm", group_norm)


@fault("a group for each channel", "pool", f"{BLOCK}/GroupNorm_0: ")
def each_channel(patch: pytest.MonkeyPatch) -> None:
    group_norm = metaformer.group_norm
    patch.setattr(metaformer, "group_norm", lambda of, name, _, e, x: group_norm(of, name, x.shape[-1], e, x))


@fault("the epsilon of the baselines", "pool", f"{BLOCK}/GroupNorm_0: ")
def other_epsilon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metaformer, "GROUP_EPSILON", {"poolformer": 1e-6})


@fault("tanh GELU", "pool", f"{BLOCK}/channel_mixing/activation: ")
def tanh(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(torch_layers.ACTIVATIONS, "gelu", torch_layers.ACTIVATIONS["gelu_tanh"])


def exchanged(patch: pytest.MonkeyPatch, own: str) -> None:
    """The factors of a layer act on the other summand: what it should have scaled is left as it is."""
    scaled, added = metaformer.scaled, metaformer.added

    def changed(module: Any, x: Tensor, y: Tensor, name: str, chance: Any) -> Tensor:
        factors = torch_layers.weights(module, own).scale
        other = (x * factors, y) if own == "layer_scale" else (x, y * factors)
        return added(module, *other, name, chance)

    patch.setattr(metaformer, "scaled", lambda of, name, x: x if name == own else scaled(of, name, x))
    patch.setattr(metaformer, "added", changed)


@fault("layer scale on the skip-connection", "pool", f"{BLOCK}/token_mixing/layer_scale: ")
def scaled_skip(patch: pytest.MonkeyPatch) -> None:
    exchanged(patch, "layer_scale")


@fault("residual scale on the branch", "base", f"{BLOCK}/token_mixing/stochastic_depth: ")
def scaled_branch(patch: pytest.MonkeyPatch) -> None:
    exchanged(patch, "residual_scale")


@fault("no norm before the downsampling", "base", "Stage_1/downsampling_norm: ")
def no_norm(patch: pytest.MonkeyPatch) -> None:
    layer_norm = metaformer.layer_norm

    def changed(module: Any, name: str, epsilon: float, x: Tensor) -> Tensor:
        return x if name == "downsampling_norm" else layer_norm(module, name, epsilon, x)

    patch.setattr(metaformer, "layer_norm", changed)


@fault("ReLU squared without its summand", "base", f"{BLOCK}/channel_mixing/activation: ")
def no_summand(patch: pytest.MonkeyPatch) -> None:
    star_relu = metaformer.star_relu
    patch.setattr(metaformer, "star_relu", lambda of, name, x: star_relu(of, name, x) - getattr(of, name).bias)


@fault("downsampling padded as XLA does", "pool", "Stage_1/downsampling: ")
def padded_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metaformer, "DOWNSAMPLING", Window(3, stride=2, padding=None))


@fault("the stride one place late", "pool", "Stage_1/downsampling: ")
def late_stride(patch: pytest.MonkeyPatch) -> None:
    convolution = metaformer.convolution

    def changed(module: Any, name: str, window: Window, x: Tensor) -> Tensor:
        late = x.roll(-1, 1) if name == "downsampling" else x
        return convolution(module, name, window, late)

    patch.setattr(metaformer, "convolution", changed)


@fault("no stride", "pool", "Stage_1/downsampling has the shape ")
def no_stride(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(metaformer, "DOWNSAMPLING", Window(3, stride=1, padding=1))


@fault("the head's norm before the mean", "pool", "pooled: ")
def norm_first(patch: pytest.MonkeyPatch) -> None:
    added = metaformer.added

    def changed(module: Any, x: Tensor, y: Tensor, name: str, chance: Any) -> Tensor:
        sum_bhwc = added(module, x, y, name, chance)
        is_last = name == "Stage_1/MetaFormerBlock_0/channel_mixing"
        return F.layer_norm(sum_bhwc, sum_bhwc.shape[-1:], eps=1e-6) if is_last else sum_bhwc

    patch.setattr(metaformer, "added", changed)


@fault("GELU behind the affine", "conv", "stem_activation: ")
def late_gelu(patch: pytest.MonkeyPatch) -> None:
    def changed(module: Any, activation: str, affine: str, x: Tensor, name: str, chance: Any) -> Tensor:
        layer, prefix = torch_layers.weights(module, affine), f"{name}/" if name else ""
        x = torch_layers.tap(x * layer.scale + layer.bias, f"{prefix}{activation}", chance)
        return torch_layers.tap(F.gelu(x), f"{prefix}{affine}", chance)

    patch.setattr(convmixer, "activated", changed)


@fault("kernels of the depthwise convolution turned", "conv", "ConvMixerBlock_0/token_mixing/depthwise: ")
def turned(patch: pytest.MonkeyPatch) -> None:
    convolution = convmixer.convolution

    def changed(module: Any, name: str, window: Window, x: Tensor, *groups: int) -> Tensor:
        if not groups:
            return convolution(module, name, window, x)
        return convolution(module, name, window, x.flip(1, 2), *groups).flip(1, 2)

    patch.setattr(convmixer, "convolution", changed)


@fault("a skip-connection around the product over channels", "conv", "ConvMixerBlock_1/token_mixing/depthwise: ")
def second_skip(patch: pytest.MonkeyPatch) -> None:
    forward = convmixer.ChannelMixing.forward
    patch.setattr(convmixer.ChannelMixing, "forward", lambda self, x, *rest: x + forward(self, x, *rest))


@fault("an affine without a gradient of its scale", "conv", "gradient of ", rung="gradients")
def frozen_scale(patch: pytest.MonkeyPatch) -> None:
    weights = convmixer.weights

    def changed(module: Any, name: str) -> Any:
        layer = weights(module, name)
        if name != "affine":
            return layer
        return type("Frozen", (), {"scale": layer.scale.detach(), "bias": layer.bias})

    patch.setattr(convmixer, "weights", changed)


def job(model: dict[str, Any], folder: Path, cache: Path) -> Job:
    config = TrialConfig(
        ModelConfig(**model),
        dataclasses.replace(SOURCE, augment=AugmentConfig(crop=2)),
        dataclasses.replace(TRAIN, precision="float64"),
        seed=3,
    )
    whole = trials.whole(config, 2 * trials.WARMUP_STEPS)
    trial = resolve(whole, data.describe(whole.data, cache, "test"), "test")
    return Job(trial, STEPS, cache, folder)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """The side without a fault, for each model."""
    root = tmp_path_factory.mktemp("sound")
    jobs = {name: job(model, root / name, root / "cache") for name, model in MODELS.items()}
    for one in jobs.values():
        one.folder.mkdir()
        side.climb(torch_backend.BACKEND, one)
    return jobs


@pytest.fixture
def fresh() -> Iterator[None]:
    with fresh_code():
        yield


def first_apart(rungs: list[Rung]) -> Rung | None:
    return next((rung for rung in rungs if not rung.passed), None)


@pytest.mark.parametrize("model", MODELS)
def test_two_sound_sides_hold_on_every_rung(sound: dict[str, Job], tmp_path: Path, fresh: None, model: str) -> None:
    rungs = climbed(torch_backend.BACKEND, sound[model], tmp_path / "sound")
    assert {"offset", "gradients", "trajectory"} <= {rung.name for rung in rungs}
    assert first_apart(rungs) is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_where_it_is(
    sound: dict[str, Job], tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, plant, rung, place = FAULTS[name]
    plant(monkeypatch)
    first = first_apart(climbed(torch_backend.BACKEND, sound[model], tmp_path / "sound"))
    assert first is not None, "the fault is not caught: a hole in the ladder"
    assert (first.name, first.place.startswith(place)) == (rung, True), first
