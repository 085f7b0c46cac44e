"""Devices that programs are compiled for where they are not: what is known of each. Nothing here imports a framework.

A target is written `tpu:v5e:2x2` (a generation, and a topology of chips) or `cuda:h100`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from backends.contract import DataSize
from backends.errors import MixlabError, choices
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec, RunSpec

GIB = 2**30


@dataclass(frozen=True)
class Tpu:
    """A generation of TPU.

    Source: cloud.google.com/tpu/docs, the page of each version: memory of a chip, and the name of its machines.
    """

    memory_gib: int  # of a chip
    machine: str  # TPU_ACCELERATOR_TYPE before the number of cores or chips
    cores: int  # that this number counts of a chip
    dimensions: int  # of a topology


TPUS: Mapping[str, Tpu] = {
    "v4": Tpu(32, "v4", 2, 3),
    "v5e": Tpu(16, "v5litepod", 1, 2),
    "v5p": Tpu(95, "v5p", 2, 3),
    "v6e": Tpu(32, "v6e", 1, 2),
}


@dataclass(frozen=True)
class Gpu:
    """What XLA's compiler asks of a GPU that is not there.

    Source: openxla/xla (Apache-2.0), xla/backends/gpu/target_config/specs/*.txtpb: the numbers, not the files.
    """

    description: str
    capability: int  # its major number
    accelerated: bool  # instructions of this capability alone
    cores: int  # streaming multiprocessors
    fpus_per_core: int
    clock_ghz: float
    memory_bytes: int
    bytes_per_s: int  # of memory
    l2_bytes: int
    shared_bytes_per_core: int
    shared_bytes_per_block: int  # where a program asks for it


GPUS: Mapping[str, Gpu] = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 8, False, 108, 64, 1.41, 85100068864, 2039040000000, 41943040, 167936, 166912),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 9, True, 132, 128, 1.98, 84942979072, 3352320000000, 52428800, 233472, 232448),
    "h200": Gpu(
        "NVIDIA H200 141GB HBM3e", 9, True, 132, 128, 1.98, 151397597184, 4800000000000, 52428800, 233472, 232448
    ),
}


@dataclass(frozen=True)
class Target:
    """One device of a kind; programs of Mixlab run on one."""

    platform: str  # tpu or cuda
    chip: str
    topology: str = ""  # of a TPU: chips a side

    def __str__(self) -> str:
        return ":".join(filter(None, (self.platform, self.chip, self.topology)))

    @property
    def memory_bytes(self) -> int:
        """Of one device."""
        return GPUS[self.chip].memory_bytes if self.platform == "cuda" else TPUS[self.chip].memory_gib * GIB

    @property
    def lacks(self) -> tuple[str, ...]:
        """Precisions that a run on such a device refuses; see backends/jax/device.py."""
        return ("float64", "tf32") if self.platform == "tpu" else ()

    @property
    def package(self) -> str:
        """The module that compiles for it."""
        return "jax_plugins.xla_cuda12" if self.platform == "cuda" else "libtpu"

    @property
    def extra(self) -> str:
        return f"{self.platform}-aot"

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment, before the framework is imported. This machine's own devices are left alone."""
        if self.platform == "cuda":
            return {"JAX_PLATFORMS": "cpu"}
        tpu, chips = TPUS[self.chip], 1
        for side in self.topology.split("x"):
            chips *= int(side)
        return {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # it compiles and opens no chip, so it locks out nobody
            "TPU_ACCELERATOR_TYPE": f"{tpu.machine}-{chips * tpu.cores}",
            "TPU_WORKER_HOSTNAMES": "localhost",
        }


def parse(text: str, where: str) -> Target:
    """Read a target.  Raises: MixlabError: it is none; begins with `where`."""
    platform, _, rest = text.partition(":")
    chip, _, topology = rest.partition(":")
    known = {"tpu": TPUS, "cuda": GPUS}.get(platform)
    examples = [*(f"tpu:{name}:{'x'.join('2' * tpu.dimensions)}" for name, tpu in TPUS.items())]
    examples += [f"cuda:{name}" for name in GPUS]
    wrong = MixlabError(f"{where}: expected a target, got {text[:40]!r}; {choices(text, examples)}")
    if known is None or chip not in known:
        raise wrong
    if platform == "cuda":
        if topology:
            raise wrong
        return Target(platform, chip)
    dimensions = TPUS[chip].dimensions
    if not re.fullmatch(r"[1-9]\d?" + r"x[1-9]\d?" * (dimensions - 1), topology):
        raise MixlabError(
            f"{where}: expected a topology of {dimensions} numbers, such as {'x'.join('2' * dimensions)}, "
            f"after tpu:{chip}:, got {topology[:40]!r}"
        )
    return Target(platform, chip, topology)


@dataclass(frozen=True)
class Program:
    """What a compiler says of a training program on one device; None: it does not say it."""

    compile_s: float
    peak_bytes: int | None  # None: it does not fit, and the compiler did not say how much it needs
    argument_bytes: int | None = None  # the part of the peak that no smaller batch makes smaller: state and data set
    flops: float | None = None  # of one step
    bytes_accessed: float | None = None  # of one step
    cycles: int | None = None  # of one step, by the compiler's model
    refusal: str = ""  # what the compiler said where it did not fit
    step_bytes: int | None = None  # the peak of a step alone; where the whole peak is higher, it is an evaluation's


class Targets(Protocol):
    """The attributes of the module `backends/<name>/targets.py`."""

    def compile_for(
        self,
        target: Target,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        data: DataSize,
        plan: StepPlan,
        run: RunSpec,
    ) -> Program:
        """Compile the training program for a target, in a process that began with the target's variables.

        Args:   plan: of one step.
        Raises: MixlabError: the compiler does not know the target.
        """
