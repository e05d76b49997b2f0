"""How much each row has changed since it was last published: what the trainer's flush orders by."""

from __future__ import annotations

import numpy as np

from pipeline.model.rows import ItemRows
from pipeline.types import F32


class Changes:
    """One change measure a row; learning kernels add to it."""

    def __init__(self, rows: ItemRows) -> None:
        self._moved = rows.column((), np.float32, 0)

    @property
    def moved(self) -> F32:
        """(capacity,) sum of changes since the row was last published; 0 = nothing to publish."""
        return self._moved.data
