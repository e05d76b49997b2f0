"""Trend counters: decay in event time, late events, entry popularity."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.model.rows import ItemRows
from pipeline.model.trends import HALF_LIVES_MS, Trends
from pipeline.types import ItemVectors

START = 1_700_000_000_000
MINUTE = 60_000


class Counting:
    def __init__(self) -> None:
        self.rows = ItemRows(16)
        self.rows.rows(np.arange(1, 6, dtype=np.uint64))
        self.trends = Trends(self.rows)

    def learn(self, *events: tuple[int, int, float, int]) -> None:
        """Events of row, time, weight, positives before."""
        rows, times, weights, before = zip(*events, strict=True)
        self.trends.learn(
            np.array(rows), np.array(times, np.int64), np.array(weights, np.float32), np.array(before, np.int64)
        )


def by_definition(events: list[tuple[int, float]], now: int) -> list[float]:
    """sum of w 2^(-age / H): what the lazily decayed counters must come to, whatever the order of events."""
    return [sum(weight * 2 ** (-max(now - time, 0) / half) for time, weight in events) for half in HALF_LIVES_MS]


def test_counters_are_the_decayed_sum_in_any_order() -> None:
    rng = np.random.default_rng(0)
    events = [(START + int(rng.integers(0, 86_400_000)), float(rng.choice([0.3, 1, 4]))) for _ in range(200)]
    now = START + 86_400_000
    for shuffled in (events, sorted(events), sorted(events, reverse=True)):
        counting = Counting()
        counting.learn(*((2, time, weight, 9) for time, weight in shuffled))
        got = counting.trends.at(np.array([2, 3]), now)
        assert got.shape == (len(HALF_LIVES_MS), 2)
        np.testing.assert_allclose(got[:, 0], by_definition(events, now), rtol=1e-4, atol=1e-6)
        assert not got[:, 1].any()


def test_a_half_life_halves() -> None:
    for at, half in enumerate(HALF_LIVES_MS):
        counting = Counting()
        counting.learn((0, START, 2.0, 0))
        assert counting.trends.at(np.array([0]), START + half)[at, 0] == pytest.approx(1.0)


def test_a_query_from_the_past_sees_no_growth() -> None:
    counting = Counting()
    counting.learn((0, START, 1.0, 0))
    assert counting.trends.at(np.array([0]), START - 86_400_000).tolist() == [[1.0]] * len(HALF_LIVES_MS)


def test_a_late_event_is_worth_its_age_and_leaves_the_reference() -> None:
    counting = Counting()
    counting.learn((0, START, 1.0, 0), (0, START - HALF_LIVES_MS[0], 1.0, 1))
    fields = counting.trends.export(0)
    assert fields["reference"] == START
    assert fields["decayed"][0] == pytest.approx(1.5)
    assert (fields["first_seen"], fields["last_seen"]) == (START - HALF_LIVES_MS[0], START)


def test_first_three_events_are_entries() -> None:
    counting = Counting()
    counting.learn(*((1, START, 4.0, before) for before in (0, 0, 1, 2, 3, 100)))
    assert counting.trends.entry[1].tolist() == [2, 1, 1]
    assert counting.trends.count[1] == 24.0


def test_counts_go_on_beyond_float32() -> None:
    counting = Counting()
    counting.trends.count[0] = 2.0**24
    counting.learn((0, START, 1.0, 9))
    assert counting.trends.count[0] == 2.0**24 + 1


def test_time_zero_is_not_never() -> None:
    counting = Counting()
    counting.learn((0, 0, 1.0, 0))
    assert counting.trends.first_seen[0] == counting.trends.last_seen[0] == 1


def test_export_put_clear() -> None:
    counting = Counting()
    counting.learn((1, START, 1.0, 0), (1, START + MINUTE, 0.3, 1))
    fields = counting.trends.export(1)
    vectors = {"e_in": np.zeros(4, np.float32), "e_out": np.zeros(4, np.float32), "bias": 0.0}
    record = ItemVectors("one", 1, **vectors, accumulators=np.ones(3, np.float32), **fields)  # type: ignore[arg-type]
    counting.trends.put(4, record)
    for name, value in fields.items():
        np.testing.assert_array_equal(counting.trends.export(4)[name], value)
    counting.trends.clear(1)
    assert not any(np.any(value) for value in counting.trends.export(1).values())


def test_the_newest_event_is_known_whatever_is_cleared() -> None:
    counting = Counting()
    assert counting.trends.newest == 0
    counting.learn((0, START + MINUTE, 1.0, 0), (1, START, 1.0, 0))
    counting.learn((1, START, 1.0, 0))
    counting.trends.clear(0)
    assert counting.trends.newest == START + MINUTE
