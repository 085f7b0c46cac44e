"""Several processes as one, which train one trial or count themselves."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from backends.microbatches import Group, tree_sum

T = TypeVar("T")


def join(group: Group, address: str, timeout_s: float) -> None:
    """See contract.Backend.join."""
    timeout = timedelta(seconds=timeout_s)
    with _reached_by(_interface(address)):
        dist.init_process_group(None, f"tcp://{address}", timeout, group.size, group.rank)
    summed(torch.zeros((1, group.size)), group)


@contextmanager
def _reached_by(interface: str | None) -> Iterator[None]:
    """Gloo listens on this interface, unless the user names another; its own choice is what the machine's name
    resolves to, which may be an address that others do not reach."""
    name = "GLOO_SOCKET_IFNAME"
    if interface is None or name in os.environ:
        yield
        return
    os.environ[name] = interface
    try:
        yield
    finally:
        del os.environ[name]  # a process that is started from here has its own way to the others


def _interface(address: str) -> str | None:
    """The name of the network interface by which this machine reaches an address, host:port; None: it has none."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # of UDP: nothing is sent
        own = probe.getsockname()[0]
    names = psutil.net_if_addrs().items()
    return next((name for name, addresses in names if own in [one.address for one in addresses]), None)


def summed(flat_rn: Tensor, group: Group) -> Tensor:
    """The sum over the group of a flat array (replicas, n), in the tree of microbatches.py, in each process.

    Each process adds up its share of the array and gives it to the others: what a ring moves, and a fixed order.

    Args: flat_rn: n is a multiple of the group's size.
    """
    return whole(scattered(flat_rn, group), group)


def scattered(flat_rn: Tensor, group: Group) -> Tensor:
    """This process's share, (replicas, n / size), of the sum over the group of a flat array (replicas, n)."""
    shares = flat_rn.reshape(len(flat_rn), group.size, -1).transpose(0, 1).contiguous()
    parts = torch.empty_like(shares)
    dist.all_to_all_single(parts, shares)
    return tree_sum(parts.unbind(), torch.add)


def whole(share_rn: Tensor, group: Group) -> Tensor:
    """The shares (replicas, n / size) of all processes side by side, (replicas, n), in each process."""
    shares = torch.empty((group.size, *share_rn.shape), dtype=share_rn.dtype, device=share_rn.device)
    dist.all_gather(list(shares.unbind()), share_rn.contiguous())
    return shares.transpose(0, 1).reshape(len(share_rn), -1)


def gathered(own: list[T], group: Group) -> list[T]:
    """What all processes of a group hold, in the order of their ranks, in each process.

    Args: own: trees of NumPy arrays, of the same shapes in each process.
    """
    held: list[list[T]] = [[] for _ in range(group.size)]
    dist.all_gather_object(held, own)
    return [one for of_rank in held for one in of_rank]


def add_over_ranks(value: float, index: int, size: int, address: str) -> float:
    """The sum of one number of each process.  Args: address: host:port where process 0 waits for the others."""
    dist.init_process_group("gloo", init_method=f"tcp://{address}", rank=index, world_size=size)
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    dist.destroy_process_group()
    return float(total)
