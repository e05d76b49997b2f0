"""The driver: events of a world of its own, drawn from a seed, written to the log with the users' own partitions."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypedDict, Unpack

import numpy as np
from aiokafka import AIOKafkaProducer

from pipeline.types import ItemVectors, hash_id
from tests import oracle
from workers import kafka
from workers.settings import Settings
from workers.wire.model import encode_vectors

USERS, ITEMS = 300, 200
ACTIONS = ("view", "click", "like", "purchase", "dislike", "impression", "profile", "tap")
_SHARES = (0.46, 0.3, 0.1, 0.05, 0.03, 0.02, 0.02, 0.02)
_PASSES = 3  # events of a user who only passes by
_PAUSE_S = 0.1  # between two batches of a load


class Shares(TypedDict, total=False):
    """Shares of what `Driver.drive` writes."""

    resend: float  # comes again with the same id ...
    resend_within: int  # ... when up to so many others were drawn
    bad: float  # is followed by a record that is no event
    forget: float  # is an order to forget its user


@contextlib.asynccontextmanager
async def again_and_again(write: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Write without a break for as long as the block runs."""
    ended = asyncio.Event()

    async def writing() -> None:
        while not ended.is_set():
            await write()
            await asyncio.sleep(_PAUSE_S)

    task = asyncio.create_task(writing())
    try:
        yield
    finally:
        ended.set()
        await task


class Driver:
    """Writes events, and a model that does not move. Counts what it wrote.

    `users` are there all the time, and take of `items`. The share `passing` of the events belongs to others, who each
    come with three events and never again.
    """

    def __init__(self, settings: Settings, rng: np.random.Generator, passing: float = 0.0) -> None:
        self.settings = settings
        self.users, self.items = USERS, ITEMS
        self.passing = passing
        self.sent = 0
        self.resent = 0
        self.vectors: dict[int, list[float]] = {}
        self._rng = rng
        self._drawn = 0
        self._passed = 0
        self._due: list[tuple[int, bytes, bytes]] = []  # events to send again: when so many are drawn, key, event
        self._rules = oracle.Rules(partitions=settings.kafka.partitions, partitioner=settings.partitioner)
        self._producer: AIOKafkaProducer | None = None

    async def close(self) -> None:
        """Stop the producer."""
        if self._producer is not None:
            await self._producer.stop()

    async def freeze_model(self) -> None:
        """Write fixed item vectors; there is no trainer to move them, so embeddings can be compared bit for bit."""
        k = self.settings.model.dimension
        records = []
        for i in range(ITEMS):
            e_in = self._rng.normal(size=k).astype(np.float32)
            self.vectors[hash_id(f"i-{i}")] = e_in.tolist()
            zeros = np.zeros(k, np.float32)
            vectors = ItemVectors(
                f"i-{i}", hash_id(f"i-{i}"), e_in, zeros, 0.0, zeros[:3], zeros[:4], 0, 1.0, zeros[:3], 1, 1
            )
            records.append((f"v:i-{i}".encode(), encode_vectors(vectors, epoch=1, version=1)))
        await self.write("model", [(key, value, 0) for key, value in records])

    async def drive(self, events: int, **shares: Unpack[Shares]) -> None:
        """Write events; of 100 one is followed by a bad record and one orders to forget, unless `shares` say so."""
        await self.write_events(self.draw(events, **shares))

    def draw(
        self, events: int, resend: float = 0.0, resend_within: int = 20, bad: float = 0.01, forget: float = 0.01
    ) -> list[tuple[bytes, bytes]]:
        """What `drive` writes, not written."""
        records: list[tuple[bytes, bytes]] = []
        for _ in range(events):
            self._drawn += 1
            key, event = self.event(forget)
            records.append((key, event))
            if self._rng.random() < resend:
                heapq.heappush(self._due, (self._drawn + int(self._rng.integers(resend_within)), key, event))
            if self._rng.random() < bad:
                records.append((key, b"\xff not an event"))
            while self._due and self._due[0][0] <= self._drawn:
                records.append(heapq.heappop(self._due)[1:])
                self.resent += 1
        return records

    @contextlib.asynccontextmanager
    async def load(self, batch: int = 200, **shares: Unpack[Shares]) -> AsyncIterator[None]:
        """Write events without a break for as long as the block runs: load for a fault to happen under. `shares` are
        those of `drive`."""
        async with again_and_again(lambda: self.drive(batch, **shares)):
            yield

    def event(self, forget: float = 0.0) -> tuple[bytes, bytes]:
        """One event as key and JSON, not written."""
        rng = self._rng
        user, item = self._user(), f"i-{rng.integers(self.items)}"
        action = "forget" if rng.random() < forget else str(rng.choice(ACTIONS, p=_SHARES))
        event: dict[str, Any] = {"user_id": user, "action": action, "event_id": f"e-{rng.integers(2**62)}"}
        if action == "profile":
            event["attributes"] = {"market": "de", "muted_creators": [item]}
        elif action == "impression":
            event["items"] = [item]
        elif action != "forget":
            event["item_id"] = item
        return user.encode(), json.dumps(event).encode()

    def _user(self) -> str:
        if self._rng.random() < self.passing:
            self._passed += 1
            return f"p-{self._passed // _PASSES}"
        return f"u-{self._rng.integers(self.users)}"

    async def write_events(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Write records of `events`, each to the partition of its key; returns when all are acknowledged."""
        placed = [(key, value, oracle.partition_of(key, self._rules)) for key, value in records]
        await self.write("events", placed)
        self.sent += len(placed)

    async def write(self, dataset: str, records: Iterable[tuple[bytes | None, bytes | None, int]]) -> None:
        """Write (key, value, partition) to a topic; returns when all are acknowledged."""
        if self._producer is None:
            self._producer = await kafka.start_producer(self.settings)
        topic = self.settings.topic(dataset)
        pending = [
            await self._producer.send(topic, value, key=key, partition=partition) for key, value, partition in records
        ]
        await asyncio.gather(*pending)
