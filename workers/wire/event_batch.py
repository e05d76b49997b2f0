"""A batch of events as arrays, and how it grows while its records are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from pipeline.types import U64, Events
from workers.wire.dead_letter import BadRecord
from workers.wire.envelope import Envelope
from workers.wire.event_data import EventData
from workers.wire.ids import event_hashes, is_id
from workers.wire.output import Output, Record, place
from workers.wire.rules import Home, Meaning
from workers.wire.state import Cause, Fresh

_UNTRACED = (None, None)
_UNPRINTABLE = "(not a name)"  # counts the unknown actions whose name must not reach a log or a label


class Event(msgspec.Struct, frozen=True, gc=False):
    """A valid event, envelope resolved."""

    data: EventData
    envelope: Envelope
    home: Home
    time_ms: int
    id: str  # the text that is hashed; "" = none: not deduplicated
    item: int  # hash, 0 = the event names none
    meaning: Meaning
    attributes: bytes  # canonical; b"" unless a profile

    @property
    def raw(self) -> bytes:
        """Its data object as received."""
        return self.envelope.data


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What a batch of records of one partition holds: m events of n users, and the records that are none."""

    users: list[str]  # n, unique, in order of first appearance
    user_hashes: U64  # (n,)
    events: Events  # m
    refreshes: list[bool]  # m
    fresh: list[Fresh]  # m, the events as `states` tells of them
    ids: list[str]  # m, as producers gave them, "" = none
    traces: dict[int, tuple[str | None, str | None]]  # event -> traceparent, tracestate, where there is one
    positions: list[int]  # m, index of the event's record
    records: Sequence[Record]
    bad: list[BadRecord]
    astray: list[Output]  # to be sent once to the partition of their keys
    unknown: dict[str, int]  # unknown actions by name

    @property
    def last_offset(self) -> int:
        """Of all records, -1 without any."""
        return self.records[-1].offset if self.records else -1

    def record(self, at: int) -> Record:
        """The record of event `at`."""
        return self.records[self.positions[at]]

    def cause(self, at: int) -> Cause:
        """Event `at` as the cause of a feed."""
        event, trace = self.fresh[at], self.traces.get(at, _UNTRACED)
        return Cause(self.ids[at] or place(self.record(at)), event.time_ms, *trace, event.offset)


class Columns:
    """The events of a batch while it is read. Only what is needed later is kept: memory is what the loop waits for."""

    __slots__ = ("attributes", "data", "hashed", "ids", "items", "meanings", "owners", "positions", "times", "traces",
                 "unknown", "user_hashes", "users")  # fmt: skip

    def __init__(self) -> None:
        self.users: list[str] = []
        self.user_hashes: list[int] = []
        self.owners: list[int] = []
        self.positions: list[int] = []
        self.times: list[int] = []
        self.items: list[int] = []
        self.hashed: list[str] = []
        self.ids: list[str] = []
        self.meanings: list[Meaning] = []
        self.data: list[bytes] = []
        self.attributes: list[bytes] = []
        self.traces: dict[int, tuple[str | None, str | None]] = {}
        self.unknown: Counter[str] = Counter()

    def row(self, user: str, hashed: int) -> int:
        """The row of a user new to the batch."""
        self.users.append(user)
        self.user_hashes.append(hashed)
        return len(self.users) - 1

    def add(self, event: Event, row: int, at: int) -> None:
        """Append the event of record `at`, of the user in `row`."""
        envelope = event.envelope
        if envelope.traceparent or envelope.tracestate:
            self.traces[len(self.owners)] = envelope.traceparent, envelope.tracestate
        if event.meaning.code == 0:
            name = event.data.action
            self.unknown[name if is_id(name) else _UNPRINTABLE] += 1
        if event.attributes:
            self.attributes.append(event.attributes)
        self.owners.append(row)
        self.positions.append(at)
        self.times.append(event.time_ms)
        self.items.append(event.item)
        self.hashed.append(event.id)
        self.ids.append(event.data.event_id or envelope.id or "")
        self.meanings.append(event.meaning)
        self.data.append(envelope.data)

    def done(self, records: Sequence[Record], bad: list[BadRecord], astray: list[Output]) -> EventBatch:
        """The batch as arrays."""
        offsets = [records[at].offset for at in self.positions]
        ids = event_hashes(self.hashed)
        events = Events(
            user=np.array(self.owners, np.int64),
            offset=np.array(offsets, np.int64),
            time=np.array(self.times, np.int64),
            item=np.array(self.items, np.uint64),
            id=ids,
            action=np.array([meaning.code for meaning in self.meanings], np.uint8),
            effect=np.array([meaning.effect for meaning in self.meanings], np.uint8),
            attributes=self.attributes,
        )
        refreshes = [meaning.refreshes for meaning in self.meanings]
        fresh = list(map(Fresh, offsets, self.times, ids.tolist(), self.data))
        hashes = np.array(self.user_hashes, np.uint64)
        return EventBatch(
            self.users, hashes, events, refreshes, fresh, self.ids, self.traces, self.positions,
            records, bad, astray, dict(self.unknown),
        )  # fmt: skip
