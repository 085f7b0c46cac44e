"""Several processes as one: the base for trials on several nodes."""

import torch
import torch.distributed as dist


def add_over_ranks(value: float, index: int, size: int, address: str) -> float:
    """The sum of one number of each process.  Args: address: host:port where process 0 waits for the others."""
    dist.init_process_group("gloo", init_method=f"tcp://{address}", rank=index, world_size=size)
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    dist.destroy_process_group()
    return float(total)
