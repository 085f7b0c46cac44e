"""What the machine can do at most, in PyTorch: matrix products and copies."""

from collections.abc import Callable

import torch

from backends.specs import RunSpec
from backends.torch.device import check, open_device, set_numerics
from backends.torch.program import DTYPES


def product(run: RunSpec, size: int) -> Callable[[], None]:
    """A function that multiplies two square matrices of `size` rows, in the run's precision; see bench.Ceilings."""
    check(run)
    set_numerics(run)
    device, (_, dtype) = open_device(run.device), DTYPES[run.precision]
    a, b, c = (torch.rand(size, size, device=device).to(dtype) for _ in range(3))

    def multiply() -> None:
        torch.mm(a, b, out=c)
        float(c[0, 0])  # waits for the device

    return multiply


def copy(run: RunSpec, num_bytes: int) -> Callable[[], None]:
    """A function that copies an array of so many bytes; see bench.Ceilings."""
    check(run)
    set_numerics(run)
    source = torch.ones(num_bytes // 4, device=open_device(run.device))
    target = torch.zeros_like(source)

    def copy_all() -> None:
        target.copy_(source)
        float(target[0])  # waits for the device

    return copy_all
