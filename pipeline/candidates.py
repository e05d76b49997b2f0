"""Candidates: what the sources propose, as one flat set with an owner column, and the trail that the stages leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.selection import Proposals
from pipeline.types import F32, I16, I32, I64, Owner, Rows

_NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Lists:
    """What s sources propose to q queries, end to end: to query j source i proposes rows[start[i, j]:start[i, j+1]]."""

    start: I64  # (s, q+1)
    rows: Rows

    @staticmethod
    def of(proposals: Sequence[Proposals], q: int) -> Lists:
        """The proposals of each source, in order."""
        if not proposals:
            return Lists(np.zeros((0, q + 1), np.int64), _NO_ROWS)
        start = np.array([some.start for some in proposals])
        start[1:] += start[:-1, -1:].cumsum(axis=0)
        return Lists(start, np.concatenate([some.rows for some in proposals]))

    def source(self, at: int) -> Proposals:
        """What one of them proposes."""
        first, last = self.start[at, 0], self.start[at, -1]
        return Proposals(self.start[at] - first, self.rows[first:last])


@dataclass(frozen=True, slots=True)
class Trail:
    """What the stages noted on the way, for the feeds' provenance; q queries."""

    sources: tuple[str, ...]  # s names
    lists: Lists  # of them
    skipped: tuple[str, ...]  # sources that failed
    gathered: I64  # (q,) candidates before filters
    ranked: I64  # (q,) candidates that were left for the cut; 0 before it
    dropped: tuple[tuple[str, I64], ...] = ()  # what each filter took first: reason, (q,)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows of all queries of a chunk, owners ascending; before ranking every score is 0."""

    rows: Rows  # (c,)
    owner: Owner  # (c,)
    scores: F32  # (c,)
    trail: Trail

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: I64) -> Candidates:
        """Those at `which`, in that order."""
        return Candidates(self.rows[which], self.owner[which], self.scores[which], self.trail)


def starts(owner: Owner, q: int) -> I64:
    """(q+1,) where each query's part of an ascending owner column starts."""
    return owner.searchsorted(np.arange(q + 1)) if q != 1 else np.array((0, len(owner)))


def union(lists: Lists, n: int) -> tuple[Rows, Owner]:
    """Every row that a list proposes to its query, once, and its owner; rows are below n."""
    rows, owner = _union(lists.start, lists.rows, np.zeros(n, np.int32))
    return rows, owner


def ranks(lists: Lists, names: Sequence[str], rows: Rows, owner: Owner, n: int) -> tuple[tuple[str, ...], I16]:
    """`names` of the lists' sources, each once; (c, names) the best rank of each candidate in the lists of a name, from
    1, 0 = not proposed there. Owners ascend and are below q, rows are below n."""
    once = tuple(dict.fromkeys(names))
    columns = np.array([once.index(name) for name in names], np.int64)
    found = np.zeros((len(rows), len(once)), np.int16)
    wanted = starts(owner, lists.start.shape[1] - 1)
    _ranks(lists.start, lists.rows, columns, wanted, rows, np.full(n, -1, np.int64), found)
    return once, found


@njit(cache=True)
def _union(starts: I64, flat: Rows, seen: I32) -> tuple[Rows, Owner]:
    """`starts` (s, q+1) into `flat`; `seen` (n,) zeros is scratch."""
    rows, owner, count = np.empty(len(flat), np.int64), np.empty(len(flat), np.int64), 0
    for query in range(starts.shape[1] - 1):
        for source in range(len(starts)):
            for at in range(starts[source, query], starts[source, query + 1]):
                row = flat[at]
                if seen[row] <= query:
                    seen[row] = query + 1
                    rows[count], owner[count] = row, query
                    count += 1
    return rows[:count], owner[:count]


@njit(cache=True)
def _ranks(begins: I64, rows: Rows, columns: I64, wanted_start: I64, wanted: Rows, places: I64, found: I16) -> None:
    """`begins` (s, q+1) into `rows`; `places` (n,) of -1 is scratch."""
    for query in range(begins.shape[1] - 1):
        for at in range(wanted_start[query], wanted_start[query + 1]):
            places[wanted[at]] = at
        for source in range(len(begins)):
            for at in range(begins[source, query], begins[source, query + 1]):
                place, rank = places[rows[at]], min(at - begins[source, query] + 1, 32767)
                if place >= 0 and not 0 < found[place, columns[source]] <= rank:
                    found[place, columns[source]] = rank
        for at in range(wanted_start[query], wanted_start[query + 1]):
            places[wanted[at]] = -1
