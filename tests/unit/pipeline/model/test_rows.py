"""Rows, lookup and columns, case by case."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.model.rows import ItemRows, lookup

U64_MAX = (1 << 64) - 1


def hashes(*items: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(items, np.uint64)


def test_rows_come_in_the_order_of_meeting() -> None:
    rows = ItemRows()
    assert [rows.row(item) for item in (50, 7, 50, U64_MAX)] == [0, 1, 0, 2]
    assert len(rows) == 3
    assert rows.hashes[:3].tolist() == [50, 7, U64_MAX]


def test_an_id_may_come_later_and_is_kept() -> None:
    rows = ItemRows()
    row = rows.row(50)
    assert (rows.ids[row], bool(rows.named[row])) == ("", False)
    assert rows.row(50, "i-50") == row
    assert rows.row(50) == row
    assert (rows.ids[row], bool(rows.named[row])) == ("i-50", True)


def test_find_makes_no_rows_and_keeps_the_shape() -> None:
    rows = ItemRows()
    rows.row(7)
    assert rows.find(hashes(7, 8, 7, 0).reshape(2, 2)).tolist() == [[0, -1], [0, -1]]
    assert rows.find(hashes()).shape == (0,)
    assert rows.find(hashes(1, 7, 2, 7)[1::2]).tolist() == [0, 0]
    assert len(rows) == 1


def test_marks_find_items_by_the_lower_half_of_their_hashes() -> None:
    rows = ItemRows(16)
    last = len(rows.slots) - 1
    items = [7 + (5 << 32), last + (9 << 32), last + (1 << 31), 3]  # two want the last slot
    assert [rows.row(item) for item in items] == [0, 1, 2, 3]
    marks = np.array([[3, last], [7, last + (1 << 31)], [8, 7 + (1 << 31)]], np.uint32)
    assert rows.find_marks(marks).tolist() == [[3, 1], [0, 2], [-1, -1]]
    assert rows.find_marks(marks[:0]).shape == (0, 2)


def test_rows_makes_each_new_hash_once() -> None:
    rows = ItemRows()
    rows.row(7)
    assert rows.rows(hashes(9, 7, 9, 8).reshape(2, 2)).tolist() == [[1, 0], [1, 2]]
    assert len(rows) == 3


def test_hashes_that_want_the_same_slot_are_told_apart() -> None:
    rows = ItemRows(16)
    same = [1 + (at << 32) for at in range(16)]
    assert [rows.row(item) for item in same] == list(range(16))
    assert rows.find(hashes(*same)).tolist() == list(range(16))
    assert rows.find(hashes(1 + (99 << 32))).tolist() == [-1]


def test_probing_goes_on_at_the_first_slot_after_the_last() -> None:
    rows = ItemRows(16)
    last = len(rows.slots) - 1
    items = [last, last + len(rows.slots), last + 2 * len(rows.slots)]
    assert [rows.row(item) for item in items] == [0, 1, 2]
    assert rows.find(hashes(*items)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("capacity", [1, 16, 17, 100])
def test_columns_grow_with_the_rows_and_keep_what_they_hold(capacity: int) -> None:
    rows = ItemRows(capacity)
    before = rows.capacity
    vectors, marks = rows.column((3,), np.float32, 0.5), rows.column((), np.int64, -1)
    first = vectors.data
    for item in range(1, 2 * before + 2):
        row = rows.row(item)
        assert vectors.data[row].tolist() == [0.5] * 3
        assert marks.data[row] == -1
        vectors.data[row], marks.data[row] = item, item
    n = len(rows)
    assert rows.capacity == 4 * before == len(vectors.data) == len(rows.hashes) == len(rows.named)
    assert vectors.data is not first
    assert vectors.data[:n, 0].tolist() == marks.data[:n].tolist() == list(range(1, n + 1))
    assert (marks.data[n:] == -1).all()
    assert rows.find(np.arange(1, n + 1, dtype=np.uint64)).tolist() == list(range(n))


def test_the_table_is_never_more_than_half_full() -> None:
    rows = ItemRows(16)
    for item in range(1, 200):
        rows.row(item * 0x9E3779B97F4A7C15 & U64_MAX)
        assert np.count_nonzero(rows.slots >= 0) == len(rows)
        assert 2 * len(rows) <= len(rows.slots)
        assert len(rows.slots) & (len(rows.slots) - 1) == 0


def test_kernels_look_up_as_python_does() -> None:
    rows = ItemRows()
    rows.row(U64_MAX)
    assert lookup(rows.slots, rows.hashes, np.uint64(U64_MAX)) == 0
    assert lookup(rows.slots, rows.hashes, np.uint64(1)) == -1
