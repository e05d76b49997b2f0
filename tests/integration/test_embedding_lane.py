"""The embedding lane on a real broker and store: forms of events, bad records, forgetting, the rules at start."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.state import decode
from tests.conftest import MakeSettings
from tests.faults.run import Run
from tests.waiting import eventually
from workers import kafka
from workers.positions import LaneRefused
from workers.producer import Producer
from workers.roles import Process, hosted
from workers.settings import Settings
from workers.store import Apply, Lost, Store
from workers.wire.output import Output
from workers.wire.partition import partition_of
from workers.wire.state import decode_state

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

Body = Callable[["Lab"], Awaitable[None]]


class Lab:
    """A running embedding lane, and hands to write and look with."""

    def __init__(self, settings: Settings, process: Process, producer: Producer, store: Store, run: Run) -> None:
        self.settings, self.process, self.producer, self.store, self.run = settings, process, producer, store, run

    async def write(self, key: str | None, value: bytes | dict[str, Any] | None, **more: Any) -> None:
        """A record of `events`, where its key belongs unless told otherwise."""
        data = json.dumps(value).encode() if isinstance(value, dict) else value
        headers = [(name, text.encode()) for name, text in more.get("headers", {}).items()]
        raw = None if key is None else key.encode()
        partition = more.get("partition", 0 if raw is None else self.home(key or ""))
        await self.producer.send([Output(self.settings.topic("events"), raw, data, headers, partition)])

    def home(self, user: str) -> int:
        return partition_of(user.encode(), self.settings.kafka.partitions, self.settings.partitioner)

    async def blob(self, user: str) -> bytes:
        """The user's state, as soon as there is one."""
        return await eventually(lambda: self.store.read_state(self.home(user), user)) or b""

    async def counted(self, name: str, times: int) -> None:
        """Wait for a counter of the lane to come to `times`, no more: it moves a moment after the store has."""

        async def enough() -> bool:
            return bool(self.process.stats()["embedding"].get(name, 0) >= times)

        await eventually(enough)
        assert self.process.stats()["embedding"][name] == times

    async def seen(self, dataset: str, records: int) -> list[Any]:
        """What is on a topic, once it is at least so many records."""

        async def enough() -> list[Any]:
            found = await self.run.read(dataset)
            return found if len(found) >= records else []

        return await eventually(enough, within_s=60)


def in_lab(settings: Settings, body: Body) -> None:
    """Run `body` beside a running embedding lane."""

    async def lab() -> None:
        store = await Store.connect(settings)
        producer = await Producer(settings).start()
        try:
            async with Run(settings) as run, hosted(settings, ["embedding"]) as process:
                await asyncio.wait_for(process.ready(), 60)
                await body(Lab(settings, process, producer, store, run))
        finally:
            await producer.stop()
            await store.close()

    asyncio.run(lab())


def click(user: str, item: str = "i-1", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "action": "click", **more}


def test_three_envelopes(settings: Settings) -> None:
    """A bare record, a structured CloudEvent and a binary one each move their user's state and are announced."""

    async def body(lab: Lab) -> None:
        await lab.write("bare", click("bare"))
        structured = {"specversion": "1.0", "id": "s1", "source": "/t", "type": "x", "data": click("structured")}
        await lab.write("structured", structured, headers={"content-type": "application/cloudevents+json"})
        binary = {"ce_specversion": "1.0", "ce_id": "b1", "ce_source": "/t", "ce_type": "x", "traceparent": "00-t-s-01"}
        await lab.write("binary", click("binary"), headers=binary)
        for user in ("bare", "structured", "binary"):
            states = decode([await lab.blob(user)])
            assert (int(states.count[0]), int(states.rings.length[0])) == (1, 1)
        announced = {r.key.decode(): decode_state(r.value) for r in await lab.seen("states", 3)}
        assert set(announced) == {"bare", "structured", "binary"}
        for user, record in announced.items():
            assert json.loads(record.fresh[0].data) == click(user)
            assert record.refresh
        assert announced["binary"].cause is not None
        assert announced["binary"].cause.traceparent == "00-t-s-01"

    in_lab(settings, body)


def test_bad_records_between_good_ones(settings: Settings) -> None:
    """Bad records become dead letters, bytes intact, with reason and position; those around them are applied."""
    bad: list[tuple[str | None, bytes | None]] = [
        ("u", b"\xff\xfe"),
        ("u", b"[]"),
        ("u", b'{"user_id":"u","action":"click"'),
        ("u", b"[" * 60_000),
        ("u", json.dumps(click("u", value=float("nan"))).encode()),
        ("u", json.dumps(click("u")).encode()[:-1] + b',"value":1e999}'),
        ("u", json.dumps(click("u", item="{x}")).encode()),
        ("u", json.dumps(click("someone-else")).encode()),
        ("u", json.dumps(click("u", time="1999-01-01T00:00:00Z")).encode()),
        ("u", json.dumps(click("u", time=int(time.time()))).encode()),
        ("u", b"x" * 70_000),
        (None, json.dumps(click("u")).encode()),
        ("u", None),
    ]

    async def body(lab: Lab) -> None:
        for number, (key, value) in enumerate(bad):
            await lab.write("u", click("u", event_id=f"good-{number}"))
            await lab.write(key, value, partition=lab.home("u"))
        letters = await lab.seen("dead-letters", len(bad))
        assert [(r.key and r.key.decode(), r.value) for r in letters] == bad

        async def applied() -> bool:
            return int(decode([await lab.blob("u")]).count[0]) == len(bad)

        await eventually(applied)
        for number, letter in enumerate(letters):
            headers = {name: value.decode() for name, value in letter.headers}
            assert headers["__dlq.errors.topic"] == lab.settings.topic("events")
            assert headers["__dlq.errors.partition"] == str(lab.home("u"))
            assert int(headers["__dlq.errors.offset"]) == 2 * number + 1
            assert headers["__dlq.errors.stage"] in {"decode", "validate"}
            assert headers["__dlq.errors.message"]

    in_lab(settings, body)


def test_unknown_actions_and_fields(settings: Settings) -> None:
    """An action nobody declared is applied as weight 0 and counted by name; unknown fields are ignored."""

    async def body(lab: Lab) -> None:
        await lab.write("u", {"user_id": "u", "action": "teleport", "shoe_size": 44})
        states = decode([await lab.blob("u")])
        assert (int(states.count[0]), int(states.rings.length[0])) == (1, 0)
        await lab.counted("unknown:teleport", 1)

    in_lab(settings, body)


def test_forget(settings: Settings) -> None:
    """A forget leaves the marker alone; what is older stays out, what is newer begins anew."""

    async def body(lab: Lab) -> None:
        await lab.write("u", click("u"))
        await lab.blob("u")
        await lab.write("u", {"user_id": "u", "action": "forget"})

        async def only_marker() -> bool:
            with redis.Redis.from_url(lab.settings.store.url) as client:
                keys = [k.decode().split(":")[1] for k in client.scan_iter(f"{lab.settings.prefix}:*:{{*}}:*")]
            return keys == ["x"]

        await eventually(only_marker)
        records = [r for r in await lab.seen("states", 2) if r.value is None]
        assert [dict(r.headers)["offset"] for r in records] == [b"1"]
        await lab.write("u", click("u", time=int(time.time() * 1000) - 3_600_000))  # happened before the forget
        await lab.write("u", click("u", item="i-2"))
        states = decode([await lab.blob("u")])
        assert int(states.count[0]) == 1
        await lab.counted("forgotten", 1)

    in_lab(settings, body)


def test_astray_records_are_rerouted_once(settings: Settings) -> None:
    """A record in the wrong partition is written again to the right one; one that still is wrong is a dead letter."""

    async def body(lab: Lab) -> None:
        wrong = (lab.home("u") + 1) % lab.settings.kafka.partitions
        await lab.write("u", click("u"), partition=wrong)
        assert int(decode([await lab.blob("u")]).count[0]) == 1
        rerouted = [r for r in await lab.run.read("events") if r.partition == lab.home("u")]
        assert "headrace-rerouted" in dict(rerouted[0].headers)
        again = {name: value.decode() for name, value in rerouted[0].headers}
        await lab.write("u", rerouted[0].value, partition=wrong, headers=again)
        (letter,) = await lab.seen("dead-letters", 1)
        assert letter.value == rerouted[0].value

    in_lab(settings, body)


# ---------------------------------------------------------------- start rules


async def _fails_with(settings: Settings) -> BaseException:
    """What an embedding worker dies of at start."""
    async with hosted(settings, ["embedding"]) as process:
        try:
            await asyncio.wait_for(process.ready(), 60)
        except (LaneRefused, Lost) as error:
            return error
    raise AssertionError("it started")


async def _cut(settings: Settings, before: int) -> None:
    """Retention, at once: records of partition 0 before an offset are gone."""
    tp = TopicPartition(settings.topic("events"), 0)
    async with kafka.admin(settings) as client:
        await client.delete_records({tp: RecordsToDelete(before)})


async def _write_to_0(settings: Settings, records: int) -> None:
    producer = await Producer(settings).start()
    await producer.send([Output(settings.topic("events"), b"u", b"{}", [], 0)] * records)
    await producer.stop()


@pytest.mark.real_broker("deletes no records")
def test_no_position_in_a_log_that_was_cut(settings: Settings) -> None:
    """A partition without a position is never read as 0 when its log does not begin there."""

    async def body() -> None:
        await _write_to_0(settings, 10)
        await _cut(settings, 4)
        assert isinstance(await _fails_with(settings), Lost)

    asyncio.run(body())


@pytest.mark.real_broker("deletes no records")
def test_events_gone_before_they_were_applied(settings: Settings) -> None:
    """The worker refuses with the exact number, and goes on when told to accept the loss."""

    async def body() -> None:
        await _write_to_0(settings, 10)
        store = await Store.connect(settings)
        await store.claim([0], "earlier", fresh=[0])
        await _cut(settings, 7)
        assert "7 events are gone" in str(await _fails_with(settings))
        process = Process(settings, ["embedding"], accept_loss=True)
        await process.start()
        try:
            await asyncio.wait_for(process.ready(), 60)

            async def at_end() -> bool:
                return (await store.positions([0]))[0].next == 10

            await eventually(at_end)
        finally:
            await process.stop()
            await store.close()

    asyncio.run(body())


@pytest.mark.real_broker("tells wrong end offsets")
@pytest.mark.parametrize("end", [3, 0])
def test_a_store_ahead_of_the_log(make_settings: MakeSettings, end: int) -> None:
    """States made from another log are not taken for this one's; a topic that was made anew is empty."""
    settings = make_settings()

    async def body() -> None:
        if end:
            await _write_to_0(settings, end)
        store = await Store.connect(settings)
        claim = (await store.claim([0], "earlier", fresh=[0]))[0]
        await store.apply([Apply(0, claim.epoch, 0, 50, 50, [])])
        await store.close()
        assert f"the log ends at {end}" in str(await _fails_with(settings))

    asyncio.run(body())
