"""Rows are a dict from hash to place, whatever is asked of them in whatever order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.rows import ItemRows

# Few low bits, so that slots are contended, and hashes at both ends.
ITEMS = st.one_of(
    st.integers(1, 60),
    st.builds(lambda high, low: high << 48 | low, st.integers(0, 0xFFFF), st.sampled_from([1, 2, 30, 31, 32])),
    st.integers((1 << 64) - 20, (1 << 64) - 1),
)
ONE, MANY = st.lists(ITEMS, min_size=1, max_size=1), st.lists(ITEMS, max_size=40)
STEPS = st.lists(
    st.tuples(st.sampled_from(["row", "name"]), ONE) | st.tuples(st.sampled_from(["rows", "find"]), MANY), max_size=30
)


@given(st.integers(1, 40), STEPS)
@settings(deadline=None)
def test_rows_do_what_a_dict_does(capacity: int, steps: list[tuple[str, list[int]]]) -> None:
    rows, known, names = ItemRows(capacity), dict[int, int](), dict[int, str]()
    column = rows.column((), np.uint64, 3)
    for what, items in steps:
        asked = np.array(items, np.uint64)
        if what == "find":
            assert rows.find(asked).tolist() == [known.get(item, -1) for item in items]
            continue
        expected = [known.setdefault(item, len(known)) for item in items]
        if what == "rows":
            assert rows.rows(asked).tolist() == expected
        else:
            names |= {expected[0]: f"i-{items[0]}"} if what == "name" else {}
            assert [rows.row(items[0], f"i-{items[0]}" if what == "name" else "")] == expected
        column.data[expected] = asked
    n = len(known)
    assert len(rows) == n <= rows.capacity
    assert rows.hashes[:n].tolist() == column.data[:n].tolist() == list(known)
    assert rows.ids == [names.get(row, "") for row in range(n)]
    assert np.flatnonzero(rows.named).tolist() == sorted(names)
    assert (column.data[n:] == 3).all()
    assert rows.find(np.array(list(known), np.uint64)).tolist() == list(range(n))


def test_a_hundred_thousand_items_are_all_found_again() -> None:
    items = np.random.default_rng(5).integers(1, 1 << 64, 100_000, np.uint64)
    rows = ItemRows(16)
    assert rows.rows(items).tolist() == list(range(len(items)))
    assert rows.find(items[::-1]).tolist() == list(range(len(items)))[::-1]
    assert (rows.find(items + np.uint64(1)) == -1).all()
