"""The training state in PyTorch, as one process holds it, and the steps that it takes with gradients."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from backends.arrays import Array, State
from backends.microbatches import ALONE, own_share, tree_sum
from backends.models.folds import constant_shapes
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.state import flat_order, moments, slots
from backends.torch import ranks
from backends.torch.layout import Layout
from backends.torch.optimizer import apply_gradient, follow


class TrainingState:
    """Trained parameters and slots as flat arrays (replicas, n), by group: `params`, and each slot of the optimizer.

    So the optimizer makes one pass over them and not one for each parameter. Decayed parameters are first: weight decay
    acts on one slice. The other parameters, which are constants, are a flat array of their own. With
    run.shares_optimizer the moments are this process's share of them, (replicas, n / size).
    """

    def __init__(
        self, model: ModelSpec, optimizer: OptimizerSpec, run: RunSpec, device: torch.device, dtype: torch.dtype
    ):
        self.optimizer, self.run, self.device, self.dtype = optimizer, run, device, dtype
        shapes, self.num_decayed = flat_order(model, optimizer.decay)
        self.trained, self.constant = Layout(shapes, run.microbatches), Layout(constant_shapes(model))
        self.sharing = run.group if run.shares_optimizer else ALONE
        self.own = own_share(self.trained.size, self.sharing)
        self.flat: dict[str, Tensor] = {}
        self.constants = torch.empty((0, self.constant.size))
        self.exchange_s = 0.0

    @property
    def num_replicas(self) -> int:
        return len(self.constants)

    def load(self, states: Sequence[Mapping[str, Array]]) -> None:
        """See contract.Trainer."""
        for group in ("params", *slots(self.optimizer)):
            flat = self.trained.flat(states, group, self.dtype)
            self.flat[group] = (flat[:, self.own].clone() if self._is_shared(group) else flat).to(self.device)
        self.constants = self.constant.flat(states, "params", self.dtype).to(self.device)

    def copies(self, wanted: bool) -> list[State]:
        """See contract.Trainer.states."""
        states: list[State] = [{} for _ in range(self.num_replicas)]
        for group, held in self.flat.items():
            flat = self._whole(held) if self._is_shared(group) else held
            if wanted:
                _add(states, group, self.trained.named(flat.T))
        _add(states, "params", self.constant.named(self.constants.T))
        return states if wanted else []

    def _is_shared(self, group: str) -> bool:
        return self.sharing.size > 1 and group in moments(self.optimizer)

    def read(self, group: str) -> list[dict[str, Tensor]]:
        """What each replica's forward pass reads, by name.  Args: group: `params`, or `average` of those trained."""
        rows = zip(self.flat[group], self.constants, strict=True)
        return [self.trained.named(flat) | self.constant.named(constants) for flat, constants in rows]

    def step(self, gradient: Tensor, rate: Tensor, corrections: Tensor) -> Tensor:
        """Take a step with a gradient (replicas, n) of a batch in one part, and return its norm (replicas,)."""
        return apply_gradient(self.optimizer, self.flat, gradient, rate, corrections, self.num_decayed)

    def step_of_parts(self, total: Tensor, rate: Tensor, corrections: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step, and return its loss and gradient norm (replicas,).

        With run.shares_optimizer each process updates its share of the parameters, and gives it to the others.

        Args:   total: (replicas, n), the sum over this process's microbatches, with the loss at its end.
        Source: arXiv 1910.02054, section 5.1: ZeRO with the optimizer's state shared out.
        """
        gradient, losses, norm = self._measured(total)
        state = {
            "params": self.flat["params"][:, self.own],
            **{name: self.flat[name] for name in moments(self.optimizer)},
        }
        num_decayed = max(0, self.num_decayed - self.own.start)
        apply_gradient(self.optimizer, state, gradient, rate, corrections, num_decayed, norm)
        self.flat["params"] = self._whole(state["params"])
        if "average" in self.flat:
            follow(self.optimizer, self.flat)
        return losses, norm

    def summed(self, total: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (replicas,) and gradient (replicas, n) of the whole batch.  Args: total: see `step_of_parts`."""
        if self.run.group.size > 1:
            with self._exchanging():
                total = ranks.summed(total, self.run.group)
        losses = total[:, -1].clone()
        total[:, -1] = 0
        return losses, total

    def _measured(self, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """This process's share of the gradient, and loss and norm (replicas,) of the whole."""
        group = self.sharing
        if group.size == 1:
            losses, gradient = self.summed(total)
            return gradient, losses, self.trained.squares(gradient).sqrt()
        with self._exchanging():
            gradient = ranks.scattered(total, group)
            last = gradient[:, -1].clone()
            if group.rank == group.size - 1:
                gradient[:, -1] = 0  # it was the loss
            of_all = ranks.whole(torch.stack([last, self.trained.squares(gradient)], 1), group)
        each = of_all.reshape(len(gradient), group.size, 2)
        return gradient, each[:, -1, 0], tree_sum(each[..., 1].unbind(1), torch.add).sqrt()

    def _whole(self, share: Tensor) -> Tensor:
        """A flat array, from the share of each process."""
        if self.sharing.size == 1:
            return share
        with self._exchanging():
            return ranks.whole(share, self.sharing)

    @contextlib.contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Add the time inside to exchange_s."""
        start = self._now()
        yield
        self.exchange_s += self._now() - start

    def _now(self) -> float:
        """The time once the device has done what it was told to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()


def _add(states: Sequence[State], group: str, named: Mapping[str, Tensor]) -> None:
    """Add arrays (..., replicas) to the states, copied: a CPU's are the program's own, which the next step changes."""
    for name, array in named.items():
        for replica, state in enumerate(states):
            state[f"{group}/{name}"] = array[..., replica].cpu().numpy().copy()
