"""The JAX backend (Flax, Optax)."""

from backends.jax.train import JaxBackend

BACKEND = JaxBackend()
