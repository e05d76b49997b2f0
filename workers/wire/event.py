"""`events.v1`: records in, a batch of arrays out. The hot path of the embedding worker: about 3 us CPU an event.

read_events(records, rules, partition, now_ms)    a batch of one partition; nothing raises, bad records are listed
read_event(record, rules, now_ms)                 one record; raises WireError
read_data(data), write_event(data)                the data object alone; a record to be sent
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from pipeline.types import ATTRIBUTES, PROFILE, Events, Mask
from workers.wire.dead_letter import BadRecord
from workers.wire.envelope import REROUTED, SOURCE, Envelope, binary_headers, trace_headers, unwrap
from workers.wire.errors import InvalidError, WireError, shown
from workers.wire.event_data import (
    TYPE,
    Attributes,
    Context,
    EventData,
    check_data,
    read_data,
    write_attributes,
    write_data,
    write_event,
)
from workers.wire.ids import event_hashes, is_id, user_key
from workers.wire.output import Output, Record, place
from workers.wire.rules import Meaning, Rules
from workers.wire.state import Cause, Fresh
from workers.wire.times import parse_time, rfc3339

__all__ = [
    "Attributes",
    "Context",
    "Event",
    "EventBatch",
    "EventData",
    "Rules",
    "read_data",
    "read_event",
    "read_events",
    "write_attributes",
    "write_data",
    "write_event",
]

_ASTRAY = -1
_UNPRINTABLE = "(not a name)"  # counts the unknown actions whose name must not reach a log or a label


class Event(msgspec.Struct, frozen=True, gc=False):
    """A valid event, envelope resolved."""

    data: EventData
    envelope: Envelope
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
    events: Events  # m
    refreshes: Mask  # (m,)
    data: list[bytes]  # m data objects as received
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
        record, trace = self.record(at), self.traces.get(at, (None, None))
        return Cause(self.ids[at] or place(record), int(self.events.time[at]), *trace, record.offset)

    def fresh(self, at: int) -> Fresh:
        """Event `at` as `states` tells of it."""
        events = self.events
        return Fresh(int(events.offset[at]), int(events.time[at]), int(events.id[at]), self.data[at])


def read_event(record: Record, rules: Rules, now_ms: int) -> Event:
    """The event in `record`, all rules of the topic checked but its partition. Raises WireError."""
    return _read(record, rules, *rules.window(now_ms))


def read_events(records: Sequence[Record], rules: Rules, partition: int, now_ms: int) -> EventBatch:
    """The events in `records` of `partition`, in log order. Never raises for what a record holds.

    A record elsewhere than its key says goes to `astray`; one that was re-routed before and is still astray is bad.
    """
    first, last = rules.window(now_ms)
    rows: dict[str, int] = {}  # user -> row of the batch, -1 = belongs elsewhere
    batch = _Columns()
    bad: list[BadRecord] = []
    astray: list[Output] = []
    for at, record in enumerate(records):
        try:
            event = _read(record, rules, first, last)
            user = event.data.user_id
            row = rows.get(user)
            if row is None:
                row = rows[user] = batch.row(user) if rules.partition(user_key(user)) == partition else _ASTRAY
            if row == _ASTRAY:
                astray.append(_reroute(record, event, rules))
            else:
                batch.add(event, row, at)
        except WireError as error:
            bad.append(BadRecord(record, error.stage, str(error), type(error).__name__))
    return batch.done(records, bad, astray)


class _Columns:
    """The events of a batch while it is read. Only what is needed later is kept: memory is what the loop waits for."""

    __slots__ = ("attributes", "data", "hashed", "ids", "items", "meanings", "owners", "positions", "times", "traces",
                 "unknown", "users")  # fmt: skip

    def __init__(self) -> None:
        self.users: list[str] = []
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

    def row(self, user: str) -> int:
        """The row of a user new to the batch."""
        self.users.append(user)
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
        events = Events(
            user=np.array(self.owners, np.int64),
            offset=np.array([records[at].offset for at in self.positions], np.int64),
            time=np.array(self.times, np.int64),
            item=np.array(self.items, np.uint64),
            id=event_hashes(self.hashed),
            action=np.array([meaning.code for meaning in self.meanings], np.uint8),
            effect=np.array([meaning.effect for meaning in self.meanings], np.uint8),
            attributes=self.attributes,
        )
        refreshes = np.array([meaning.refreshes for meaning in self.meanings], np.bool_)
        return EventBatch(
            self.users, events, refreshes, self.data, self.ids, self.traces, self.positions,
            records, bad, astray, dict(self.unknown),
        )  # fmt: skip


def _read(record: Record, rules: Rules, first: int, last: int) -> Event:
    key, value = record.key, record.value
    if key is None or value is None:
        name = "key" if key is None else "value"
        raise InvalidError(f"{name}: found null; send the user id as key and the event as value")
    envelope = unwrap(record, value)
    data = read_data(envelope.data)
    if user_key(data.user_id) != key:
        raise InvalidError(f"key: expected the user id {shown(data.user_id)}, found {shown(key)}; send it as the key")
    item = check_data(data)
    meaning = rules.meaning(data.action, data.value)
    if meaning.names_item and not item:
        raise InvalidError(f"item_id: expected with action {shown(data.action)}, found none")
    time = _time(data, envelope, record)
    if not first <= time <= last:
        raise _out_of_window(time, rules, first, last)
    id_ = data.event_id or envelope.event_id()
    attributes = _attributes(data) if meaning.effect & PROFILE else b""
    return Event(data, envelope, time, id_, item, meaning, attributes)


def _time(data: EventData, envelope: Envelope, record: Record) -> int:
    """When it happened, ms: body, else envelope, else record."""
    if data.time is not None:
        return parse_time(data.time)
    return record.timestamp if envelope.time is None else parse_time(envelope.time)


def _attributes(data: EventData) -> bytes:
    attributes = write_attributes(data.attributes)
    if len(attributes) > ATTRIBUTES:
        raise InvalidError(f"attributes: expected at most {ATTRIBUTES} bytes as compact JSON, found {len(attributes)}")
    return attributes


def _out_of_window(time: int, rules: Rules, first: int, last: int) -> InvalidError:
    found = rfc3339(time) if 0 <= time < 1 << 47 else str(time)
    advice = "; import what is older under clock = stream" if rules.clock == "wall" else ""
    expected = f"{rfc3339(first)} to {rfc3339(last)} (clock = {rules.clock})"
    return InvalidError(f"time: expected {expected}, found {found}{advice}")


def _reroute(record: Record, event: Event, rules: Rules) -> Output:
    """`record` in binary mode for the partition of its key. Raises InvalidError when it was re-routed before."""
    key, envelope, was = record.key or b"", event.envelope, place(record)
    to = rules.partition(key)
    if envelope.rerouted:
        raise InvalidError(
            f"partition: expected {to} for this key, found {record.partition}, re-routed before; "
            f"the topic must have {rules.partitions} partitions and setting `partitioner` must be the producers'"
        )
    if event.data.event_id is None and envelope.id is not None:
        id_, source = envelope.id, envelope.source or ""
    else:
        id_, source = event.data.event_id or was, envelope.source or SOURCE
    headers = binary_headers(id_, source, TYPE, event.time_ms, event.data.user_id)
    headers += trace_headers(envelope.traceparent, envelope.tracestate)
    return Output(rules.topic, key, envelope.data, [*headers, (REROUTED, was.encode())], to)
