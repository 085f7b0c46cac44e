"""Ceilings of this machine: the largest matrix product and the fastest copy that a framework reaches."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.bench.rounds import Running, Spread, running, take_turns
from experiments.bench.side import COPY, PRODUCT, Side
from experiments.machine.environment import environment
from experiments.results import ceilings
from experiments.results.store import Store
from experiments.spec.trial import Trial

ROWS = (1024, 2048, 4096)  # of square matrices, on a CPU; a GPU or a TPU is only filled by more
GPU_ROWS = (4096, 8192, 16384)
COPY_BYTES = 2**28  # beyond any cache
TURN_S = 0.5


@dataclass(frozen=True)
class Limit:
    """The ceilings of a backend: rows -> GFLOP/s of a product of square matrices; GB/s of a copy, read and written."""

    backend: str
    precision: str
    machine: str  # see ceilings.machine
    num_cores: int  # 0: a GPU or a TPU
    product_gflops: dict[int, Spread]
    copy_gb_per_s: Spread

    @property
    def best_rows(self) -> int:
        return max(self.product_gflops, key=lambda rows: self.product_gflops[rows].median)

    @property
    def gflops(self) -> float:
        """The ceiling: the median of the size that is fastest."""
        return self.product_gflops[self.best_rows].median

    def keep(self, store: Store) -> None:
        """Note the ceiling for the store's reports; of a CPU, that of one core."""
        ceilings.keep(store, self.machine, self.precision, self.gflops / (self.num_cores or 1))


def product_flops(rows: int) -> float:
    return 2.0 * rows**3


def limit(trial: Trial, num_rounds: int, rows: Sequence[int] = ()) -> Limit:
    """Measure the ceilings of a backend.

    Args: trial: its backend, precision and device are used.    rows: of the matrices; none: what fills the device.
    """
    with running([Side(trial.backend, trial, COPY, COPY_BYTES)]) as (copier,):
        about = copier.about()
        is_cpu = about["device"] == "cpu"
        rows = rows or (ROWS if is_cpu else GPU_ROWS)
        with running([Side(trial.backend, trial, PRODUCT, size) for size in rows]) as started:
            works: list[tuple[Running, str]] = [(one, one.side.what) for one in (*started, copier)]
            *products, copies = take_turns(works, num_rounds, TURN_S)
    return Limit(
        trial.backend,
        trial.train.precision,
        ceilings.machine(about["device"], environment()["processor"]),
        min(environment()["cores"], trial.run.threads or environment()["cores"]) if is_cpu else 0,
        {
            size: Spread.of([product_flops(size) / seconds / 1e9 for seconds in of_size])
            for size, of_size in zip(rows, products, strict=True)
        },
        Spread.of([2 * COPY_BYTES / seconds / 1e9 for seconds in copies]),
    )
