"""Producing on a real broker: order, sizes, partitions, and what ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiokafka.codec import lz4_encode

from tests.backing import Backing
from tests.faults.looking import read
from tests.rawlog import CODECS, heads
from tests.waiting import run
from workers import producer as producing
from workers.producer import LARGEST_RECORD, ProduceError, Producer
from workers.settings import Settings
from workers.wire.output import Output
from workers.wire.partition import partition_of

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


def with_producer(settings: Settings, body: Callable[[Producer, str], Awaitable[None]]) -> None:
    async def produce() -> None:
        producer = await Producer(settings).start()
        try:
            await body(producer, settings.topic("events"))
        finally:
            await producer.stop()

    run(produce())


def test_what_is_written_is_packed_and_has_a_producer_s_id(settings: Settings, broker_backing: Backing) -> None:
    """An idempotent producer waits for all replicas: the client knows no other."""

    async def body(producer: Producer, topic: str) -> None:
        await producer.send([Output(topic, b"u", b"x" * 10_000, [], 0)])
        (head,) = await heads(settings, topic, 0)
        assert head.codec == CODECS[lz4_encode]
        assert (head.producer >= 0) == broker_backing.real

    with_producer(settings, body)


def test_order_batches_and_partitions(settings: Settings) -> None:
    """More than fits a batch, of several partitions at once: acknowledged whole, in order, bytes as given."""
    users = [f"u-{i}".encode() for i in range(20)]

    async def body(producer: Producer, topic: str) -> None:
        large = b"x" * 300_000
        await producer.send(
            [
                *(Output(topic, users[0], large + b"%d" % i, [], 2) for i in range(4)),
                *(Output(topic, user, b"small", [("a", b"\xff"), ("none", None)]) for user in users),
                Output(topic, None, None, [], 1),
            ]
        )
        await producer.send([])
        assert producer.sent == 25
        log = await read(settings, "events")
        assert [r.value[-1:] for r in log if r.partition == 2 and len(r.value or b"") > 10] == [b"0", b"1", b"2", b"3"]
        small = [r for r in log if r.value == b"small"]
        assert {r.key: r.partition for r in small} == {u: partition_of(u, 4, settings.partitioner) for u in users}
        assert {r.headers for r in small} == {(("a", b"\xff"), ("none", None))}
        assert [r.partition for r in log if r.key is None] == [1]

    with_producer(settings, body)


def test_a_record_too_large_is_refused_before_it_breaks_the_producer(settings: Settings) -> None:
    """Nothing of the call is written; the next one is."""

    async def body(producer: Producer, topic: str) -> None:
        with pytest.raises(ProduceError, match=f"of {LARGEST_RECORD + 1} bytes"):
            await producer.send(
                [Output(topic, b"u", b"before", [], 0), Output(topic, b"", b"x" * (LARGEST_RECORD + 1))]
            )
        incompressible = bytes(range(256)) * (LARGEST_RECORD // 256)
        await producer.send([Output(topic, b"u", incompressible, [], 0)])
        assert [r.value for r in await read(settings, "events")] == [incompressible]

    with_producer(settings, body)


def test_no_acknowledgement_in_time_is_final(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producing, "_ACK_TIMEOUT_S", 0.0)

    async def body(producer: Producer, topic: str) -> None:
        with pytest.raises(ProduceError, match="no acknowledgement"):
            await producer.send([Output(topic, b"u", b"v", [], 0)])

    with_producer(settings, body)
