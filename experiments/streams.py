"""Counter-based randomness: a draw depends on (seed, purpose, index) and on nothing that was drawn before.

Only the raw 64-bit words of Philox are used, whose values NumPy guarantees; the methods of `Generator` may change.
"""

import hashlib
import math

import numpy as np

from backends.arrays import Array

_WORDS_PER_COUNT = 4  # 64-bit words that Philox4x64 gives for each value of its counter
_ROUNDS = 8  # of the Feistel network


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


def permuted(seed: int, purpose: str, row: int, size: int, positions: Array) -> Array:
    """What stands at some positions of a permutation of range(size), int64, without the rest of it.

    A Feistel network over the next power of four, whose keys are the words of (seed, purpose, row); a number that falls
    outside of range(size) goes through it again, until it falls inside.
    Source: Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002 (the cycle-walking cipher).

    Args: positions: int (n,), in range(size).
    """
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = words(seed, purpose, row, 1, _ROUNDS)[0]
    numbers = np.asarray(positions).astype(np.uint64)
    outside = np.ones(len(numbers), bool)
    while outside.any():
        left, right = numbers[outside] >> half, numbers[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        numbers[outside] = (left << half) | right
        outside = numbers >= size
    return numbers.astype(np.int64)


def _mixed(x: Array) -> Array:
    """A bijection of uint64 in which each bit depends on all. Source: the finalizer of SplitMix64, public domain."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def betas(seed: int, purpose: str, first: int, num: int, alpha: float) -> Array:
    """Random float64 (num,) from Beta(alpha, alpha), by the inverse of its distribution function."""
    from scipy.special import betaincinv  # a fifth of a second that planning does not need

    return np.asarray(betaincinv(alpha, alpha, uniforms(seed, purpose, first, num, ())))
