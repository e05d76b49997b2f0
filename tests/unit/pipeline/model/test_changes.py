"""Which changed rows are published within a budget: the most urgent, and everything in the end."""

from __future__ import annotations

import numpy as np

from pipeline.model.changes import URGENT, Changes
from pipeline.model.rows import ItemRows
from pipeline.types import F32, I64


def chosen(changes: Changes, urgency: F32, sizes: I64, budget: int) -> list[int]:
    rows: list[int] = changes.choose(np.arange(len(urgency)) * 2, urgency, sizes, budget).tolist()
    return rows


def test_all_where_they_fit() -> None:
    changes = Changes(ItemRows(16))
    assert chosen(changes, np.ones(5, np.float32), np.full(5, 10), 50) == [0, 2, 4, 6, 8]
    assert chosen(changes, np.ones(0, np.float32), np.full(0, 10), 0) == []


def test_most_urgent_first_within_the_budget() -> None:
    changes = Changes(ItemRows(16))
    urgency = np.random.default_rng(0).permutation(100).astype(np.float32)
    rows = chosen(changes, urgency, np.full(100, 10), 400)
    assert len(rows) == len(set(rows)) == 40
    urgent = int(URGENT * 40)
    assert urgency[np.array(rows[:urgent]) // 2].tolist() == list(range(99, 99 - urgent, -1))


def test_everything_in_the_end_though_some_always_change_more() -> None:
    changes = Changes(ItemRows(16))
    urgency = np.ones(100, np.float32)
    urgency[:40] = 1000
    seen: set[int] = set()
    for _ in range(17):  # 85 wait for 5 places a time
        seen |= set(chosen(changes, urgency, np.full(100, 10), 200))
    assert seen == set(range(0, 200, 2))


def test_one_at_least_however_small_the_budget() -> None:
    changes = Changes(ItemRows(16))
    found = [chosen(changes, np.ones(3, np.float32), np.full(3, 1000), 10) for _ in range(3)]
    assert found == [[0], [2], [4]]
    assert chosen(changes, np.ones(3, np.float32), np.full(3, 1000), 0) == [0]


def test_infinite_urgency_is_first() -> None:
    changes = Changes(ItemRows(16))
    urgency = np.array([1, np.inf, 2, 3, 4, 5, 6, 7], np.float32)
    assert chosen(changes, urgency, np.full(8, 10), 20)[0] == 2
