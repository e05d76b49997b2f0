"""The forget marker, `x:` in Redis: what is left of a user who was forgotten.

16 bytes as in the cached feed (version and revision, big-endian: greater is newer as bytes too), 8 bytes event time,
then a receipt as JSON for the person who asked.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec

from workers.wire.errors import UnreadableError
from workers.wire.rules import OLDEST_MS
from workers.wire.times import DAY_MS, rfc3339

KEPT_MS = OLDEST_MS + 7 * DAY_MS  # the greatest accepted age of an event, and how long `events` keeps it

_HEAD = struct.Struct(">QQQ")  # version, revision (0: older than any later feed of that version), time


class Marker(NamedTuple):
    """Events at or before it are ignored: by offset for a replay, by time for a late one."""

    version: int  # the forget's offset + 1
    time: int  # of the forget event, ms


class Receipt(msgspec.Struct, frozen=True):
    """What the person who asked is shown. Names nobody."""

    forgotten: bool
    version: int
    time: str  # RFC 3339


def write_marker(marker: Marker) -> bytes:
    """The value of the `x:` key."""
    return _HEAD.pack(marker.version, 0, marker.time) + receipt(marker)


def receipt(marker: Marker) -> bytes:
    """The receipt as JSON."""
    return msgspec.json.encode(Receipt(True, marker.version, rfc3339(marker.time)))


def read_marker(value: bytes) -> Marker:
    """The marker in `value`. Raises UnreadableError for less than its head."""
    if len(value) < _HEAD.size:
        raise UnreadableError(f"forget marker: expected at least {_HEAD.size} bytes, found {len(value)}")
    version, _, time = _HEAD.unpack_from(value)
    return Marker(version, time)
