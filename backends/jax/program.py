"""The training program in JAX."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from backends.arrays import Array, State
from backends.contract import ArrayDataset, DataSize, Predictions, StepMetrics
from backends.jax import ahead, memory, ranks
from backends.jax.ahead import CHUNK_STEPS
from backends.jax.device import check, flags_for, free_memory_bytes, open_device, peak_memory_bytes, place, set_numerics
from backends.jax.layers import Dropout
from backends.jax.state import TrainingState
from backends.jax.traced import DTYPES, Traced
from backends.microbatches import Group, joined, split, tree_sum
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec, RunSpec


class JaxProgram:
    """A model in JAX; see contract.Program."""

    def __init__(self, model: ModelSpec, optimizer: OptimizerSpec, dataset: ArrayDataset, run: RunSpec):
        self.model, self.optimizer, self.run = model, optimizer, run
        self.device = open_device(run.device)
        self.master = DTYPES[run.precision][0]
        self.data = place(dataset, self.device)
        self.traced = Traced.of(model, optimizer, run)
        self.compile_s = ahead.seconds_before(self.traced, self.device)
        self.scalars = self._put(ahead.scalars(optimizer, self.master))
        self.state = TrainingState(model, optimizer, run, self.device, self.master, self._call)

    @property
    def exchange_s(self) -> float:
        """See contract.Trainer."""
        return self.state.exchange_s

    def load(self, states: Sequence[Mapping[str, Array]]) -> None:
        self.state.load(states)

    def states(self, wanted: bool = True) -> list[State]:
        return self.state.copies(wanted)

    def train(self, plans: Sequence[StepPlan]) -> list[StepMetrics]:
        parts, metrics = self._parts(plans), []
        for first in range(0, plans[0].num_steps, CHUNK_STEPS):
            num = min(CHUNK_STEPS, plans[0].num_steps - first)
            chunks = [self._put(ahead.chunk(steps, first, num)) for steps in parts]
            do = self._train_whole if self.run.microbatches == 1 else self._train_in_parts
            metrics.append([np.asarray(x, np.float64)[:num] for x in do(chunks, self._dropout(plans), num)])
        loss_nr, norm_nr = (np.concatenate(values) for values in zip(*metrics, strict=True))
        return [StepMetrics(*columns) for columns in zip(loss_nr.T, norm_nr.T, strict=True)]

    def _train_whole(self, chunks: Sequence[Any], dropout: Dropout[Array], num_steps: int) -> Sequence[jax.Array]:
        """Take some steps as one call, and return loss and gradient norm (steps, replicas)."""
        arguments = (self.data, chunks[0], self.scalars, dropout, np.int32(num_steps))
        self.state.tree, *metrics = self._call(self.traced.train, self.state.tree, *arguments)
        return metrics

    def _train_in_parts(self, chunks: Sequence[Any], dropout: Dropout[Array], num_steps: int) -> Sequence[jax.Array]:
        """The same with a call for each microbatch: on each number of devices the same programs do the arithmetic."""
        metrics = []
        for i in range(num_steps):
            total, arguments = (
                self._own_gradient(chunks, dropout, i),
                (ahead.rates(chunks[0]), np.int32(i), self.scalars),
            )
            metrics.append(self.state.step_of_parts(total, *arguments))
        return [jnp.stack(values) for values in zip(*metrics, strict=True)]

    def _own_gradient(self, chunks: Sequence[Any], dropout: Dropout[Array], i: int) -> jax.Array:
        """The sum over the microbatches of this process in a step, (replicas, n) with the loss at its end."""
        params, arguments = self.state.tree["params"], (np.int32(i), self.scalars, dropout)
        own = (self._call(self.traced.part, params, self.data, chunk, *arguments) for chunk in chunks)
        return tree_sum(own, ranks.added)

    def gradients(self, plans: Sequence[StepPlan]) -> list[State]:
        if self.run.microbatches > 1:
            chunks = [self._put(ahead.chunk(part, 0, 1)) for part in self._parts(plans)]
            flat = jax.device_get(self.state.summed(self._own_gradient(chunks, self._dropout(plans), 0)))
            return [self.traced.layout.named(row) for row in flat]
        step = self._put({name: array[0] for name, array in self._steps(plans).items()})
        params, arguments = self.state.tree["params"], (self.data, step, self.scalars, self._dropout(plans))
        gradient = jax.device_get(self._call(self.traced.gradient, params, *arguments))
        return [
            {name: array[replica] for name, array in gradient.items()} for replica in range(self.state.num_replicas)
        ]

    def activations(self, plans: Sequence[StepPlan]) -> list[State]:
        parts = [self._activations(part, self._dropout(plans)) for part in self._parts(plans)]
        if self.run.group.size > 1:
            parts = ranks.gathered(parts, self.run.group)
        return [joined(of_replica) for of_replica in zip(*parts, strict=True)]

    def _activations(self, steps: dict[str, Array], dropout: Dropout[Array]) -> list[State]:
        """The values of a microbatch's forward pass, of each replica."""
        step = self._put({name: array[0] for name, array in steps.items()})
        params, arguments = self.state.tree["params"], (self.data, step, self.scalars, dropout)
        taps = jax.device_get(self._call(self.traced.activations, params, *arguments))
        return [
            {name: x[replica].astype(np.float64) for name, x in taps.items()}
            for replica in range(self.state.num_replicas)
        ]

    def predict(self, images: Array) -> list[Predictions]:
        pixels = self._put(np.ascontiguousarray(images).reshape(len(images), -1))
        params = self.state.tree["params"] | self.state.tree.get("average", {})  # constants have no average
        logits, features = jax.device_get(self._call(self.traced.predict, params, pixels, self.data.pixel_order))
        return [Predictions(*outputs) for outputs in zip(logits, features, strict=True)]

    def peak_memory_bytes(self) -> int | None:
        return peak_memory_bytes(self.device)

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, self.device)

    def _parts(self, plans: Sequence[StepPlan]) -> list[dict[str, Array]]:
        """What `_steps` gives of each microbatch that this process takes."""
        split_plans = [split(plan, self.run.microbatches, self.run.group) for plan in plans]
        return [self._steps(of_part) for of_part in zip(*split_plans, strict=True)]

    def _steps(self, plans: Sequence[StepPlan]) -> dict[str, Array]:
        """The plans' arrays: (steps, replicas, ...)."""
        return ahead.steps(plans, self.master)

    def _dropout(self, plans: Sequence[StepPlan]) -> Dropout[Array]:
        """The rate of dropout; an argument of what is compiled, so that another rate compiles nothing."""
        return ahead.dropout(plans[0], self.master)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of `Traced` in its compiled form; the first call with such shapes compiles it."""
        program, seconds = ahead.compiled_form(function, arguments, self.device, self.run.remat)
        self.compile_s += seconds
        return program(*arguments)


class JaxBackend:
    """JAX with Flax and Optax; see contract.Backend."""

    name = "jax"

    def join(self, group: Group, address: str, timeout_s: float) -> None:
        set_numerics(RunSpec())  # XLA reads its flags with the first look at a device
        ranks.join(group, address, timeout_s)

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
            programs = {
                name: ahead.compiled_before(getattr(traced, name), getattr(sizes, name)(device), device, run.remat)
                for name in sizes.functions
            }
        except jax.errors.JaxRuntimeError as error:
            if not memory.is_full(error) or (needed := memory.used(error)) is None:
                raise
            return needed  # a TPU's compiler refuses what does not fit, and says how much it is
        return memory.peak_bytes(sizes, programs, device)

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
