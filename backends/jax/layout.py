"""Gradients side by side in one flat array, with the loss at its end, as the processes of a group add them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from backends.arrays import Shape
from backends.microbatches import padded_size


@dataclass(frozen=True)
class Layout:
    """The parameters of a flat array, in their order; zeros behind them make all shares equally long."""

    shapes: Mapping[str, Shape]  # by name
    num_shares: int  # that processes take of it

    @property
    def num_values(self) -> int:
        """How many numbers the parameters have."""
        return sum(map(prod, self.shapes.values()))

    def flat(self, losses_r: Array, gradient: dict[str, Array]) -> Array:
        """A gradient by name (replicas, ...) as one array (replicas, n), the loss at its end."""
        rows = [gradient[name].reshape(len(losses_r), -1) for name in self.shapes]
        size = padded_size(self.num_values + 1, self.num_shares)
        zeros = jnp.zeros((len(losses_r), size - self.num_values - 1), losses_r.dtype)
        return jnp.concatenate([*rows, zeros, losses_r[:, None]], 1)

    def parted(self, flat_rn: Array) -> tuple[Array, Array]:
        """The losses (replicas,), and the gradient alone (replicas, n), with a zero in the place of the loss."""
        return flat_rn[:, -1], flat_rn.at[:, -1].set(0)

    def named(self, flat_rn: Array) -> dict[str, Array]:
        """The parts of a flat array by parameter name, (replicas, ...)."""
        named, first = {}, 0
        for name, shape in self.shapes.items():
            named[name] = flat_rn[:, first : first + prod(shape)].reshape(len(flat_rn), *shape)
            first += prod(shape)
        return named


def norms(flat_rn: Array, num_shares: int) -> Array:
    """The norm of each row, (replicas,).

    Args: num_shares: equal parts whose squares are added in the tree of microbatches.py, so that the processes of a
          group can each take some of them.
    """
    shares = flat_rn.reshape(len(flat_rn), num_shares, -1).swapaxes(0, 1)
    return jnp.sqrt(tree_map_sum(lambda share: jnp.square(share).sum(1), shares, num_shares))


def tree_map_sum(function: Callable[[Any], Any], parts: Any, num: int) -> Any:
    """The sum of a function of 2^k parts in the tree of microbatches.py, of which one copy is compiled.

    Args: parts: a tree of arrays whose leading axis is the part.
    """
    if num == 1:
        return function(jax.tree.map(lambda x: x[0], parts))
    halves = jax.tree.map(lambda x: x.reshape(2, num // 2, *x.shape[1:]), parts)
    both = jax.lax.map(lambda half: tree_map_sum(function, half, num // 2), halves)
    return jax.tree.map(lambda y: y[0] + y[1], both)
