"""Gradients side by side in one flat array, with the loss at its end, as microbatches and processes add them."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from backends.arrays import Shape
from backends.microbatches import padded_size, tree_sum


@dataclass(frozen=True)
class Layout:
    """The parameters of a flat array, in their order."""

    shapes: Mapping[str, Shape]  # by name
    num_shares: int  # that processes take of it; zeros between the parameters and the loss make them equally long

    @property
    def num_values(self) -> int:
        """How many numbers the parameters have."""
        return sum(map(prod, self.shapes.values()))

    def flat(self, loss: Array, gradient: dict[str, Array]) -> Array:
        """A gradient by name as one array (n,), the loss at its end."""
        size = padded_size(self.num_values + 1, self.num_shares)
        zeros = jnp.zeros(size - self.num_values - 1, loss.dtype)
        return jnp.concatenate([*(gradient[name].reshape(-1) for name in self.shapes), zeros, loss[None]])

    def named(self, flat_n: Any) -> dict[str, Any]:
        """The parts of a flat array by parameter name."""
        named, first = {}, 0
        for name, shape in self.shapes.items():
            named[name] = flat_n[first : first + prod(shape)].reshape(shape)
            first += prod(shape)
        return named

    def norm(self, flat_n: Array) -> Array:
        """The norm of a gradient: squares of equal shares, added in the tree of microbatches.py."""
        shares = flat_n.at[-1].set(0).reshape(self.num_shares, -1)
        squares = jax.lax.map(lambda share: jnp.square(share).sum(), shares)
        return jnp.sqrt(tree_sum([*squares], operator.add))
