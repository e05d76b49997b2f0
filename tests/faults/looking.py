"""What stands in the log and in the store, seen from outside the workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import redis
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.backing import url_of
from workers import kafka
from workers.embedded import Server
from workers.settings import Settings
from workers.store import Position, Store


async def read(settings: Settings, dataset: str) -> list[Any]:
    """Every record of a topic, read from its beginning."""
    return [record async for record in each(settings, dataset)]


async def each(settings: Settings, dataset: str) -> AsyncIterator[Any]:
    """Every record of a topic, from its beginning, in log order within a partition: for more than memory holds."""
    consumer = await kafka.start_consumer(settings, group=None)
    try:
        topic = settings.topic(dataset)
        tps = [TopicPartition(topic, p) for p in await kafka.partitions_of(consumer, topic)]
        consumer.assign(tps)
        starts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        missing = {tp for tp in tps if ends[tp] > starts[tp]}
        while missing:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    yield record
            missing = {tp for tp in missing if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()


class Lookout:
    """Looks at positions again and again; keeps its connections until it is closed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def close(self) -> None:
        """Let go of store and broker."""
        if self._store is not None:
            await self._store.close()
        if self._consumer is not None:
            await self._consumer.stop()

    async def positions(self) -> dict[int, Position]:
        """Where each partition of `events` stands in the store."""
        if self._store is None:
            self._store = await Store.connect(self._settings)
        return await self._store.positions(range(self._settings.kafka.partitions))

    async def log_ends(self, dataset: str = "events") -> dict[int, int]:
        """Where each partition of a topic of users ends."""
        if self._consumer is None:
            self._consumer = await kafka.start_consumer(self._settings, group=None)
        topic = self._settings.topic(dataset)
        tps = [TopicPartition(topic, p) for p in range(self._settings.kafka.partitions)]
        return {tp.partition: end for tp, end in (await self._consumer.end_offsets(tps)).items()}


def standing(settings: Settings, server: Server) -> dict[int, int]:
    """Where each partition of `events` stands in this very server, whatever the address of the settings leads to."""
    with redis.Redis.from_url(url_of(server)) as client:
        keys = {p: f"{settings.prefix}:o:{{{p}}}" for p in range(settings.kafka.partitions)}
        return {p: int(client.hget(key, "next") or 0) for p, key in keys.items()}
