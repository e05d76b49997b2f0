"""A chunk of queries: who asks, when, and what of it several parts share.

Parts do not know each other, yet a source and a feature often need the same thing (the logits, the co-visitation
evidence). Such things are computed once a chunk: see `Queries.once` and the functions at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
from numba import njit

from pipeline.catalog import Catalog
from pipeline.content.profile import profiles
from pipeline.embedding import attend, compose, situate
from pipeline.model import Model
from pipeline.model.covisitation import Evidence
from pipeline.model.neighbourhood import Neighbours
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.selection import Proposals, best
from pipeline.state import States
from pipeline.types import F32, I64, U32, U64, Mask, Owner, Rings, Rows, hash_id

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a user's `profile` said, parsed by the worker."""

    audience: str = ""
    market: str = ""
    locale: str = ""
    muted_creators: tuple[str, ...] = ()
    muted_categories: tuple[str, ...] = ()


NO_ATTRIBUTES = Attributes()


@dataclass(frozen=True, slots=True)
class Marks:
    """A set of item, creator or category hashes for each of q queries, as their lower 32 bits."""

    start: I64  # (q+1,) query i has marks[start[i]:start[i+1]]
    marks: U32

    def contains(self, owner: Owner, hashes: U64) -> Mask:
        """(c,) is hashes[j] in the set of query owner[j]? Owners ascend. A false hit comes once in 2^32 a mark."""
        found: Mask = _contains(self.start, self.marks, owner, hashes)
        return found

    @staticmethod
    def of(names: Sequence[tuple[str, ...]]) -> Marks:
        """The set of each query's `names`."""
        start = np.cumsum([0, *map(len, names)], dtype=np.int64)
        flat = np.array([hash_id(name) for some in names for name in some], np.uint64)
        return Marks(start, flat.astype(np.uint32))


@dataclass(frozen=True, slots=True)
class Queries:
    """q queries, one a user. Rows are those of the model at the time of asking."""

    now: I64  # (q,) ms
    user: U64  # (q,) hashes of their ids; 0 = nobody whom anything is kept of
    ring: Rings  # q
    ring_rows: Rows  # (q, L) -1 = unknown or beyond the length
    history: I64  # (q,) positive events ever; 0 = a stranger
    count: I64  # (q,) events ever
    h: F32  # (q, k) user embeddings as of now, with their context: for scoring
    consumed: Marks
    blocked: Marks  # newest first
    blocked_times: U32  # of them, epoch seconds; 0 = long ago
    attributes: tuple[Attributes, ...]  # q
    memo: dict[Hashable, object] = field(default_factory=dict)  # of this chunk
    commons: dict[Hashable, object] = field(default_factory=dict)  # of as many chunks as its owner keeps it for

    def __len__(self) -> int:
        return len(self.now)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returns, computed at the first call with `key` in this chunk. Callers must not change it."""
        if key not in self.memo:
            self.memo[key] = compute()
        return cast(T, self.memo[key])

    def common(self, key: Hashable, compute: Callable[[], T]) -> T:
        """As `once`, for what does not depend on who asks and may be a moment old. `key` tells the number of rows."""
        if key not in self.commons:
            self.commons[key] = compute()
        return cast(T, self.commons[key])


def queries_from(
    states: States,
    now: I64,
    model: Model,
    attributes: Sequence[Attributes],
    commons: dict[Hashable, object] | None = None,
    users: U64 | None = None,
) -> Queries:
    """Queries of n users as of `now` (n,) ms; attributes (n,) are parsed from `states.attributes`, see Attributes.

    `users` (n,) are the hashes of their ids, None = nobody's.

    A user without a state is a stranger: empty ring, of the embedding only its context. Chunks that are given the same
    `commons` share what is the same for everyone; their owner begins a new one when it is too old.
    """
    ring_rows = model.rows.find(states.rings.items)
    ring_rows[np.arange(ring_rows.shape[1]) >= states.rings.length[:, None]] = -1
    return Queries(
        now=now,
        user=np.zeros(len(now), np.uint64) if users is None else users,
        ring=states.rings,
        ring_rows=ring_rows,
        history=states.positives,
        count=states.count,
        h=situate(compose(states.rings, now, model), states.rings, now, states.positives, model),
        consumed=Marks(states.consumed_start, states.consumed),
        blocked=Marks(states.blocked_start, states.blocked),
        blocked_times=states.blocked_times,
        attributes=tuple(attributes),
        commons={} if commons is None else commons,
    )


def logits(queries: Queries, model: Model) -> F32:
    """(q, n) what the sequence model says of every row, once a chunk."""
    return queries.once("logits", lambda: model.sequence.logits(queries.h))


def attention(queries: Queries, model: Model) -> F32:
    """(q, HEADS, L) what share each place of a ring has in the embedding, once a chunk."""
    return queries.once("attention", lambda: attend(queries.ring_rows, queries.ring.times, queries.now, model))


def evidence(queries: Queries, model: Model) -> Evidence:
    """What the co-visitation lists say, once a chunk."""
    return queries.once(
        "evidence", lambda: model.covisitation.evidence(queries.ring_rows, queries.now, model.trends.count)
    )


def evidence_of(queries: Queries, model: Model, rows: Rows, owner: Owner) -> F32:
    """cov, bwd, forward, last of candidates (c,), one line each: (4, c); once for the same two arrays."""

    def compute() -> tuple[F32, Rows, Owner]:
        return model.covisitation.of(evidence(queries, model), owner, rows), rows, owner

    return queries.once(("evidence of", id(rows), id(owner)), compute)[0]  # the memo holds them: their ids stay theirs


def neighbours(queries: Queries, model: Model) -> Neighbours:
    """What the users took who are most like those who ask, once a chunk."""

    def compute() -> Neighbours:
        count, n = model.trends.count, len(model.rows)
        total = queries.common(("taken", n), lambda: float(count[:n].sum()))
        return model.neighbourhood.evidence(queries.user, queries.ring_rows, count, total)

    return queries.once("neighbours", compute)


def neighbours_of(queries: Queries, model: Model, rows: Rows, owner: Owner) -> F32:
    """vs and uk of candidates (c,), a line each: (2, c); once for the same two arrays."""

    def compute() -> tuple[F32, Rows, Owner]:
        return model.neighbourhood.of(neighbours(queries, model), owner, rows), rows, owner

    return queries.once(("neighbours of", id(rows), id(owner)), compute)[0]  # as above


def profile(queries: Queries, catalog: Catalog) -> F32:
    """(q, d) where each user stands in content space, once a chunk; zeros where nothing is known of it."""
    known = catalog.content, catalog.described
    return queries.once("profile", lambda: profiles(queries.ring_rows, *known, catalog.typical))


def proposable(queries: Queries, catalog: Catalog) -> Mask:
    """(q, n) rows that a source may spend a place on: present in the catalogue, not expired; (1, n) if all ask at once.

    Whether they are available, too, is left to a filter, which counts what it takes. May be a moment old.
    """

    def compute(now: I64) -> Mask:
        expires = catalog.expires_at[: len(catalog)]
        mask: Mask = catalog.present() & ((expires == 0) | (expires > now[:, None]))
        return mask

    if at_once(queries):
        return queries.common(("proposable", len(catalog)), lambda: compute(queries.now[:1]))
    return queries.once("proposable", lambda: compute(queries.now))


def favourites(
    queries: Queries, catalog: Catalog, name: Hashable, table: Callable[[], F32], line: I64, k: int
) -> Proposals:
    """The k best proposable rows by a table (t, n) that does not depend on who asks, each query by its own line of it.

    `line` (q,), -1 = none; `name` tells the table. While all ask at once it is searched once, for many chunks.
    """
    if at_once(queries):
        key = (name, k, len(catalog))
        return queries.common(key, lambda: best(table(), proposable(queries, catalog), k)).pick(line)
    own = np.where(line >= 0, np.arange(len(line)), -1)
    return best(table()[np.maximum(line, 0)], proposable(queries, catalog), k).pick(own)


def lately(queries: Queries, model: Model, half_life: int) -> tuple[F32, int]:
    """(n,) decayed counts on one half-life of the ladder as of the newest event of all, and its time; a moment old.

    All counts decay alike, so their order at that time is their order at any time.
    """
    n = len(model.rows)

    def compute() -> tuple[F32, int]:
        reference = model.trends.reference[:n]
        newest = int(reference.max(initial=0))
        decay = np.exp2((newest - reference).astype(np.float32) * np.float32(-1 / HALF_LIVES_MS[half_life]))
        counts: F32 = model.trends.decayed[:n, half_life] * decay
        return counts, newest

    return queries.common(("lately", half_life, n), compute)


def at_once(queries: Queries) -> bool:
    """Do all queries ask as of the same time, as they do live?"""
    now = queries.now
    return len(now) == 1 or (len(now) > 1 and bool((now == now[0]).all()))


@njit(cache=True)
def _contains(start: I64, marks: U32, owner: Owner, hashes: U64) -> Mask:
    """A hash table of each owner's marks in turn, sparse so that most lookups end at once; entries are mark + 1."""
    size = 4096
    while len(start) > 1 and size < 4 * (start[1:] - start[:-1]).max():
        size *= 2
    table, found, first = np.zeros(size, np.uint64), np.zeros(len(owner), np.bool_), 0
    while first < len(owner):
        mine = marks[start[owner[first]] : start[owner[first] + 1]]
        for mark in mine:
            table[_slot(table, mark)] = np.uint64(mark) + np.uint64(1)
        end = first
        while end < len(owner) and owner[end] == owner[first]:
            if len(mine):
                mark = np.uint32(hashes[end] & np.uint64(0xFFFFFFFF))
                found[end] = table[_slot(table, mark)] != 0
            end += 1
        for mark in mine:
            _clear(table, mark)
        first = end
    return found


@njit(cache=True)
def _slot(table: U64, mark: np.uint32) -> np.uint64:
    """Where `mark` stands, or would."""
    last = np.uint64(len(table) - 1)
    slot = np.uint64(mark) & last
    while table[slot] != 0 and table[slot] != np.uint64(mark) + np.uint64(1):
        slot = (slot + np.uint64(1)) & last
    return slot


@njit(cache=True)
def _clear(table: U64, mark: np.uint32) -> None:
    """Empty all from where `mark` belongs to the next empty slot: done for every mark, nothing is left."""
    last = np.uint64(len(table) - 1)
    slot = np.uint64(mark) & last
    while table[slot] != 0:
        table[slot] = 0
        slot = (slot + np.uint64(1)) & last
