"""`states.v1`: a user's state after a batch, and what the batch was. MessagePack, fields by position."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from pipeline.blob import HEAD, MODEL, durable
from pipeline.types import U8, U32, U64
from workers.wire.errors import InvalidError, UnreadableError, decode, shown
from workers.wire.numbers import INT64, LAST_INT64, UINT64, header_number
from workers.wire.output import GivenHeaders, Headers
from workers.wire.times import END_MS

CARRIED = -1  # offset of a state, or of a forget, that was carried over from another log: before all of this one's

_ENTRY = 8 + 4 + 1  # bytes of an evicted ring entry
_LAST_OFFSET = slice(16, 24)  # in a blob's counters: behind count and positives


class Fresh(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event that the batch applied."""

    offset: Annotated[int, INT64]
    time_ms: Annotated[int, INT64]
    id_hash: Annotated[int, UINT64]  # 0 = the event has no id
    data: bytes  # its data object as received, envelope resolved: `read_data`


class Cause(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The event that a feed answers to."""

    event_id: str  # as its producer gave it, else topic/partition/offset
    time_ms: Annotated[int, INT64]
    traceparent: str | None = None
    tracestate: str | None = None
    offset: Annotated[int, INT64] = -1  # in `events`; -1 = not said


class StateRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One record of `states`."""

    blob: bytes  # the state after the batch
    evicted: bytes | None  # ring entries that it pushed out, see `pack_ring`; None in a re-announcement
    fresh: list[Fresh]  # in log order
    refresh: bool  # whether a feed is due
    cause: Cause | None  # the newest refreshing event


class RingEntries(NamedTuple):
    """Ring entries, newest first."""

    items: U64  # (n,) hashes
    times: U32  # (n,) epoch seconds
    actions: U8  # (n,) codes


class Forgotten(NamedTuple):
    """What a null on `states` says: its user was forgotten."""

    offset: int  # of the forget in `events`
    time_ms: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StateRecord)


def encode_state(record: StateRecord) -> bytes:
    """The value of a `states` record."""
    return _encoder.encode(record)


def decode_state(value: bytes) -> StateRecord:
    """The record in `value`. Raises WireError. The blob's own layout is checked by `pipeline.state.decode`."""
    return decode(_decoder, value, "state")


def pack_ring(items: U64, times: U32, actions: U8) -> bytes:
    """n ring entries as 13 n bytes, little-endian: all items (u64), all times (u32), all actions (u8)."""
    return items.astype("<u8").tobytes() + times.astype("<u4").tobytes() + actions.tobytes()


def unpack_ring(packed: bytes) -> RingEntries:
    """The entries that `pack_ring` packed, as views. Raises UnreadableError for a length that is no multiple of 13."""
    n, rest = divmod(len(packed), _ENTRY)
    if rest:
        raise UnreadableError(f"evicted: expected a multiple of {_ENTRY} bytes, found {len(packed)}")
    return RingEntries(
        np.frombuffer(packed, "<u8", n),
        np.frombuffer(packed, "<u4", n, 8 * n),
        np.frombuffer(packed, "u1", n, 12 * n),
    )


def forgotten_headers(offset: int, time_ms: int) -> Headers:
    """The headers of a null: the forget's offset in `events` and its time, ms."""
    return [("offset", b"%d" % offset), ("time", b"%d" % time_ms)]


def read_forgotten(headers: GivenHeaders) -> Forgotten:
    """What the headers of a null say. Raises InvalidError where one is missing or no number."""
    given = dict(headers)
    try:
        offset = header_number(given["offset"], CARRIED, LAST_INT64 - 1)  # the next one is a version
        return Forgotten(offset, header_number(given["time"], 0, END_MS - 1))
    except (KeyError, ValueError):
        found = shown(given)
        raise InvalidError(f"null on states: expected the headers `offset` and `time`, found {found}") from None


def carried_over(blob: bytes, dimension: int) -> bytes:
    """The state in `blob` for another log and its dimension: the offset is CARRIED, the embedding zero until the user's
    next event. Raises BlobError."""
    kept = durable(blob)
    head, counters = kept[:HEAD], bytearray(kept[HEAD:])
    counters[_LAST_OFFSET] = CARRIED.to_bytes(8, "little", signed=True)
    return head[:2] + dimension.to_bytes(2, "little") + head[4:] + bytes(4 * dimension + MODEL) + counters
