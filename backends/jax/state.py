"""The training state in JAX, as one process holds it, and the steps that it takes with gradients."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from backends.arrays import Array, State
from backends.jax import ranks
from backends.jax.layout import SHARE
from backends.jax.traced import Traced, num_replicas
from backends.microbatches import ALONE, own_share
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.state import groups, moments

Call = Callable[..., Any]  # (function of Traced, *arguments) -> what its compiled form returns


class TrainingState:
    """Trees {group: {name: array (replicas, ...)}}; the groups are `params`, and each slot of the optimizer.

    With microbatches the moments are in no tree: `own` holds them, and parameters, as flat arrays, {group: {SHARE:
    (replicas, n)}}, or with run.shares_optimizer this process's share of them. So the optimizer is one program on any
    number of devices: for arrays of other shapes XLA rounds otherwise.
    """

    def __init__(
        self, model: ModelSpec, optimizer: OptimizerSpec, run: RunSpec, device: jax.Device, dtype: DTypeLike, call: Call
    ):
        self.optimizer, self.run, self.device, self.dtype, self.call = optimizer, run, device, dtype, call
        self.traced, self.groups = Traced.of(model, optimizer, run), groups(model, optimizer)
        self.sharing = run.group if run.shares_optimizer else ALONE
        self.place = own_share(self.traced.layout.size, self.sharing)
        self.is_flat = run.microbatches > 1
        self.tree: dict[str, Any] = {}
        self.own: dict[str, Any] = {}
        self.exchange_s = 0.0

    @property
    def num_replicas(self) -> int:
        return num_replicas(self.tree["params"])

    def load(self, states: Sequence[Mapping[str, Array]]) -> None:
        """See contract.Trainer."""
        flat = moments(self.optimizer) if self.is_flat else ()
        for group, named in self.groups.items():
            if group not in flat:
                # One by one, so that the host holds no second state beside the one that it was given.
                self.tree[group] = {
                    name: self._put(np.stack([state[f"{group}/{name}"] for state in states])) for name in named
                }
        for group in ("params", *flat) if flat else ():
            rows = [self.traced.layout.filled(state, group, self.dtype)[self.place] for state in states]
            self.own[group] = {SHARE: self._put(np.stack(rows))}

    def copies(self, wanted: bool) -> list[State]:
        """See contract.Trainer.states."""
        states: list[State] = [{} for _ in range(self.num_replicas)]
        for group in self.groups:
            if group in self.tree:
                named = jax.device_get(self.tree[group]) if wanted else {}
            else:
                flat = self._whole(self.own[group][SHARE])  # whether it is wanted here or not
                parts = self.traced.layout.named(np.asarray(flat).T) if wanted else {}
                named = {name: np.moveaxis(array, -1, 0) for name, array in parts.items()}
            _add(states, group, named)
        return states if wanted else []

    def step_of_parts(self, total: jax.Array, *arguments: Any) -> tuple[jax.Array, jax.Array]:
        """Take a step, and return its loss and gradient norm (replicas,).

        With run.shares_optimizer each process updates its share of the parameters, and gives it to the others.

        Args:   total: (replicas, n), the sum over this process's microbatches, with the loss at its end.
                arguments: the last three of Traced.update.
        Source: arXiv 1910.02054, section 5.1: ZeRO with the optimizer's state shared out.
        """
        number = np.int32(self.traced.num_decayed - self.place.start)
        self.own, losses, norms = self.call(self.traced.update, self.own, *self._measured(total), number, *arguments)
        self.tree = self.call(self.traced.placed, self.tree, self._whole(self.own["params"][SHARE]), arguments[-1])
        return losses, norms

    def _measured(self, total: jax.Array) -> tuple[jax.Array, jax.Array]:
        """This process's share of the gradient, and what Traced.measured says of those of all."""
        group, is_last = self.sharing, np.bool_(self.sharing.rank == self.sharing.size - 1)
        if group.size == 1:
            gradient = self.summed(total)
            return gradient, self.call(self.traced.measured, gradient, is_last)
        with self._exchanging(total) as given:
            gradient = ranks.scattered(total, group, self.device)
            measured = self.call(self.traced.measured, gradient, is_last)
            return gradient, given(ranks.whole(measured, group, self.device))

    def _whole(self, share: jax.Array) -> jax.Array:
        """A flat array, from the share of each process."""
        if self.sharing.size == 1:
            return share
        with self._exchanging(share) as given:
            return given(ranks.whole(share, self.sharing, self.device))

    def summed(self, total: jax.Array) -> jax.Array:
        """The gradient of the whole batch, with the loss at its end.  Args: total: see `step_of_parts`."""
        if self.run.group.size == 1:
            return total
        with self._exchanging(total) as given:
            return given(ranks.summed(total, self.run.group, self.device))

    @contextlib.contextmanager
    def _exchanging(self, sent: jax.Array) -> Iterator[Callable[[jax.Array], jax.Array]]:
        """Add the time inside to exchange_s.  Yields: a function that waits for what is got, and returns it."""
        sent.block_until_ready()
        start = time.monotonic()
        yield lambda got: got.block_until_ready()
        self.exchange_s += time.monotonic() - start

    def _put(self, array: Array) -> jax.Array:
        return jax.device_put(array.astype(self.dtype), self.device)


def _add(states: Sequence[State], group: str, named: Mapping[str, Array]) -> None:
    """Add arrays (replicas, ...) to the states, copied: a CPU's are the program's own, which the next step changes."""
    for name, array in named.items():
        for replica, state in enumerate(states):
            state[f"{group}/{name}"] = array[replica].copy()
