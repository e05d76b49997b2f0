"""Trends: how often each item was taken, lately and ever, in event time.

x_H <- x_H 2^(-dt/H) + w on a ladder of half-lives H; a late event adds w 2^(-(reference - t)/H) and leaves the
reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.model.rows import ItemRows
from pipeline.types import F32, F64, I64, ItemVectors, Rows

HALF_LIVES_MS = (15 * 60_000, 6 * 3_600_000, 3 * 86_400_000, 30 * 86_400_000)
LADDER = len(HALF_LIVES_MS)  # H
ENTRIES = 3  # a user's 1st, 2nd, 3rd positive event

_HALF_LIVES = np.array(HALF_LIVES_MS, np.float64)


class Trends:
    """Decayed counters, all-time counts, entry popularity and first and last sight of every row."""

    def __init__(self, rows: ItemRows) -> None:
        self.newest = 0  # ms, of all events counted; it never goes back, whatever is cleared
        self._decayed = rows.column((LADDER,), np.float32, 0)
        self._reference = rows.column((), np.int64, 0)
        self._count = rows.column((), np.float64, 0)
        self._entry = rows.column((ENTRIES,), np.float32, 0)
        self._first_seen = rows.column((), np.int64, 0)
        self._last_seen = rows.column((), np.int64, 0)

    @property
    def decayed(self) -> F32:
        """(capacity, H) decayed counts as of `reference`."""
        return self._decayed.data

    @property
    def reference(self) -> I64:
        """(capacity,) ms; 0 = never counted."""
        return self._reference.data

    @property
    def count(self) -> F64:
        """(capacity,) all-time weight."""
        return self._count.data

    @property
    def entry(self) -> F32:
        """(capacity, 3) how often the item was some user's 1st, 2nd, 3rd positive event."""
        return self._entry.data

    @property
    def first_seen(self) -> I64:
        """(capacity,) time of the earliest event, ms; 0 = never."""
        return self._first_seen.data

    @property
    def last_seen(self) -> I64:
        """(capacity,) time of the latest event, ms; 0 = never."""
        return self._last_seen.data

    def at(self, rows: Rows, now: int) -> F32:
        """Decayed counts of `rows` (c,) as of `now` (ms), one line a half-life: (H, c). Ages below 0 count as 0."""
        age = np.maximum(now - self._reference.data[rows], 0)  # (c,)
        decay = np.exp2(-age[None, :] / _HALF_LIVES[:, None])  # (H, c)
        counts: F32 = (self._decayed.data[rows].T * decay).astype(np.float32)
        return counts

    def learn(self, targets: Rows, times: I64, weights: F32, before: I64) -> None:
        """Count events (m,) in log order: target rows, times (ms), weights, the user's positive events before each."""
        self.newest = max(self.newest, int(times.max(initial=0)))
        _learn(
            targets, times, weights, before, _HALF_LIVES,
            self._decayed.data, self._reference.data, self._count.data, self._entry.data,
            self._first_seen.data, self._last_seen.data,
        )  # fmt: skip

    def export(self, row: int) -> dict[str, Any]:
        """The fields of `ItemVectors` that are kept here."""
        return {
            "decayed": self._decayed.data[row].copy(),
            "reference": int(self._reference.data[row]),
            "count": float(self._count.data[row]),
            "entry": self._entry.data[row].copy(),
            "first_seen": int(self._first_seen.data[row]),
            "last_seen": int(self._last_seen.data[row]),
        }

    def put(self, row: int, record: ItemVectors) -> None:
        """Take over what a record says of `row`."""
        self.newest = max(self.newest, record.last_seen)
        self._decayed.data[row] = record.decayed
        self._reference.data[row] = record.reference
        self._count.data[row] = record.count
        self._entry.data[row] = record.entry
        self._first_seen.data[row] = record.first_seen
        self._last_seen.data[row] = record.last_seen

    def clear(self, row: int) -> None:
        """Forget `row`."""
        for column in (self._decayed, self._reference, self._count, self._entry, self._first_seen, self._last_seen):
            column.data[row] = 0


@njit(cache=True)
def _learn(
    targets: Rows, times: I64, weights: F32, before: I64, half_lives: F64,
    decayed: F32, reference: I64, count: F64, entry: F32, first_seen: I64, last_seen: I64,
) -> None:  # fmt: skip
    for at in range(len(targets)):
        row, weight = targets[at], weights[at]
        time = max(times[at], 1)  # 0 means "never"
        gap = time - reference[row]
        for h in range(len(half_lives)):
            if gap >= 0:
                decayed[row, h] = decayed[row, h] * 2.0 ** (-gap / half_lives[h]) + weight
            else:
                decayed[row, h] += weight * 2.0 ** (gap / half_lives[h])
        reference[row] = max(reference[row], time)
        count[row] += weight
        if before[at] < entry.shape[1]:
            entry[row, before[at]] += 1
        if first_seen[row] == 0 or time < first_seen[row]:
            first_seen[row] = time
        last_seen[row] = max(last_seen[row], time)
