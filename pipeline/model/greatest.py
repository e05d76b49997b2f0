"""The k-th greatest of many values, for kernels that keep the best k."""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.types import F32


@njit(cache=True)
def greatest(values: F32, n: int, rank: int) -> np.float32:
    """The rank-th greatest of values[:n] (1 <= rank <= n), by quickselect (Hoare 1961); reorders them."""
    low, high, want = 0, n - 1, rank - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if want <= right:
            high = right
        elif want >= left:
            low = left
        else:
            break
    found: np.float32 = values[want]
    return found
