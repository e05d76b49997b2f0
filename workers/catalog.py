"""The catalog worker: `items` in, validated and encoded `catalog` out. A Faust agent feeds it: the rate is low."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog

from workers.producer import Producer
from workers.replica import Follower
from workers.settings import Settings
from workers.wire.catalog import Gravestone, catalog_of, encode_catalog, gravestone_of, read_catalog
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.errors import WireError
from workers.wire.item import read_item
from workers.wire.output import Output

log = structlog.get_logger()

_GRAVESTONE_DAYS = 90
_SWEEP_EVERY_S = 3600.0
_DAY_MS = 86_400_000


class CatalogHandler:
    """Turns records of `items` into records of `catalog`; what cannot be used becomes a dead letter."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.counts: Counter[str] = Counter()
        self._producer = producer
        self._topic = settings.topic("catalog")
        self._dead_letters = settings.topic("dead-letters")
        self._group = settings.topic("catalog")

    async def handle(self, records: Sequence[Any]) -> None:
        """Write the catalogue records of `records`; when this returns they are acknowledged by the broker."""
        now = int(time.time() * 1000)
        await self._producer.send([self._output(record, now) for record in records])

    def _output(self, record: Any, now: int) -> Output:
        try:
            item_id, item = read_item(record)
            entry = gravestone_of(item_id, record.offset, now) if item is None else catalog_of(item, record.offset)
        except WireError as error:
            self.counts["dead_letters"] += 1
            bad = BadRecord(record, error.stage, str(error), type(error).__name__)
            return dead_letter(bad, self._dead_letters, self._group, now)
        self.counts["deleted" if item is None else "items"] += 1
        return Output(self._topic, item_id.encode(), encode_catalog(entry), [], 0)


class Gravestones:
    """Follows `catalog` for gravestones, and removes those that have stood for 90 days: then nobody needs them."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.removed = 0
        self._producer = producer
        self._topic = settings.topic("catalog")
        self._standing: dict[bytes, int] = {}  # key -> deleted_at, ms
        self._stop = asyncio.Event()
        self.follower = Follower(settings, self._topic, self.on_records)

    def on_records(self, records: Sequence[Any]) -> None:
        """Note gravestones, and what has replaced them."""
        for record in records:
            self._standing.pop(record.key, None)
            if record.value is None:
                continue
            try:
                entry = read_catalog(record.value)
            except WireError as error:
                log.error("catalogue record unreadable", offset=record.offset, error=str(error))
                continue
            if isinstance(entry, Gravestone):
                self._standing[record.key] = entry.deleted_at

    async def run(self) -> None:
        """Sweep every hour until `stop`."""
        while not self._stop.is_set():
            if self.follower.caught_up.is_set():
                await self.sweep(int(time.time() * 1000))
            try:
                await asyncio.wait_for(self._stop.wait(), _SWEEP_EVERY_S)
            except TimeoutError:
                continue

    def stop(self) -> None:
        self._stop.set()

    async def sweep(self, now: int) -> None:
        """Write nulls over the gravestones that are old enough at `now` (ms)."""
        old = [key for key, deleted_at in self._standing.items() if now - deleted_at > _GRAVESTONE_DAYS * _DAY_MS]
        await self._producer.send([Output(self._topic, key, None, [], 0) for key in old])
        for key in old:
            self._standing.pop(key, None)
        self.removed += len(old)
