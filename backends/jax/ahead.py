"""What JAX compiles: the arguments of the functions of `Traced`, as arrays or as shapes alone, and the compiled forms.

A function is compiled for shapes. So it can be compiled, and its memory is known, before any of its arrays exists.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from jax.typing import DTypeLike

from backends.arrays import Array, Shape
from backends.contract import PREDICT_BATCH, DataSize
from backends.jax.augment import Data, row_shape
from backends.jax.device import compiled
from backends.jax.layers import Dropout
from backends.jax.layout import SHARE
from backends.microbatches import padded_size, split
from backends.models.folds import shapes, trained_shapes
from backends.plan import StepPlan, stacked_arrays
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.state import groups, moments

# Steps that a compiled chunk has room for. Fewer run in the same program, so that no number of them compiles its own.
CHUNK_STEPS = 32


def scalars(optimizer: OptimizerSpec, dtype: DTypeLike) -> dict[str, Array]:
    """The numbers of an optimizer that are arguments of what is compiled."""
    values = optimizer.scalars()
    # In float64 here: in float32, 1 - 0.9999 has three digits.
    values |= {f"1 - {name}": 1 - values[name] for name in ("b1", "b2", "ema_decay")}
    return {name: np.asarray(x, dtype) for name, x in values.items()}


def steps(plans: Sequence[StepPlan], dtype: DTypeLike) -> dict[str, Array]:
    """The plans' arrays: (steps, replicas, ...); numbers in float64 are rounded here, as a TPU has no float64."""
    assert len({plan.dropout_rate for plan in plans}) == 1  # not an array: replicas share it
    stacked = stacked_arrays(plans)
    return {name: array.astype(dtype) if array.dtype == np.float64 else array for name, array in stacked.items()}


def chunk(steps: dict[str, Array], first: int, num: int) -> dict[str, Array]:
    """Some of the steps, as `padded` gives them."""
    return padded({name: array if name == "pixels" else array[first : first + num] for name, array in steps.items()})


def padded(steps: dict[str, Array]) -> dict[str, Array]:
    """The steps, and zeros up to CHUNK_STEPS, which the compiled loop does not reach; pixels have their own length."""
    return {
        name: array
        if name == "pixels"
        else np.pad(array, [(0, CHUNK_STEPS - len(array))] + [(0, 0)] * (array.ndim - 1))
        for name, array in steps.items()
    }


def rates(steps: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of steps that an update reads."""
    return {name: steps[name] for name in ("learning_rate", "moment_corrections")}


def dropout(plan: StepPlan, dtype: DTypeLike) -> Dropout[Array]:
    """What the rate of dropout becomes; of the rate 0 where it is off."""
    rate = plan.dropout_rate or 0.0
    return Dropout(np.asarray(round(rate * 2**24), np.uint32), np.asarray(1 / (1 - rate), dtype))


@dataclass(frozen=True, eq=False)
class Sizes:
    """What the shapes of a trial's arguments follow from."""

    model: ModelSpec
    optimizer: OptimizerSpec
    data: DataSize
    plan: StepPlan  # of one step
    dtype: DTypeLike  # of parameters
    run: RunSpec
    num_replicas: int = 1

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions of Traced that a training calls, each of which has its arguments here."""
        if self.run.microbatches == 1:
            return ("train", "predict")
        return ("part", "measured", "update", "placed", "predict")

    def train(self, device: jax.Device) -> tuple[Any, ...]:
        """The arguments of Traced.train on a device, as shapes."""
        numbers = (scalars(self.optimizer, self.dtype), dropout(self.plan, self.dtype), np.int32(1))
        return (self.state(device), self.images(device), self._chunk(device), *on(device, numbers))

    def part(self, device: jax.Device) -> tuple[Any, ...]:
        """The arguments of Traced.part on a device, as shapes."""
        numbers = (np.int32(0), scalars(self.optimizer, self.dtype), dropout(self.plan, self.dtype))
        params = self._arrays(shapes(self.model), device)
        return (params, self.images(device), self._chunk(device), *on(device, numbers))

    def measured(self, device: jax.Device) -> tuple[Any, ...]:
        """The arguments of Traced.measured on a device, as shapes."""
        return (self.flat(device, self._num_shares), *on(device, (np.bool_(False),)))

    def update(self, device: jax.Device) -> tuple[Any, ...]:
        """The arguments of Traced.update on a device, as shapes."""
        share, each = self.flat(device, self._num_shares), (self.num_replicas, 2 * self._num_shares)
        number = on(device, (np.int32(0),))
        return (self.own(device), share, _shape(each, self.dtype, device), *number, *self._step(device))

    def placed(self, device: jax.Device) -> tuple[Any, ...]:
        """The arguments of Traced.placed on a device, as shapes."""
        return (self.state(device), self.flat(device), self._step(device)[-1])

    def state(self, device: jax.Device) -> dict[str, Any]:
        """The state's trees on a device, as shapes."""
        flat = moments(self.optimizer) if self.run.microbatches > 1 else ()
        of_groups = groups(self.model, self.optimizer).items()
        return {group: self._arrays(shapes, device) for group, shapes in of_groups if group not in flat}

    def own(self, device: jax.Device) -> dict[str, Any]:
        """Parameters and moments of a process as flat arrays, as shapes; nothing without microbatches."""
        if self.run.microbatches == 1:
            return {}
        share = self.flat(device, self._num_shares)
        return {group: {SHARE: share} for group in ("params", *moments(self.optimizer))}

    @property
    def _num_shares(self) -> int:
        """Processes that share the optimizer's moments out."""
        return self.run.group.size if self.run.shares_optimizer else 1

    def flat(self, device: jax.Device, num_shares: int = 1) -> jax.ShapeDtypeStruct:
        """A gradient as one array, or one of so many shares of it, as a shape."""
        size = padded_size(sum(map(prod, trained_shapes(self.model).values())) + 1, self.run.microbatches)
        return _shape((self.num_replicas, size // num_shares), self.dtype, device)

    def _step(self, device: jax.Device) -> tuple[Any, ...]:
        """What each update is told of its step."""
        numbers = on(device, (np.int32(0), scalars(self.optimizer, self.dtype)))
        return (rates(self._chunk(device)), *numbers)

    def _chunk(self, device: jax.Device) -> dict[str, Any]:
        plan = split(self.plan, self.run.microbatches, self.run.group)[0]
        chunk: dict[str, Any] = padded(steps([plan] * self.num_replicas, self.dtype))
        if self.data.pixel_steps:
            side, channels = self.model.image_size, self.model.image_channels
            batch = (self.num_replicas, plan.examples.shape[1], side, side, channels)
            chunk["pixels"] = _shape((self.data.pixel_steps, *batch), self.data.dtype, device)
        shaped: dict[str, Any] = on(device, chunk)
        return shaped

    def predict(self, device: jax.Device) -> tuple[Any, ...]:
        """The arguments of Traced.predict for the images of an evaluation, on a device, as shapes."""
        pixels = _shape((PREDICT_BATCH, self._num_values), self.data.dtype, device)
        return self._arrays(shapes(self.model), device), pixels, self.images(device).pixel_order

    def _arrays(self, shapes: Mapping[str, Shape], device: jax.Device) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: _shape((self.num_replicas, *shape), self.dtype, device) for name, shape in shapes.items()}

    @property
    def _num_values(self) -> int:
        return self.model.image_size**2 * self.model.image_channels

    def images(self, device: jax.Device) -> Data:
        """The data set on a device, as shapes."""
        num, order = self.data.num_examples, None
        rows, width = row_shape(self._num_values, device.platform)
        images = _shape((0 if self.data.pixel_steps else num * rows, width), self.data.dtype, device)
        if self.data.has_pixel_order:
            order = _shape((self.model.image_size**2,), np.int32, device)
        side, channels = self.model.image_size, self.model.image_channels
        return Data(images, _shape((num,), np.int32, device), order, side=side, channels=channels)  # type: ignore[arg-type]


def on(device: jax.Device, arguments: Any) -> Any:
    """The shapes of arrays, as if they lay on a device."""
    return jax.tree.map(lambda x: _shape(x.shape, x.dtype, device), arguments)


def _shape(shape: tuple[int, ...], dtype: DTypeLike, device: jax.Device) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))


def lowered(function: Callable[..., Any], arguments: tuple[Any, ...]) -> jax.stages.Lowered:
    """A function of `Traced` as XLA's input, for arguments that `Sizes` or `on` give."""
    # The state before a step is not read again: the state after it takes its place in memory.
    is_replaced = function.__name__ in ("train", "update", "placed")
    return jax.jit(function, donate_argnums=(0,) if is_replaced else ()).lower(*arguments)


def compiled_form(
    function: Callable[..., Any], arguments: tuple[Any, ...], device: jax.Device, remat: bool
) -> tuple[jax.stages.Compiled, float]:
    """A function of `Traced`, compiled for a device of this process the first time that such arguments come.

    Args:    arguments: arrays, or shapes as `Sizes` gives them.
    Returns: what is compiled, and the seconds that it took now.
    """
    leaves, structure = jax.tree.flatten(arguments)
    owner = function.__self__  # type: ignore[attr-defined]
    key = (function.__name__, owner, device, structure, tuple((x.shape, np.dtype(x.dtype)) for x in leaves))
    if key in _compiled:
        return _compiled[key], 0.0
    start = time.monotonic()
    with jax.default_device(device):
        _compiled[key] = compiled(lowered(function, on(device, arguments)), device, remat)
    return _compiled[key], time.monotonic() - start


_compiled: dict[Any, jax.stages.Compiled] = {}  # by function, structure and shapes: trials of a grid share them
_before: dict[tuple[Any, jax.Device], float] = {}  # seconds of programs that are not open yet, by `Traced`


def compiled_before(
    function: Callable[..., Any], arguments: tuple[Any, ...], device: jax.Device, remat: bool
) -> jax.stages.Compiled:
    """The compiled form for a program that is not open yet, which counts the seconds then: see `seconds_before`."""
    program, seconds = compiled_form(function, arguments, device, remat)
    owner = function.__self__  # type: ignore[attr-defined]
    _before[owner, device] = _before.get((owner, device), 0.0) + seconds
    return program


def seconds_before(traced: Any, device: jax.Device) -> float:
    """The seconds that compiling has taken before the program was opened; they are given once."""
    return _before.pop((traced, device), 0.0)
