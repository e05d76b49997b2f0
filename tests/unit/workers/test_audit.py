"""The audit and the watch: each must see what is missing. Records are made by the code that writes the real ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.records import Consumed
from workers.outside import drain
from workers.outside.audit import Audit, _Reader, behind
from workers.outside.drain import Lag, settled
from workers.outside.watch import Watch
from workers.settings import Settings
from workers.wire.event import EventData, write_event
from workers.wire.feed import Feed, FeedCause, FeedItem, FeedModel, FeedStages, encode_feed, feed_headers, pair_headers
from workers.wire.state import Fresh, StateRecord, encode_state, forgotten_headers

SETTINGS = Settings(clock="stream")


def event(offset: int, user: str = "u", action: str = "like", event_id: str = "") -> Consumed:
    data = EventData(user_id=user, action=action, item_id="i", event_id=event_id or f"e{offset}")
    key, value, headers = write_event(data)
    return Consumed(key, value, headers, offset=offset)


def state(*offsets: int, user: str = "u") -> Consumed:
    fresh = [Fresh(offset, 0, 0, b"{}") for offset in offsets]
    return Consumed(user.encode(), encode_state(StateRecord(b"", None, fresh, True, None)))


def feed(version: int, user: str = "u", cause: str = "e", items: tuple[str, ...] = ("i",)) -> Consumed:
    made = Feed(
        feed_id="f",
        user_id=user,
        version=version,
        revision=1,
        count=1,
        generated_at="",
        expires_at="",
        cause=FeedCause(cause, "", ""),
        model=FeedModel(1, 1),
        recipe="home",
        items=[FeedItem(item, rank, 0.0, {}, [], {}, 1.0) for rank, item in enumerate(items, 1)],
        stages=FeedStages(0, {}, 0, 0),
    )
    return Consumed(user.encode(), encode_feed(made), feed_headers(made))


@dataclass
class Read:
    """An audit into which records are put."""

    found: Audit = field(default_factory=Audit)

    def __post_init__(self) -> None:
        self.reader = _Reader(SETTINGS, self.found)


def test_everything_announced_and_answered_is_flawless() -> None:
    read = Read()
    read.reader.on_events([event(0), event(1), event(2, "v", "impression")])
    read.reader.on_states([state(0), state(1), state(2, user="v")])
    read.reader.on_feeds([feed(2)])
    assert (read.found.events, read.found.feeds) == (3, 1)
    assert (read.found.stale, read.found.unannounced) == ([], [])


def test_a_feed_older_than_the_newest_refreshing_event_is_stale() -> None:
    read = Read()
    read.reader.on_events([event(0), event(1), event(2, action="impression"), event(3, "v")])
    read.reader.on_feeds([feed(1)])
    assert read.found.stale == ["u", "v"]
    read.reader.on_feeds([feed(2), feed(1)])  # an older one that comes later changes nothing
    assert read.found.stale == ["v"]  # the impression asks for no feed


def test_a_state_that_does_not_know_the_newest_event_is_found() -> None:
    read = Read()
    read.reader.on_events([event(0), event(1), event(2, action="impression")])
    read.reader.on_states([state(0, 1)])
    assert read.found.unannounced == ["u"]
    read.reader.on_states([state(2), state(0)])
    assert read.found.unannounced == []


def test_bad_and_repeated_events_concern_nobody() -> None:
    read = Read()
    bad = Consumed(b"u", b"{", offset=5)
    read.reader.on_events([event(0, event_id="same"), event(1, event_id="same"), bad])
    read.reader.on_states([state(0)])
    assert read.found.events == 3
    assert read.found.unannounced == []


def test_a_forgotten_user_is_announced_by_the_tombstones() -> None:
    read = Read()
    read.reader.on_events([event(0), event(1, action="forget")])
    assert read.found.unannounced == ["u"]
    read.reader.on_states([Consumed(b"u", None, forgotten_headers(1, 0))])
    read.reader.on_feeds([Consumed(b"u", None, pair_headers(2, 0))])
    assert (read.found.unannounced, read.found.stale, read.found.feeds) == ([], [], 0)


def test_who_was_never_found_is_behind() -> None:
    assert behind({"a": 1, "b": 5}, {"b": 5}) == ["a"]


def test_latency_runs_from_the_write_to_the_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(SETTINGS)
    watch.wrote([("event", {"user_id": "u", "action": "like", "item_id": "i", "event_id": "e1"})], at=100.0)
    monkeypatch.setattr("workers.outside.watch.time.perf_counter", lambda: 100.025)
    watch._on_feeds([feed(1, cause="e1"), feed(2, cause="somebody else's")])
    assert watch.percentiles() == {"p50": 25.0, "p95": 25.0, "p99": 25.0}
    assert watch.percentiles(since=100.03) == {}
    assert watch.feeds == 2
    watch._on_feeds([feed(3, cause="e1")])  # a second feed for one event tells nothing of latency
    assert len(watch.latencies) == 1


def test_a_user_is_shown_with_deeds_and_two_feeds() -> None:
    watch = Watch(SETTINGS)
    moments = [
        ("event", {"user_id": "u", "action": "like", "item_id": f"i{n}", "event_id": f"e{n}"}) for n in range(20)
    ]
    watch.wrote(moments, at=0.0)  # type: ignore[arg-type]
    assert watch.busiest() is None  # no feed yet
    first, second = feed(1, items=("a", "b")), feed(2, items=("b", "c"))
    watch._on_feeds([first, second])
    assert watch.busiest() == "u"
    assert watch.feeds_of("u") == (first.value, second.value)
    assert [deed["item_id"] for deed in watch.deeds("u")][:3] == ["i19", "i18", "i17"]


def test_items_are_unlisted_until_the_catalogue_has_them() -> None:
    watch = Watch(SETTINGS)
    watch.wrote([("item", {"item_id": "a", "title": "A"}), ("item", {"item_id": "b"})], at=0.0)
    assert (watch.unlisted, watch.titles) == (2, {"a": "A", "b": "b"})
    watch._on_catalog([Consumed(b"a", b"")])
    assert watch.unlisted == 1


def test_lag_is_not_counted_twice() -> None:
    assert Lag(events=2, states=3, within=4).total == 5
    assert Lag(events=0, states=0, within=4).total == 4


def test_a_lag_is_waited_for_as_long_as_it_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_POLL_S", 0.001)

    def lag_of(*values: int) -> Any:
        left = list(values)

        async def lag() -> int:
            return left.pop(0) if len(left) > 1 else left[0]

        return lag

    assert asyncio.run(settled(lag_of(9, 9, 5, 7, 1, 0))) == 0
    monkeypatch.setattr(drain, "PATIENCE_S", 0.5)  # from here on it is to be over
    assert asyncio.run(settled(lag_of(9, 3, 4, 3))) == 3
