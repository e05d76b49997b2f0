"""`recent.v1`: what every retrieval worker needs of all users. One record a batch: rows of 29 bytes, little-endian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.types import I64, U8, U32, U64
from workers.wire.errors import UnreadableError

_ROW = np.dtype([("offset", "<u8"), ("user", "<u8"), ("item", "<u8"), ("time", "<u4"), ("action", "u1")])


@dataclass(frozen=True, slots=True)
class RecentRows:
    """n things that users did, in log order. A follower skips offsets that it has seen."""

    offsets: U64  # (n,) in `events`
    users: U64  # (n,) hashes
    items: U64  # (n,) hashes; 0 = the user was forgotten
    times: U32  # (n,) epoch seconds
    actions: U8  # (n,) codes

    def __len__(self) -> int:
        return len(self.offsets)


def pack_recent(offsets: I64 | U64, users: U64, items: U64, times: U32, actions: U8) -> bytes:
    """The value of a record; its key is the partition of `events` in decimal."""
    rows = np.empty(len(offsets), _ROW)
    rows["offset"], rows["user"], rows["item"] = offsets, users, items
    rows["time"], rows["action"] = times, actions
    return rows.tobytes()


def rows_in(value: bytes) -> int:
    """How many rows `value` holds. Raises UnreadableError for a length that is no multiple of a row's."""
    if len(value) % _ROW.itemsize:
        raise UnreadableError(f"recent: expected a multiple of {_ROW.itemsize} bytes, found {len(value)}")
    return len(value) // _ROW.itemsize


def unpack_recent(value: bytes) -> RecentRows:
    """The rows in `value`, or in several values joined. Raises UnreadableError as `rows_in` does."""
    rows_in(value)
    rows = np.frombuffer(value, _ROW)
    columns = (np.ascontiguousarray(rows[name]) for name in ("offset", "user", "item", "time", "action"))
    return RecentRows(*columns)
