"""What is compiled of a training, for one structure of a trial."""

import operator
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
from backends.jax.layout import SHARE, Layout
from backends.jax.models import make
from backends.jax.optimizer import apply_gradient, followed
from backends.microbatches import tree_sum
from backends.models.folds import branches, dropout_sites, spread, trained_shapes
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.state import decayed_params, flat_order

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
        """Of a gradient as one array: decayed parameters are first."""
        return Layout(flat_order(self.model, self.optimizer.decay)[0], self.microbatches)

    @property
    def num_decayed(self) -> int:
        """Numbers at the beginning of such an array that weight decay acts on."""
        return flat_order(self.model, self.optimizer.decay)[1]

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

    def measured(self, share_rn: jax.Array, is_last: jax.Array) -> jax.Array:
        """Of a gradient, or a process's share of it, the last number and the sum of squares, (replicas, 2).

        Args: is_last: it ends with the loss, which is none of the gradient.
        """

        def one(share_n: jax.Array) -> jax.Array:
            last = share_n[-1]
            gradient = share_n.at[-1].set(jnp.where(is_last, 0, last))
            return jnp.stack([last, self.layout.squares(gradient)])

        return _over_replicas(one, len(share_rn))(share_rn)

    def update(
        self,
        own: Any,
        share_rn: jax.Array,
        measured_rn: jax.Array,
        num_decayed: jax.Array,
        steps: Any,
        i: jax.Array,
        scalars: Any,
    ) -> tuple[Any, jax.Array, jax.Array]:
        """Parameters and moments after step i of the steps, and its loss and gradient norm (replicas,).

        They are flat arrays, or the shares of one of several processes.

        Args: own: {group: {SHARE: (replicas, n)}}.    share_rn: of the gradient.
              measured_rn: (replicas, 2 processes), what `measured` gives of each.
              num_decayed: numbers at the beginning of the share that weight decay acts on, or less than 0.
        """
        decayed = {SHARE: jnp.arange(share_rn.shape[1]) < num_decayed}

        def one(own: Any, share_n: jax.Array, measured_n: jax.Array, step: Any) -> tuple[Any, jax.Array, jax.Array]:
            each, rate, corrections = measured_n.reshape(-1, 2), step["learning_rate"], step["moment_corrections"]
            norm = jnp.sqrt(tree_sum([*each[:, 1]], operator.add))
            gradient = {SHARE: share_n}
            own, _ = apply_gradient(self.optimizer, scalars, own, gradient, rate, corrections, decayed, norm)
            return own, each[-1, 0], norm

        step = {name: array[i] for name, array in steps.items()}
        return _over_replicas(one, len(share_rn))(own, share_rn, measured_rn, step)

    def placed(self, state: Any, flat_rn: jax.Array, scalars: Any) -> Any:
        """The state with these parameters, and with the average moved towards them.

        Args: state: `params`, and `average` if there is one.    flat_rn: the trained parameters.
        """

        def one(state: Any, flat_n: jax.Array) -> Any:
            params = self.layout.named(flat_n)
            average = {"average": followed(scalars, state["average"], params)} if "average" in state else {}
            return {"params": state["params"] | params, **average}

        return _over_replicas(one, len(flat_rn))(state, flat_rn)

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
