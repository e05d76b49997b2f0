"""Forget a user as any producer can, and wait until every trace that was promised to go is gone."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.blob import decode
from workers.outside.watch import following
from workers.producer import Producer
from workers.replica import Follower, OnRecords
from workers.settings import Settings, SettingsError
from workers.store import Store
from workers.wire.event import write_event
from workers.wire.feed import read_feed, read_pair
from workers.wire.marker import Marker, read_marker
from workers.wire.output import Output
from workers.wire.partition import partition_of
from workers.wire.state import decode_state, read_forgotten

_POLL_S = 0.1


@dataclass(slots=True)
class Forgetting:
    """One user who is being forgotten."""

    settings: Settings
    store: Store
    user: str
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    announced: int = -1  # the greatest version that `states` and `feeds` have of the user since we look
    fed: int = -1
    version: int = -1  # of the forget, once it was seen on its topic
    marker: Marker | None = None

    @property
    def partition(self) -> int:
        """Where the user belongs."""
        return partition_of(self.user.encode(), self.settings.kafka.partitions, self.settings.partitioner)

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, settings: Settings, user: str, *, look: bool) -> AsyncIterator[Self]:
        """Ready to write; with `look`, what the topics say from now on is noted for `done`."""
        store = await Store.connect(settings)
        self = cls(settings, store, user)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            for dataset, on_records in self._looks() if look else ():
                follower = Follower(settings, settings.topic(dataset), on_records, at_end=True)
                running = await stack.enter_async_context(following(follower))
                looking = asyncio.ensure_future(follower.caught_up.wait())
                await asyncio.wait({running, looking}, return_when=asyncio.FIRST_COMPLETED)
                looking.cancel()
            yield self

    def _looks(self) -> list[tuple[str, OnRecords]]:
        return [("events", self._on_events), ("states", self._on_states), ("feeds", self._on_feeds)]

    async def write(self, time_ms: int | None) -> None:
        """Write the event; `time_ms` is its time, None = now. Raises SettingsError where now is not known."""
        data: dict[str, Any] = {"user_id": self.user, "action": "forget", "event_id": self.event_id}
        if self.settings.clock == "stream" and time_ms is None:
            time_ms = await self._last_time()
        if time_ms is not None:
            data["time"] = time_ms
        key, value, headers = write_event(data)
        producer = await Producer(self.settings).start()
        try:
            await producer.send([Output(self.settings.topic("events"), key, value, headers, self.partition)])
        finally:
            await producer.stop()

    async def done(self, within_s: float) -> list[str]:
        """Wait until all is as promised; what is still missing after `within_s`."""
        missing = await self._missing()
        for _ in range(round(within_s / _POLL_S)):
            if not missing:
                break
            await asyncio.sleep(_POLL_S)
            missing = await self._missing()
        return missing

    async def _missing(self) -> list[str]:
        if self.version < 0:
            return ["the event itself: is the broker well?"]
        (kept,) = await self.store.read_users(self.partition, [self.user])
        self.marker = read_marker(kept.marker) if kept.marker else None
        feed = await self.store.read_feed(self.partition, self.user)
        back = int(decode([kept.blob]).last_offset[0]) >= self.version if kept.blob else False
        promised = [
            (self.marker is not None and self.marker.version >= self.version, "the marker"),
            (not kept.blob or back, "the end of the state in the store"),
            (self.announced >= self.version, "the null on `states`: does an embedding worker run?"),
            (feed is None or read_feed(feed).version > self.version, "the end of the feed in the store"),
            (self.fed >= self.version, "the null on `feeds`: does a retrieval worker run?"),
        ]
        return [what for holds, what in promised if not holds]

    async def _last_time(self) -> int:
        """Under clock = stream now is when the user did something last."""
        blob = await self.store.read_state(self.partition, self.user)
        if not blob:
            raise SettingsError(
                f"forget: {self.user} has no state, so their clock is not known: give --time (clock = stream)"
            )
        return int(decode([blob]).last_time[0])

    # ---------------------------------------------------------------- what comes
    def _on_events(self, records: Sequence[Any]) -> None:
        own = self.event_id.encode()
        for record in records:
            if record.key == self.user.encode() and dict(record.headers).get("ce_id") == own:
                self.version = record.offset + 1

    def _on_states(self, records: Sequence[Any]) -> None:
        for record in self._mine(records):
            if record.value is None:
                version = read_forgotten(record.headers).offset + 1
            else:
                version = int(decode([decode_state(record.value).blob]).last_offset[0]) + 1
            self.announced = max(self.announced, version)

    def _on_feeds(self, records: Sequence[Any]) -> None:
        for record in self._mine(records):
            self.fed = max(self.fed, read_pair(record.headers).version)

    def _mine(self, records: Sequence[Any]) -> list[Any]:
        return [record for record in records if record.key == self.user.encode()]
