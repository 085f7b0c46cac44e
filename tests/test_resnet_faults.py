"""The ladder sees faults of ResNets: each one that is planted in one side is caught, and placed at its layer.

The sides run in this process, both on torch in float64: what is planted in the code of one is all that differs.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backends import torch as torch_backend
from backends.models.convolution import Window
from backends.torch import convolution as torch_convolution
from backends.torch.models import resnet as torch_resnet
from experiments.parity import side
from experiments.parity.job import Job
from experiments.parity.ladder import Ladder
from experiments.parity.rungs import Rung
from tests.parity_bench import Plant, climbed, fresh_code, job

NONE_OF_A_MIXER = dict.fromkeys(("hidden_dim", "num_blocks", "tokens_mlp_dim", "channels_mlp_dim"))
SIZES = {"family": "resnet", "depth": (1, 1), "width": 8, "norm_groups": 4, "root": "imagenet"}
TRIALS = {version: {"model": NONE_OF_A_MIXER | SIZES | {"version": version}} for version in ("v1", "v2")}

FAULTS: dict[str, tuple[str, Plant, str]] = {}  # name -> trial, plant, words of the place


def fault(name: str, place: str, trial: str) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        FAULTS[name] = (trial, plant, place)
        return plant

    return note


def standardised(change: Callable[[Tensor, Any], Tensor]) -> Plant:
    return lambda patch: patch.setattr(torch_convolution, "standardised", change)


def convolutions(change: Callable[..., Tensor]) -> Plant:
    """change(convolution, module, name, window, x, by) in place of a convolution."""
    own = torch_resnet.convolution

    def changed(module: Any, name: str, window: Window, x: Tensor, by: Any) -> Tensor:
        return change(own, module, name, window, x, by)

    return lambda patch: patch.setattr(torch_resnet, "convolution", changed)


@fault("v1: standardised without epsilon", "conv_root: ", "v1")
@fault("v2: standardised without epsilon", "conv_root: ", "v2")
def without_epsilon(patch: pytest.MonkeyPatch) -> None:
    own = torch_convolution.standardised
    standardised(lambda kernel, by: own(kernel, dataclasses.replace(by, epsilon=0.0)))(patch)


@fault("unbiased variance", "conv_root: ", "v2")
def unbiased(patch: pytest.MonkeyPatch) -> None:
    def changed(kernel: Tensor, by: Any) -> Tensor:
        variance, mean = torch.var_mean(kernel, (0, 1, 2), correction=1, keepdim=True)
        return (kernel - mean) * torch.rsqrt(variance + by.epsilon)

    standardised(changed)(patch)


@fault("channels of a group one beside the other in steps", "gn_root: ", "v1")
def interleaved(patch: pytest.MonkeyPatch) -> None:
    own = torch_convolution.F.group_norm

    def changed(x: Tensor, groups: int, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        order = torch.arange(x.shape[1]).reshape(-1, groups).T.flatten()
        y = own(x[:, order], groups, None, None, epsilon)[:, torch.argsort(order)]
        return y * scale[:, None, None] + bias[:, None, None]

    patch.setattr(torch_convolution.F, "group_norm", changed)


@fault("epsilon of the other version", "gn_root: ", "v1")
def other_epsilon(patch: pytest.MonkeyPatch) -> None:
    own = torch_resnet.group_norm
    patch.setattr(torch_resnet, "group_norm", lambda module, name, groups, _, x: own(module, name, groups, 1e-5, x))


@fault("stride on the first convolution", "block2/unit01/conv1 has the shape", "v1")
def early_stride(patch: pytest.MonkeyPatch) -> None:
    def change(own: Any, module: Any, name: str, window: Window, x: Tensor, by: Any) -> Tensor:
        if getattr(module, "unit", None) and module.unit.stage == 2 and name in ("conv1", "conv2"):
            window = dataclasses.replace(window, stride=2 if name == "conv1" else 1)
        return own(module, name, window, x, by=by)

    convolutions(change)(patch)


@fault("padding on the wrong side", "conv_root: ", "v1")
def wrong_side(patch: pytest.MonkeyPatch) -> None:
    own = Window.pads
    patch.setattr(Window, "pads", lambda window, size: own(window, size)[::-1])


@fault("the pool counts zeros outside", "pool_root: ", "v2")
def zeros_outside(patch: pytest.MonkeyPatch) -> None:
    def changed(window: Window, x: Tensor) -> Tensor:
        padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1))
        return F.max_pool2d(padded, window.size, window.stride).permute(0, 2, 3, 1)

    patch.setattr(torch_resnet, "max_pool", changed)


@fault("v2: projected before norm and ReLU", "block1/unit01/conv_proj: ", "v2")
def early_projection(patch: pytest.MonkeyPatch) -> None:
    own, before = torch_resnet.norm, dict[str, Tensor]()

    def noted(module: Any, name: str, spec: Any, x: Tensor) -> Tensor:
        before["x"] = x if name == "gn1" else before.get("x", x)
        return own(module, name, spec, x)

    def change(own: Any, module: Any, name: str, window: Window, x: Tensor, by: Any) -> Tensor:
        return own(module, name, window, before["x"] if name == "conv_proj" else x, by=by)

    patch.setattr(torch_resnet, "norm", noted)
    convolutions(change)(patch)


@fault("v1: skip-connection not projected's norm", "block1/unit01/gn_proj: ", "v1")
def no_norm_of_projection(patch: pytest.MonkeyPatch) -> None:
    own = torch_resnet.norm
    patch.setattr(
        torch_resnet, "norm", lambda module, name, spec, x: x if name == "gn_proj" else own(module, name, spec, x)
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """The side without a fault, for each version."""
    root = tmp_path_factory.mktemp("sound")
    jobs = {name: job(changes, root / name, root / "cache", "float64") for name, changes in TRIALS.items()}
    for one in jobs.values():
        one.folder.mkdir()
        side.climb(torch_backend.BACKEND, one)
    return jobs


@pytest.fixture
def fresh() -> Iterator[None]:
    with fresh_code():
        yield


def first_failed(sound: Job, folder: Path, patch: pytest.MonkeyPatch) -> Rung | None:
    """The first rung that fails of those up to the gradients, which need no trajectory."""
    other = dataclasses.replace(sound, folder=folder)
    folder.mkdir()
    for name in ("_trajectory", "_empty_step"):
        patch.setattr(side, name, lambda *_: iter(()))
    side.climb(torch_backend.BACKEND, other)
    return next((rung for rung in Ladder((sound, other), lambda _: None).climb() if not rung.passed), None)


@pytest.mark.parametrize("trial", TRIALS)
def test_two_sound_sides_pass_every_rung_exactly(
    sound: dict[str, Job], tmp_path: Path, fresh: None, trial: str
) -> None:
    rungs = climbed(torch_backend.BACKEND, sound[trial], tmp_path / "sound")
    assert rungs[-1].name == "evaluation" and all(rung.passed for rung in rungs)
    assert "offset" not in [rung.name for rung in rungs]  # no constant passes a standardised kernel


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_where_it_is(
    sound: dict[str, Job], tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trial, plant, place = FAULTS[name]
    plant(monkeypatch)
    first = first_failed(sound[trial], tmp_path / "faulty", monkeypatch)
    assert first is not None, "the fault is not caught: a hole in the ladder"
    print(f"\n{name:50} {first.name:12} {first.place}")
    assert first.name == "activations" and first.place.startswith(place)
