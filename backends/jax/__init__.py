"""The JAX backend (Flax, Optax)."""

from backends.jax.program import JaxBackend

BACKEND = JaxBackend()
