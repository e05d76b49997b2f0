"""Candidates: what the sources propose, as one flat set with an owner column, and the trail that the stages leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from pipeline.selection import Proposals
from pipeline.types import F32, I16, I32, I64, Owner, Rows

_NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Trail:
    """What the stages noted on the way, for the feeds' provenance; q queries."""

    sources: tuple[str, ...]  # s names
    proposals: tuple[Proposals, ...]  # s
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
        return replace(self, rows=self.rows[which], owner=self.owner[which], scores=self.scores[which])


def starts(owner: Owner, q: int) -> I64:
    """(q+1,) where each query's part of an ascending owner column starts."""
    return np.searchsorted(owner, np.arange(q + 1))


def union(lists: Sequence[Proposals], q: int, n: int) -> tuple[Rows, Owner]:
    """Every row that a list proposes to its query, once, and its owner; rows are below n."""
    begins = np.zeros((len(lists), q + 1), np.int64)
    for at, proposals in enumerate(lists):
        begins[at] = proposals.start + (begins[at - 1, -1] if at else 0)
    flat = np.concatenate([_NO_ROWS, *(proposals.rows for proposals in lists)])
    rows, owner = _union(begins, flat, np.zeros(n, np.int32))
    return rows, owner


def ranks(lists: Sequence[Proposals], rows: Rows, owner: Owner, n: int) -> I16:
    """(c, s) the rank of each candidate in each list, from 1; 0 = not proposed there. Rows are below n."""
    found = np.zeros((len(lists), len(rows)), np.int16)
    places = np.full(n, -1, np.int64)
    for at, proposals in enumerate(lists):
        start = starts(owner, len(proposals.start) - 1)
        _ranks(proposals.start, proposals.rows, start, rows, places, found[at])
    return found.T


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
def _ranks(start: I64, rows: Rows, wanted_start: I64, wanted: Rows, places: I64, found: I16) -> None:
    """`places` (n,) of -1 is scratch, left as it was."""
    for query in range(len(start) - 1):
        for at in range(wanted_start[query], wanted_start[query + 1]):
            places[wanted[at]] = at
        for at in range(start[query], start[query + 1]):
            place = places[rows[at]]
            if place >= 0:
                found[place] = min(at - start[query] + 1, 32767)
        for at in range(wanted_start[query], wanted_start[query + 1]):
            places[wanted[at]] = -1
