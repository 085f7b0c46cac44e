"""Several processes as one, which train one trial or count themselves."""

import ctypes
import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
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
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from the worker, which saves
    jax.distributed.initialize(
        address,
        group.size,
        group.rank,
        initialization_timeout=round(timeout_s),
        heartbeat_timeout_seconds=round(timeout_s),
    )
    device = jax.local_devices()[0]
    with _unprinted():
        # At once: processes that come to their first exchange half a minute apart fail.
        summed(jax.device_put(np.zeros((1, group.size), np.float32), device), group, device).block_until_ready()


@contextmanager
def _unprinted() -> Iterator[None]:
    """Drops what is printed meanwhile: Gloo writes a line of its connections to the output of the user's command."""
    flush, kept = ctypes.CDLL(None).fflush, os.dup(1)
    flush(None)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


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

    Each process adds up its share of the array and gives it to the others: what a ring moves, and a fixed order.

    Args: flat_rn: on the device; n is a multiple of the group's size.
    """
    return whole(scattered(flat_rn, group, device), group, device)


def scattered(flat_rn: Array, group: Group, device: jax.Device) -> Array:
    """This process's share, (replicas, n / size), of the sum over the group of a flat array (replicas, n)."""
    return _exchanged(_sum_of_share, flat_rn, _mesh(group, device))


def whole(share_rn: Array, group: Group, device: jax.Device) -> Array:
    """The shares (replicas, n / size) of all processes side by side, (replicas, n), in each process."""
    return _exchanged(_side_by_side, share_rn, _mesh(group, device))


def _sum_of_share(flat_rn: Array, size: int) -> Array:
    shares = flat_rn.reshape(len(flat_rn), size, -1).swapaxes(0, 1)
    return tree_sum([*jax.lax.all_to_all(shares, RANKS, 0, 0)], operator.add)


def _side_by_side(share_rn: Array, _: int) -> Array:
    return jax.lax.all_gather(share_rn, RANKS).swapaxes(0, 1).reshape(len(share_rn), -1)


def _exchanged(what: Callable[[Array, int], Array], array: Array, mesh: Mesh) -> Array:
    """What comes of an array of each process, on this one's device."""
    num, *rest = array.shape
    sharding = NamedSharding(mesh, P(RANKS))
    of_group = jax.make_array_from_single_device_arrays((mesh.size * num, *rest), sharding, [array])
    return _exchange(what, mesh)(of_group).addressable_data(0)


@lru_cache
def _exchange(what: Callable[[Array, int], Array], mesh: Mesh) -> Callable[[Array], Array]:
    def exchange(array: Array) -> Array:
        return what(array, mesh.size)

    return jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=P(RANKS), out_specs=P(RANKS)))


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
