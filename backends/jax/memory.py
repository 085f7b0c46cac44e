"""The memory that a trial's programs take, from what XLA says of their compiled forms."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from backends.contract import PREDICT_BATCH
from backends.jax.ahead import Sizes
from backends.models import folds
from backends.state import state_size

# A program's memory on a CPU, in units of its arrays; measured 1.03 to 1.18: analysis/results/memory.md.
HOLES = 1.1
FULL = ("RESOURCE_EXHAUSTED", "Ran out of memory")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def is_full(error: jax.errors.JaxRuntimeError) -> bool:
    """Tell whether a compiler refused a program for want of memory, as those of GPUs and TPUs do."""
    return any(word in str(error) for word in FULL)


def used(error: jax.errors.JaxRuntimeError) -> int | None:
    """The bytes that a program needs, as a compiler says them that refuses it: `Used 20.51G of 15.75G hbm`."""
    match = re.search(r"Used ([\d.]+)([KMGT]?)i?B? of", str(error))
    return round(float(match[1]) * UNITS[match[2]]) if match else None


def size(arrays: Any) -> int:
    """Bytes of arrays, or of shapes."""
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(arrays))


def total(program: jax.stages.Compiled) -> int:
    """Bytes of a program while it runs: code, arguments, results that take the place of none, temporaries."""
    stats = program.memory_analysis()
    assert stats is not None, "XLA's CPU, GPU and TPU compilers all give it"
    held = stats.generated_code_size_in_bytes + stats.argument_size_in_bytes + stats.temp_size_in_bytes
    return int(held + stats.output_size_in_bytes - stats.alias_size_in_bytes)


def step_bytes(sizes: Sizes, programs: Mapping[str, jax.stages.Compiled], device: jax.Device) -> int:
    """Bytes of a step's programs while they run, with the state and the data set."""
    if "train" in programs:
        return total(programs["train"])
    own, flat, params = sizes.own(device), sizes.flat(device), sizes.part(device)[0]
    state = (sizes.state(device), own)
    # Sums that wait in the tree, and what an exchange sends and gets, beside the gradient that is made.
    group = sizes.run.group.size
    waiting = (sizes.run.microbatches // group).bit_length() - 1
    part = total(programs["part"]) + size(state) - size(params) + waiting * size(flat)
    exchange = size(state) + size(sizes.images(device)) + (3 if group > 1 else 1) * size(flat)
    # What each of them does not have among its arguments, beside the data.
    rest = {"measured": size(state), "update": size(sizes.state(device)), "placed": size(own)}
    update = max(total(programs[name]) + bytes_ for name, bytes_ in rest.items()) + size(sizes.images(device))
    code = sum(_code(programs[name]) for name in rest)
    return max(part + code, exchange, update + _code(programs["part"]))


def peak_bytes(sizes: Sizes, programs: Mapping[str, jax.stages.Compiled], device: jax.Device) -> int:
    """Bytes that a device holds at the peak of a training; of a CPU's memory with what the host holds beside it.

    Args: programs: the compiled forms of `Sizes.functions`.
    """
    predict, data = programs["predict"], sizes.images(device)
    params, *_ = sizes.predict(device)
    staying = size((sizes.state(device), sizes.own(device), data)) - size(params)  # beside the arguments of `predict`
    code = sum(_code(program) for program in programs.values()) - _code(predict)
    steps, evaluation = step_bytes(sizes, programs, device) + _code(predict), staying + total(predict) + code
    if device.platform != "cpu":
        return max(steps, evaluation)
    steps += _scratch_bytes(sizes, len(sizes.plan.examples[0]) // sizes.run.microbatches)
    evaluation += _scratch_bytes(sizes, PREDICT_BATCH)
    saving = _saving_bytes(sizes)
    # A group takes steps while its first process saves: what that needs beside the state on the device is added.
    beside = 2 * saving // 3 if sizes.run.group.size > 1 else 0
    return max(round(HOLES * steps) + beside, round(HOLES * evaluation), size(data) + saving)


def _code(program: jax.stages.Compiled) -> int:
    stats = program.memory_analysis()
    return int(stats.generated_code_size_in_bytes) if stats else 0


def _scratch_bytes(sizes: Sizes, batch_size: int) -> int:
    """What matrix products on a CPU take for a moment, which XLA does not count: they copy an operand into tiles.

    Two products at a time were seen, each with a copy of the widest layer's values.
    """
    widest = max((math.prod(layer.output) for layer in folds.layers(sizes.model) if layer.block), default=0)
    return 2 * sizes.num_replicas * batch_size * widest * np.dtype(sizes.dtype).itemsize


def _saving_bytes(sizes: Sizes) -> int:
    """The state three times, as a checkpoint is made: on the device, as the host's arrays, as the bytes of a file."""
    return 3 * sizes.num_replicas * state_size(sizes.model, sizes.optimizer) * np.dtype(sizes.dtype).itemsize
