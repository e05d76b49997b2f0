"""The state blob: one user's state as bytes, little-endian, layout 1; Redis and `states` hold it as it is.

    header       16 B: layout u8, flags u8, k u16, r u8, i u8, c u16, b u16, a u16, t u8, 3 B zero
    derived      embedding f32 x k; model epoch u32, model version u32
    counters     count u64, positives u64, last offset i64, last time i64 (ms)
    ring         items u64 x r, times u32 x r (epoch seconds), actions u8 x r; newest first
    ids          u64 x i: hashes of the last event ids, newest first
    marks        consumed u32 x c, blocked u32 x b: truncated item hashes, newest first, each once
    negatives    times u32 x t of the newest blocked (epoch seconds), newest first
    attributes   a bytes

Everything but `derived` is durable. The parts lie unaligned, so kernels copy them to and from one aligned `Row`.
(Numba caches a kernel by the content of its own file only: after a change of a kernel or constant here, the cached
kernels of the files that use it are stale until `__pycache__` is deleted.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from pipeline.types import ATTRIBUTES, F32, I64, IDS, MARKS, NEGATIVES, RING, U8, U32, U64, Rings

if not np.little_endian:  # the kernels copy integers as they lie in memory
    raise ImportError("pipeline.blob: expected a little-endian machine, found a big-endian one")

LAYOUT = 1
HEAD = 16  # bytes of the header; the embedding begins here
MODEL = 8  # bytes after the embedding: which model made it
COUNTERS = 32
ENTRY = 13  # bytes of a ring entry

# Places in `Row.lengths` and `Row.counters`.
N_RING, N_IDS, N_CONSUMED, N_BLOCKED, N_ATTRIBUTES, N_NEGATIVES = range(6)
COUNT, POSITIVES, LAST_OFFSET, LAST_TIME = range(4)

_EXPECTED = (
    "",
    f"at least {HEAD} bytes",
    f"layout {LAYOUT}, flags 0 and a zero tail in the header",
    "the dimension of this deployment",
    f"at most {RING} ring entries, {IDS} ids, {MARKS} marks, {ATTRIBUTES} bytes of attributes, "
    f"{NEGATIVES} times of blocked items",
    "a length that agrees with the header",
    "a count of at least one event",
)


class BlobError(ValueError):
    """Bytes that are no state blob of this layout; `row` says which of the blobs given."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class Row(NamedTuple):
    """One state, unpacked: the scratch that kernels work on. What lies beyond a length means nothing."""

    lengths: I64  # (6,) of ring, ids, consumed, blocked, attributes, negatives
    counters: I64  # (4,) count, positives, last offset, last time
    items: U64  # (L,)
    times: U32  # (L,)
    actions: U8  # (L,)
    ids: U64  # (IDS,)
    consumed: U32  # (MARKS + 1,): one more than is kept, so that the newest can come in before the oldest goes
    blocked: U32  # (MARKS + 1,)
    attributes: U8  # (ATTRIBUTES,)
    negatives: U32  # (NEGATIVES + 1,)


@dataclass(frozen=True, slots=True)
class States:
    """n states as arrays. Of a user without a state all is zero or empty, but `last_offset` is -1."""

    count: I64  # (n,) events applied
    positives: I64  # (n,) events that entered the ring
    last_offset: I64  # (n,)
    last_time: I64  # (n,) ms
    rings: Rings
    consumed_start: I64  # (n+1,)
    consumed: U32  # of user i: [consumed_start[i]:consumed_start[i+1]], newest first
    blocked_start: I64  # (n+1,)
    blocked: U32
    attributes: list[bytes]
    blocked_times: U32  # of `blocked`, epoch seconds; 0 = long ago

    def __len__(self) -> int:
        return len(self.count)


def decode(blobs: Sequence[bytes]) -> States:
    """Read n blobs (b"" = no state) of any dimension. Raises BlobError at the first that is none."""
    buffer, start = join(blobs)
    check(buffer, start, None)
    counters, ring, consumed_start, consumed, blocked_start, blocked, blocked_times, tails = _decode(buffer, start)
    attributes = [b""] * len(blobs)
    for row in np.flatnonzero(tails).tolist():
        attributes[row] = blobs[row][-int(tails[row]) :]
    count, positives, last_offset, last_time = np.ascontiguousarray(counters.T)
    marks = consumed_start, consumed, blocked_start, blocked
    return States(count, positives, last_offset, last_time, Rings(*ring), *marks, attributes, blocked_times)


def durable(blob: bytes) -> bytes:
    """The durable part: header and all that stands after the derived part. b"" of b"". Raises BlobError."""
    return blob and blob[:HEAD] + blob[HEAD + 4 * _dimension(blob) + MODEL :]


def embedding(blob: bytes) -> F32:
    """The embedding (k,) in a blob, read-only. Raises BlobError, also for b""."""
    return np.frombuffer(blob, "<f4", _dimension(blob), HEAD)


def model_version(blob: bytes) -> tuple[int, int]:
    """Epoch and version of the model that made the embedding. Raises BlobError, also for b""."""
    epoch, version = struct.unpack_from("<II", blob, HEAD + 4 * _dimension(blob))
    return epoch, version


def join(blobs: Sequence[bytes]) -> tuple[U8, I64]:
    """Blobs end to end, read-only, and where each starts (n+1,)."""
    start = np.zeros(len(blobs) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, blobs), np.int64, len(blobs)), out=start[1:])
    return np.frombuffer(b"".join(blobs), np.uint8), start


def check(buffer: U8, start: I64, dimension: int | None) -> None:
    """Raise BlobError at the first blob that kernels could not read; None = any dimension. Empty ones pass."""
    row, fault = _check(buffer, start, -1 if dimension is None else dimension)
    if fault:
        blob = buffer[start[row] : start[row + 1]]
        raise BlobError(
            f"state blob {row}: expected {_EXPECTED[fault]}{f' ({dimension})' if fault == 3 else ''}, "
            f"found {len(blob)} bytes with header {blob[:HEAD].tobytes().hex()}; "
            "another version or deployment wrote it, or it is damaged: rebuild the user from the log",
            int(row),
        )


def _dimension(blob: bytes) -> int:
    if not blob:
        raise BlobError("state blob: expected one, found the b'' of a user without a state", 0)
    check(*join([blob]), None)
    return int.from_bytes(blob[2:4], "little")


def _move(_typing: Any, to: Any, source: Any, size: Any) -> Any:
    """`move(to, source, size)` in a kernel: memmove of `size` bytes between contiguous arrays, which may overlap.

    A loop over unaligned bytes costs fifteen times as much. No bounds are checked, as anywhere in a kernel.
    """
    memmove: Any = cgutils.raw_memmove

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, origin = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1))
        target, origin = (builder.bitcast(data, cgutils.voidptr_t) for data in (target, origin))
        memmove(builder, target, origin, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(to, source, size), generate


move: Any = intrinsic(_move)


@njit(cache=True)
def _u16(buffer: U8, at: int) -> int:
    return int(buffer[at]) | int(buffer[at + 1]) << 8


@njit(cache=True)
def _check(buffer: U8, start: I64, dimension: int) -> tuple[int, int]:
    """The first bad blob and its fault (a place in _EXPECTED), or (0, 0)."""
    for row in range(len(start) - 1):
        length = start[row + 1] - start[row]
        if length:
            fault = _fault(buffer[start[row] : start[row + 1]], dimension)
            if fault:
                return row, fault
    return 0, 0


@njit(cache=True)
def _fault(blob: U8, dimension: int) -> int:
    if len(blob) < HEAD:
        return 1
    if blob[0] != LAYOUT or blob[1] or blob[13] or blob[14] or blob[15]:
        return 2
    k, r, i = _u16(blob, 2), int(blob[4]), int(blob[5])
    c, b, a, t = _u16(blob, 6), _u16(blob, 8), _u16(blob, 10), int(blob[12])
    if dimension >= 0 and k != dimension:
        return 3
    if r > RING or i > IDS or c + b > MARKS or a > ATTRIBUTES or t > min(b, NEGATIVES):
        return 4
    if len(blob) != HEAD + 4 * k + MODEL + COUNTERS + ENTRY * r + 8 * i + 4 * (c + b + t) + a:
        return 5
    count = blob[HEAD + 4 * k + MODEL :][:8]
    return 0 if count.any() and count[7] < 128 else 6  # a state without events is b"", not a blob


@njit(cache=True)
def new_row() -> Row:
    """Scratch of an empty state."""
    row = Row(
        np.empty(6, np.int64),
        np.empty(4, np.int64),
        np.empty(RING, np.uint64),
        np.empty(RING, np.uint32),
        np.empty(RING, np.uint8),
        np.empty(IDS, np.uint64),
        np.empty(MARKS + 1, np.uint32),
        np.empty(MARKS + 1, np.uint32),
        np.empty(ATTRIBUTES, np.uint8),
        np.empty(NEGATIVES + 1, np.uint32),
    )
    erase(row)
    return row


@njit(cache=True)
def erase(row: Row) -> None:
    """Make it the state of a user of whom nothing is known."""
    row.lengths[:] = 0
    row.counters[:] = 0
    row.counters[LAST_OFFSET] = -1


@njit(cache=True)
def unpack(blob: U8, row: Row) -> None:
    """Read a checked blob into `row`; an empty one is an empty state."""
    if len(blob) == 0:
        erase(row)
        return
    n = row.lengths
    n[N_RING], n[N_IDS] = blob[4], blob[5]
    n[N_CONSUMED], n[N_BLOCKED], n[N_ATTRIBUTES] = _u16(blob, 6), _u16(blob, 8), _u16(blob, 10)
    n[N_NEGATIVES] = blob[12]
    at = HEAD + 4 * _u16(blob, 2) + MODEL
    at = _read(blob, at, row.counters, 4)
    at = _read(blob, at, row.items, n[N_RING])
    at = _read(blob, at, row.times, n[N_RING])
    at = _read(blob, at, row.actions, n[N_RING])
    at = _read(blob, at, row.ids, n[N_IDS])
    at = _read(blob, at, row.consumed, n[N_CONSUMED])
    at = _read(blob, at, row.blocked, n[N_BLOCKED])
    at = _read(blob, at, row.negatives, n[N_NEGATIVES])
    _read(blob, at, row.attributes, n[N_ATTRIBUTES])


@njit(cache=True)
def pack(row: Row, dimension: int, buffer: U8, at: int) -> int:
    """Write `row` at `at`, its derived part zero; returns where it ends. A state without events is empty: no bytes."""
    n = row.lengths
    if row.counters[COUNT] == 0:
        return at
    derived = at + HEAD + 4 * dimension + MODEL
    buffer[at:derived] = 0
    buffer[at] = LAYOUT
    buffer[at + 4], buffer[at + 5], buffer[at + 12] = n[N_RING], n[N_IDS], n[N_NEGATIVES]
    for place, value in ((2, dimension), (6, n[N_CONSUMED]), (8, n[N_BLOCKED]), (10, n[N_ATTRIBUTES])):
        buffer[at + place], buffer[at + place + 1] = value & 255, value >> 8
    at = _write(buffer, derived, row.counters, 4)
    at = _write(buffer, at, row.items, n[N_RING])
    at = _write(buffer, at, row.times, n[N_RING])
    at = _write(buffer, at, row.actions, n[N_RING])
    at = _write(buffer, at, row.ids, n[N_IDS])
    at = _write(buffer, at, row.consumed, n[N_CONSUMED])
    at = _write(buffer, at, row.blocked, n[N_BLOCKED])
    at = _write(buffer, at, row.negatives, n[N_NEGATIVES])
    return _write(buffer, at, row.attributes, n[N_ATTRIBUTES])


@njit(cache=True)
def show_ring(row: Row, user: int, rings: Any) -> None:
    """Copy the ring of `row` into line `user` of the zeroed columns of `Rings`."""
    items, times, actions, length = rings
    n = length[user] = row.lengths[N_RING]
    move(items[user], row.items, n * row.items.itemsize)
    move(times[user], row.times, n * row.times.itemsize)
    move(actions[user], row.actions, n)


@njit(cache=True)
def _read(blob: U8, at: int, to: NDArray[Any], n: int) -> int:
    move(to, blob[at:], n * to.itemsize)
    return at + n * to.itemsize


@njit(cache=True)
def _write(buffer: U8, at: int, source: NDArray[Any], n: int) -> int:
    move(buffer[at:], source, n * source.itemsize)
    return at + n * source.itemsize


@njit(cache=True)
def _decode(buffer: U8, start: I64) -> tuple[Any, ...]:
    n = len(start) - 1
    consumed_start, blocked_start = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for user in range(n):
        filled = start[user + 1] > start[user]
        consumed_start[user + 1] = consumed_start[user] + (_u16(buffer, start[user] + 6) if filled else 0)
        blocked_start[user + 1] = blocked_start[user] + (_u16(buffer, start[user] + 8) if filled else 0)
    counters, tails, row = np.empty((n, 4), np.int64), np.empty(n, np.int64), new_row()
    consumed, blocked = np.empty(consumed_start[n], np.uint32), np.empty(blocked_start[n], np.uint32)
    blocked_times = np.zeros(blocked_start[n], np.uint32)
    items, times = np.zeros((n, RING), np.uint64), np.zeros((n, RING), np.uint32)
    ring = items, times, np.zeros((n, RING), np.uint8), np.empty(n, np.int64)
    for user in range(n):
        unpack(buffer[start[user] : start[user + 1]], row)
        counters[user] = row.counters
        show_ring(row, user, ring)
        move(consumed[consumed_start[user] :], row.consumed, row.lengths[N_CONSUMED] * consumed.itemsize)
        move(blocked[blocked_start[user] :], row.blocked, row.lengths[N_BLOCKED] * blocked.itemsize)
        move(blocked_times[blocked_start[user] :], row.negatives, row.lengths[N_NEGATIVES] * blocked_times.itemsize)
        tails[user] = row.lengths[N_ATTRIBUTES]
    return counters, ring, consumed_start, consumed, blocked_start, blocked, blocked_times, tails
