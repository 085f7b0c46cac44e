"""Gradients side by side in one flat array, with the loss at its end, as microbatches and processes add them."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from backends import arrays
from backends.arrays import Shape
from backends.microbatches import padded_size, tree_sum

SHARE = "share"  # the name of the one array of a process's share, where trees have the names of parameters


@dataclass(frozen=True)
class Layout:
    """The parameters of a flat array, in their order."""

    shapes: Mapping[str, Shape]  # by name
    num_shares: int  # that processes take of it; zeros between the parameters and the loss make them equally long

    @property
    def num_values(self) -> int:
        """How many numbers the parameters have."""
        return sum(map(prod, self.shapes.values()))

    @property
    def size(self) -> int:
        """The length of the array: behind the parameters is a place for the loss at least."""
        return padded_size(self.num_values + 1, self.num_shares)

    def filled(self, state: Mapping[str, arrays.Array], group: str, dtype: DTypeLike) -> arrays.Array:
        """The arrays `group/name` of a state as one array (n,) of the host, with zeros at its end."""
        flat = np.zeros(self.size, dtype)
        for name, values in self.named(flat).items():
            values[...] = state[f"{group}/{name}"]
        return flat

    def flat(self, loss: Array, gradient: dict[str, Array]) -> Array:
        """A gradient by name as one array (n,), the loss at its end."""
        zeros = jnp.zeros(self.size - self.num_values - 1, loss.dtype)
        return jnp.concatenate([*(gradient[name].reshape(-1) for name in self.shapes), zeros, loss[None]])

    def named(self, flat_n: Any) -> dict[str, Any]:
        """The parts of a flat array (n, ...) by parameter name."""
        named, first = {}, 0
        for name, shape in self.shapes.items():
            named[name] = flat_n[first : first + prod(shape)].reshape(*shape, *flat_n.shape[1:])
            first += prod(shape)
        return named

    def squares(self, flat_n: Array) -> Array:
        """The sum of squares () of a gradient (n,), or of some neighbouring shares of it.

        Those of the equal shares are added in the tree of microbatches.py.
        """
        shares = flat_n.reshape(-1, self.size // self.num_shares)
        return tree_sum([*jax.lax.map(lambda share: jnp.square(share).sum(), shares)], operator.add)
