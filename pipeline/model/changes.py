"""How much each row has changed since it was last published, and which changed rows to publish within a budget."""

from __future__ import annotations

import numpy as np

from pipeline.model.rows import ItemRows
from pipeline.types import F32, I64, Rows

URGENT = 0.75  # of a budget goes to the most changed rows, the rest to all changed rows in turn


class Changes:
    """One change measure a row; learning kernels add to it."""

    def __init__(self, rows: ItemRows) -> None:
        self._moved = rows.column((), np.float32, 0)
        self._turn = 0  # the row at which the next turn begins

    @property
    def moved(self) -> F32:
        """(capacity,) sum of changes since the row was last published; 0 = nothing to publish."""
        return self._moved.data

    def choose(self, rows: Rows, urgency: F32, sizes: I64, budget: int) -> Rows:
        """Those of `rows` (c, ascending) to publish within `budget` bytes, given the bytes of each.

        First the most urgent, then rows in turn from where the last call ended. At least one of these, however small
        the budget: every changed row is published in the end, and also one that is larger than the budget.
        """
        if sizes.sum() <= budget:
            return rows
        first = _most(urgency, sizes, int(URGENT * budget))
        waits = np.ones(len(rows), np.bool_)
        waits[first] = False
        turn = int(np.searchsorted(rows, self._turn))
        waiting = np.concatenate((turn + np.flatnonzero(waits[turn:]), np.flatnonzero(waits[:turn])))
        left = budget - int(sizes[first].sum())
        waiting = waiting[: max(1, left // int(sizes.min()))]
        then = waiting[: max(1, int(np.searchsorted(np.cumsum(sizes[waiting]), left, "right")))]
        self._turn = int(rows[then[-1]]) + 1
        return rows[np.concatenate((first, then))]


def _most(urgency: F32, sizes: I64, budget: int) -> I64:
    """The places of the most urgent entries that fit, most urgent first."""
    n = min(len(sizes), budget // max(int(sizes.min()), 1))
    if n == 0:
        return np.empty(0, np.int64)
    top = np.argpartition(-urgency, n - 1)[:n]
    top = top[np.argsort(-urgency[top], kind="stable")]
    return top[: int(np.searchsorted(np.cumsum(sizes[top]), budget, "right"))]
