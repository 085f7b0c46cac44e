"""What the ladder looks at beyond one small batch: the steps of a long call, other sizes, replicas, remat, compilation.

Each fault shows there alone: with these checks left out, both sides pass every rung.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jax import numpy as jnp

import backends
from analysis.terminal import parity_lines
from backends.contract import Program
from backends.jax import layers as jax_layers
from backends.jax import program as jax_train
from backends.jax import traced as jax_traced
from backends.torch import layers as torch_layers
from backends.torch import program as torch_train
from backends.torch.models import mixer as torch_mixer
from experiments.parity import own, pair, side
from experiments.parity.checks import EXPECTED, FOUND
from experiments.parity.job import COMPILE, LONG, REMAT, REPLICAS, WIDE, Job
from experiments.parity.ladder import HINTS
from tests.parity_bench import Plant, climbed, forget, job, on_torch_optimizer

PROGRAMS: dict[str, type[Program]] = {"torch": torch_train.TorchProgram, "jax": jax_train.JaxProgram}
# 9 tokens of 512 hidden units: 8 examples have fewer elements than 16 bits count, and 16 have more.
SIZES = {"model": {"channels_mlp_dim": 512, "num_blocks": 1}, "train": {"batch_size": 16}}
JAX_CHUNK = jax_train.CHUNK_STEPS
ABOUT = {"version": "1", "device": "cpu"}


@dataclass(frozen=True)
class Fault:
    check: str
    rung: str
    words: str
    plants: dict[str, Plant]


def on_steps(change: Callable[[str, Any], Any]) -> dict[str, Plant]:
    """Programs train other arrays (steps, replicas, ...) than those of their plans."""

    def plant(program: Any) -> Plant:
        steps = program._steps

        def changed(self: Any, plans: Any) -> Any:
            return {name: change(name, array) for name, array in steps(self, plans).items()}

        return lambda patch: patch.setattr(program, "_steps", changed)

    return {name: plant(program) for name, program in PROGRAMS.items()}


def first_chunk_again(name: str, array: Any) -> Any:
    return array[np.arange(len(array)) % JAX_CHUNK]


def last_chunk_at_rest(name: str, array: Any) -> Any:
    """The steps that fill no whole chunk have no rate."""
    moves = np.arange(len(array)) < max(len(array) // JAX_CHUNK, 1) * JAX_CHUNK
    if name != "learning_rate":
        return array
    return array * (torch.from_numpy(moves) if torch.is_tensor(array) else moves)[:, None]


def rate_of_the_first(name: str, array: Any) -> Any:
    return array[:, [0] * array.shape[1]] if name == "learning_rate" else array


def sixteen_bits(module: Any, frame: Any) -> Plant:
    """The hash counts elements up to 2^16, and then again from 0."""
    name, count = next(name for name in ("_factors", "_is_kept") if hasattr(module, name)), 2**16
    mask = getattr(module, name)

    def changed(x: Any, site: str, chance: Any) -> Any:
        size = int(np.prod(x.shape))
        once = mask(frame.ones(count, dtype=x.dtype), site, chance)
        return frame.concatenate([once] * (size // count + 1))[:size].reshape(x.shape)

    return lambda patch: patch.setattr(module, name, changed)


def other_loss(module: Any) -> Plant:
    """The mean is taken over 8 examples, whatever the batch."""
    loss = module.loss
    return lambda patch: patch.setattr(module, "loss", lambda spec, x, y: loss(spec, x, y) * (len(x) / 8))


def smoothing_over_five(module: Any) -> Plant:
    batch = module.batch

    def changed(data: Any, step: Any, num_classes: int, smoothing: Any, dtype: Any) -> Any:
        return batch(data, step, num_classes, smoothing * (num_classes / 5), dtype)

    return lambda patch: patch.setattr(module, "batch", changed)


def common_norm(apply: Any, spec: Any, state: Any, g: Any, *rest: Any) -> Any:
    """Replicas are clipped by the norm of all."""
    factor = spec.clip_norm / g.norm().clamp(min=spec.clip_norm)
    apply(dataclasses.replace(spec, clip_norm=0.0), state, factor * g, *rest)
    return g.norm(dim=1)


def torch_remat(patch: pytest.MonkeyPatch) -> None:
    """Other units drop out where blocks are computed again."""
    again = torch_mixer.again

    def changed(block: Any, x: Any, name: str, chance: Any) -> Any:
        return again(block, x, name, dataclasses.replace(chance, dropout_key=chance.dropout_key ^ 1))

    patch.setattr(torch_mixer, "again", changed)


def jax_remat(patch: pytest.MonkeyPatch) -> None:
    forward = jax_train.Traced.forward

    def changed(self: Any, params: Any, images: Any, chance: Any, remat: bool = False) -> Any:
        chance = chance.replace(dropout_key=chance.dropout_key ^ 1) if remat else chance
        return forward(self, params, images, chance, remat)

    patch.setattr(jax_train.Traced, "forward", changed)


def compiled_otherwise(patch: pytest.MonkeyPatch) -> None:
    """In place of Inductor: a compiler that drops a bias."""

    def compile(forward: Any, dynamic: bool) -> Any:
        return lambda params, *rest: forward({**params, "stem/bias": 0 * params["stem/bias"]}, *rest)

    patch.setattr(torch, "compile", compile)


MODULES = {"torch": torch_train, "jax": jax_traced}
FAULTS = {
    "the first chunk again and again": Fault(LONG, "long call", "one by one", on_steps(first_chunk_again)),
    "a part of a chunk at rest": Fault(LONG, "long call", "one by one", on_steps(last_chunk_at_rest)),
    "a hash of 16 bits": Fault(
        WIDE,
        "wide activations",
        "MixerBlock_0/channel_mixing/dropout_0: look at the hash",
        {"torch": sixteen_bits(torch_layers, torch), "jax": sixteen_bits(jax_layers, jnp)},
    ),
    "a mean over 8": Fault(
        WIDE, "wide activations", "loss: ", {name: other_loss(module) for name, module in MODULES.items()}
    ),
    "smoothing over 5 classes": Fault(
        WIDE,
        "wide batch",
        f"targets: look at {HINTS['targets']}, at 16 examples and 1001 classes",
        {name: smoothing_over_five(module) for name, module in MODULES.items()},
    ),
    "replicas at the rate of the first": Fault(REPLICAS, "replicas", "/replica 1: ", on_steps(rate_of_the_first)),
    "replicas clipped together": Fault(REPLICAS, "replicas", "/replica ", {"torch": on_torch_optimizer(common_norm)}),
    "remat in which other units drop out": Fault(
        REMAT, "remat", "run.remat on against off", {"torch": torch_remat, "jax": jax_remat}
    ),
    "a compiler that drops a bias": Fault(
        COMPILE, "compile", "run.compile on against off", {"torch": compiled_otherwise}
    ),
}


@pytest.fixture
def fresh() -> Iterator[None]:
    """What is compiled at the wide sizes is forgotten; the rest, which takes JAX longer, is what both sides share."""
    forget(wide_only=True)
    yield
    forget(wide_only=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Job]:
    """The side without a fault, of a backend, with one check."""
    root = tmp_path_factory.mktemp("sound")

    @cache
    def made(backend: str, check: str) -> Job:
        one = job(SIZES, root / f"{backend}-{check}", root / "cache", "float32", [check])
        one = dataclasses.replace(one, trial=dataclasses.replace(one.trial, backend=backend))
        one.folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", lambda forward, dynamic: forward)  # Inductor takes a minute
            side.climb(backends.load(backend), one)
        return one

    return made


@pytest.mark.parametrize(("name", "backend"), [(name, backend) for name in FAULTS for backend in FAULTS[name].plants])
def test_a_fault_that_shows_in_one_check_is_caught_by_it(
    sound: Callable[[str, str], Job],
    tmp_path: Path,
    fresh: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    backend: str,
) -> None:
    fault = FAULTS[name]
    right = sound(backend, fault.check)
    forget(wide_only=True)
    fault.plants[backend](monkeypatch)
    rungs = climbed(backends.load(backend), right, tmp_path / "sound")
    first = next((one for one in rungs if not one.passed), None)
    assert first is not None, "the fault is not caught: a hole in the ladder"
    print(f"\n{backend:6}{name:40} {first.name:12} {first.place}")
    assert (first.name, fault.words in first.place) == (fault.rung, True), first


def test_a_check_that_no_side_can_make_is_free_and_says_so(tmp_path: Path) -> None:
    """jax compiles always: --with compile has nothing to compare on a pair of it."""
    one = job({}, tmp_path, Path(), "float32")
    empty = own.twice("compile", COMPILE, (one, one), ({}, {}))
    sides = pair.read_pair("jax,jax:float64")
    (row,) = [
        line
        for line in parity_lines.lines(parity_lines.Climbed("t", sides, "", [], [ABOUT, ABOUT], [empty]))
        if line.startswith("compile")
    ]
    assert row.split()[:2] == ["compile", "free"] and "nothing was compared" in row and "equal" not in row
    expected, found = ({f"{kind}x": np.ones(1)} for kind in (EXPECTED, FOUND))
    one_sided = own.twice("compile", COMPILE, (one, one), ({**expected, **found}, {}))
    assert one_sided.largest is not None and one_sided.tolerance.limit < float("inf")
