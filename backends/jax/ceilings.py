"""What the machine can do at most, in JAX: matrix products and copies."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from backends.jax.device import check, compiled, open_device, set_numerics
from backends.jax.traced import DTYPES
from backends.specs import RunSpec


def product(run: RunSpec, size: int) -> Callable[[], None]:
    """A function that multiplies two square matrices of `size` rows, in the run's precision; see bench.Ceilings."""
    set_numerics(run)
    check(run)
    device, (_, dtype, precision) = open_device(run.device), DTYPES[run.precision]
    a, b = (jax.device_put(jax.random.uniform(jax.random.key(i), (size, size)).astype(dtype), device) for i in (0, 1))
    with jax.default_matmul_precision(precision):
        multiply = compiled(jax.jit(jnp.matmul).lower(a, b), device, remat=False)
    return lambda: multiply(a, b).block_until_ready()


def copy(run: RunSpec, num_bytes: int) -> Callable[[], None]:
    """A function that copies an array of so many bytes; see bench.Ceilings."""
    set_numerics(run)
    check(run)
    source = jax.device_put(jnp.ones(num_bytes // 4, jnp.float32), open_device(run.device))
    copy_all = jax.jit(jnp.negative).lower(source).compile()  # XLA may leave out a copy alone
    return lambda: copy_all(source).block_until_ready()
