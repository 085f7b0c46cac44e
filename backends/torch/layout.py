"""Parameters side by side in one flat array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from backends.arrays import Array, Shape
from backends.microbatches import padded_size, tree_sum


@dataclass(frozen=True)
class Layout:
    """The parameters of a flat array, in their order."""

    shapes: Mapping[str, Shape]  # by name
    num_shares: int = (
        1  # that processes take of it; with several, its end has zeros, one at least: all are equally long
    )

    @property
    def num_values(self) -> int:
        """How many numbers the parameters have."""
        return sum(map(prod, self.shapes.values()))

    @property
    def size(self) -> int:
        """The length of the array."""
        return self.num_values if self.num_shares == 1 else padded_size(self.num_values + 1, self.num_shares)

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat array (n, ...) by parameter name."""
        parts = flat[: self.num_values].split([prod(shape) for shape in self.shapes.values()])
        return {
            name: part.reshape(*shape, *flat.shape[1:])
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def flat(self, states: Sequence[Mapping[str, Array]], group: str, dtype: torch.dtype) -> Tensor:
        """The arrays `group/name` of some states, (states, n).

        They are rounded parameter by parameter: the states may be of twice the precision, and as large as the device's.
        """
        flat = torch.empty((len(states), self.size), dtype=dtype)
        flat[:, self.num_values :] = 0
        for row, state in zip(flat, states, strict=True):
            for name, values in self.named(row).items():
                values.copy_(torch.tensor(state[f"{group}/{name}"]))
        return flat

    def squares(self, flat_rn: Tensor) -> Tensor:
        """The sum of squares (replicas,) of gradients (replicas, n), or of some neighbouring shares of them.

        Those of the equal shares are added in the tree of microbatches.py.
        """
        shares = flat_rn.reshape(len(flat_rn), -1, self.size // self.num_shares).unbind(1)
        return tree_sum((share.square().sum(1) for share in shares), torch.add)
