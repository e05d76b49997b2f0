"""What events do to a user's state: `advance` applies a batch to the blobs of its users, pure and on arrays.

A state depends on the user's own events in log order and on nothing else: batches may be split anywhere, any suffix of
the log replayed, and the durable bytes stay the same. The blob's layout, and how to read one, is in `pipeline.blob`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numba import njit

from pipeline.blob import (
    COUNT,
    COUNTERS,
    ENTRY,
    HEAD,
    LAST_OFFSET,
    LAST_TIME,
    MODEL,
    N_ATTRIBUTES,
    N_BLOCKED,
    N_CONSUMED,
    N_IDS,
    N_NEGATIVES,
    N_RING,
    POSITIVES,
    BlobError,
    Row,
    States,
    check,
    decode,
    durable,
    embedding,
    erase,
    join,
    model_version,
    move,
    new_row,
    pack,
    show_ring,
    unpack,
)
from pipeline.types import (
    ATTRIBUTES,
    BLOCKS,
    CONSUMES,
    F32,
    FORGETS,
    I64,
    IDS,
    MARKS,
    NEGATIVES,
    POSITIVE,
    PROFILE,
    RING,
    U8,
    U32,
    U64,
    Events,
    Rings,
)

__all__ = [
    "Advanced",
    "BlobError",
    "Outcome",
    "States",
    "Users",
    "advance",
    "decode",
    "durable",
    "embedding",
    "model_version",
    "stamp",
    "together",
]

_GROWTH = ENTRY + 8 + 8  # bytes that one event can add to a blob, attributes apart: ring entry, id, mark and its time
_LATEST = (1 << 32) - 1  # greatest second that a ring can hold


class Outcome(IntEnum):
    """What became of an event."""

    APPLIED = 1
    REPLAYED = 2  # the state, or the forget marker, already holds its offset
    DUPLICATE = 3  # its id is among the user's last: its producer sent it twice
    FORGOTTEN = 4  # it happened before the user was forgotten


_APPLIED, _REPLAYED, _DUPLICATE, _FORGOTTEN = (int(outcome) for outcome in Outcome)


@dataclass(frozen=True, slots=True)
class Users:
    """The users of a batch, as they are before it."""

    blobs: list[bytes]  # n; b"" = no state
    forgotten_time: I64  # (n,) ms of the forget marker, -1 = none
    forgotten_version: I64  # (n,) offset of the forget + 1, 0 = none

    def __len__(self) -> int:
        return len(self.blobs)


@dataclass(frozen=True, slots=True)
class Advanced:
    """The users of a batch, as they are after it, and what became of its m events."""

    dimension: int
    buffer: U8  # the blob of user i is [start[i]:start[i+1]]; empty = no state; derived parts are zero until `stamp`
    start: I64  # (n+1,)
    rings: Rings  # n
    last_time: I64  # (n,) ms, of the last applied event in log order; 0 without a state
    outcome: U8  # (m,) Outcome
    evicted_start: I64  # (n+1,)
    evicted_items: U64  # ring ++ evicted = positives applied ++ ring before, each newest first; from the last forget on
    evicted_times: U32
    evicted_actions: U8
    forgotten_time: I64  # (n,) as in Users
    forgotten_version: I64  # (n,)

    def part(self, users: slice, events: slice) -> Advanced:
        """A view of some users and of their events; both slices name their ends. It shares `buffer`."""
        bounds = slice(users.start, users.stop + 1)
        rings = self.rings
        rings = Rings(rings.items[users], rings.times[users], rings.actions[users], rings.length[users])
        return Advanced(
            self.dimension, self.buffer, self.start[bounds], rings, self.last_time[users], self.outcome[events],
            self.evicted_start[bounds], self.evicted_items, self.evicted_times, self.evicted_actions,
            self.forgotten_time[users], self.forgotten_version[users],
        )  # fmt: skip


def together(batches: Sequence[tuple[Users, Events]]) -> tuple[Users, Events]:
    """Several batches of different users as one: users and events of the first, then of the second, and so on."""
    users, events = zip(*batches, strict=True)
    before = np.cumsum([0, *map(len, users[:-1])])
    return (
        Users(
            list(chain.from_iterable(some.blobs for some in users)),
            np.concatenate([some.forgotten_time for some in users]),
            np.concatenate([some.forgotten_version for some in users]),
        ),
        Events(
            np.concatenate([some.user + shift for some, shift in zip(events, before.tolist(), strict=True)]),
            np.concatenate([some.offset for some in events]),
            np.concatenate([some.time for some in events]),
            np.concatenate([some.item for some in events]),
            np.concatenate([some.id for some in events]),
            np.concatenate([some.action for some in events]),
            np.concatenate([some.effect for some in events]),
            list(chain.from_iterable(some.attributes for some in events)),
        ),
    )


def advance(users: Users, events: Events, dimension: int) -> Advanced:
    """Apply a batch of events to the states of its users; nothing given is changed.

    Of each event, in this order: an offset that the state or the marker holds -> REPLAYED; a known id -> DUPLICATE; a
    forget erases the state and moves the marker (its time never back); a time not after the marker's -> FORGOTTEN; else
    it is APPLIED.
    A positive item enters the ring; a consumed or blocked one moves to the front of its list. A blocked item is never
    in `consumed`; both lists together hold MARKS, the oldest consumed goes first. The newest NEGATIVES of the blocked
    have the time of the event that blocked them.

    Raises BlobError for a blob of another layout or dimension, ValueError for events that do not fit their users.
    """
    n = len(users.blobs)
    _check_events(users, events, n)
    buffer, start = join(users.blobs)
    check(buffer, start, dimension)
    attributes, attributes_start = join(events.attributes)
    size = len(buffer) + n * (HEAD + 4 * dimension + MODEL + COUNTERS) + len(events) * _GROWTH + len(attributes)
    out = np.empty(size, np.uint8)
    out_start = np.zeros(n + 1, np.int64)
    rings = _empty_rings(n)
    last_time, outcome = np.empty(n, np.int64), np.empty(len(events), np.uint8)
    evicted_start = np.zeros(n + 1, np.int64)
    evicted = (np.empty(len(events), np.uint64), np.empty(len(events), np.uint32), np.empty(len(events), np.uint8))
    marker = users.forgotten_time.copy(), users.forgotten_version.copy()
    _advance(
        (buffer, start, attributes, attributes_start, dimension),
        (events.user, events.offset, events.time, events.item, events.id, events.action, events.effect),
        (out, out_start, last_time, outcome, evicted_start, (rings.items, rings.times, rings.actions, rings.length)),
        evicted,
        marker,
    )
    items, times, actions = evicted
    gone, end = evicted_start[n], out_start[n]
    fell = evicted_start, items[:gone], times[:gone], actions[:gone]
    return Advanced(dimension, out[:end], out_start, rings, last_time, outcome, *fell, *marker)


def stamp(advanced: Advanced, vectors: F32, epoch: int, version: int) -> list[bytes]:
    """Write the embeddings (n, k) and the model they come from into the buffer; returns the blobs, b"" = no state.

    Raises ValueError for vectors of another shape.
    """
    n, k = len(advanced.last_time), advanced.dimension
    if vectors.shape != (n, k):
        raise ValueError(f"stamp: expected vectors of shape {(n, k)}, found {vectors.shape}")
    derived = np.empty((n, 4 * k + MODEL), np.uint8)
    derived[:, : 4 * k] = np.ascontiguousarray(vectors, np.float32).view(np.uint8)
    derived[:, 4 * k :] = np.array([epoch, version], np.uint32).view(np.uint8)
    _stamp(advanced.buffer, advanced.start, derived)
    whole, start = advanced.buffer.tobytes(), advanced.start.tolist()
    return [whole[begin:end] for begin, end in pairwise(start)]


def _check_events(users: Users, events: Events, n: int) -> None:
    """The kernel trusts these: what does not hold would write outside of arrays."""
    columns: Sequence[Any] = (events.offset, events.time, events.item, events.id, events.action, events.effect)
    rules = [
        (len(users.forgotten_time) == len(users.forgotten_version) == n, f"markers of {n} users"),
        (all(len(column) == len(events) for column in columns), f"columns of {len(events)} events"),
        (not len(events) or 0 <= events.user.min() <= events.user.max() < n, f"users below {n}"),
        (np.count_nonzero(events.effect & PROFILE) == len(events.attributes), "attributes for each PROFILE event"),
        (all(len(data) <= ATTRIBUTES for data in events.attributes), f"at most {ATTRIBUTES} bytes of attributes"),
    ]
    for holds, expected in rules:
        if not holds:
            raise ValueError(f"advance: expected {expected}")


def _empty_rings(n: int) -> Rings:
    return Rings(
        np.zeros((n, RING), np.uint64),
        np.zeros((n, RING), np.uint32),
        np.zeros((n, RING), np.uint8),
        np.zeros(n, np.int64),
    )


@njit(cache=True)
def _stamp(buffer: U8, start: I64, derived: U8) -> None:
    size = derived.shape[1]
    for user in range(len(derived)):
        if start[user + 1] > start[user]:
            begin = start[user] + HEAD
            buffer[begin : begin + size] = derived[user]


@njit(cache=True)
def _by_user(user: I64, n: int) -> tuple[I64, I64]:
    """Events of user i in log order: order[first[i]:first[i+1]] (a counting sort)."""
    first, order = np.zeros(n + 1, np.int64), np.empty(len(user), np.int64)
    for owner in user:
        first[owner + 1] += 1
    for owner in range(n):
        first[owner + 1] += first[owner]
    place = first.copy()
    for event in range(len(user)):
        order[place[user[event]]] = event
        place[user[event]] += 1
    return first, order


@njit(cache=True)
def _attributes_of(effect: U8) -> I64:
    """Which entry of `attributes` an event has; only meaningful where it has PROFILE."""
    which, seen = np.empty(len(effect), np.int64), 0
    for event in range(len(effect)):
        which[event] = seen
        seen += (effect[event] & PROFILE) != 0
    return which


@njit(cache=True)
def _advance(given: Any, events: Any, after: Any, evicted: Any, marker: Any) -> None:
    """The whole batch, user by user, each on one scratch row."""
    buffer, start, attributes, attributes_start, dimension = given
    user, offset, time, item, ids, action, effect = events
    out, out_start, last_time, outcome, evicted_start, rings = after
    forgotten_time, forgotten_version = marker
    first, order = _by_user(user, len(start) - 1)
    which = _attributes_of(effect)
    row = new_row()
    gone = 0  # entries evicted by the users so far
    for u in range(len(start) - 1):
        unpack(buffer[start[u] : start[u + 1]], row)
        for e in order[first[u] : first[u + 1]]:
            event = offset[e], time[e], ids[e], effect[e]
            outcome[e] = _judge(row, event, forgotten_time[u], forgotten_version[u])
            if outcome[e] != _APPLIED:
                continue
            if effect[e] & FORGETS:
                erase(row)
                forgotten_time[u], forgotten_version[u] = max(forgotten_time[u], time[e]), offset[e] + 1
                gone = evicted_start[u]
                continue
            _count(row, offset[e], time[e], ids[e])
            if effect[e] & PROFILE:
                _describe(row, attributes[attributes_start[which[e]] : attributes_start[which[e] + 1]])
            if item[e] != 0:
                _mark(row, np.uint32(item[e]), time[e], effect[e])
                if effect[e] & POSITIVE:
                    gone = _evict(row, evicted, gone)
                    _push(row, item[e], time[e], action[e])
        out_start[u + 1] = pack(row, dimension, out, out_start[u])
        last_time[u] = row.counters[LAST_TIME]
        show_ring(row, u, rings)
        _newest_first(evicted, evicted_start[u], gone)
        evicted_start[u + 1] = gone


@njit(cache=True)
def _judge(row: Row, event: Any, forgotten_time: int, forgotten_version: int) -> int:
    offset, time, event_id, effect = event
    if offset <= row.counters[LAST_OFFSET] or offset < forgotten_version:
        return _REPLAYED
    if event_id != 0 and _index(row.ids, row.lengths[N_IDS], event_id) < row.lengths[N_IDS]:
        return _DUPLICATE
    if effect & FORGETS:
        return _APPLIED
    if forgotten_version > 0 and time <= forgotten_time:
        return _FORGOTTEN
    return _APPLIED


@njit(cache=True)
def _count(row: Row, offset: int, time: int, event_id: np.uint64) -> None:
    row.counters[COUNT] += 1
    row.counters[LAST_OFFSET] = offset
    row.counters[LAST_TIME] = time
    if event_id != 0:
        n = min(row.lengths[N_IDS] + 1, IDS)
        _shift(row.ids, n - 1)
        row.ids[0] = event_id
        row.lengths[N_IDS] = n


@njit(cache=True)
def _describe(row: Row, attributes: U8) -> None:
    row.attributes[: len(attributes)] = attributes
    row.lengths[N_ATTRIBUTES] = len(attributes)


@njit(cache=True)
def _evict(row: Row, evicted: Any, gone: int) -> int:
    """Make room in a full ring: its oldest entry goes to `evicted`. Returns how many are there now."""
    n = row.lengths[N_RING]
    if n < RING:
        return gone
    items, times, actions = evicted
    items[gone], times[gone], actions[gone] = row.items[n - 1], row.times[n - 1], row.actions[n - 1]
    row.lengths[N_RING] -= 1
    return gone + 1


@njit(cache=True)
def _push(row: Row, item: np.uint64, time: int, action: int) -> None:
    """A positive item enters the ring."""
    n = row.lengths[N_RING]
    _shift(row.items, n)
    _shift(row.times, n)
    _shift(row.actions, n)
    row.items[0], row.times[0], row.actions[0] = item, _seconds(time), action
    row.lengths[N_RING] += 1
    row.counters[POSITIVES] += 1


@njit(cache=True)
def _seconds(time: int) -> int:
    """Of a time in ms, as a ring holds it."""
    return min(max(time // 1000, 0), _LATEST)


@njit(cache=True)
def _mark(row: Row, mark: np.uint32, time: int, effect: int) -> None:
    """Note an item as consumed or blocked."""
    n = row.lengths
    if effect & BLOCKS:
        known = n[N_NEGATIVES]
        at = min(_index(row.blocked, n[N_BLOCKED], mark), known)
        _shift(row.negatives, at)  # its own time, if it is known, else room for one more
        row.negatives[0] = _seconds(time)
        n[N_NEGATIVES] = min(max(known, at + 1), NEGATIVES)
        at = _index(row.consumed, n[N_CONSUMED], mark)
        if at < n[N_CONSUMED]:
            n[N_CONSUMED] -= 1
            move(row.consumed[at:], row.consumed[at + 1 :], (n[N_CONSUMED] - at) * row.consumed.itemsize)
        n[N_BLOCKED] = min(_to_front(row.blocked, n[N_BLOCKED], mark), MARKS)
        n[N_CONSUMED] = min(n[N_CONSUMED], MARKS - n[N_BLOCKED])
    elif effect & CONSUMES and _index(row.blocked, n[N_BLOCKED], mark) == n[N_BLOCKED]:
        n[N_CONSUMED] = min(_to_front(row.consumed, n[N_CONSUMED], mark), MARKS - n[N_BLOCKED])


@njit(cache=True)
def _to_front(marks: U32, n: int, mark: np.uint32) -> int:
    """Put `mark` first among the first n, where it stood before or not; returns how many there are now."""
    at = _index(marks, n, mark)
    _shift(marks, at)
    marks[0] = mark
    return max(n, at + 1)


@njit(cache=True)
def _index(values: Any, n: int, value: Any) -> int:
    """Where `value` stands among the first n; n = nowhere."""
    for i in range(n):
        if values[i] == value:
            return i
    return n


@njit(cache=True)
def _shift(values: Any, n: int) -> None:
    """Move the first n one place back."""
    move(values[1:], values, n * values.itemsize)


@njit(cache=True)
def _newest_first(evicted: Any, begin: int, end: int) -> None:
    """They fell out oldest first: turn one user's around."""
    for i in range((end - begin) // 2):
        a, b = begin + i, end - 1 - i
        evicted[0][a], evicted[0][b] = evicted[0][b], evicted[0][a]
        evicted[1][a], evicted[1][b] = evicted[1][b], evicted[1][a]
        evicted[2][a], evicted[2][b] = evicted[2][b], evicted[2][a]
