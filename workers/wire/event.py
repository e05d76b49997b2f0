"""`events.v1`: records in, a batch of arrays out. The hot path of the embedding worker: about 3 us CPU an event.

read_events(records, rules, partition, now_ms)    a batch of one partition; nothing raises, bad records are listed
read_event(record, rules, now_ms)                 one record; raises WireError
read_data(data), write_event(data)                the data object alone; a record to be sent
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.types import ATTRIBUTES, PROFILE
from workers.wire.dead_letter import BadRecord
from workers.wire.envelope import REROUTED, SOURCE, Envelope, binary_headers, trace_headers, unwrap
from workers.wire.errors import InvalidError, WireError, shown
from workers.wire.event_batch import Columns, Event, EventBatch
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
from workers.wire.output import Output, Record, place
from workers.wire.rules import Rules
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


def read_event(record: Record, rules: Rules, now_ms: int) -> Event:
    """The event in `record`, all rules of the topic checked but its partition. Raises WireError."""
    return _read(record, rules, *rules.window(now_ms))


def read_events(records: Sequence[Record], rules: Rules, partition: int, now_ms: int) -> EventBatch:
    """The events in `records` of `partition`, in log order. Never raises for what a record holds.

    A record elsewhere than its key says goes to `astray`; one that was re-routed before and is still astray is bad.
    """
    first, last = rules.window(now_ms)
    rows: dict[str, int] = {}  # user -> row of the batch, -1 = belongs elsewhere
    batch = Columns()
    bad: list[BadRecord] = []
    astray: list[Output] = []
    for at, record in enumerate(records):
        try:
            event = _read(record, rules, first, last)
            user = event.data.user_id
            row = rows.get(user)
            if row is None:
                home = event.home
                row = rows[user] = batch.row(user, home.hash) if home.partition == partition else _ASTRAY
            if row == _ASTRAY:
                astray.append(_reroute(record, event, rules))
            else:
                batch.add(event, row, at)
        except WireError as error:
            bad.append(BadRecord(record, error.stage, str(error), type(error).__name__))
    return batch.done(records, bad, astray)


def _read(record: Record, rules: Rules, first: int, last: int) -> Event:
    key, value = record.key, record.value
    if key is None or value is None:
        name = "key" if key is None else "value"
        raise InvalidError(f"{name}: found null; send the user id as key and the event as value")
    envelope = unwrap(record, value)
    data = read_data(envelope.data)
    home = rules.home(data.user_id)
    if home.key != key:
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
    return Event(data, envelope, home, time, id_, item, meaning, attributes)


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
    envelope, was, to = event.envelope, place(record), event.home.partition
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
    return Output(rules.topic, event.home.key, envelope.data, [*headers, (REROUTED, was.encode())], to)
