"""Topics on the session's broker: created as declared, compared, never changed behind an operator's back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import OffsetOutOfRangeError

from tests.backing import Backing
from tests.waiting import eventually, run
from workers import kafka, topics
from workers.settings import Settings, load

pytestmark = pytest.mark.kafka


@pytest.fixture
def bare(broker: str, broker_backing: Backing, prefix: str) -> Iterator[Settings]:
    """Settings of a prefix without topics; those that the test makes go with it."""
    settings = load(environ={}, flags={**broker_backing.flags, "prefix": prefix, "kafka_partitions": 3})
    yield settings

    async def remove() -> None:
        async with kafka.admin(settings) as client:
            there = set(await client.list_topics())
            await client.delete_topics([t.name for t in topics.declared(settings) if t.name in there])

    asyncio.run(remove())


def test_apply_creates_what_is_declared(bare: Settings) -> None:
    async def main() -> None:
        assert not any(standing.exists for standing in await topics.show(bare))
        created, standings = await topics.apply(bare)
        assert sorted(created) == sorted(topic.name for topic in topics.declared(bare))
        assert [(s.topic.name, s.exists, s.differences) for s in standings] == [
            (topic.name, True, ()) for topic in topics.declared(bare)
        ]
        assert (await topics.apply(bare))[0] == []
        assert await topics.show(bare) == standings

    run(main())


def test_events_states_and_feeds_share_their_partitions(bare: Settings) -> None:
    async def main() -> None:
        await topics.ensure(bare)
        client = await kafka.start_consumer(bare, None)
        try:
            counts = [len(await kafka.partitions_of(client, bare.topic(t.dataset))) for t in topics.TOPICS]
        finally:
            await client.stop()
        assert dict(zip([t.dataset for t in topics.TOPICS], counts, strict=True)) == {
            "events": 3, "states": 3, "feeds": 3, "items": 4, "catalog": 1, "model": 1, "recent": 3, "examples": 1,
            "dead-letters": 1,
        }  # fmt: skip

    run(main())


def test_another_number_of_partitions_is_refused(bare: Settings, broker_backing: Backing) -> None:
    flags = {**broker_backing.flags, "prefix": bare.prefix, "kafka_partitions": 4}
    other = load(environ={}, flags=flags)

    async def main() -> None:
        await topics.ensure(bare)
        with pytest.raises(topics.TopicsRefused, match=r"events\.v1, partitions: expected 4, found 3"):
            await topics.ensure(other)
        assert all(not standing.differences for standing in await topics.show(bare))

    run(main())


def test_a_difference_is_reported_and_left(bare: Settings) -> None:
    name = bare.topic("states")

    async def main() -> None:
        config = {"cleanup.policy": "delete,compact", "retention.ms": "3600000"}
        async with kafka.admin(bare) as client:
            await client.create_topics([NewTopic(name, 3, 1, topic_configs=config)])
        for _ in range(2):
            _, standings = await topics.apply(bare)
            (differences,) = (s.differences for s in standings if s.topic.name == name)
            assert "retention.ms: expected 7776000000, found 3600000" in differences
            assert not any(difference.startswith("cleanup.policy") for difference in differences)  # a set of words
            assert any(difference.startswith("min.compaction.lag.ms: expected 86400000") for difference in differences)
            await topics.ensure(bare)  # said, not refused

    run(main())


@pytest.mark.real_broker("takes any replication")
def test_a_topic_that_cannot_be_made_is_one_line(bare: Settings, broker_backing: Backing) -> None:
    three = load(environ={}, flags={**broker_backing.flags, "prefix": bare.prefix, "kafka_replication": 99})
    with pytest.raises(topics.TopicsRefused, match=r"cannot create topic .*: InvalidReplicationFactor"):
        run(topics.apply(three))


def test_a_missing_broker_is_one_line_in_time(prefix: str) -> None:
    flags = {"kafka_bootstrap": "127.0.0.1:1", "kafka_connect_timeout_s": 0.5, "prefix": prefix}
    with pytest.raises(kafka.BrokerUnavailable, match=r"127\.0\.0\.1:1 did not answer within 0\.5 s"):
        run(topics.show(load(environ={}, flags=flags)), within_s=30)


def test_a_missing_topic_is_one_line(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_TOPIC_WITHIN_S", 0.3)

    async def main() -> None:
        client = await kafka.start_consumer(bare, None)
        try:
            with pytest.raises(kafka.TopicMissing, match=r"expected topic .*events\.v1, found none"):
                await kafka.partitions_of(client, bare.topic("events"))
        finally:
            await client.stop()
        assert not any(standing.exists for standing in await topics.show(bare))  # asking has not made it

    run(main())


def test_clients_write_once_and_read_what_is_there(bare: Settings, broker_backing: Backing) -> None:
    async def main() -> None:
        await topics.ensure(bare)
        tp = TopicPartition(bare.topic("events"), 1)
        producer = await kafka.start_producer(bare)
        try:
            for n in range(5):
                await producer.send_and_wait(tp.topic, b"%d" % n, b"key", partition=1)
        finally:
            await producer.stop()
        assert (await kafka.wait_for_broker(bare)).idempotent == broker_backing.real
        client = await kafka.start_consumer(bare, None)
        try:
            client.assign([tp])
            client.seek(tp, 2)
            got: list[bytes] = []

            async def all_of_them() -> bool:
                got.extend(r.value for r in (await client.getmany(timeout_ms=100)).get(tp, ()))
                return len(got) >= 3

            await eventually(all_of_them)
            assert got == [b"2", b"3", b"4"]
            assert client.highwater(tp) == 5
        finally:
            await client.stop()

    run(main())


@pytest.mark.real_broker("answers such a fetch with nothing")
def test_a_position_outside_the_log_is_an_error(bare: Settings) -> None:
    async def main() -> None:
        await topics.ensure(bare)
        tp = TopicPartition(bare.topic("events"), 0)
        client = await kafka.start_consumer(bare, None)
        try:
            client.assign([tp])
            client.seek(tp, 50)
            with pytest.raises(OffsetOutOfRangeError):
                await eventually(lambda: client.getmany(timeout_ms=200))
        finally:
            await client.stop()

    run(main())
