"""The nouns that every part of the pipeline shares: arrays, events, rings, model records.

Shapes stand at the end of the line: m events, n users, q queries, c candidates, k dimensions, L = RING.
Times are epoch milliseconds (int64) unless a name says seconds. Item and user ids appear as hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
F16 = NDArray[np.float16]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rows = NDArray[np.int64]  # rows of items, private to a process
Owner = NDArray[np.int64]  # the query that a candidate belongs to, ascending
Mask = NDArray[np.bool_]

RING = 30  # L: items with weight > 0 that a user's embedding is made of
IDS = 16  # event ids remembered a user: the idempotency window
MARKS = 1024  # consumed and blocked items together
NEGATIVES = 16  # blocked items, the newest, of which the time is known
ATTRIBUTES = 256  # bytes of a user's attributes
CONTENT = 128  # d: components of a content vector

# What an event does to its user's state (bits of `Events.effect`).
POSITIVE = 1  # weight > 0: enters the ring
CONSUMES = 2
BLOCKS = 4
PROFILE = 8  # replaces the attributes
FORGETS = 16  # erases the user


def hash_of(text: str) -> int:
    """Hash an id: BLAKE2b with an 8-byte digest, little-endian, of the UTF-8 text; 0 becomes 1 (0 means "none")."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") or 1


@lru_cache(maxsize=1 << 20)
def hash_id(text: str) -> int:
    """`hash_of`, remembered."""
    return hash_of(text)


@dataclass(frozen=True, slots=True)
class Events:
    """A batch of valid events, each user's in log order: m events of n users."""

    user: I64  # (m,) row of the event's user in the batch, 0..n-1
    offset: I64  # (m,) position in the log of the user's partition, ascending within a user
    time: I64  # (m,) ms
    item: U64  # (m,) item hash, 0 = the event names none
    id: U64  # (m,) hash of the event id, 0 = its producer gave none
    action: U8  # (m,) action code
    effect: U8  # (m,) bits above
    attributes: list[bytes]  # one an event whose effect has PROFILE, in order, at most ATTRIBUTES bytes each

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True, slots=True)
class Rings:
    """The newest positive items of n users, newest first; zeros beyond `length`."""

    items: U64  # (n, L) hashes
    times: U32  # (n, L) epoch seconds
    actions: U8  # (n, L) codes
    length: I64  # (n,)

    def __len__(self) -> int:
        return len(self.length)


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """What is learned of one item, without its lists: one `v:` record on the model topic."""

    item_id: str
    hash: int
    e_in: F32  # (k,)
    e_out: F32  # (k,)
    bias: float
    accumulators: F32  # (3,) Adagrad: e_in, e_out, bias
    decayed: F32  # (H,) decayed counts as of `reference`, a half-life each
    reference: int  # ms
    count: float  # all-time weight
    entry: F32  # (3,) how often it was some user's 1st, 2nd, 3rd positive event
    first_seen: int  # ms, 0 = never
    last_seen: int  # ms


@dataclass(frozen=True, slots=True)
class ItemLists:
    """The co-visitation lists of one item: one `l:` record on the model topic.

    Weights are forward-decayed: true weight at time t = weight * 2^(-(t - reference) / T).
    """

    item_id: str
    hash: int
    reference: int  # ms
    hashes: tuple[U64, U64, U64, U64]  # forward A, backward B, short F, last F1; heaviest first
    weights: tuple[F32, F32, F32, F32]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a part of the model has learned beside its rows: one `#<name>` record on the model topic."""

    name: str  # of the part; `writer` and `checkpoint` are taken
    arrays: dict[str, NDArray[Any]]  # by name, finite; bool, integer or float of any shape
