"""The items as a process sees them: the model and the catalogue, followed from their topics into memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.parameters import UnfitError
from pipeline.model.rows import ItemRows
from pipeline.recipe import ENCODING
from pipeline.types import hash_id
from workers.replica import GATHER_MS, Follower
from workers.settings import Settings
from workers.wire.catalog import Gravestone, read_catalog
from workers.wire.errors import WireError, expectation
from workers.wire.ids import id_from_key
from workers.wire.model import ListsRecord, ParametersRecord, VectorsRecord, item_of_key, part_of_key, read_model

log = structlog.get_logger()


class ItemReplica:
    """Follows `model` (and `catalog`) for all lanes of a process. Rows mean the same in both."""

    def __init__(self, settings: Settings, *, catalog: bool) -> None:
        self.rows = ItemRows()
        self.model = Model(self.rows, settings.model.dimension, ENCODING.dimension)
        self.catalog = Catalog(self.rows, settings.feed.unlisted, ENCODING.dimension)
        self._encoding = ENCODING.code
        self.counts: Counter[str] = Counter()
        self.parts = [Follower(settings, settings.topic("model"), self.on_model, gather_ms=GATHER_MS)]
        if catalog:
            self.parts.append(Follower(settings, settings.topic("catalog"), self.on_catalog, gather_ms=GATHER_MS))

    async def caught_up(self) -> None:
        """Wait until every topic has been followed to where it stood at the start."""
        await asyncio.gather(*(follower.caught_up.wait() for follower in self.parts))

    def lag(self) -> int:
        """Records not yet followed."""
        return sum(follower.lag() for follower in self.parts)

    def on_model(self, records: Sequence[Any]) -> None:
        """Take model records in; those of a writer that was deposed are dropped."""
        for record in records:
            try:
                self._on_model(record)
            except (WireError, UnfitError) as error:
                self.counts["model_unreadable"] += 1
                log.error("model record unreadable", offset=record.offset, expected=expectation(error))

    def _on_model(self, record: Any) -> None:
        model = self.model
        if record.value is None:
            item_id = item_of_key(record.key)
            if item_id is not None:
                model.drop(hash_id(item_id))
            return
        read = read_model(record.key, record.value)
        if read.epoch < model.epoch:
            self.counts["model_deposed"] += 1
            return
        model.epoch, model.version = read.epoch, max(model.version, read.version)
        if isinstance(read, VectorsRecord):
            model.put_vectors(read.vectors())
        elif isinstance(read, ListsRecord):
            model.put_lists(read.lists())
        elif isinstance(read, ParametersRecord):
            model.put_parameters(read.parameters(part_of_key(record.key) or ""))
        self.counts["model_records"] += 1

    def on_catalog(self, records: Sequence[Any]) -> None:
        """Take catalogue records in: entries, gravestones, and nulls after them."""
        for record in records:
            try:
                self._on_catalog(record)
                self.counts["catalog_records"] += 1
            except WireError as error:
                self.counts["catalog_unreadable"] += 1
                log.error("catalogue record unreadable", offset=record.offset, expected=expectation(error))

    def _on_catalog(self, record: Any) -> None:
        if record.value is None:
            self.catalog.drop(hash_id(id_from_key(record.key, "item id")))
            return
        read = read_catalog(record.value)
        if isinstance(read, Gravestone):
            self.catalog.remove(read.hash, read.deleted_at, read.offset)
        else:
            self.catalog.put(read.entry(self._encoding))
