"""Following topics on a real broker: where it begins, when it has caught up, what it makes of holes and odd records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from tests.rawlog import NAME, raw_batch, write_raw
from tests.waiting import eventually, run
from workers import kafka
from workers.outside.watch import following
from workers.producer import Producer
from workers.replica import Follower
from workers.settings import Settings
from workers.wire.output import EscapedHeaders, Output

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


async def write(settings: Settings, *values: bytes, partition: int = 0) -> None:
    producer = await Producer(settings).start()
    try:
        await producer.send(Output(settings.topic("recent"), b"k", value, [], partition) for value in values)
    finally:
        await producer.stop()


async def transaction(settings: Settings, *values: bytes, abort: bool = False) -> None:
    """Records of partition 0, and behind them the marker of their transaction."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap, transactional_id=settings.prefix)
    await producer.start()
    try:
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(settings.topic("recent"), value, key=b"k", partition=0)
        await (producer.abort_transaction() if abort else producer.commit_transaction())
    finally:
        await producer.stop()


@pytest.mark.real_broker("has no transactions")
def test_holes_and_odd_records(settings: Settings) -> None:
    """It has caught up although the log ends with markers, stands behind them, and gets what lies around."""

    async def body() -> None:
        topic, seen = settings.topic("recent"), list[Any]()
        await transaction(settings, b"a", b"b")  # 0, 1; the marker is 2
        await transaction(settings, b"lost", abort=True)  # 3; the marker is 4
        follower = Follower(settings, topic, seen.extend)
        async with following(follower):
            await asyncio.wait_for(follower.caught_up.wait(), 45)
            assert [r.value for r in seen] == [b"a", b"b"]

            async def behind_the_markers() -> bool:  # an abort is answered before its marker is written
                return (follower.positions()[0], follower.lag()) == (5, 0)

            await eventually(behind_the_markers)
            await write_raw(settings, topic, 0, raw_batch([(b"k", b"c", []), (b"k", b"d", [(NAME, b"")])]))
            await write(settings, b"e")

            async def all_five() -> bool:
                return len(seen) == 5

            await eventually(all_five)
            assert [(r.offset, r.value) for r in seen[2:]] == [(5, b"c"), (6, b"d"), (7, b"e")]
            assert [isinstance(r.headers, EscapedHeaders) for r in seen[2:]] == [False, True, False]

    run(body())


@pytest.mark.real_broker("deletes no records")
def test_where_it_begins(settings: Settings) -> None:
    """At known offsets, at the log's beginning where they are gone (counted), or behind what is there."""

    async def values(**begin: Any) -> tuple[list[bytes], int]:
        seen: list[Any] = []
        follower = Follower(settings, settings.topic("recent"), seen.extend, **begin)
        async with following(follower):
            await asyncio.wait_for(follower.caught_up.wait(), 45)
            assert follower.lag() == 0
            return sorted(r.value for r in seen), follower.skipped

    async def body() -> None:
        await write(settings, *(b"%d" % i for i in range(6)))
        await write(settings, b"other", partition=1)
        async with kafka.admin(settings) as client:
            await client.delete_records({TopicPartition(settings.topic("recent"), 0): RecordsToDelete(3)})
        assert await values() == ([b"3", b"4", b"5", b"other"], 0)
        assert await values(start={0: 1, 1: 1}) == ([b"3", b"4", b"5"], 2)
        assert await values(start={0: 5, 1: 1}) == ([b"5"], 0)
        assert await values(at_end=True) == ([], 0)
        assert (await values(start={0: 99, 1: 1}))[0] == [b"3", b"4", b"5"]  # of another log: from its beginning

    run(body())


def test_what_its_owner_raises_ends_it(settings: Settings) -> None:
    def refuse(_: Sequence[Any]) -> None:
        raise ZeroDivisionError

    async def body() -> None:
        await write(settings, b"a")
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(Follower(settings, settings.topic("recent"), refuse).run(), 30)

    run(body())
