"""CloudEvents 1.0 on Kafka: read in three forms, written in one (binary mode)."""

from __future__ import annotations

import re

import msgspec

from workers.wire.errors import InvalidError, UnreadableError, decode, shown
from workers.wire.ids import EVENT_ID_BYTES, is_event_id
from workers.wire.output import EscapedHeaders, Headers, Record
from workers.wire.times import rfc3339

RAW_BYTES = 64 * 1024
DEEPEST = 200  # levels; a fixed limit, so that the verdict does not depend on the stack below the decoder
SOURCE = "/headrace"  # `ce_source` of what we write
REROUTED = "headrace-rerouted"  # header of a record that we moved to the partition of its key

CONTENT_TYPE = ("content-type", b"application/json")
_STRUCTURED = b"application/cloudevents+json"
_TRACEPARENT, _TRACESTATE = 128, 512  # characters; W3C Trace Context: 55, and at least 512 to be carried on
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.?)*+"?|[][{}]', re.DOTALL)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A record's data object, and what its envelope says beside it."""

    data: bytes  # JSON as received
    id: str | None = None
    source: str | None = None
    time: int | str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    rerouted: bool = False

    def event_id(self) -> str:
        """The text that names the event: source and id together, "" where it has none. Raises InvalidError."""
        if self.id is None:
            return ""
        source = self.source or ""
        if not is_event_id(self.id):
            raise InvalidError(f"ce_id: expected 1 to {EVENT_ID_BYTES} bytes, found {shown(self.id)}")
        if source and not is_event_id(source):
            raise InvalidError(f"ce_source: expected at most {EVENT_ID_BYTES} bytes, found {shown(source)}")
        return f"{source}\0{self.id}"


class _Structured(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()
    id: str | None = None
    source: str | None = None
    time: int | str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


_structured = msgspec.json.Decoder(_Structured)


def unwrap(record: Record, value: bytes) -> Envelope:
    """Which of the three forms `record` has, asked in this order: structured, binary, bare. Of a header given twice the
    last counts.

    Checks what holds for every JSON record: size, UTF-8, depth. Raises WireError.
    """
    if len(value) > 2 * DEEPEST or not value.isascii():
        _check_text(value)
    if not record.headers:
        return Envelope(value)
    if isinstance(record.headers, EscapedHeaders):
        raise UnreadableError(f"headers: expected names in UTF-8, found {shown([name for name, _ in record.headers])}")
    headers = dict(record.headers)
    content_type = headers.get("content-type")
    if content_type and content_type != CONTENT_TYPE[1] and content_type.lower().startswith(_STRUCTURED):
        return _from_structured(headers, value)
    id_ = headers.get("ce_id")
    if id_ is None:
        return Envelope(value, None, None, None, *_trace(headers), REROUTED in headers)
    return _from_binary(headers, value, id_)


def binary_headers(id_: str, source: str, type_: str, time_ms: int | None, subject: str) -> Headers:
    """The headers of binary mode; no `ce_source` for "", no `ce_time` for None."""
    headers = [("ce_specversion", b"1.0"), ("ce_id", id_.encode())]
    if source:
        headers.append(("ce_source", source.encode()))
    headers.append(("ce_type", type_.encode()))
    if time_ms is not None:
        headers.append(("ce_time", rfc3339(time_ms).encode()))
    headers.append(("ce_subject", subject.encode()))
    headers.append(CONTENT_TYPE)
    return headers


def trace_headers(traceparent: str | None, tracestate: str | None) -> Headers:
    """W3C Trace Context, as far as there is one."""
    pairs = (("traceparent", traceparent), ("tracestate", tracestate))
    return [(name, text.encode()) for name, text in pairs if text]


def _from_structured(headers: dict[str, bytes | None], value: bytes) -> Envelope:
    event = decode(_structured, value, "structured CloudEvent")
    if not event.data:
        raise InvalidError("structured CloudEvent: expected `data` to be an object, found none")
    traceparent, tracestate = _trace(headers)
    traceparent = traceparent or _kept(event.traceparent, _TRACEPARENT)
    tracestate = tracestate or _kept(event.tracestate, _TRACESTATE)
    return Envelope(bytes(event.data), event.id, event.source, event.time, traceparent, tracestate, REROUTED in headers)


def _from_binary(headers: dict[str, bytes | None], value: bytes, id_: bytes) -> Envelope:
    source, time = headers.get("ce_source"), headers.get("ce_time")
    try:
        return Envelope(
            value,
            id_.decode(),
            None if source is None else source.decode(),
            None if time is None else time.decode(),
            *_trace(headers),
            REROUTED in headers,
        )
    except UnicodeDecodeError as error:
        raise UnreadableError(f"ce_id, ce_source, ce_time: expected UTF-8, found {shown(error.object)}") from None


def _trace(headers: dict[str, bytes | None]) -> tuple[str | None, str | None]:
    """`traceparent` and `tracestate`: the header, or CloudEvents' extension of that name. A bad one is dropped: it must
    not cost the event."""
    parent = headers.get("traceparent") or headers.get("ce_traceparent")
    state = headers.get("tracestate") or headers.get("ce_tracestate")
    return (
        _kept(parent.decode("ascii", "replace"), _TRACEPARENT) if parent else None,
        _kept(state.decode("ascii", "replace"), _TRACESTATE) if state else None,
    )


def _kept(text: str | None, longest: int) -> str | None:
    return text if text and len(text) <= longest and text.isascii() and text.isprintable() else None


def _check_text(value: bytes) -> None:
    if len(value) > RAW_BYTES:
        raise InvalidError(f"value: expected at most {RAW_BYTES} bytes, found {len(value)}")
    try:
        value.decode()  # also of fields that nobody reads: the bytes travel on
    except UnicodeDecodeError as error:
        raise UnreadableError(f"value: expected UTF-8: {error.reason} at byte {error.start}") from None
    if _opens(value, b"{") + _opens(value, b"[") > DEEPEST:
        _check_depth(value)


def _opens(value: bytes, bracket: bytes) -> int:
    """How often `bracket` is in `value`, counted up to DEEPEST + 1: `count` looks at each byte, this leaps."""
    return len(value.split(bracket, DEEPEST + 1)) - 1


def _check_depth(value: bytes) -> None:
    depth = 0
    for token in _TOKENS.finditer(value):
        mark = token[0]
        if mark in (b"{", b"["):
            depth += 1
            if depth > DEEPEST:
                raise UnreadableError(f"value: nested too deeply, expected at most {DEEPEST} levels")
        elif mark in (b"}", b"]"):
            depth -= 1
