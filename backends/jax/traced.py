"""What is compiled of a training, for one structure of a trial."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import unflatten_dict
from jax.typing import DTypeLike

from backends.jax.augment import Data, batch, permuted, scale
from backends.jax.layers import Chance, Dropout
from backends.jax.layout import Layout
from backends.jax.models import make
from backends.jax.optimizer import apply_gradient
from backends.models.folds import branches, dropout_sites, spread, trained_shapes
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.state import decayed_params

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


@dataclass(frozen=True)
class Traced:
    """What is compiled, for one structure; every number that may differ between trials is an argument."""

    model: ModelSpec
    optimizer: OptimizerSpec
    precision: str
    remat: bool = False
    microbatches: int = 1

    @property
    def layout(self) -> Layout:
        """Of a gradient as one array."""
        return Layout(trained_shapes(self.model), self.microbatches)

    @classmethod
    def of(cls, model: ModelSpec, optimizer: OptimizerSpec, run: RunSpec) -> "Traced":
        """Without the rates and numbers, which are arguments: trials that differ in them share what is compiled."""
        return cls(model.structure(), optimizer.structure(), run.precision, run.remat, run.microbatches)

    def train(
        self, state: Any, data: Data, steps: Any, scalars: Any, dropout: Dropout[jax.Array], num_steps: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array]:
        """The state after the first num_steps of the steps, and loss and gradient norm (steps, replicas)."""
        number = steps["learning_rate"].shape[1]
        decayed = decayed_params(self.model, self.optimizer.decay)

        def one_step(state: Any, step: Any) -> tuple[Any, jax.Array, jax.Array]:
            value, gradient = self.loss_and_gradient(state["params"], data, step, scalars, dropout)
            rate, corrections = step["learning_rate"], step["moment_corrections"]
            state, norm = apply_gradient(self.optimizer, scalars, state, gradient, rate, corrections, decayed)
            return state, value, norm

        def body(i: jax.Array, carry: Any) -> Any:
            state, losses, norms = carry
            step = {name: array[i] for name, array in steps.items()}
            state, value, norm = _over_replicas(one_step, number)(state, step)
            return state, losses.at[i].set(value), norms.at[i].set(norm)

        zeros = jnp.zeros(steps["learning_rate"].shape, DTYPES[self.precision][0])
        return jax.lax.fori_loop(0, num_steps, body, (state, zeros, zeros))

    def gradient(self, params: Any, data: Data, step: Any, scalars: Any, dropout: Dropout[jax.Array]) -> Any:
        """Gradient of one step's loss, by name: (replicas, ...)."""

        def gradient(params: Any, step: Any) -> Any:
            return self.loss_and_gradient(params, data, step, scalars, dropout)[1]

        return _over_replicas(gradient, len(step["learning_rate"]))(params, step)

    def part(
        self, params: Any, data: Data, steps: Any, i: jax.Array, scalars: Any, dropout: Dropout[jax.Array]
    ) -> jax.Array:
        """Gradient of a microbatch's loss in step i of the steps, (replicas, n) with the loss at its end."""

        def gradient(params: Any, step: Any) -> jax.Array:
            return self.layout.flat(*self.loss_and_gradient(params, data, step, scalars, dropout))

        step = {name: array[i] for name, array in steps.items()}
        return _over_replicas(gradient, len(step["learning_rate"]))(params, step)

    def update(
        self, state: Any, flat_rn: jax.Array, steps: Any, i: jax.Array, scalars: Any
    ) -> tuple[Any, jax.Array, jax.Array]:
        """The state after step i of the steps, and its loss and gradient norm (replicas,).

        Args: flat_rn: the sum of what `part` gives.
        """
        decayed = decayed_params(self.model, self.optimizer.decay)

        def one(state: Any, flat_n: jax.Array, step: Any) -> tuple[Any, jax.Array, jax.Array]:
            gradient, rate, corrections = self.layout.named(flat_n), step["learning_rate"], step["moment_corrections"]
            norm = self.layout.norm(flat_n)
            state, _ = apply_gradient(self.optimizer, scalars, state, gradient, rate, corrections, decayed, norm)
            return state, flat_n[-1], norm

        step = {name: array[i] for name, array in steps.items()}
        return _over_replicas(one, len(flat_rn))(state, flat_rn, step)

    def activations(self, params: Any, data: Data, step: Any, scalars: Any, dropout: Dropout[jax.Array]) -> Any:
        """Every value of one step's forward pass, by name: (replicas, ...)."""

        def activations(params: Any, step: Any) -> Any:
            images_bhwc, targets_bk = self.batch(data, step, scalars)
            taps = {"images": images_bhwc, "targets": targets_bk}
            chance = self.chance(step, dropout, taps)
            logits_bk, _ = self.forward(params, images_bhwc, chance)
            return taps | {"loss": self.share(logits_bk, targets_bk)}

        return _over_replicas(activations, len(step["learning_rate"]))(params, step)

    def predict(self, params: Any, pixels: jax.Array, pixel_order: jax.Array | None) -> Any:
        """Logits (replicas, b, k) and features (replicas, b, c)."""
        side, channels = self.model.image_size, self.model.image_channels
        pixels = permuted(pixels.reshape(len(pixels), -1, channels), pixel_order)
        images_bhwc = scale(pixels, DTYPES[self.precision][0]).reshape(-1, side, side, channels)
        return _over_replicas(lambda p: self.forward(p, images_bhwc, Chance()), num_replicas(params))(params)

    def loss_and_gradient(
        self, params: Any, data: Data, step: Any, scalars: Any, dropout: Dropout[jax.Array]
    ) -> tuple[jax.Array, Any]:
        """Loss () of one replica's microbatch, as a share of the batch's, and its gradient by the trained names."""
        images_bhwc, targets_bk = self.batch(data, step, scalars)
        chance = self.chance(step, dropout)

        def replica_loss(trained: Any) -> jax.Array:
            logits_bk, _ = self.forward(params | trained, images_bhwc, chance, self.remat)
            return self.share(logits_bk, targets_bk)

        return jax.value_and_grad(replica_loss)({name: params[name] for name in trained_shapes(self.model)})

    def share(self, logits_bk: jax.Array, targets_bk: jax.Array) -> jax.Array:
        """The loss of a microbatch, (), as a share of the whole batch's."""
        mean = loss(self.optimizer, logits_bk, targets_bk)
        return mean if self.microbatches == 1 else mean / self.microbatches  # a power of two: exact

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


def num_replicas(params: Any) -> int:
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
