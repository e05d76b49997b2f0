"""Rows and lookup: item hash -> row, and the columns that grow with the rows.

Rows are private to a process. Whatever is known of an item (vectors, lists, counters, catalogue) lies in columns of one
`ItemRows`, so a row means the same everywhere and no part of the pipeline looks hashes up twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

from pipeline.types import I64, U32, U64, Mask, Rows

_START = 1024


class Column:
    """An array with one entry a row; `data` is replaced when the rows outgrow it."""

    __slots__ = ("_fill", "data")

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: DTypeLike, fill: Any) -> None:
        self._fill = fill
        self.data: NDArray[Any] = _filled((capacity, *shape), fill, dtype)

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` rows."""
        old = self.data
        self.data = _filled((capacity, *old.shape[1:]), self._fill, old.dtype)
        self.data[: len(old)] = old


def _filled(shape: tuple[int, ...], fill: Any, dtype: DTypeLike) -> NDArray[Any]:
    """Zeros come untouched from the system: rows that are never written cost no memory."""
    return np.full(shape, fill, dtype) if fill else np.zeros(shape, dtype)


class ItemRows:
    """Hashes and ids of the items that this process has met, in the order of meeting.

    `ids[row]` is "" until the item's id is known: a hash first met in another item's list has no id yet.
    """

    def __init__(self, capacity: int = _START) -> None:
        self.capacity = max(capacity, 16)
        self.ids: list[str] = []
        self._columns: list[Column] = []
        self._hashes = self.column((), np.uint64, 0)
        self._named = self.column((), np.bool_, False)
        self._slots = np.full(_slots_for(self.capacity), -1, np.int64)  # open addressing: slot -> row

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def hashes(self) -> U64:
        """(capacity,) hash of each row."""
        return self._hashes.data

    @property
    def named(self) -> Mask:
        """(capacity,) the row's id is known: without it an item cannot stand in a feed."""
        return self._named.data

    @property
    def slots(self) -> I64:
        """The lookup table, for kernels: see `lookup`."""
        return self._slots

    def column(self, shape: tuple[int, ...], dtype: DTypeLike, fill: Any) -> Column:
        """A new column of these rows: `shape` an entry, filled with `fill`."""
        made = Column(self.capacity, shape, dtype, fill)
        self._columns.append(made)
        return made

    def find(self, hashes: U64) -> Rows:
        """Rows of `hashes`, -1 where unknown; same shape."""
        flat = np.ascontiguousarray(hashes, np.uint64).reshape(-1)
        found: Rows = _find(self._slots, self._hashes.data, flat)
        return found.reshape(hashes.shape)

    def find_marks(self, marks: U32) -> Rows:
        """Rows of items by the lower 32 bits of their hashes, -1 where unknown; same shape."""
        flat = np.ascontiguousarray(marks, np.uint32).reshape(-1)
        found: Rows = _find_marks(self._slots, self._hashes.data, flat)
        return found.reshape(marks.shape)

    def row(self, item: int, item_id: str = "") -> int:
        """The row of hash `item`, made if new; `item_id` is kept when given."""
        row = int(lookup(self._slots, self._hashes.data, np.uint64(item)))
        if row < 0:
            row = self._add(item)
        if item_id:
            self.ids[row] = item_id
            self._named.data[row] = True
        return row

    def rows(self, hashes: U64) -> Rows:
        """Rows of `hashes` (any shape), made where new."""
        found = self.find(hashes)
        flat = found.reshape(-1)
        for at in np.flatnonzero(flat < 0):
            flat[at] = self.row(int(hashes.reshape(-1)[at]))
        return found

    def _add(self, item: int) -> int:
        row = len(self.ids)
        if row == self.capacity:
            self.capacity *= 2
            for column in self._columns:
                column.grow(self.capacity)
            self._slots = np.full(_slots_for(self.capacity), -1, np.int64)
            _fill_slots(self._slots, self._hashes.data[:row])
        self.ids.append("")
        self._hashes.data[row] = item
        _insert(self._slots, np.uint64(item), row)
        return row


def _slots_for(capacity: int) -> int:
    """A power of two, at most half full."""
    return 1 << (2 * capacity - 1).bit_length()


@njit(cache=True)
def lookup(slots: I64, hashes: U64, item: np.uint64) -> int:
    """The row of hash `item` or -1: for use inside kernels (pass `rows.slots`, `rows.hashes`)."""
    mask = np.uint64(len(slots) - 1)
    slot = item & mask
    while slots[slot] >= 0:
        if hashes[slots[slot]] == item:
            return int(slots[slot])
        slot = (slot + np.uint64(1)) & mask
    return -1


@njit(cache=True)
def _find(slots: I64, hashes: U64, wanted: U64) -> I64:
    found = np.empty(len(wanted), np.int64)
    for at in range(len(wanted)):
        found[at] = lookup(slots, hashes, wanted[at])
    return found


@njit(cache=True)
def _find_marks(slots: I64, hashes: U64, marks: U32) -> I64:
    """As `lookup`: where a search begins depends on lower bits alone."""
    found, last, low = np.full(len(marks), -1, np.int64), np.uint64(len(slots) - 1), np.uint64(0xFFFFFFFF)
    for at in range(len(marks)):
        slot = np.uint64(marks[at]) & last
        while slots[slot] >= 0 and found[at] < 0:
            if hashes[slots[slot]] & low == np.uint64(marks[at]):
                found[at] = slots[slot]
            slot = (slot + np.uint64(1)) & last
    return found


@njit(cache=True)
def _insert(slots: I64, item: np.uint64, row: int) -> None:
    mask = np.uint64(len(slots) - 1)
    slot = item & mask
    while slots[slot] >= 0:
        slot = (slot + np.uint64(1)) & mask
    slots[slot] = row


@njit(cache=True)
def _fill_slots(slots: I64, hashes: U64) -> None:
    for row in range(len(hashes)):
        _insert(slots, hashes[row], row)
