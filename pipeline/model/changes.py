"""How much each row has changed since it was last published, and since when: what the trainer's flush orders by."""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.model.rows import ItemRows
from pipeline.types import F32, I64


class Changes:
    """One change measure a row; learning kernels add to it through `note`, with the number of the flush to come."""

    def __init__(self, rows: ItemRows) -> None:
        self._moved = rows.column((), np.float32, 0)
        self._since = rows.column((), np.int64, 0)
        self.tick = 0

    @property
    def moved(self) -> F32:
        """(capacity,) sum of changes since the row was last published; 0 = nothing to publish."""
        return self._moved.data

    @property
    def since(self) -> I64:
        """(capacity,) the tick at which `moved` left 0; without meaning where `moved` is 0."""
        return self._since.data


@njit(cache=True)
def note(moved: F32, since: I64, tick: int, row: int, change: float) -> None:
    """Add `change` (> 0) to the measure of `row`: for use inside kernels."""
    if moved[row] == 0:
        since[row] = tick
    moved[row] += change
