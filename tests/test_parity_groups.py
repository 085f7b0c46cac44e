"""Sides of several processes: they have the bits of one process, and each fault of one of them is caught where it is.

The sound side is this process; the other one is a group, in whose code a fault is planted. `MIXLAB_PARITY=long`: also
groups of four, and every fault in both frameworks.
"""

import dataclasses
import functools
import json
import operator
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

import backends
from backends import microbatches
from backends.contract import ArrayDataset
from backends.jax import program as jax_program
from backends.jax import ranks as jax_ranks
from backends.jax import traced as jax_traced
from backends.microbatches import Group
from backends.plan import StepPlan
from backends.state import flat_order
from backends.torch import program as torch_program
from backends.torch import ranks as torch_ranks
from backends.torch import state as torch_state
from experiments import data
from experiments.parity import side
from experiments.parity.job import Job, spread_state
from experiments.parity.plans import whole_plan
from experiments.spec.config import ModelConfig
from tests.conftest import TINY, Ended, is_alive, start, wait_until, write_yaml
from tests.group_bench import Plant, Processes
from tests.parity_bench import LONG, MODEL, fresh_code, job
from tests.test_cli import assert_mistake

PARTS = 8  # of a batch: four in each of two processes, so that their sum in another order has other bits
STEPS = 4
SMALL: dict[str, dict[str, Any]] = {"model": {"num_blocks": 1, "rescale": True}, "train": {"microbatches": PARTS}}
NO_MIXER = {name: getattr(ModelConfig(), name) for name in vars(MODEL)}  # the fields of other families as they are
PROGRAMS: tuple[Any, ...] = (torch_program, jax_program)  # a fault is planted in both; a group has one of them
FAULTS: dict[str, tuple[Plant, str, str]] = {}  # name -> plant, rung, words of the place
SIZES = {"the sum in the order of arrival": 4}  # of groups that a fault needs, where two processes do not show it


def fault(name: str, rung: str, place: str) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        FAULTS[name] = (plant, rung, place)
        return plant

    return note


def on_parts(change: Callable[[list[StepPlan], Group], list[StepPlan]]) -> Plant:
    """Programs compute other microbatches than those that they are given."""

    def plant(patch: pytest.MonkeyPatch, group: Group) -> None:
        for program in PROGRAMS:
            patch.setattr(program, "split", lambda *given: change(microbatches.split(*given), group))

    return plant


def on_exchange(change: Callable[[Any, Group], Any], before: bool = False) -> Plant:
    """Each process gives another gradient to the exchange, or takes another one from it."""

    def plant(patch: pytest.MonkeyPatch, group: Group) -> None:
        for ranks in (torch_ranks, jax_ranks):
            patch.setattr(ranks, "summed", functools.partial(_changed, ranks.summed, change, before))

    return plant


def _changed(summed: Any, change: Any, before: bool, flat: Any, group: Group, *device: Any) -> Any:
    if before:
        return summed(change(flat, group), group, *device)
    return change(summed(flat, group, *device), group)


@fault("dropout by the rows of the process", "activations", "MixerBlock_0/token_mixing/dropout_0: ")
def local_rows(patch: pytest.MonkeyPatch, group: Group) -> None:
    def changed(parts: list[StepPlan], group: Group) -> list[StepPlan]:
        first = parts[0].first_rows
        assert first is not None
        return [dataclasses.replace(part, first_rows=part.first_rows - first) for part in parts]

    on_parts(changed)(patch, group)


@fault("a partner of the process's own rows", "batch", "images: ")
def own_partner(patch: pytest.MonkeyPatch, group: Group) -> None:
    def changed(plan: StepPlan, *given: Any) -> list[StepPlan]:
        own = plan.examples.shape[1] // group.size
        partners = (plan.mixup_partners % own + own * group.rank).astype(np.int32)
        return microbatches.split(dataclasses.replace(plan, mixup_partners=partners), *given)

    for program in PROGRAMS:
        patch.setattr(program, "split", changed)


@fault("a microbatch left out, another taken twice", "batch", "images: ")
def taken_twice(patch: pytest.MonkeyPatch, group: Group) -> None:
    on_parts(lambda parts, group: [*parts[:-1], parts[0]] if group.rank else parts)(patch, group)


@fault("the data of the step before", "batch", "images: ")
def data_behind(patch: pytest.MonkeyPatch, group: Group) -> None:
    def changed(trial: Any, splits: Any, first_step: int, *given: Any) -> StepPlan:
        return whole_plan(trial, splits, max(first_step - 1, 0), *given)

    if group.rank:
        patch.setattr(side, "whole_plan", changed)


@fault("the loss averaged twice", "loss", "loss: ")
def averaged_twice(patch: pytest.MonkeyPatch, group: Group) -> None:
    for owner, name in ((torch_program.TorchProgram, "_share"), (jax_traced.Traced, "share")):
        patch.setattr(owner, name, functools.partialmethod(_averaged, getattr(owner, name), group.size))


def _averaged(self: Any, share: Any, size: int, *given: Any) -> Any:
    return share(self, *given) / size


@fault("the mean over processes in place of their sum", "gradients", "gradient of head/bias")
def mean_gradient(patch: pytest.MonkeyPatch, group: Group) -> None:
    on_exchange(lambda flat, group: flat / group.size)(patch, group)


@fault("clipping before the sum", "gradients", "gradient of head/bias")
def clipped_before(patch: pytest.MonkeyPatch, group: Group) -> None:
    def clipped(flat: Any, group: Group) -> Any:
        norm = float((flat[:, :-1] ** 2).sum()) ** 0.5
        return flat * min(1.0, 0.1 / norm)

    on_exchange(clipped, before=True)(patch, group)


@fault("a microbatch left out of the sum", "gradients", "gradient of head/bias")
def left_out(patch: pytest.MonkeyPatch, group: Group) -> None:
    def changed(values: Any, add: Any) -> Any:
        *kept, last = values
        return microbatches.tree_sum([*kept, last * (0 if group.rank else 1)], add)

    for program in PROGRAMS:
        patch.setattr(program, "tree_sum", changed)


@fault("the microbatches of a process added one by one", "gradients", "gradient of ")
def one_by_one(patch: pytest.MonkeyPatch, group: Group) -> None:
    for program in PROGRAMS:
        patch.setattr(program, "tree_sum", lambda values, _: functools.reduce(operator.add, values))


@fault("the sum in the order of arrival", "gradients", "gradient of ")
def in_order_of_arrival(patch: pytest.MonkeyPatch, group: Group) -> None:
    """Each process adds what the others give to its own; of two processes, both sums are the same."""

    def arrived(parts: Any, add: Any) -> Any:
        parts = list(parts)
        return functools.reduce(add, [*parts[group.rank :], *parts[: group.rank]])

    for ranks in (torch_ranks, jax_ranks):
        patch.setattr(ranks, "tree_sum", arrived)


@fault("the average updated by one process alone", "ranks", "rank 1 of 2: average/")
def one_average(patch: pytest.MonkeyPatch, group: Group) -> None:
    if group.rank:
        patch.setattr(torch_state, "follow", lambda spec, state: None)
        patch.setattr(jax_traced, "followed", lambda scalars, average, params: average)


@fault("a process that updates one step behind", "trajectory", "at step 2")
def one_behind(patch: pytest.MonkeyPatch, group: Group) -> None:
    load, apply = torch_state.TrainingState.load, torch_state.apply_gradient
    waiting: list[Any] = []

    def loaded(self: Any, states: Any) -> None:
        waiting.clear()
        load(self, states)

    def changed(spec: Any, state: Any, *given: Any) -> Any:
        waiting.append(given)
        norm = given[0].norm(dim=1)
        return apply(spec, state, *waiting.pop(0)) if len(waiting) > 1 else norm

    if group.rank:
        patch.setattr(torch_state.TrainingState, "load", loaded)
        patch.setattr(torch_state, "apply_gradient", changed)


@fault("clipping by the norm of the own share", "norm", "norm of the gradient")
def own_norm(patch: pytest.MonkeyPatch, group: Group) -> None:
    for module in (torch_state, jax_traced):
        patch.setattr(module, "tree_sum", lambda values, add: list(values)[group.rank])


@fault("weight decay on all of a share", "step", "params/")
def decayed_share(patch: pytest.MonkeyPatch, group: Group) -> None:
    if group.rank:
        for module in (torch_state, jax_traced):
            patch.setattr(module, "flat_order", lambda model, decay: (flat_order(model, decay)[0], 10**9))


@fault("shares side by side in another order", "gradients", "gradient of ")
def other_order(patch: pytest.MonkeyPatch, group: Group) -> None:
    def turned(whole: Any, share: Any, *given: Any) -> Any:
        flat = whole(share, *given)
        if share.shape[1] == 2:  # not a share but two numbers of each process
            return flat
        parts = [flat[:, i : i + share.shape[1]] for i in range(0, flat.shape[1], share.shape[1])]
        return (jax.numpy if isinstance(flat, jax.Array) else torch).concatenate(parts[::-1], 1)

    for ranks in (torch_ranks, jax_ranks):
        patch.setattr(ranks, "whole", functools.partial(turned, ranks.whole))


PLANTS = {name: plant for name, (plant, *_) in FAULTS.items()}
TORCH_ALONE = {"a process that updates one step behind"}
SHARED = {
    "clipping by the norm of the own share",
    "weight decay on all of a share",
    "shares side by side in another order",
}


def sound_job(backend: str, precision: str, root: Path) -> Job:
    """The side of one process, climbed: with everything on, in eight microbatches of one example.

    What it compiles, the processes of its group use again.
    """
    made = job(SMALL, root / "sound", root / "cache", precision)
    run = dataclasses.replace(made.trial.run, threads=1, device="cpu", compile_cache=str(root / "compiled"))
    made = dataclasses.replace(made, trial=dataclasses.replace(made.trial, backend=backend, run=run), num_steps=STEPS)
    made.folder.mkdir()
    with fresh_code():
        side.climb(backends.load(backend), made)
    return made


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Job]:
    """The sound side by backend and precision."""
    return functools.cache(lambda *which: sound_job(*which, tmp_path_factory.mktemp("sound")))


@pytest.fixture(scope="module")
def group() -> Iterator[Callable[[str, int], Processes]]:
    """A group by backend and size; one of two processes is kept for what comes, a larger one until another is asked."""
    held: dict[tuple[str, int], Processes] = {}

    def of(backend: str, size: int) -> Processes:
        if (backend, size) not in held:
            for key in [key for key in held if key[1] > 2]:
                held.pop(key).end()
            held[backend, size] = Processes(backend, size, PLANTS)
        return held[backend, size]

    yield of
    for processes in held.values():
        processes.end()


SOUND = [("torch", 2), ("jax", 2)] + ([("torch", 4), ("jax", 4), ("torch", 8), ("jax", 8)] if LONG else [])
BACKENDS = ("torch", "jax") if LONG else ("torch",)


@pytest.mark.parametrize("precision", ("float64", "float32") if LONG else ("float32",))
@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shared"])
@pytest.mark.parametrize(("backend", "size"), SOUND)
def test_a_group_has_the_bits_of_one_process_on_every_rung(
    sound: Any, group: Any, tmp_path: Path, backend: str, size: int, shared: bool, precision: str
) -> None:
    """Also where the optimizer's state is shared out."""
    rungs = group(backend, size).climb(sound(backend, precision), tmp_path / "sound", shared=shared)
    assert [rung.name for rung in rungs][-2:] == ["ranks", "evaluation"] and all(rung.passed for rung in rungs)
    own = ("moments", "formula")  # what each side is held to itself in
    assert all(rung.tolerance.limit == 0 for rung in rungs if rung.name not in own)


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        (backend, name)
        for backend in BACKENDS
        for name in sorted(FAULTS, key=lambda name: SIZES.get(name, 2))
        if (LONG or name not in SIZES) and (backend == "torch" or name not in TORCH_ALONE)
    ],
)
def test_a_fault_of_a_group_is_caught_where_it_is(
    sound: Any, group: Any, tmp_path: Path, backend: str, name: str
) -> None:
    _, rung, place = FAULTS[name]
    rungs = group(backend, SIZES.get(name, 2)).climb(
        sound(backend, "float64"), tmp_path / "sound", name, name in SHARED
    )
    first = next((one for one in rungs if not one.passed), None)
    assert first is not None, "the fault is not caught: a hole in the ladder"
    print(f"\n{backend} {name:50} {first.name:12} {first.place}")
    assert (first.name, place in first.place) == (rung, True), first


@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("torch", {}),
        ("jax", {"num_blocks": 1}),
        ("torch", NO_MIXER | {"family": "resnet", "depth": (1, 1), "width": 8, "norm_groups": 4}),
        ("torch", NO_MIXER | {"family": "metaformer", "depths": (1, 1), "dims": (16, 24), "patch_size": 2}),
        ("torch", NO_MIXER | {"family": "convmixer", "hidden_dim": 16, "num_blocks": 1, "kernel_size": 3}),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("family", "mixer"),
)
def test_what_is_seen_of_a_batch_does_not_depend_on_its_parts(tmp_path: Path, backend: str, model: Any) -> None:
    whole, parts = (seen(tmp_path, backend, model, num) for num in (1, 4))
    assert list(whole) == list(parts) and whole["images"].shape[0] == 8 and whole["loss"].shape == ()
    for name, expected in whole.items():
        np.testing.assert_allclose(parts[name], expected, rtol=1e-9, atol=1e-11, err_msg=name)


def seen(folder: Path, backend: str, model: Any, num: int) -> dict[str, Any]:
    """The values of a forward pass from the spread state, in so many microbatches."""
    made = job({"model": model, "train": {"microbatches": num}}, folder, folder / "cache", "float64")
    trial = made.trial
    splits = data.load(trial.data, trial.info, folder / "cache")
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels))
    program = backends.load(backend).open(trial.model, trial.optimizer, dataset, trial.run_spec(1, "cpu"))
    program.load([spread_state(trial)])
    return program.activations([whole_plan(trial, splits, 1, 1)])[0]


def write_parts(path: Path) -> Path:
    return write_yaml(path, base={**TINY, "train": {**TINY["train"], "microbatches": 2}}, grid={"seed": [0]})


def test_the_command_compares_one_process_with_two(run: Callable[..., Ended], tmp_path: Path) -> None:
    write_parts(tmp_path / "parts.yaml")
    sides = "torch:float32:cpu x1,torch:float32:cpu x2"
    ended = run("parity", "parts.yaml", "--pair", sides, "--steps", "2", "--json")
    assert ended.code == 0, ended
    (model,) = json.loads(ended.out)
    assert [side["side"] for side in model["sides"]] == sides.split(",") and "in 2 microbatches" in model["conditions"]
    rungs = {rung["rung"]: rung for rung in model["rungs"]}
    apart = {name for name, rung in rungs.items() if rung["tolerance"]}
    assert apart == {"moments", "formula", "replicas", "remat"}  # what each side is held to itself in
    assert rungs["ranks"]["relative"] == rungs["trajectory"]["relative"] == 0
    assert "on any number of devices" in rungs["trajectory"]["reason"]


def test_a_process_of_a_side_that_ends_early_is_named(run: Callable[..., Ended], tmp_path: Path) -> None:
    write_parts(tmp_path / "parts.yaml")
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/sh\n[ "$4" = 1 ] && {{ echo no such chip; exit 3; }}\nexec {sys.executable} "$@"\n')
    broken.chmod(0o755)
    words = ("--pair", "torch x2,jax", "--steps", "2", "--python", f"torch={broken}")
    ended = run("parity", "parts.yaml", *words)
    assert_mistake(ended, "the process of torch, rank 1 of 2,", "exit code 3", "no such chip")


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_processes_of_a_side_end_with_the_command(
    backend: str, tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    import psutil

    write_parts(tmp_path / "parts.yaml")
    words = ("parity", "parts.yaml", "--pair", f"{backend} x2,torch", "--steps", "100000")
    process = start(tmp_path, *words, TMPDIR=str(tmp_path))
    started.append(process)
    wait_until(lambda: list(tmp_path.glob("mixlab-parity-*/first/*/steps-*")), "the trajectory has begun")
    sides = [child.pid for child in psutil.Process(process.pid).children()]
    assert len(sides) == 3
    process.kill()
    wait_until(lambda: not any(map(is_alive, sides)), "the sides have ended")
