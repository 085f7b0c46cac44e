"""Several processes as one, which train one trial or count themselves."""

import operator
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from backends.microbatches import Group, tree_sum

T = TypeVar("T")
RANKS = "ranks"  # the axis of the mesh: a device of each process


def join(group: Group, address: str, timeout_s: float) -> None:
    """See contract.Backend.join."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address,
        group.size,
        group.rank,
        initialization_timeout=round(timeout_s),
        heartbeat_timeout_seconds=round(timeout_s),
    )
    device = jax.local_devices()[0]
    # At once: processes that come to their first exchange half a minute apart fail.
    summed(jax.device_put(np.zeros((1, group.size), np.float32), device), group, device).block_until_ready()


@lru_cache
def _mesh(group: Group, device: jax.Device) -> Mesh:
    """The devices of a group, one of each process: that of this one, and those of the same place in the others."""
    place = jax.local_devices(backend=device.platform).index(device)
    devices = sorted(jax.devices(device.platform), key=lambda one: (one.process_index, one.id))
    num = len(devices) // group.size  # of each process
    return Mesh(np.array(devices[place::num]), (RANKS,))


@partial(jax.jit, donate_argnums=0)
def added(a: Array, b: Array) -> Array:
    """The sum of two arrays."""
    return a + b


def summed(flat_rn: Array, group: Group, device: jax.Device) -> Array:
    """The sum over the group of a flat array (replicas, n), in the tree of microbatches.py, in each process.

    Args: flat_rn: on the device; n is a multiple of the group's size.
    """
    mesh, (num, size) = _mesh(group, device), flat_rn.shape
    sharding = NamedSharding(mesh, P(RANKS))
    of_group = jax.make_array_from_single_device_arrays((group.size * num, size), sharding, [flat_rn])
    return _exchange(mesh)(of_group).addressable_data(0)


@lru_cache
def _exchange(mesh: Mesh) -> Callable[[Array], Array]:
    """The sum of arrays (replicas, n) of the processes, which each of them gets.

    Each process adds up its share of the array and gives it to the others: what a ring moves, and a fixed order.
    """

    def exchange(flat_rn: Array) -> Array:
        shares = flat_rn.reshape(len(flat_rn), mesh.size, -1).swapaxes(0, 1)
        share = tree_sum([*jax.lax.all_to_all(shares, RANKS, 0, 0)], operator.add)
        return jax.lax.all_gather(share, RANKS).swapaxes(0, 1).reshape(flat_rn.shape)

    return jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=P(RANKS), out_specs=P(RANKS)), donate_argnums=0)


def gathered(own: list[T], group: Group) -> list[T]:
    """What all processes of a group hold, in the order of their ranks, in each process.

    Args: own: trees of NumPy arrays, of the same shapes in each process.
    """
    held = multihost_utils.process_allgather(own)  # the leading axis is the rank
    return [jax.tree.map(lambda x: x[rank], one) for rank in range(group.size) for one in held]  # noqa: B023


def add_over_ranks(value: float, index: int, size: int, address: str) -> float:
    """The sum of one number of each process.  Args: address: host:port where process 0 waits for the others."""
    jax.distributed.initialize(address, num_processes=size, process_id=index)
    total = multihost_utils.process_allgather(np.array(value, np.float32))
    jax.distributed.shutdown()
    return float(np.sum(total))
