"""Counter-based randomness: a draw depends on (seed, purpose, index) and on nothing that was drawn before.

Only the raw 64-bit words of Philox are used, whose values NumPy guarantees; the methods of `Generator` may change.
"""

import hashlib
import math

import numpy as np

from backends.arrays import Array

_WORDS_PER_COUNT = 4  # 64-bit words that Philox4x64 gives for each value of its counter


def words(seed: int, purpose: str, first: int, num: int, size: int) -> Array:
    """Random uint64 (num, size); row i depends on (seed, purpose, first + i) alone."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:16], "little")
    counts = -(-size // _WORDS_PER_COUNT)
    stream = np.random.Philox(counter=first * counts, key=key)
    return stream.random_raw(num * counts * _WORDS_PER_COUNT).reshape(num, -1)[:, :size]


def uniforms(seed: int, purpose: str, first: int, num: int, shape: tuple[int, ...]) -> Array:
    """Random float64 (num, *shape) in [0, 1) with 53 bits; row i depends on (seed, purpose, first + i) alone."""
    raw = words(seed, purpose, first, num, math.prod(shape))
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(num, *shape)


def integers(seed: int, purpose: str, first: int, num: int, shape: tuple[int, ...], high: int) -> Array:
    """Random int32 (num, *shape) in [0, high)."""
    return (uniforms(seed, purpose, first, num, shape) * high).astype(np.int32)


def permutations(seed: int, purpose: str, first: int, num: int, size: int) -> Array:
    """Random int32 (num, size), each row a permutation of range(size)."""
    return np.argsort(words(seed, purpose, first, num, size), axis=1, kind="stable").astype(np.int32)


def betas(seed: int, purpose: str, first: int, num: int, alpha: float) -> Array:
    """Random float64 (num,) from Beta(alpha, alpha), by the inverse of its distribution function."""
    from scipy.special import betaincinv  # a fifth of a second that planning does not need

    return np.asarray(betaincinv(alpha, alpha, uniforms(seed, purpose, first, num, ())))
