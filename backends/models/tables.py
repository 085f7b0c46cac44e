"""Constant tables of numbers that layers multiply with or add: made once in float64, and rounded by each framework."""

import numpy as np

from backends.arrays import Array

TEMPERATURE = 10_000.0  # of sincos2d: the ratio of its longest wave to its shortest


def cosines(size: int) -> Array:
    """The real part of the unnormalised Fourier transform, (size, size)."""
    return np.asarray(np.cos(_angles(size)))


def sines(size: int) -> Array:
    """The imaginary part of the unnormalised Fourier transform, with the opposite sign, (size, size)."""
    return np.asarray(np.sin(_angles(size)))


def _angles(size: int) -> Array:
    places = np.arange(size)
    return 2 * np.pi * (np.outer(places, places) % size) / size  # whole turns are taken off before the rounding


def sincos2d(side: int, channels: int) -> Array:
    """Positions in a grid of side x side tokens as waves: (tokens, channels), of the column first, then of the row.

    Source: MoCo v3, arXiv 2104.02057, section 6; google-research/big_vision, models/vit.py, posemb_sincos_2d.
    """
    rates = TEMPERATURE ** -np.linspace(0, 1, channels // 4)
    row, column = (place.reshape(-1, 1) * rates for place in np.mgrid[:side, :side])
    return np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], 1)
