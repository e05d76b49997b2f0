"""The lane on a real broker and store: holes, odd records, large ones, fences, gaps, and a store that is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from aiokafka import AIOKafkaProducer

from pipeline.state import decode
from tests import backing
from tests.conftest import MakeSettings
from tests.integration.test_embedding_lane import Lab, click, in_lab
from tests.rawlog import ESCAPED, NAME, Given, raw_batch, write_raw
from tests.waiting import eventually, run
from workers import embedded, kafka
from workers import lane as lanes
from workers.app import STOP_WITHIN_S
from workers.positions import LaneRefused
from workers.producer import Producer
from workers.settings import Settings
from workers.wire.output import Output
from workers.wire.partition import partition_of
from workers.wire.state import decode_state

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

FAST: dict[str, Any] = {"kafka_session_timeout_s": 6.0, "kafka_heartbeat_s": 0.2}


def event(user: str, item: str = "i-1", **more: Any) -> bytes:
    return json.dumps(click(user, item, **more)).encode()


def stats(lab: Lab) -> dict[str, Any]:
    counts: dict[str, Any] = lab.process.stats()["embedding"]
    return counts


def fresh_of(record: Any) -> list[int]:
    """Offsets of the events that a record of `states` announces."""
    return [fresh.offset for fresh in decode_state(record.value).fresh]


async def until(holds: Callable[[], bool], within_s: float = 45.0) -> None:
    async def answer() -> bool:
        return holds()

    await eventually(answer, within_s)


async def applied(lab: Lab, user: str, events: int) -> None:
    """Wait until the user's state holds so many events, no more."""

    async def count() -> bool:
        return int(decode([await lab.blob(user)]).count[0]) >= events

    await eventually(count, 60)
    assert int(decode([await lab.blob(user)]).count[0]) == events


async def transaction(lab: Lab, user: str, events: int, *, how: str) -> AIOKafkaProducer:
    """Events of a user in a transaction that is committed, aborted or left open."""
    producer = AIOKafkaProducer(
        bootstrap_servers=lab.settings.kafka.bootstrap, transactional_id=f"{lab.settings.prefix}-{how}"
    )
    await producer.start()
    await producer.begin_transaction()
    topic = lab.settings.topic("events")
    for _ in range(events):
        await producer.send_and_wait(topic, event(user), key=user.encode(), partition=lab.home(user))
    if how != "open":
        await (producer.commit_transaction() if how == "committed" else producer.abort_transaction())
        await producer.stop()
    return producer


@pytest.mark.real_broker("has no transactions")
def test_holes(make_settings: MakeSettings) -> None:
    """Markers and aborted records are stepped over, counted, and are no lag; nor is what cannot be read yet."""

    async def body(lab: Lab) -> None:
        await transaction(lab, "u", 3, how="committed")  # 0-2, marker 3
        await applied(lab, "u", 3)
        await until(lambda: lab.process.lag() == 0)  # although the log ends at 4
        await transaction(lab, "u", 2, how="aborted")  # 4-5, marker 6
        await lab.write("u", click("u"))  # 7: found behind a hole, sought again, stepped over
        await applied(lab, "u", 4)
        assert stats(lab)["holes"] >= 1
        waiting = await transaction(lab, "u", 1, how="open")  # 8
        try:
            await lab.write("u", click("u"))  # 9: nobody may read it before 8 is decided
            home, high = lab.home("u"), await lab.run.log_ends()
            assert high[home] == 8  # of what may be read
            await until(lambda: lab.process.lag() == 0)
            await waiting.commit_transaction()
        finally:
            await waiting.stop()
        await applied(lab, "u", 6)
        assert (await lab.store.positions([home]))[home].next == 10

        async def announced() -> bool:
            return sum(len(fresh_of(r)) for r in await lab.run.read("states") if r.partition == home) == 6

        await eventually(announced)

    in_lab(make_settings(**FAST), body)


def test_bad_records_one_to_one_with_good_ones(make_settings: MakeSettings) -> None:
    """Also such whose header names are not UTF-8, which the client itself cannot read: each costs itself alone."""
    good, users = 600, [f"u-{i}" for i in range(12)]
    wrong: list[Given] = [
        (b"u-0", b"{}", [(NAME, b"\x00"), ("a", None)]),
        (b"u-0", b"\xff", []),
        (None, b"{}", []),
        (b"u-0", b'{"user_id":', [(NAME, None)]),
    ]

    async def body(lab: Lab) -> None:
        homes: dict[int, list[Given]] = {}
        for i in range(good):
            user = users[i % len(users)]
            mixed = homes.setdefault(lab.home(user), [])
            mixed += [(user.encode(), event(user), []), wrong[i % len(wrong)]]
        for partition, records in homes.items():
            for at in range(0, len(records), 200):
                await write_raw(
                    lab.settings,
                    lab.settings.topic("events"),
                    partition,
                    raw_batch(records[at : at + 200], time=int(time.time() * 1000)),
                )
        for user in users:
            await applied(lab, user, good // len(users))
        letters = await lab.seen("dead-letters", good)
        places = set()
        for letter in letters:
            headers = dict(letter.headers)
            place = int(headers["__dlq.errors.partition"]), int(headers["__dlq.errors.offset"])
            key, value, given = homes[place[0]][place[1]]
            assert (letter.key, letter.value) == (key, value)
            assert list(letter.headers)[: len(given)] == [(n.replace(NAME, ESCAPED), v) for n, v in given]
            places.add(place)
        bad = {(p, at) for p, records in homes.items() for at in range(len(records)) if at % 2}
        assert places == bad
        assert len(letters) == len(bad)

    in_lab(make_settings(**FAST), body)


def test_one_users_large_events_hold_nobody_up(make_settings: MakeSettings) -> None:
    """4,096 events of 60 KiB of one user lie there; another partition's event is applied among them."""
    events, settings = 4096, make_settings(**FAST)
    large = event("big", note="x" * 60 * 1024)
    home, other = (partition_of(user, 4, settings.partitioner) for user in (b"big", b"other-1"))
    assert home != other

    async def write() -> None:
        producer = await Producer(settings).start()
        await producer.send(Output(settings.topic("events"), b"big", large, [], home) for _ in range(events))
        await producer.stop()

    async def body(lab: Lab) -> None:
        async def begun() -> bool:
            return (await lab.store.positions([home]))[home].next > 0

        await eventually(begun)
        await lab.write("other-1", click("other-1"))
        stood = (await lab.store.positions([home]))[home].next
        await lab.blob("other-1")
        stands = (await lab.store.positions([home]))[home].next
        assert stands < events, "it was applied when all was done: nothing is shown"
        assert stands - stood < events // 2
        await applied(lab, "big", events)
        assert stats(lab)["dead_letters"] == 0
        assert stats(lab)["batches"] >= events // 4  # 256 KiB of a user a batch

    run(write())
    in_lab(settings, body)


def test_fenced_and_set_back(make_settings: MakeSettings) -> None:
    """FENCED and GAP lead to a new claim and cost nothing; the third fence in a minute ends the process."""

    async def body(lab: Lab) -> None:
        home, of = lab.home("u"), lab.settings.prefix
        for events in range(1, 4):
            await lab.write("u", click("u"))
            await applied(lab, "u", events)
        with redis.Redis.from_url(lab.settings.store.url) as server:  # a failover that lost the last second
            server.hset(f"{of}:o:{{{home}}}", mapping={"next": 1, "sent": 1})
        await lab.write("u", click("u"))
        await applied(lab, "u", 4)
        assert stats(lab)["gaps"] == 1
        for fences in (1, 2):
            await lab.store.claim([home], "thief", [])
            await lab.write("u", click("u"))
            await applied(lab, "u", 4 + fences)
            assert stats(lab)["fenced"] == fences
        await lab.store.claim([home], "thief", [])
        await lab.write("u", click("u"))
        with pytest.raises(LaneRefused, match="fenced 3 times in 60 s"):
            await asyncio.wait_for(asyncio.shield(lab.process.failed), 60)
        assert int(decode([await lab.blob("u")]).count[0]) == 6

    in_lab(make_settings(**FAST), body)


def test_a_position_that_is_gone_ends_the_process(make_settings: MakeSettings) -> None:
    async def body(lab: Lab) -> None:
        home = lab.home("u")

        async def at_rest() -> bool:  # else it may come to know while it writes `sent` down, and claim from the start
            found = await lab.store.positions([home])
            return home in found and found[home].sent == 1

        await lab.write("u", click("u"))
        await eventually(at_rest)
        with redis.Redis.from_url(lab.settings.store.url) as server:
            server.delete(f"{lab.settings.prefix}:o:{{{lab.home('u')}}}")
        await lab.write("u", click("u"))
        with pytest.raises(LaneRefused, match="lost its position"):
            await asyncio.wait_for(asyncio.shield(lab.process.failed), 60)

    in_lab(make_settings(**FAST), body)


def test_sent_is_written_when_idle_and_announcements_repeat(make_settings: MakeSettings) -> None:
    """A lane that starts where `sent` is behind `next` announces exactly what lies between, and applies the rest."""
    settings = make_settings(**FAST)

    async def first(lab: Lab) -> None:
        for _ in range(5):
            await lab.write("u", click("u"))
        home = lab.home("u")

        async def written() -> bool:
            found = (await lab.store.positions([home]))[home]
            return found.next == found.sent == 5

        await eventually(written)
        await lab.store.claim([home], "thief", [])
        with redis.Redis.from_url(settings.store.url) as server:
            server.hset(f"{settings.prefix}:o:{{{home}}}", mapping={"sent": 3})
        await lab.write("u", click("u"))
        await applied(lab, "u", 6)
        assert stats(lab)["again"] == 2
        again = [r for r in await lab.seen("states", 3) if decode_state(r.value).evicted is None]
        assert [fresh_of(r) for r in again] == [[3, 4]]

    in_lab(settings, first)


# ---------------------------------------------------------------- a store that is away


@pytest.fixture
def server() -> Iterator[embedded.Server]:
    """A store of the test's own, to be taken away."""
    with embedded.redis_server(backing.redis_binary() or embedded.valkey_binary()) as own:
        yield own


@pytest.fixture
def away(make_settings: MakeSettings, server: embedded.Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that lead there; a round may hold a rebalance up for a second only."""
    monkeypatch.setattr(lanes, "_REVOKE_WITHIN_S", 1.0)
    return make_settings(store_url=backing.url_of(server), store_call_timeout_s=0.3, **FAST)


def test_a_store_that_is_away(away: Settings, server: embedded.Server) -> None:
    """Nothing is acknowledged and nothing piles up, a rebalance goes through, the end comes in time. No restart."""

    async def body(lab: Lab) -> None:
        await lab.write("u", click("u"))
        await applied(lab, "u", 1)
        announced = len(await lab.seen("states", 1))
        server.kill()
        for _ in range(3):
            await lab.write("u", click("u"))
        await until(lambda: stats(lab)["retries"] > 3)
        member = await kafka.start_consumer(away, group=away.topic("embedding"))  # comes, and goes again
        member.subscribe([away.topic("events")])
        try:
            await until(lambda: bool(member.assignment()), 60)
        finally:
            await member.stop()
        assert len(await lab.run.read("states")) == announced
        assert not lab.process.failed.done()
        server.start()
        await applied(lab, "u", 4)
        server.kill()
        await lab.write("u", click("u"))
        before = stats(lab)["retries"]
        await until(lambda: stats(lab)["retries"] > before)
        begun = time.monotonic()
        await lab.process.stop()
        assert time.monotonic() - begun < STOP_WITHIN_S, "it was cut off, it did not end"
        assert not lab.process.failed.done()
        server.start()  # for what looks after the test

    in_lab(away, body)
