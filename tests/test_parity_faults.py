"""The ladder has teeth: each fault planted in one side is caught, at the rung and the place that it belongs to.

The sides run in this process, both on torch in float64: what is planted in the code of one is all that differs.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backends import torch as torch_backend
from backends.plan import StepPlan
from backends.torch import augment as torch_batch
from backends.torch import layers as torch_layers
from backends.torch import program as torch_train
from backends.torch.models import mixer as torch_mixer
from backends.torch.models import mixing as torch_mixing
from experiments.parity import side
from experiments.parity.job import Job
from experiments.spec.config import RandAugmentConfig
from tests.parity_bench import LONG, SOURCE, TRAIN, TRIALS, Plant, climbed, fresh_code, job, on_torch_optimizer

# What a number of float32 has no digits for: 1e-6 beside a norm of 0.1 or more, and the last digit of a correction;
# and E[x^2] - E[x]^2, which loses digits far from zero alone, where the ladder looks in float64.
ROUNDED_AWAY = {("float32", name) for name in ("clip epsilon", "bias correction in float32", "fast variance")}

# Of what a batch is made of: pixels that come with the plan, cutmix, and the authors' mixup.
PIXELS = {"inception": "torchvision", "randaugment": RandAugmentConfig(2, 9.0), "erasing": 0.5, "cutmix": 1.0}
AUGMENTED: dict[str, dict[str, dict[str, Any]]] = {
    "pixels": {"augment": PIXELS},
    "authors": {"augment": {"crop": 2, "mixup": 0.5, "mixup_style": "authors", "repeat": 2}},
}
ALL = TRIALS | AUGMENTED
FAULTS: dict[str, tuple[str, Plant, str, str]] = {}  # name -> trial, plant, rung, words of the place
MIXING = "MixerBlock_0/token_mixing"


def fault(name: str, rung: str, place: str, trial: str = "adamw") -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        FAULTS[name] = (trial, plant, rung, place)
        return plant

    return note


def dense(change: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Plant:
    """Each Dense computes with another kernel and bias."""

    def changed(module: Any, name: str, operation: Any, x: Tensor) -> Tensor:
        of = torch_layers.weights(module, name)
        return operation(x, *change(operation, of.kernel.to(x.dtype), of.bias.to(x.dtype)))

    return everywhere("dense", changed)


def everywhere(name: str, function: Any) -> Plant:
    """Another function of this name in each module of the forward pass."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for module in (torch_layers, torch_mixing, torch_mixer):
            if hasattr(module, name):
                patch.setattr(module, name, function)

    return plant


def norm(function: Callable[[Tensor, Any, float], Tensor]) -> Plant:
    def changed(module: Any, name: str, epsilon: float, x: Tensor) -> Tensor:
        return function(x, torch_layers.weights(module, name), epsilon)

    return everywhere("layer_norm", changed)


def on_plan(change: Callable[[StepPlan], StepPlan]) -> Plant:
    """Programs train another plan than the one that they are given."""
    train = torch_train.TorchProgram.train

    def changed(self: Any, plans: Any) -> Any:
        return train(self, [change(plan) for plan in plans])

    return lambda patch: patch.setattr(torch_train.TorchProgram, "train", changed)


def on_step(name: str, change: Callable[[Tensor], Tensor]) -> Plant:
    """The batch is made from other arrays of the step."""
    batch = torch_batch.batch

    def changed(taken: Any, step: dict[str, Tensor], *arguments: Any) -> Any:
        return batch(taken, {**step, name: change(step[name])}, *arguments)

    return lambda patch: patch.setattr(torch_train, "batch", changed)


@fault("exact GELU for tanh", "activations", f"{MIXING}/activation: ")
def exact_gelu(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(torch_layers.ACTIVATIONS, "gelu_tanh", torch.nn.functional.gelu)


@fault("epsilon 1e-5", "activations", "MixerBlock_0/LayerNorm_0: ")
def large_epsilon(patch: pytest.MonkeyPatch) -> None:
    norm(lambda x, of, _: torch.nn.functional.layer_norm(x, of.scale.shape, of.scale, of.bias, 1e-5))(patch)


@fault("fast variance", "offset", "MixerBlock_0/LayerNorm_0: ")
def fast_variance(patch: pytest.MonkeyPatch) -> None:
    def forward(x: Tensor, of: Any, epsilon: float) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = (x * x).mean(-1, keepdim=True) - mean * mean
        return (x - mean) * torch.rsqrt(variance + epsilon) * of.scale + of.bias

    norm(forward)(patch)


@fault("square kernel transposed", "activations", f"{MIXING}/Dense_0: ", trial="square")
def transposed(patch: pytest.MonkeyPatch) -> None:
    dense(lambda of, k, b: (k.mT if k.ndim == 2 and k.shape[0] == k.shape[1] else k, b))(patch)


@fault("bias of token mixing dropped", "activations", f"{MIXING}/Dense_0: ")
def no_bias(patch: pytest.MonkeyPatch) -> None:
    dense(lambda of, k, b: (k, 0 * b if of is torch_layers.dense_tokens else b))(patch)


@fault("bias of the head dropped", "activations", "head: ")
def no_head_bias(patch: pytest.MonkeyPatch) -> None:
    dense(lambda of, k, b: (k, 0 * b if len(b) == SOURCE.num_classes else b))(patch)


@fault("channels before pixels in a patch", "activations", "patches: ")
def channels_first(patch: pytest.MonkeyPatch) -> None:
    patches = torch_layers.patches

    def changed(images: Tensor, size: int) -> Tensor:
        x = patches(images, size)
        return x.reshape(*x.shape[:2], size * size, -1).transpose(2, 3).reshape(x.shape)

    everywhere("patches", changed)(patch)


@fault("tokens by columns", "activations", "patches: ")
def tokens_by_columns(patch: pytest.MonkeyPatch) -> None:
    patches = torch_layers.patches

    def changed(images: Tensor, size: int) -> Tensor:
        x = patches(images, size)
        side_tokens = round(x.shape[1] ** 0.5)
        return x.reshape(len(x), side_tokens, side_tokens, -1).transpose(1, 2).reshape(x.shape)

    everywhere("patches", changed)(patch)


@fault("dropout not rescaled", "activations", f"{MIXING}/dropout_0: ")
def no_rescaling(patch: pytest.MonkeyPatch) -> None:
    dropout = torch_layers.dropout

    def changed(x: Tensor, name: str, chance: Any) -> Tensor:
        return torch_layers.tap(dropout(x, name, chance) * (1 - chance.dropout_rate), name, chance)

    everywhere("dropout", changed)(patch)


@fault("dropout hash one bit off", "activations", f"{MIXING}/dropout_0: ")
def another_key(patch: pytest.MonkeyPatch) -> None:
    dropout = torch_layers.dropout

    def changed(x: Tensor, name: str, chance: Any) -> Tensor:
        if chance.dropout_key is not None:
            chance = dataclasses.replace(chance, dropout_key=chance.dropout_key ^ 1)
        return dropout(x, name, chance)

    everywhere("dropout", changed)(patch)


@fault("stochastic depth constant over blocks", "activations", f"{MIXING}/stochastic_depth: ")
def constant_depth(patch: pytest.MonkeyPatch) -> None:
    def changed(x: Tensor, name: str, chance: Any) -> Tensor:
        if chance.branch_scales is None:
            return x
        of_last_block = chance.branch_scales[-2 + chance.branches.index(name) % 2]
        return torch_layers.tap(x * of_last_block[:, None, None], name, chance)

    everywhere("stochastic_depth", changed)(patch)


@fault("mixup partner off by one", "batch", "images: ")
def another_partner(patch: pytest.MonkeyPatch) -> None:
    on_step("mixup_partners", lambda x: x.roll(1))(patch)


@fault("batch order off by one", "batch", "images: ")
def another_order(patch: pytest.MonkeyPatch) -> None:
    on_step("examples", lambda x: x.roll(1))(patch)


@fault("label smoothing over K - 1", "batch", "targets: ")
def other_smoothing(patch: pytest.MonkeyPatch) -> None:
    def changed(taken: Any, step: dict[str, Tensor], num_classes: int, smoothing: float, dtype: Any) -> Any:
        images, hard = torch_batch.batch(taken, step, num_classes, 0.0, dtype)
        return images, hard * (1 - smoothing) + (1 - hard) * smoothing / (num_classes - 1)

    patch.setattr(torch_train, "batch", changed)


@fault("sigmoid loss averaged over classes", "loss", "loss: ", trial="sigmoid")
def averaged_loss(patch: pytest.MonkeyPatch) -> None:
    loss = torch_train.loss
    patch.setattr(torch_train, "loss", lambda spec, logits, targets: loss(spec, logits, targets) / logits.shape[1])


@fault("a skip-connection without its gradient", "gradients", "gradient of MixerBlock_0/channel_mixing/Dense_1/bias")
def no_gradient(patch: pytest.MonkeyPatch) -> None:
    forward = torch_mixer.MixerBlock.forward

    def changed(self: Any, x: Tensor, name: str, chance: Any) -> Tensor:
        y = forward(self, x, name, chance)
        return y if name == "MixerBlock_0" else y - x + x.detach()

    patch.setattr(torch_mixer.MixerBlock, "forward", changed)


@fault("last partial batch counted twice", "evaluation", "which examples count")
def counted_twice(patch: pytest.MonkeyPatch) -> None:
    evaluate = side.evaluate

    def changed(program: Any, splits: Any, indices: Any, loss: str) -> Any:
        return evaluate(program, splits, np.concatenate([indices, indices[-5:]]), loss)

    patch.setattr(side, "evaluate", changed)


@fault("predicts with the parameters, not their average", "evaluation", "predict")
def no_average(patch: pytest.MonkeyPatch) -> None:
    predict = torch_train.TorchProgram.predict

    def changed(self: Any, images: Any) -> Any:
        flat = self.state.flat
        average, flat["average"] = flat["average"], flat["params"]
        found = predict(self, images)
        flat["average"] = average
        return found

    patch.setattr(torch_train.TorchProgram, "predict", changed)


@fault("flips of the wrong examples", "batch", "flip")
def wrong_flips(patch: pytest.MonkeyPatch) -> None:
    on_step("flips", lambda flips: ~flips)(patch)


@fault("crops by rows and columns exchanged", "batch", "crop")
def wrong_crops(patch: pytest.MonkeyPatch) -> None:
    on_step("crops", lambda crops: crops.flip(-1))(patch)


@fault("a box of cutmix one row longer", "batch", "images: ", trial="pixels")
def longer_box(patch: pytest.MonkeyPatch) -> None:
    on_step("cutmix_boxes", lambda box: box + torch.tensor([0, 1, 0, 0]))(patch)


@fault("rows and columns of a box exchanged", "batch", "images: ", trial="pixels")
def exchanged_box(patch: pytest.MonkeyPatch) -> None:
    on_step("cutmix_boxes", lambda box: box.roll(2))(patch)


@fault("targets mixed without the area of the box", "batch", "targets: ", trial="pixels")
def unmixed_targets(patch: pytest.MonkeyPatch) -> None:
    on_step("target_weights", torch.ones_like)(patch)


@fault("pixels of another row", "batch", "images: ", trial="pixels")
def other_row(patch: pytest.MonkeyPatch) -> None:
    on_step("pixels", lambda pixels: pixels.roll(1, 0))(patch)


@fault("pixels of the data set, not of the plan", "batch", "images: ", trial="pixels")
def unaugmented(patch: pytest.MonkeyPatch) -> None:
    gather = torch_batch.gather
    without = lambda step: {name: x for name, x in step.items() if name != "pixels"}  # noqa: E731
    patch.setattr(torch_batch, "gather", lambda data, step: gather(data, without(step)))


@fault("pixels of the first step in each", "chunk", "the loop over the steps of one call", trial="pixels")
def first_pixels(patch: pytest.MonkeyPatch) -> None:
    step = torch_train.TorchProgram._step

    def changed(self: Any, steps: dict[str, Tensor], i: int) -> dict[str, Tensor]:
        return {**step(self, steps, i), "pixels": step(self, steps, 0)["pixels"]}

    patch.setattr(torch_train.TorchProgram, "_step", changed)


@fault("the authors' partner is the previous one", "batch", "images: ", trial="authors")
def previous_partner(patch: pytest.MonkeyPatch) -> None:
    on_step("mixup_partners", lambda partners: partners.roll(2))(patch)


@fault("rate one step late", "step", "takes the learning rate of the step before")
def late_rate(patch: pytest.MonkeyPatch) -> None:
    step = job(TRIALS["adamw"], Path(), Path(), "float64").first_step
    on_plan(lambda plan: dataclasses.replace(plan, learning_rate=plan.learning_rate * step / (step + 1)))(patch)


@fault("warm-up one step longer", "step", "takes 0.9091 times the learning rate")
def long_warmup(patch: pytest.MonkeyPatch) -> None:
    on_plan(lambda plan: dataclasses.replace(plan, learning_rate=plan.learning_rate * 10 / 11))(patch)


@fault("decay on norms and biases", "step", "decays norms and biases too")
def decay_all(patch: pytest.MonkeyPatch) -> None:
    on_torch_optimizer(
        lambda apply, spec, state, g, rate, corrections, _: apply(spec, state, g, rate, corrections, g.shape[1])
    )(patch)


@fault("coupled decay", "step", "couples the weight decay with the gradient")
def coupled(patch: pytest.MonkeyPatch) -> None:
    def changed(apply: Any, spec: Any, state: Any, g: Tensor, rate: Any, corrections: Any, num: int) -> Tensor:
        norm = g.norm(dim=1)
        g = g * (spec.clip_norm / norm.clamp(min=spec.clip_norm))[:, None]
        g[:, :num] += spec.weight_decay * state["params"][:, :num]
        apply(dataclasses.replace(spec, clip_norm=0.0, weight_decay=0.0), state, g, rate, corrections, num)
        return norm

    on_torch_optimizer(changed)(patch)


@fault("clip epsilon", "step", "adds 1e-6 to the norm when it clips")
def clip_epsilon(patch: pytest.MonkeyPatch) -> None:
    def changed(apply: Any, spec: Any, state: Any, g: Tensor, *rest: Any) -> Tensor:
        norm = g.norm(dim=1)
        g = g * (spec.clip_norm / (norm + 1e-6).clamp(min=spec.clip_norm))[:, None]
        apply(dataclasses.replace(spec, clip_norm=0.0), state, g, *rest)
        return norm

    on_torch_optimizer(changed)(patch)


@fault("no clipping", "step", "does not clip the gradient")
def no_clipping(patch: pytest.MonkeyPatch) -> None:
    on_torch_optimizer(lambda apply, spec, *rest: apply(dataclasses.replace(spec, clip_norm=0.0), *rest))(patch)


@fault("bias correction missing", "step", "does not correct the bias of the moments")
def no_correction(patch: pytest.MonkeyPatch) -> None:
    on_plan(lambda plan: dataclasses.replace(plan, moment_corrections=np.ones_like(plan.moment_corrections)))(patch)


@fault("bias correction in float32", "step", "corrects the bias of the moments in float32")
def float32_correction(patch: pytest.MonkeyPatch) -> None:
    def changed(plan: StepPlan) -> StepPlan:
        t = np.arange(plan.first_step + 1, plan.first_step + 1 + len(plan.learning_rate), dtype=np.float32)[:, None]
        correction = 1 / (1 - np.array([[TRAIN.b1, TRAIN.b2]], np.float32) ** t)
        return dataclasses.replace(plan, moment_corrections=correction.astype(np.float64))

    on_plan(changed)(patch)


@fault("steps of one call all but the first at rate 0", "chunk", "the loop over the steps of one call")
def still_chunk(patch: pytest.MonkeyPatch) -> None:
    def changed(plan: StepPlan) -> StepPlan:
        first = np.arange(len(plan.learning_rate)) == 0
        return dataclasses.replace(plan, learning_rate=plan.learning_rate * first)

    on_plan(changed)(patch)


@fault("Nesterov dropped", "step", "drops Nesterov's term", trial="sgd")
def no_nesterov(patch: pytest.MonkeyPatch) -> None:
    on_torch_optimizer(lambda apply, spec, *rest: apply(dataclasses.replace(spec, nesterov=False), *rest))(patch)


@fault("average one step late", "step", "updates the average with the parameters before the step")
def late_average(patch: pytest.MonkeyPatch) -> None:
    def changed(apply: Any, spec: Any, state: Any, *rest: Any) -> Tensor:
        before = state["params"].clone()
        norm = apply(spec, {name: flat for name, flat in state.items() if name != "average"}, *rest)
        state["average"].add_(before - state["average"], alpha=1 - spec.ema_decay)
        return norm

    on_torch_optimizer(changed)(patch)


@fault("moments forgotten at step 7", "trajectory", "at step 7")
def forgotten(patch: pytest.MonkeyPatch) -> None:
    train = torch_train.TorchProgram.train

    def changed(self: Any, plans: Any) -> Any:
        if plans[0].first_step == 6:
            self.state.flat["first_moment"].zero_()
        return train(self, plans)

    patch.setattr(torch_train.TorchProgram, "train", changed)


@fault("a weight that does not load", "weights", "params/stem/kernel")
def lost_weight(patch: pytest.MonkeyPatch) -> None:
    load = torch_train.TorchProgram.load

    def changed(self: Any, states: Any) -> None:
        load(self, [{**state, "params/stem/kernel": state["params/stem/kernel"] * (1 + 1e-9)} for state in states])

    patch.setattr(torch_train.TorchProgram, "load", changed)


@pytest.fixture(scope="module", params=("float64", "float32") if LONG else ("float64",))
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """The side without a fault, for each trial, in one precision after the other."""
    root = tmp_path_factory.mktemp("sound")
    jobs = {name: job(changes, root / name, root / "cache", request.param) for name, changes in ALL.items()}
    for one in jobs.values():
        one.folder.mkdir()
        side.climb(torch_backend.BACKEND, one)
    return jobs


@pytest.fixture
def fresh() -> Iterator[None]:
    with fresh_code():
        yield


@pytest.mark.parametrize("trial", ALL)
def test_two_sound_sides_pass_every_rung_exactly(
    sound: dict[str, Job], tmp_path: Path, fresh: None, trial: str
) -> None:
    rungs = climbed(torch_backend.BACKEND, sound[trial], tmp_path / "sound")
    assert rungs[-1].name == "evaluation" and all(rung.passed for rung in rungs)
    own = ("moments", "formula")  # sides that are one compute what the formula in NumPy says but for rounding
    assert all(rung.largest.relative == 0 for rung in rungs if rung.largest and rung.name not in own)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught_where_it_is(
    sound: dict[str, Job], tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trial, plant, rung, place = FAULTS[name]
    precision = sound[trial].trial.train.precision
    plant(monkeypatch)
    first = next(
        (one for one in climbed(torch_backend.BACKEND, sound[trial], tmp_path / "sound") if not one.passed), None
    )
    if (precision, name) in ROUNDED_AWAY:
        assert first is None, "it can be seen after all: take it off the list"
        return
    assert first is not None, "the fault is not caught: a hole in the ladder"
    print(f"\n{precision} {name:40} {first.name:12} {first.place}")
    assert (first.name, place in first.place) == (rung, True), first
