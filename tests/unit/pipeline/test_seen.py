"""Which offsets were seen: the window, its export, and what garbage does."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.seen import WINDOW, Seen


def mark(seen: Seen, partition: int, *offsets: int) -> list[bool]:
    marked: list[bool] = seen.mark(np.full(len(offsets), partition), np.array(offsets, np.int64)).tolist()
    return marked


def test_new_once() -> None:
    seen = Seen()
    assert mark(seen, 0, 5, 7, 5, 6, 7) == [True, True, False, True, False]
    assert mark(seen, 0, 0, 4, 5) == [True, True, False]


def test_partitions_are_apart() -> None:
    seen = Seen()
    both = seen.mark(np.array([3, 900, 3]), np.array([1, 1, 1]))
    assert both.tolist() == [True, True, False]


def test_below_the_window_all_is_seen() -> None:
    seen = Seen()
    assert mark(seen, 0, WINDOW + 10) == [True]
    assert mark(seen, 0, 10, 11) == [False, True]


def test_places_of_the_window_are_used_again() -> None:
    seen = Seen()
    mark(seen, 0, *range(100))
    assert mark(seen, 0, WINDOW + 5) == [True]
    assert mark(seen, 0, WINDOW + 4, WINDOW + 5, 99) == [True, False, False]
    assert mark(seen, 0, 10 * WINDOW) == [True]
    assert mark(seen, 0, 10 * WINDOW - 1, 9 * WINDOW + 1, 9 * WINDOW - 1) == [True, True, False]


@pytest.mark.parametrize(
    "offsets", [[0], [5], list(range(100)), [3, 9, 4], [WINDOW * 3 + 7], [1, WINDOW - 1, WINDOW, WINDOW + 1]]
)
def test_export_and_load(offsets: list[int]) -> None:
    seen, there = Seen(), Seen()
    mark(seen, 4, *offsets)
    mark(there, 4, 10**9)  # whatever was there
    there.load(seen.export())
    around = sorted({offset + step for offset in offsets for step in range(-3, 4) if offset + step >= 0})
    assert mark(there, 4, *around) == mark(seen, 4, *around)


def test_what_has_no_holes_takes_no_room() -> None:
    seen = Seen()
    mark(seen, 0, *range(200_000))
    assert len(seen.export()[0]) == 16
    mark(seen, 0, 200_010)
    assert len(seen.export()[0]) == 16 + 2


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"x" * 15,
        np.array([10, 20], "<i8").tobytes(),
        np.array([WINDOW * 2, 0], "<i8").tobytes() + bytes(2 * WINDOW // 8),
        np.array([16, 0], "<i8").tobytes() + bytes(1),
        np.array([16, 0], "<i8").tobytes() + bytes(3),
        np.array([-5, -9], "<i8").tobytes() + bytes(1),
        np.array([(1 << 63) - 1, -(1 << 63)], "<i8").tobytes(),
    ],
)
def test_garbage_is_refused_and_changes_nothing(packed: bytes) -> None:
    seen = Seen()
    mark(seen, 0, 5)
    with pytest.raises(ValueError, match="seen offsets of partition 0"):
        seen.load({0: packed})
    assert mark(seen, 0, 5, 6) == [False, True]
