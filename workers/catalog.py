"""The catalog worker: `items` in, validated and encoded `catalog` out. A Faust agent feeds it: the rate is low."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog

from pipeline.content.corpus import Corpus
from pipeline.content.item import Content
from pipeline.recipe import ENCODING
from workers.failpoints import fail_point
from workers.producer import Producer
from workers.replica import Follower
from workers.settings import Settings
from workers.wire.catalog import (
    CatalogItem,
    Gravestone,
    catalog_of,
    encode_catalog,
    gravestone_of,
    read_catalog,
)
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.errors import WireError, expectation
from workers.wire.item import read_item
from workers.wire.output import Output

log = structlog.get_logger()

_GRAVESTONE_DAYS = 90
_SWEEP_EVERY_S = 3600.0
_DAY_MS = 86_400_000
_SLICE = 8  # items encoded before others have their turn: about a millisecond


class CatalogHandler:
    """Turns records of `items` into records of `catalog`; what cannot be used becomes a dead letter."""

    def __init__(self, settings: Settings, producer: Producer, keeper: Keeper) -> None:
        self.counts: Counter[str] = Counter()
        self._producer, self._keeper = producer, keeper
        self._topic = settings.topic("catalog")
        self._dead_letters = settings.topic("dead-letters")
        self._group = settings.topic("catalog")

    async def handle(self, records: Sequence[Any]) -> None:
        """Write the catalogue records of `records`; when this returns they are acknowledged by the broker."""
        await self._keeper.follower.caught_up.wait()  # a word is rare or not by what the whole catalogue says
        now = int(time.time() * 1000)
        read = [self._read(record, now) for record in records]
        for entry in read:
            if isinstance(entry, CatalogItem):
                self._keeper.observe(entry)  # all of them before the first is encoded: they may be the first of all
        outputs = []
        for at, entry in enumerate(read):
            outputs.append(entry if isinstance(entry, Output) else self._output(entry))
            if at % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)  # others share the loop
        await fail_point("before_catalog")
        await self._producer.send(outputs)

    def warm_up(self) -> None:
        """Load the kernels."""
        ENCODING(Content(1, title="first"), Corpus())

    def _read(self, record: Any, now: int) -> CatalogItem | Gravestone | Output:
        """The catalogue's record of a record of `items`, or the dead letter that it became."""
        try:
            item_id, item = read_item(record)
            entry = gravestone_of(item_id, record.offset, now) if item is None else catalog_of(item, record.offset)
        except WireError as error:
            self.counts["dead_letters"] += 1
            bad = BadRecord(record, error.stage, str(error), type(error).__name__)
            return dead_letter(bad, self._dead_letters, self._group, now)
        self.counts["deleted" if item is None else "items"] += 1
        return entry

    def _output(self, entry: CatalogItem | Gravestone) -> Output:
        if isinstance(entry, CatalogItem):
            entry = self._keeper.encode(entry)
        return Output(self._topic, entry.item_id.encode(), encode_catalog(entry), [], 0)


class Keeper:
    """Follows `catalog`: knows what its items say together, and removes gravestones that have stood for 90 days, for
    then nobody needs them."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.removed = 0
        self._producer = producer
        self._topic = settings.topic("catalog")
        self._corpus, self._code = Corpus(), ENCODING.code
        self._standing: dict[bytes, int] = {}  # key -> deleted_at, ms
        self._stop = asyncio.Event()
        self.follower = Follower(settings, self._topic, self.on_records)

    def on_records(self, records: Sequence[Any]) -> None:
        """Count what items say; note gravestones, and what has replaced them."""
        for record in records:
            self._standing.pop(record.key, None)
            if record.value is None:
                continue
            try:
                entry = read_catalog(record.value)
            except WireError as error:
                log.error("catalogue record unreadable", offset=record.offset, expected=expectation(error))
                continue
            if isinstance(entry, Gravestone):
                self._standing[record.key] = entry.deleted_at
            else:
                self.observe(entry)

    def observe(self, item: CatalogItem) -> None:
        """Count what an item says, once."""
        ENCODING.observe(item.says(), self._corpus)

    def encode(self, item: CatalogItem) -> CatalogItem:
        """The item with its content vector, by what all items say so far."""
        return item.encoded(ENCODING(item.says(), self._corpus), self._code)

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
