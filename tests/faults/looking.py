"""What stands in the log and in the store, seen from outside the workers."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition

from workers import kafka
from workers.settings import Settings
from workers.store import Position, Store


async def read(settings: Settings, dataset: str) -> list[Any]:
    """Every record of a topic, read from its beginning."""
    consumer = await kafka.start_consumer(settings, group=None)
    try:
        topic = settings.topic(dataset)
        tps = [TopicPartition(topic, p) for p in await kafka.partitions_of(consumer, topic)]
        consumer.assign(tps)
        starts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        found: list[Any] = []
        missing = {tp for tp in tps if ends[tp] > starts[tp]}
        while missing:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
            missing = {tp for tp in missing if await consumer.position(tp) < ends[tp]}
        return found
    finally:
        await consumer.stop()


async def positions(settings: Settings) -> dict[int, Position]:
    """Where each partition of `events` stands in the store."""
    store = await Store.connect(settings)
    try:
        return await store.positions(range(settings.kafka.partitions))
    finally:
        await store.close()


async def log_ends(settings: Settings) -> dict[int, int]:
    """Where each partition of `events` ends."""
    consumer = await kafka.start_consumer(settings, group=None)
    try:
        tps = [TopicPartition(settings.topic("events"), p) for p in range(settings.kafka.partitions)]
        return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}
    finally:
        await consumer.stop()
