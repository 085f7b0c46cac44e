"""Programs compiled for devices that are not here."""

import re
import time
from collections.abc import Iterable
from typing import Any

import jax
from jax.experimental import topologies

from backends.contract import DataSize
from backends.errors import MixlabError, first_line
from backends.jax import ahead, memory
from backends.jax.device import compiled, set_numerics
from backends.jax.traced import DTYPES, Traced
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from backends.targets import GPUS, Program, Target


def compile_for(
    target: Target, model: ModelSpec, optimizer: OptimizerSpec, data: DataSize, plan: StepPlan, run: RunSpec
) -> Program:
    """See backends.targets.Targets."""
    set_numerics(run)
    device = _device(target)
    sizes = ahead.Sizes(model, optimizer, data, plan, DTYPES[run.precision][0], run)
    start, traced = time.monotonic(), Traced.of(model, optimizer, run)
    try:
        programs = {
            name: compiled(ahead.lowered(getattr(traced, name), getattr(sizes, name)(device)), device, run.remat)
            for name in sizes.functions
        }
    except jax.errors.JaxRuntimeError as error:
        if not memory.is_full(error):
            raise
        return Program(time.monotonic() - start, memory.used(error), refusal=first_line(error)[:200])
    seconds = time.monotonic() - start
    # The body of a loop over steps is counted once; of a step in microbatches, as often as one of its process is.
    times = {"train": 1, "part": run.microbatches // run.group.size, "update": 1}
    in_step = [(programs[name], times[name]) for name in sizes.functions if name in times]
    costs = [(_costs(program), number) for program, number in in_step]
    cycles = [(estimated_cycles(program.as_text() or ""), number) for program, number in in_step]
    return Program(
        compile_s=seconds,
        peak_bytes=memory.peak_bytes(sizes, programs, device),
        step_bytes=memory.step_bytes(sizes, programs, device),
        argument_bytes=memory.size((sizes.state(device), sizes.images(device))),
        flops=_sum((one.get("flops"), number) for one, number in costs),
        bytes_accessed=_sum((one.get("bytes accessed"), number) for one, number in costs),
        cycles=_sum(cycles),
    )


def _sum(values: Iterable[tuple[Any, int]]) -> Any:
    """The sum of values, each as often as it says; None: a value is not known."""
    each = list(values)
    return None if any(value is None for value, _ in each) else sum(value * number for value, number in each)


def _device(target: Target) -> Any:
    """A description of one device.  Raises: MixlabError: the compiler does not know it."""
    try:
        if target.platform == "tpu":
            name = f"{target.chip}:{target.topology}"
            return topologies.get_topology_desc(platform="tpu", topology_name=name).devices[0]
        options = {"target_config": gpu_description(target.chip), "topology": "1x1x1"}
        return topologies.get_topology_desc(target.chip, platform="cuda", **options).devices[0]
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise MixlabError(f"no compiler for {str(target)!r}: {first_line(error)[:200]}") from error


def gpu_description(chip: str) -> str:
    """A GPU in the words that XLA's compiler reads: a GpuTargetConfigProto as text."""
    gpu = GPUS[chip]
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus_per_core}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {gpu.memory_bytes}
  memory_bandwidth: {gpu.bytes_per_s}
  l2_cache_size: {gpu.l2_bytes}
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_bytes_per_core}
  shared_memory_per_block_optin: {gpu.shared_bytes_per_block}
  cuda_compute_capability {{
    major: {gpu.capability}
    feature_extension: {"ACCELERATED_FEATURES" if gpu.accelerated else "NONE"}
  }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{gpu.description}"
"""


def _costs(program: jax.stages.Compiled) -> dict[str, float]:
    """XLA's own analysis; {}: this compiler has none."""
    try:
        costs = program.cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return {}
    return dict((costs[0] if isinstance(costs, list) else costs) or {})


def estimated_cycles(text: str) -> int | None:
    """The sum of what a TPU's compiler estimates of each operation; None: the text has no estimates."""
    cycles = [int(number) for number in re.findall(r'"estimated_cycles":"(\d+)"', text)]
    return sum(cycles) if cycles else None
