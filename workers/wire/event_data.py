"""The data object of `events`: what somebody did, as JSON. Producers write it with `write_event`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from workers.wire.envelope import CONTENT_TYPE, SOURCE, binary_headers, trace_headers
from workers.wire.errors import WRONG, InvalidError, convert, wire_error
from workers.wire.ids import EVENT_ID_BYTES, Id, check_id, is_event_id, item_hash, user_key
from workers.wire.numbers import INT64, check_float32
from workers.wire.output import Headers
from workers.wire.times import parse_time

TYPE = "headrace.event.v1"  # `ce_type`
ITEMS = 200  # that an impression may list


class Context(msgspec.Struct, omit_defaults=True, gc=False):
    """Where it happened."""

    surface: str | None = None
    device: str | None = None
    locale: str | None = None


class Attributes(msgspec.Struct, omit_defaults=True, gc=False):
    """What a `profile` event says of its user; in the order of their names, so that encoding is canonical."""

    audience: str | None = None
    locale: str | None = None
    market: str | None = None
    muted_categories: list[str] | None = None
    muted_creators: list[str] | None = None


class EventData(msgspec.Struct, omit_defaults=True, gc=False):
    """One event. Unknown fields are ignored, null means absent. What msgspec does not check, `check_data` does."""

    user_id: Id
    action: str
    item_id: Id | None = None
    value: float | None = None
    time: int | str | None = None  # RFC 3339 or epoch ms
    event_id: str | None = None
    session_id: str | None = None
    feed_id: Id | None = None
    position: Annotated[int, INT64] | None = None
    context: Context | None = None
    items: Annotated[list[Id], Meta(max_length=ITEMS)] | None = None  # of an impression: the list shown
    attributes: Attributes | None = None  # of a profile


_decode = msgspec.json.Decoder(EventData).decode
_json = msgspec.json.Encoder()


def read_data(data: bytes) -> EventData:
    """The data object in `data`, types checked, rules not: for data that was valid before (`fresh` of a state record).

    Raises WireError.
    """
    try:
        return _decode(data)
    except WRONG as error:
        raise wire_error(error, "event") from None


def write_data(data: EventData) -> bytes:
    """`data` as compact JSON, absent fields left out."""
    return _json.encode(data)


def write_attributes(attributes: Attributes | None) -> bytes:
    """Attributes as the state keeps them: known keys that were given, sorted, compact UTF-8."""
    return _json.encode(attributes) if attributes is not None else b"{}"


def check_data(data: EventData) -> int:
    """What neither msgspec nor `user_key` checks of `data`; the hash of its item, 0 = it names none.

    Raises InvalidError.
    """
    if data.value is not None:
        check_float32(data.value, "value")
    if data.event_id is not None and not is_event_id(data.event_id):
        found = len(data.event_id.encode())
        raise InvalidError(f"event_id: expected 1 to {EVENT_ID_BYTES} bytes, found {found}; leave it out without one")
    if data.feed_id is not None:
        check_id(data.feed_id, "feed_id")
    if data.items:
        for item_id in data.items:
            check_id(item_id, "items")
    return item_hash(data.item_id) if data.item_id is not None else 0


def write_event(
    data: EventData | Mapping[str, Any],
    source: str = SOURCE,
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of a record, checked as its readers check it: in binary mode if the event has an id.

    Without an id it goes bare, for CloudEvents names every event, and an invented name would not survive a second try.
    Raises WireError.
    """
    if not isinstance(data, EventData):
        data = convert(data, EventData, "event")
    key = user_key(data.user_id)
    check_data(data)
    time = None if data.time is None else parse_time(data.time)
    headers: Headers = [CONTENT_TYPE]
    if data.event_id is not None:
        headers = binary_headers(data.event_id, source, TYPE, time, data.user_id)
    return key, write_data(data), headers + trace_headers(traceparent, tracestate)
