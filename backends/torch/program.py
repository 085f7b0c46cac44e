"""The training program in PyTorch."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backends.arrays import Array, State
from backends.contract import ArrayDataset, DataSize, Predictions, StepMetrics
from backends.microbatches import Group, joined, split, tree_sum
from backends.models.folds import branches, dropout_sites, uses
from backends.plan import StepPlan, stacked_arrays
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.torch import ranks
from backends.torch.augment import Data, batch, gather, scale
from backends.torch.device import (
    check,
    free_memory_bytes,
    open_device,
    peak_memory_bytes,
    place,
    reset_peak_memory,
    set_numerics,
)
from backends.torch.layers import Chance
from backends.torch.models import make
from backends.torch.state import TrainingState

# Precision: (parameters, moments, losses and statistics; matrix products and activations).
DTYPES = {
    "float64": (torch.float64, torch.float64),
    "float32": (torch.float32, torch.float32),
    "tf32": (torch.float32, torch.float32),
    "bfloat16": (torch.float32, torch.bfloat16),
}


def loss(spec: OptimizerSpec, logits_bk: Tensor, targets_bk: Tensor) -> Tensor:
    """Mean over the batch; the sigmoid loss is summed over classes, as the authors do."""
    if spec.loss == "softmax":
        return -(targets_bk * F.log_softmax(logits_bk, dim=-1)).sum(-1).mean()
    positive, negative = F.logsigmoid(logits_bk), F.logsigmoid(-logits_bk)
    return -(targets_bk * positive + (1 - targets_bk) * negative).sum(-1).mean()


class TorchProgram:
    """A model in PyTorch; see contract.Program."""

    def __init__(self, model: ModelSpec, optimizer: OptimizerSpec, dataset: ArrayDataset, run: RunSpec):
        self.model, self.optimizer, self.run = model, optimizer, run
        self.device = open_device(run.device)
        reset_peak_memory(self.device)
        self.master, self.compute = DTYPES[run.precision]
        self.data = place(dataset, self.device)
        self.compile_s = 0.0
        self.state = TrainingState(model, optimizer, run, self.device, self.master)
        # Without the rates, which come with each step: trials that differ in them share what is compiled.
        self.forward = _forward(model.structure(), run.compile, run.remat)

    @property
    def exchange_s(self) -> float:
        """See contract.Trainer."""
        return self.state.exchange_s

    def load(self, states: Sequence[Mapping[str, Array]]) -> None:
        self.state.load(states)

    def states(self, wanted: bool = True) -> list[State]:
        return self.state.copies(wanted)

    def train(self, plans: Sequence[StepPlan]) -> list[StepMetrics]:
        parts = self._parts(plans)
        metrics = [self._train(parts, i, plans) for i in range(plans[0].num_steps)]
        # Fetched once for all steps: each fetch makes Python wait for the device.
        values = (torch.stack(value, 1).double().cpu().numpy() for value in zip(*metrics, strict=True))
        return [StepMetrics(*of_replica) for of_replica in zip(*values, strict=True)]

    def _train(self, parts: Sequence[dict[str, Tensor]], i: int, plans: Sequence[StepPlan]) -> tuple[Tensor, Tensor]:
        """Take a step, and return its loss and gradient norm (replicas,)."""
        rate, corrections = (parts[0][name][i].to(self.master) for name in ("learning_rate", "moment_corrections"))
        with self._compiling("train", plans[0].examples.shape[1]):
            if self.run.microbatches > 1:
                total = self._own_gradient(parts, i, plans)
            else:
                losses, gradient = self._gradient(self._step(parts[0], i), plans)
        if self.run.microbatches > 1:
            return self.state.step_of_parts(total, rate, corrections)
        return losses, self.state.step(gradient, rate, corrections)

    def gradients(self, plans: Sequence[StepPlan]) -> list[State]:
        _, gradient = self._summed_gradient(self._parts(plans), 0, plans)
        named = self.state.trained.named
        return [{name: array.cpu().numpy() for name, array in named(row).items()} for row in gradient]

    def activations(self, plans: Sequence[StepPlan]) -> list[State]:
        parts = [self._activations(self._step(part, 0), plans) for part in self._parts(plans)]
        if self.run.group.size > 1:
            parts = ranks.gathered(parts, self.run.group)
        return [joined(of_replica) for of_replica in zip(*parts, strict=True)]

    @torch.no_grad()
    def predict(self, images: Array) -> list[Predictions]:
        set_numerics(self.run)  # flags of the process, which another program may have changed
        side, channels = self.model.image_size, self.model.image_channels
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).reshape(len(images), -1, channels)
        data = Data(pixels, pixels, self.data.pixel_order)  # gather reads no labels
        pixels = scale(gather(data, {"examples": torch.arange(len(pixels), device=self.device)}), self.master)
        images_bhwc = pixels.reshape(-1, side, side, channels)
        each = self.state.read("average" if self.optimizer.ema_decay else "params")
        with self._compiling("predict", len(images)):
            outputs = [self.forward(params, images_bhwc, Chance(), self.compute) for params in each]
        return [Predictions(logits.cpu().numpy(), features.cpu().numpy()) for logits, features in outputs]

    def peak_memory_bytes(self) -> int | None:
        return peak_memory_bytes(self.device)

    @contextlib.contextmanager
    def _compiling(self, *what: Any) -> Iterator[None]:
        """Add the time of a compiled forward's first call to compile_s; the time of the step itself is in it too."""
        start, key = time.monotonic(), (self.forward, self.run.precision, self.state.num_replicas, *what)
        yield
        if self.run.compile and key not in _compiled:
            _compiled.add(key)
            self.compile_s += time.monotonic() - start

    def _parts(self, plans: Sequence[StepPlan]) -> list[dict[str, Tensor]]:
        """What `_steps` gives of each microbatch that this process takes."""
        split_plans = [split(plan, self.run.microbatches, self.run.group) for plan in plans]
        return [self._steps(of_part) for of_part in zip(*split_plans, strict=True)]

    def _steps(self, plans: Sequence[StepPlan]) -> dict[str, Tensor]:
        """The plans' arrays: (steps, replicas, ...); on the device, but for pixels, which come there step by step."""
        set_numerics(self.run)  # flags of the process, which another program may have changed
        assert len({plan.dropout_rate for plan in plans}) == 1  # not an array: replicas share it
        stacked = stacked_arrays(plans)
        for name in {"dropout_keys", "first_rows"} & stacked.keys():
            stacked[name] = stacked[name].view(np.int32)  # torch has hardly any uint32 arithmetic
        arrays = {name: torch.from_numpy(array) for name, array in stacked.items()}
        return {name: array if name == "pixels" else array.to(self.device) for name, array in arrays.items()}

    def _step(self, steps: dict[str, Tensor], i: int) -> dict[str, Tensor]:
        """The arrays of one of the steps on the device: (replicas, ...).

        Pixels are copied from pinned memory, so that Python need not wait for the copy, and the plan's may be written.
        """
        step = {name: array[i] for name, array in steps.items()}
        if "pixels" in step and self.device.type == "cuda":
            step["pixels"] = step["pixels"].pin_memory()
        return {name: array.to(self.device, non_blocking=True) for name, array in step.items()}

    def _batch(self, step: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Images (b, h, w, channels) and targets (b, k) of one replica's step."""
        return batch(self.data, step, self.model.num_classes, self.optimizer.label_smoothing, self.master)

    def _chance(
        self, step: dict[str, Tensor], plans: Sequence[StepPlan], taps: dict[str, Tensor] | None = None
    ) -> Chance:
        """The random choices of one replica's step.  Args: taps: where the values of the pass are noted."""
        rate = plans[0].dropout_rate or 0.0
        sites, ends = dropout_sites(self.model), branches(self.model)
        return Chance(
            sites, ends, step.get("branch_scales"), step.get("dropout_keys"), rate, step.get("first_rows"), taps
        )

    def _summed_gradient(
        self, parts: Sequence[dict[str, Tensor]], i: int, plans: Sequence[StepPlan]
    ) -> tuple[Tensor, Tensor]:
        """Loss (replicas,) of the whole batch of a step, and its gradient (replicas, n): sums over microbatches."""
        if self.run.microbatches == 1:
            return self._gradient(self._step(parts[0], i), plans)
        return self.state.summed(self._own_gradient(parts, i, plans))

    def _own_gradient(self, parts: Sequence[dict[str, Tensor]], i: int, plans: Sequence[StepPlan]) -> Tensor:
        """The sum over the microbatches of this process, (replicas, n) with the loss at its end."""
        own = (self._gradient(self._step(part, i), plans) for part in parts)
        return tree_sum((_with_loss(*one) for one in own), Tensor.add_)

    @torch.no_grad()
    def _activations(self, step: dict[str, Tensor], plans: Sequence[StepPlan]) -> list[State]:
        """The values of a microbatch's forward pass, of each replica."""
        # The plain forward pass: a compiled one would be compiled anew to note its values.
        forward, replicas = _forward(self.model.structure()), []
        for replica, params in enumerate(self.state.read("params")):
            own = {name: array[replica] for name, array in step.items()}
            images_bhwc, targets_bk = self._batch(own)
            taps = {"images": images_bhwc, "targets": targets_bk}
            logits_bk, _ = forward(params, images_bhwc, self._chance(own, plans, taps), self.compute)
            taps["loss"] = self._share(logits_bk, targets_bk)
            replicas.append({name: x.double().cpu().numpy() for name, x in taps.items()})
        return replicas

    def _share(self, logits_bk: Tensor, targets_bk: Tensor) -> Tensor:
        """The loss of a microbatch, (), as a share of the whole batch's."""
        return loss(self.optimizer, logits_bk, targets_bk) / self.run.microbatches  # a power of two: exact

    def _gradient(self, step: dict[str, Tensor], plans: Sequence[StepPlan]) -> tuple[Tensor, Tensor]:
        """Loss (replicas,) of a microbatch, as a share of the whole batch's, and its gradient (replicas, n)."""

        flat, constants = self.state.flat["params"].detach().requires_grad_(), self.state.constants
        # A single replica goes without vmap, whose batched sums round in another order; remat does not work in vmap.
        together = len(flat) > 1 and not self.run.remat

        def replica_loss(flat: Tensor, constants: Tensor, step: dict[str, Tensor]) -> Tensor:
            images_bhwc, targets_bk = self._batch(step)
            params = self.state.trained.named(flat) | self.state.constant.named(constants)
            chance = replace(self._chance(step, plans), together=together)
            logits_bk, _ = self.forward(params, images_bhwc, chance, self.compute)
            return self._share(logits_bk, targets_bk)

        if together:
            losses = torch.vmap(replica_loss)(flat, constants, step)
        else:
            each = [{name: array[i] for name, array in step.items()} for i in range(len(flat))]
            losses = torch.stack([replica_loss(*one) for one in zip(flat, constants, each, strict=True)])
        # Each loss depends on its own row alone: the gradient of the sum holds the gradient of each.
        (gradient,) = torch.autograd.grad(losses.sum(), flat)
        return losses.detach(), gradient


def _with_loss(losses: Tensor, gradient: Tensor) -> Tensor:
    """A gradient with the loss at its end, where it has a zero, so that both are added and exchanged as one."""
    gradient[:, -1] = losses
    return gradient


_compiled: set[Any] = set()  # what this process has compiled, by forward function, precision and shape


@lru_cache(maxsize=64)
def _forward(model: ModelSpec, compiled: bool = False, remat: bool = False) -> Callable[..., Any]:
    """(parameters by name, images, chance, dtype) -> (logits, features), made once for each structure."""
    with torch.device("meta"):  # without memory: each call brings its own parameters
        module = make(model, remat)
    read = {own.replace("/", "."): held for own, held in uses(model).items()}

    def forward(params: dict[str, Tensor], *arguments: Any) -> Any:
        named = {own: params[held] for own, held in read.items()}
        return torch.func.functional_call(module, named, arguments)

    # Not dynamic: a run calls it with two shapes, those of training and of prediction, and each is compiled for itself.
    return torch.compile(forward, dynamic=False) if compiled else forward


class TorchBackend:
    """PyTorch; see contract.Backend."""

    name = "torch"

    def join(self, group: Group, address: str, timeout_s: float) -> None:
        ranks.join(group, address, timeout_s)

    def open(self, model: ModelSpec, optimizer: OptimizerSpec, dataset: ArrayDataset, run: RunSpec) -> TorchProgram:
        check(run)  # in PyTorch a device can be looked at before flags are set
        set_numerics(run)
        return TorchProgram(model, optimizer, dataset, run)

    def free_memory_bytes(self, run: RunSpec) -> int | None:
        return free_memory_bytes(open_device(run.device))

    def memory_bytes(
        self,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        data: DataSize,
        plan: StepPlan,
        run: RunSpec,
        num_replicas: int = 1,
    ) -> int | None:
        return None  # nothing says it before a step has run: the layers' estimate counts

    def about(self, run: RunSpec) -> dict[str, str]:
        device = open_device(run.device)
        return {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cuda": str(torch.version.cuda),
            "threads": str(torch.get_num_threads()),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_allow_tf32": str(torch.backends.cudnn.allow_tf32),
            "bf16_reduced_precision_reduction": str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction),
            "deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()),
            "compile": str(run.compile),
        }
