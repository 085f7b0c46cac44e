"""The training program in JAX."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import unflatten_dict
from jax.typing import DTypeLike

from backends.arrays import Array, State
from backends.contract import ArrayDataset, DataSize, Predictions, StepMetrics
from backends.jax import ahead, memory
from backends.jax.ahead import CHUNK_STEPS
from backends.jax.augment import Data, batch, permuted, scale
from backends.jax.device import check, flags_for, free_memory_bytes, open_device, peak_memory_bytes, place, set_numerics
from backends.jax.layers import Chance, Dropout
from backends.jax.layout import Layout, norms, tree_map_sum
from backends.jax.models import make
from backends.jax.optimizer import apply_gradient
from backends.jax.ranks import summed
from backends.models.folds import branches, dropout_sites, spread, trained_shapes
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.state import decayed_params, groups

# Before the first array, else no float64 exists. Each array here has an explicit type: all precisions share a process.
jax.config.update("jax_enable_x64", True)

# Precision: (parameters, moments, losses and statistics; matrix products and activations; rounding inside a product).
# A TPU multiplies bfloat16 numbers alone: XLA takes six such products for one of float32 at "highest", three at that of
# "tensorfloat32", and one by default. Source: jax.lax.Precision.
DTYPES: dict[str, tuple[DTypeLike, DTypeLike, str]] = {
    "float64": (jnp.float64, jnp.float64, "highest"),
    "float32": (jnp.float32, jnp.float32, "highest"),
    "tf32": (jnp.float32, jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.float32, jnp.bfloat16, "highest"),
}


def loss(spec: OptimizerSpec, logits_bk: jax.Array, targets_bk: jax.Array) -> jax.Array:
    """Mean over the batch; the sigmoid loss is summed over classes, as the authors do."""
    if spec.loss == "softmax":
        return optax.softmax_cross_entropy(logits_bk, targets_bk).mean()
    return optax.sigmoid_binary_cross_entropy(logits_bk, targets_bk).sum(-1).mean()


class JaxProgram:
    """A model in JAX; see contract.Program. The state is a tree {group: {name: array (replicas, ...)}}."""

    def __init__(self, model: ModelSpec, optimizer: OptimizerSpec, dataset: ArrayDataset, run: RunSpec):
        self.model, self.optimizer, self.run = model, optimizer, run
        self.device = open_device(run.device)
        self.master = DTYPES[run.precision][0]
        self.data = place(dataset, self.device)
        self.traced = Traced.of(model, optimizer, run)
        self.compile_s = ahead.seconds_before(self.traced, self.device)
        self.scalars = self._put(ahead.scalars(optimizer, self.master))
        self.state: Any = {}

    def load(self, states: Sequence[Mapping[str, Array]]) -> None:
        self.state = {
            group: {
                # One by one, so that the host holds no second state beside the one that it was given.
                name: self._put(np.stack([state[f"{group}/{name}"] for state in states]).astype(self.master))
                for name in named
            }
            for group, named in groups(self.model, self.optimizer).items()
        }

    def states(self) -> list[State]:
        arrays = jax.device_get(self.state)
        return [
            {
                # Copied: on a CPU the array may be the program's own, which the next step overwrites.
                f"{group}/{name}": array[replica].copy()
                for group, named in arrays.items()
                for name, array in named.items()
            }
            for replica in range(self._num_replicas)
        ]

    def train(self, plans: Sequence[StepPlan]) -> list[StepMetrics]:
        steps, num_steps, metrics = self._steps(plans), plans[0].num_steps, []
        for first in range(0, num_steps, CHUNK_STEPS):
            num = min(CHUNK_STEPS, num_steps - first)
            chunk = ahead.padded(
                {name: array if name == "pixels" else array[first : first + num] for name, array in steps.items()}
            )
            arguments = (self.data, self._put(chunk), self.scalars, self._put(self._dropout(plans)))
            self.state, *chunk_metrics = self._call(self.traced.train, self.state, *arguments, self._put(np.int32(num)))
            metrics.append([np.asarray(x, np.float64)[:num] for x in chunk_metrics])
        loss_nr, norm_nr = (np.concatenate(values) for values in zip(*metrics, strict=True))
        return [StepMetrics(*columns) for columns in zip(loss_nr.T, norm_nr.T, strict=True)]

    def gradients(self, plans: Sequence[StepPlan]) -> list[State]:
        step = self._put({name: array[0] for name, array in self._steps(plans).items()})
        params, arguments = self.state["params"], (self.data, step, self.scalars, self._put(self._dropout(plans)))
        gradient = jax.device_get(self._call(self.traced.gradient, params, *arguments))
        return [{name: array[replica] for name, array in gradient.items()} for replica in range(self._num_replicas)]

    def activations(self, plans: Sequence[StepPlan]) -> list[State]:
        step = self._put({name: array[0] for name, array in self._steps(plans).items()})
        params, arguments = self.state["params"], (self.data, step, self.scalars, self._dropout(plans))
        taps = jax.device_get(self._call(self.traced.activations, params, *arguments))
        return [
            {name: x[replica].astype(np.float64) for name, x in taps.items()} for replica in range(self._num_replicas)
        ]

    def predict(self, images: Array) -> list[Predictions]:
        pixels = self._put(np.ascontiguousarray(images).reshape(len(images), -1))
        params = self.state["params"] | self.state.get("average", {})  # constants have no average
        logits, features = jax.device_get(self._call(self.traced.predict, params, pixels, self.data.pixel_order))
        return [Predictions(*outputs) for outputs in zip(logits, features, strict=True)]

    def peak_memory_bytes(self) -> int | None:
        return peak_memory_bytes(self.device)

    @property
    def _num_replicas(self) -> int:
        return _num_replicas(self.state["params"])

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, self.device)

    def _steps(self, plans: Sequence[StepPlan]) -> dict[str, Array]:
        """The plans' arrays: (steps, replicas, ...)."""
        return ahead.steps(plans, self.master, self.run)

    def _dropout(self, plans: Sequence[StepPlan]) -> Dropout[Array]:
        """The rate of dropout; an argument of what is compiled, so that another rate compiles nothing."""
        return ahead.dropout(plans[0], self.master)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of `Traced` in its compiled form; the first call with such shapes compiles it."""
        result, seconds = ahead.called(function, arguments, self.device, self.run)
        self.compile_s += seconds
        return result


@dataclass(frozen=True)
class Traced:
    """What is compiled, for one structure; every number that may differ between trials is an argument."""

    model: ModelSpec
    optimizer: OptimizerSpec
    precision: str
    remat: bool = False
    microbatches: int = 1
    group_size: int = 1

    @classmethod
    def of(cls, model: ModelSpec, optimizer: OptimizerSpec, run: RunSpec) -> "Traced":
        """Without the rates and numbers, which are arguments: trials that differ in them share what is compiled."""
        parts = run.microbatches, run.group.size
        return cls(model.structure(), optimizer.structure(), run.precision, run.remat, *parts)

    def train(
        self, state: Any, data: Data, steps: Any, scalars: Any, dropout: Dropout[jax.Array], num_steps: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array]:
        """The state after the first num_steps of the steps, and loss and gradient norm (steps, replicas)."""
        num_replicas = steps["learning_rate"].shape[1]
        decayed = decayed_params(self.model, self.optimizer.decay)

        def update(state: Any, gradient: Any, rate: jax.Array, corrections: jax.Array, norm: jax.Array) -> Any:
            return apply_gradient(self.optimizer, scalars, state, gradient, rate, corrections, decayed, norm)

        def body(i: jax.Array, carry: Any) -> Any:
            state, losses, norms = carry
            step = {name: array[i] for name, array in steps.items()}
            value, gradient, norm = self.summed_gradient(state["params"], data, step, scalars, dropout)
            rates = (step[name] for name in ahead.OF_ALL)
            state = _over_replicas(update, num_replicas)(state, gradient, *rates, norm)
            return state, losses.at[i].set(value), norms.at[i].set(norm)

        zeros = jnp.zeros(steps["learning_rate"].shape, DTYPES[self.precision][0])
        return jax.lax.fori_loop(0, num_steps, body, (state, zeros, zeros))

    def gradient(self, params: Any, data: Data, step: Any, scalars: Any, dropout: Dropout[jax.Array]) -> Any:
        """Gradient of one step's loss, by name: (replicas, ...)."""
        return self.summed_gradient(params, data, step, scalars, dropout)[1]

    def activations(self, params: Any, data: Data, step: Any, scalars: Any, dropout: Dropout[jax.Array]) -> Any:
        """Every value of one step's forward pass, by name: (replicas, ...)."""

        def activations(params: Any, step: Any) -> Any:
            images_bhwc, targets_bk = self.batch(data, step, scalars)
            taps = {"images": images_bhwc, "targets": targets_bk}
            chance = self.chance(step, dropout, taps)
            logits_bk, _ = self.forward(params, images_bhwc, chance)
            return taps | {"loss": loss(self.optimizer, logits_bk, targets_bk)}

        return _over_replicas(activations, len(step["learning_rate"]))(params, step)

    def predict(self, params: Any, pixels: jax.Array, pixel_order: jax.Array | None) -> Any:
        """Logits (replicas, b, k) and features (replicas, b, c)."""
        side, channels = self.model.image_size, self.model.image_channels
        pixels = permuted(pixels.reshape(len(pixels), -1, channels), pixel_order)
        images_bhwc = scale(pixels, DTYPES[self.precision][0]).reshape(-1, side, side, channels)
        return _over_replicas(lambda p: self.forward(p, images_bhwc, Chance()), _num_replicas(params))(params)

    def summed_gradient(
        self, params: Any, data: Data, step: Any, scalars: Any, dropout: Dropout[jax.Array]
    ) -> tuple[jax.Array, Any, jax.Array]:
        """Loss, gradient by name, and its norm, of the whole batch of a step: sums over microbatches.

        Each (replicas, ...).
        """
        num_replicas = len(step["learning_rate"])

        def of_part(part: Any) -> tuple[jax.Array, Any]:
            def gradient(params: Any, part: Any) -> Any:
                return self.loss_and_gradient(params, data, part, scalars, dropout)

            return _over_replicas(gradient, num_replicas)(params, part)

        parts = {name: array for name, array in step.items() if name not in ahead.OF_ALL}
        if self.microbatches == 1:
            value, gradient = of_part(parts)
            return value, gradient, _over_replicas(optax.tree.norm, num_replicas)(gradient)
        layout = Layout(trained_shapes(self.model), self.microbatches)
        flat = tree_map_sum(lambda part: layout.flat(*of_part(part)), parts, self.microbatches // self.group_size)
        value, flat = layout.parted(summed(flat, self.group_size))
        return value, layout.named(flat), norms(flat, self.microbatches)

    def loss_and_gradient(
        self, params: Any, data: Data, step: Any, scalars: Any, dropout: Dropout[jax.Array]
    ) -> tuple[jax.Array, Any]:
        """Loss () of one replica's microbatch, and its gradient by the names of trained parameters.

        Both are its share of those of the whole batch.
        """
        images_bhwc, targets_bk = self.batch(data, step, scalars)
        chance = self.chance(step, dropout)

        def replica_loss(trained: Any) -> jax.Array:
            logits_bk, _ = self.forward(params | trained, images_bhwc, chance, self.remat)
            mean = loss(self.optimizer, logits_bk, targets_bk)
            return mean if self.microbatches == 1 else mean / self.microbatches  # a power of two: exact

        return jax.value_and_grad(replica_loss)({name: params[name] for name in trained_shapes(self.model)})

    def chance(self, step: Any, dropout: Dropout[jax.Array], taps: dict[str, jax.Array] | None = None) -> Chance:
        """The random choices of one replica's step.  Args: taps: where the values of the pass are noted."""
        sites, ends = dropout_sites(self.model), branches(self.model)
        return Chance(
            sites, ends, step.get("branch_scales"), step.get("dropout_keys"), dropout, step.get("first_rows"), taps
        )

    def batch(self, data: Data, step: Any, scalars: Any) -> tuple[jax.Array, jax.Array]:
        """Images (b, h, w, channels) and targets (b, k) of one replica's step."""
        smoothing, num_classes = scalars["label_smoothing"], self.model.num_classes
        return batch(data, step, num_classes, smoothing, DTYPES[self.precision][0])

    def forward(
        self, params: Any, images_bhwc: jax.Array, chance: Chance, remat: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Logits (b, k) and features (b, c)."""
        _, compute, products = DTYPES[self.precision]
        with jax.default_matmul_precision(products):
            variables = {"params": unflatten_dict(spread(self.model, params), sep="/")}
            return make(self.model, remat).apply(variables, images_bhwc, chance, compute)  # type: ignore[return-value]


def _num_replicas(params: Any) -> int:
    """The length of the leading axis of every array."""
    return len(next(iter(params.values())))


def _over_replicas(function: Callable[..., Any], num_replicas: int) -> Callable[..., Any]:
    """A function of one replica, over trees whose leading axis is the replica."""
    if num_replicas > 1:
        return jax.vmap(function)
    # A single replica goes without vmap, whose batched sums round in another order.

    def of_one(*trees: Any) -> Any:
        return jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], trees)))

    return of_one


class JaxBackend:
    """JAX with Flax and Optax; see contract.Backend."""

    name = "jax"

    def open(self, model: ModelSpec, optimizer: OptimizerSpec, dataset: ArrayDataset, run: RunSpec) -> JaxProgram:
        set_numerics(run)  # first, as XLA reads its flags when `check` looks at a device
        check(run)
        return JaxProgram(model, optimizer, dataset, run)

    def free_memory_bytes(self, run: RunSpec) -> int | None:
        set_numerics(run)  # the first look at a device reads XLA's flags
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
        set_numerics(run)  # first: what is compiled here goes to the folder of compiled programs
        check(run)
        device, traced = open_device(run.device), Traced.of(model, optimizer, run)
        ahead.seconds_before(traced, device)  # those of a trial that was never opened are not this one's
        sizes = ahead.Sizes(model, optimizer, data, plan, DTYPES[run.precision][0], run, num_replicas)
        try:
            train = ahead.compiled_before(traced.train, sizes.train(device), device, run)
            predict = ahead.compiled_before(traced.predict, sizes.predict(device), device, run)
        except jax.errors.JaxRuntimeError as error:
            if not memory.is_full(error) or (needed := memory.used(error)) is None:
                raise
            return needed  # a TPU's compiler refuses what does not fit, and says how much it is
        return memory.peak_bytes(sizes, train, predict, device)

    def about(self, run: RunSpec) -> dict[str, str]:
        set_numerics(run)
        return {
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
            "device": open_device(run.device).device_kind,
            "threads": str(len(os.sched_getaffinity(0))),
            "float32_matmul_precision": DTYPES[run.precision][2],
            "xla_flags": flags_for(open_device(run.device)),
            "compile": "True",
        }
