"""The benchmark of the lanes runs, on the embedded pair and with little to do. Its figures mean nothing here."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.recipe import RECIPES
from tests.bench import lanes, latency, memory
from tests.bench.load import Load
from tests.bench.servers import embedded_pair
from tests.bench.topics import backlog, prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EVENTS = 3_000


def test_the_parts_beside_the_lanes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event to feed on the embedded pair, then the memory of its users."""
    small = Load(users=60, items=100)
    monkeypatch.setattr(lanes, "SMALL", small)
    monkeypatch.setattr(lanes, "EMBEDDED_EVENTS", EVENTS)
    monkeypatch.setattr(lanes, "EMBEDDED_RATES", (50,))
    monkeypatch.setattr(lanes, "SECONDS", 2)
    monkeypatch.setattr(latency, "WARM_S", 1)
    monkeypatch.setattr(memory, "CONSUMED", 8)
    with embedded_pair() as on:
        bench = lanes.Bench(on, print, "lean")
        said = bench.conditions()
        for part in (
            "Tansu",
            "Valkey",
            "recipe lean",
            "acks=all of 1 replica",
            "no producer ids",
            "states live 90 days",
        ):
            assert part in said
        (row,) = bench.on_the_pair()
        assert row.figures["feeds"] > 0
        assert row.figures["p50"] > 0
        assert "p50" in lanes.readable(row)
        assert bench.counted().startswith(f"{EVENTS:,} events were read and validated: 0 dead letters, 0 with an id")
        assert bench.counted().endswith(f"models learned from {EVENTS:,} events")
        state, *feeds = bench._sizes(bench._settings(12, "bench-pair-50"))
        assert state.figures["bytes"] > state.figures["value"] > 500
        assert len(feeds) == len(RECIPES)
        for row in feeds:
            assert row.figures["bytes"] > row.figures["value"] > 1_000
            assert 0 < row.figures["users"] <= small.users


def test_what_no_worker_would_take_is_counted() -> None:
    """The conditions under the table are found, not said: a bad event and one that is sent twice show."""
    with embedded_pair() as on:
        bench = lanes.Bench(on, print)
        settings = bench._settings(4, "bench-bad")
        events = list(Load(users=60, items=100).events(EVENTS, "bad"))
        events[7] = {**events[7], "action": 7}
        asyncio.run(prepare(settings))
        asyncio.run(backlog(settings, [*events[:6], *events[5:]]))
        bench._measure("embedding", settings, EVENTS + 1)
        assert f"{EVENTS + 1:,} events were read and validated: 1 dead letters, 1 with" in bench.counted()
