"""Write the records of dead letters again, if they are valid now. The letters stay as they are.

An event goes where its key belongs, in binary mode: its data untouched, with its own id, or the place where it was as
its id, and with its time, or when it became a letter. So one that is redriven twice is applied once, as any other that
comes twice within a user's last 16 events.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from workers.outside.audit import read_back
from workers.outside.letters import Letter
from workers.settings import Settings
from workers.wire.catalog import read_catalog
from workers.wire.envelope import SOURCE, binary_headers, trace_headers
from workers.wire.errors import InvalidError, WireError
from workers.wire.event import Event, Rules, read_event
from workers.wire.event_data import TYPE
from workers.wire.item import read_item
from workers.wire.output import GivenHeaders, Output
from workers.wire.times import parse_time


@dataclass(frozen=True, slots=True)
class Revived:
    """The record that a letter was made of, as a worker would read it."""

    key: bytes | None
    value: bytes | None
    headers: GivenHeaders
    timestamp: int  # ms
    topic: str
    partition: int
    offset: int


class Verdict(NamedTuple):
    """What becomes of a letter."""

    letter: Letter
    output: Output | None
    reason: str  # why there is none


class Redrive:
    """Judges letters. `published`, by item, is where in `items` the catalogue's entry comes from."""

    def __init__(self, settings: Settings, published: dict[str, int]) -> None:
        self._settings, self._rules, self._published = settings, Rules.of(settings), published
        self._seen: set[tuple[str, int, int]] = set()

    def judge(self, letter: Letter) -> Verdict:
        """The record to write, or why none is written."""
        origin = letter.origin
        try:
            if origin in self._seen:
                raise InvalidError("the same record as an earlier letter")
            self._seen.add(origin)
            if not letter.whole:
                raise InvalidError("only the beginning of its value was kept")
            return Verdict(letter, self._output(letter), "")
        except WireError as error:
            return Verdict(letter, None, str(error))

    def _output(self, letter: Letter) -> Output:
        record = _revived(letter)
        if record.topic == self._settings.topic("events"):
            return self._event(record, read_event(record, self._rules, round(time.time() * 1000)))
        if record.topic == self._settings.topic("items"):
            return self._item(record)
        wanted = f"a record of {self._settings.topic('events')} or {self._settings.topic('items')}"
        raise InvalidError(f"expected {wanted}, found one of {record.topic or 'no topic'}; the pipeline makes it again")

    def _event(self, record: Revived, event: Event) -> Output:
        envelope = event.envelope
        if event.data.event_id is None and envelope.id is not None:
            id_, source = envelope.id, envelope.source or ""
        else:
            place = f"{record.topic}/{record.partition}/{record.offset}"
            id_, source = event.data.event_id or place, envelope.source or SOURCE
        headers = binary_headers(id_, source, TYPE, event.time_ms, event.data.user_id)
        headers += trace_headers(envelope.traceparent, envelope.tracestate)
        return Output(record.topic, event.home.key, envelope.data, headers, event.home.partition)

    def _item(self, record: Revived) -> Output:
        """As it was: an item's time is no matter. It must not replace what was published of the item since."""
        item_id, _ = read_item(record)
        since = self._published.get(item_id, -1)
        if since > record.offset:
            raise InvalidError(f"the item was published again since, at offset {since}")
        return Output(record.topic, record.key, record.value, list(record.headers))


async def published(settings: Settings) -> dict[str, int]:
    """Where in `items` the catalogue's entries come from."""
    offsets: dict[str, int] = {}

    def on_records(records: Sequence[Any]) -> None:
        for record in records:
            if record.value is not None:
                entry = read_catalog(record.value)
                offsets[entry.item_id] = max(entry.offset, offsets.get(entry.item_id, -1))

    await read_back(settings, "catalog", on_records)
    return offsets


def _revived(letter: Letter) -> Revived:
    given, record = letter.headers, letter.record
    when = parse_time(letter.errors.get("timestamp", record.timestamp))
    return Revived(record.key, record.value, given, when, *letter.origin)
