"""Types of arrays that cross the border between NumPy and a framework."""

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
State = dict[str, Array]  # by state name, see state.py, or by parameter name
Shape = tuple[int, ...]
