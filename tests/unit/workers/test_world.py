"""The synthetic world: one seed, one world; what happens in it is possible, valid, and can be learned."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice, pairwise
from typing import Any

import pytest

from workers.settings import Settings
from workers.wire.event import Rules, read_event, read_events
from workers.wire.event_data import EventData, write_event
from workers.wire.item import read_item
from workers.world.world import Moment, World

N = 4_000
DIGEST = """
import hashlib, json
from workers.world.world import World
world = World(3, users=50, items=100)
print(hashlib.sha256(json.dumps([list(world.items()), list(world.stream(500))]).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def world() -> World:
    return World(1)


@pytest.fixture(scope="module")
def moments(world: World) -> list[Moment]:
    return list(world.stream(N))


@pytest.fixture(scope="module")
def events(moments: list[Moment]) -> list[dict[str, Any]]:
    return [data for kind, data in moments if kind == "event"]


class Record:
    """What the wire looks at."""

    topic, partition, offset, timestamp = "t", 0, 0, 0

    def __init__(self, key: str, data: dict[str, Any]) -> None:
        self.key, self.value = key.encode(), json.dumps(data).encode()
        self.headers: list[tuple[str, bytes]] = []


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    world = World(3, users=50, items=100)
    here = hashlib.sha256(json.dumps([list(world.items()), list(world.stream(500))]).encode()).hexdigest()
    there = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_another_seed_is_another_world() -> None:
    assert list(World(1, items=50).items()) != list(World(2, items=50).items())
    assert list(World(1).events(50)) != list(World(2).events(50))


def test_a_longer_stream_begins_with_the_shorter(world: World, moments: list[Moment]) -> None:
    short = list(world.stream(1_000))
    assert short == moments[: len(short)], "what was told before must not change what is told"
    assert list(islice(world.stream(10**12), 100)) == moments[:100], "a stream is told as it is asked for"


def test_nothing_happens_before_its_time(world: World, moments: list[Moment]) -> None:
    times = [data["time"] if kind == "event" else data["published_at"] for kind, data in moments]
    assert all(before <= after for before, after in pairwise([world.start, *times]))
    out = {item["item_id"] for item in world.items()}
    assert all(item["published_at"] < world.start for item in world.items())
    for kind, data in moments:
        if kind == "item":
            assert data["item_id"] not in out
            out.add(data["item_id"])
        assert data["item_id"] in out, "an event names an item that is not out yet"


def test_there_are_as_many_events_as_asked_for_and_new_items_among_them(moments: list[Moment]) -> None:
    kinds = Counter(kind for kind, _ in moments)
    assert kinds["event"] == N
    assert kinds["item"] > 10


def test_events_are_valid(world: World, events: list[dict[str, Any]]) -> None:
    rules = Rules.of(Settings(clock="stream"))
    for data in events:
        assert read_event(Record(data["user_id"], data), rules, 0).time_ms == data["time"]
    assert len({data["event_id"] for data in events}) == N
    assert {data["user_id"] for data in events} <= set(world.users)


def test_items_are_valid_and_titled(world: World, moments: list[Moment]) -> None:
    items = [*world.items(), *(data for kind, data in moments if kind == "item")]
    for data in items:
        assert read_item(Record(data["item_id"], data)).data is not None
    assert len({data["title"] for data in items}) == len(items)
    assert len({data["creator_id"] for data in items}) > 30
    assert 0 < sum(bool(data["unsafe"]) for data in items) < 0.05 * len(items)
    assert 0 < sum(not data["available"] for data in items) < 0.05 * len(items)


def test_titles_stay_unique_in_a_big_shop() -> None:
    titles = [item["title"] for item in World(1, items=6_000).items()]
    assert len(set(titles)) == len(titles)


def test_actions_are_mixed_and_nothing_unavailable_is_picked(world: World, events: list[dict[str, Any]]) -> None:
    mix = Counter(data["action"] for data in events)
    assert mix.keys() == {"view", "click", "like", "purchase"}
    assert all(count > 0.04 * N for count in mix.values())
    away = {item["item_id"] for item in world.items() if not item["available"]}
    assert away.isdisjoint(data["item_id"] for data in events)
    for_sale = {item["item_id"] for item in world.items() if "price" in item}
    assert {data["action"] for data in events if data["item_id"] in for_sale} == {"view", "click", "purchase"}


def test_what_was_consumed_is_at_most_viewed_again(events: list[dict[str, Any]]) -> None:
    consumed = set()
    again = 0
    for data in events:
        pair = data["user_id"], data["item_id"]
        assert data["action"] == "view" or pair not in consumed
        again += pair in consumed
        if data["action"] != "view":
            consumed.add(pair)
    assert 0 < again < 0.03 * N


def test_sessions_belong_to_one_user(events: list[dict[str, Any]]) -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for data in events:
        owners[data["session_id"]].add(data["user_id"])
    assert all(len(users) == 1 for users in owners.values())
    assert 3 < N / len(owners) < 12
    assert len({next(iter(users)) for users in owners.values()}) < len(owners), "somebody comes back"


def test_series_are_followed(events: list[dict[str, Any]], world: World, moments: list[Moment]) -> None:
    items = [*world.items(), *(data for kind, data in moments if kind == "item")]
    titles = {item["item_id"]: item["title"] for item in items}
    last: dict[str, str] = {}
    followed = 0
    for data in events:
        title, before = titles[data["item_id"]], last.get(data["session_id"], "")
        followed += title[:-1].startswith(f"{before}: ") and title.endswith("2")
        last[data["session_id"]] = title
    assert followed > 0.02 * N


def test_tastes_are_true(events: list[dict[str, Any]], world: World) -> None:
    picked = [world.affinity(data["user_id"], data["item_id"]) for data in events]
    swapped = [world.affinity(a["user_id"], b["item_id"]) for a, b in zip(events, reversed(events), strict=True)]
    assert sum(picked) / N > sum(swapped) / N + 2.0, "log-odds"


def test_items_rise_and_fall(world: World) -> None:
    hours = range(world.start, world.start + 5 * 86_400_000, 3_600_000)
    courses = [[world.appeal(item["item_id"], at) for at in hours] for item in islice(world.items(), 100)]
    swings = [max(course) - min(course) for course in courses]
    assert sum(swing > 2 for swing in swings) > 10
    assert sum(swing < 0.1 for swing in swings) > 50


def test_tastes_beat_popularity_clearly(events: list[dict[str, Any]], world: World) -> None:
    """Recall@10 of the true tastes, against all-time popularity: what there is to learn."""
    items = [item["item_id"] for item in world.items()]
    counts: Counter[str] = Counter()
    consumed: dict[str, set[str]] = defaultdict(set)
    hits: Counter[str] = Counter()
    for at, data in enumerate(events):
        user, item = data["user_id"], data["item_id"]
        if at % 10 == 0:
            open_ = [other for other in items if other not in consumed[user]]
            tastes = {other: world.affinity(user, other) for other in open_}
            hits["taste"] += item in sorted(tastes, key=tastes.__getitem__)[-10:]
            hits["popularity"] += item in sorted(open_, key=counts.__getitem__)[-10:]
        counts[item] += 1
        if data["action"] != "view":
            consumed[user].add(item)
    assert hits["taste"] > 2.5 * hits["popularity"] > 0


def test_written_as_records_they_are_read_as_a_batch(events: list[dict[str, Any]]) -> None:
    rules = Rules.of(Settings(clock="stream"))
    key, value, headers = write_event(EventData(**events[0]))
    record = Record(key.decode(), {})
    record.value, record.headers = value, headers
    batch = read_events([record], rules, rules.partition(key), 0)
    assert (batch.users, batch.bad, batch.astray) == ([events[0]["user_id"]], [], [])
