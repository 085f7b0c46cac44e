"""Several processes as one, which train one trial or count themselves."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from backends.microbatches import Group, tree_sum

RANKS = "ranks"  # the axis of the mesh: a device of each process


def join(group: Group, address: str, timeout_s: float) -> None:
    """Become one of a group of processes; before the first look at a device.

    Args: address: host:port where process 0 waits for the others.    timeout_s: after which a silent one is given up.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address, group.size, group.rank, heartbeat_timeout_seconds=round(timeout_s), initialization_timeout=60
    )


def mesh(group: Group, device: jax.Device) -> Mesh:
    """The devices of a group, one of each process: that of this one, and those of the same place in the others."""
    place = jax.local_devices(backend=device.platform).index(device)
    devices = sorted(jax.devices(device.platform), key=lambda one: (one.process_index, one.id))
    num = len(devices) // group.size  # of each process
    return Mesh(np.array(devices[place::num]), (RANKS,))


def whole(tree: Any, mesh: Mesh, spec: P) -> Any:
    """Arrays of this process's device, or shapes, as the group's: copies where spec is P(), else parts of an axis."""
    sharding = NamedSharding(mesh, spec)

    def one(x: Any) -> Any:
        shape = tuple(
            n * (mesh.size if name else 1) for n, name in zip(x.shape, (*spec, *[None] * x.ndim), strict=False)
        )
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)
        return jax.make_array_from_single_device_arrays(shape, sharding, [x])

    return jax.tree.map(one, tree)


def own(tree: Any) -> Any:
    """The arrays of a group, which each process has copies of, as those of this process's device."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def over_ranks(function: Callable[..., Any], mesh: Mesh, specs: Any) -> Callable[..., Any]:
    """A function that each process of a group calls with its part of the arguments; all results are the same."""
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)


def summed(flat_rn: Array, size: int) -> Array:
    """The sum over the group of a flat array (replicas, n), in the tree of microbatches.py, in each process.

    Each process adds up its share of the array and gives it to the others: what a ring moves, and a fixed order.

    Args: flat_rn: n is a multiple of the group's size.
    """
    if size == 1:
        return flat_rn
    shares = flat_rn.reshape(len(flat_rn), size, -1).swapaxes(0, 1)
    parts = jax.lax.all_to_all(shares, RANKS, 0, 0)
    share = tree_sum([*parts], operator.add)
    return jax.lax.all_gather(share, RANKS).swapaxes(0, 1).reshape(flat_rn.shape)


def add_over_ranks(value: float, index: int, size: int, address: str) -> float:
    """The sum of one number of each process.  Args: address: host:port where process 0 waits for the others."""
    jax.distributed.initialize(address, num_processes=size, process_id=index)
    total = multihost_utils.process_allgather(np.array(value, np.float32))
    jax.distributed.shutdown()
    return float(np.sum(total))
