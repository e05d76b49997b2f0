"""Is an item one of the user's own? On click streams a third of what people take is what they had before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, I32, I64, U32, Owner, Rows


@dataclass(frozen=True, slots=True)
class Own:
    """Of an item in the owner's ring: 1, -log(1 + seconds since the newest time), log of how often, and whether it is
    the last, the last but one. All 0 for other items, so for every item where repeats are not allowed."""

    name: str = "own"
    columns: tuple[str, ...] = ("own", "own_gap", "own_count", "own_last", "own_before_last")
    eps: float = 0.0
    floors: tuple[float, ...] = (0.0,) * 5

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        scratch = np.zeros(len(catalog), np.int32), np.zeros(queries.ring_rows.shape[1], np.int64)
        ring = queries.ring_rows, queries.ring.times, queries.now
        _own(*ring, candidates.owner, candidates.rows, *scratch, out)


@njit(cache=True)
def _own(ring: Rows, times: U32, now: I64, owner: Owner, rows: Rows, place: I32, count: I64, out: F32) -> None:
    """`place` (n,) zeros before and after: the newest place of a row in the ring, from 1; `count` of that place."""
    out[:] = 0
    first = 0
    while first < len(rows):
        query, at = owner[first], first
        mine = ring[query]
        for d in range(len(mine)):
            if mine[d] >= 0:
                if place[mine[d]] == 0:
                    place[mine[d]] = d + 1
                    count[d] = 0
                count[place[mine[d]] - 1] += 1
        while at < len(rows) and owner[at] == query:
            newest = place[rows[at]]
            if newest > 0:
                gap = max(now[query] / 1000 - times[query, newest - 1], 0.0)
                out[0, at] = 1
                out[1, at] = -math.log1p(gap)
                out[2, at] = math.log(count[newest - 1])
                out[3, at] = mine[0] == rows[at]
                out[4, at] = len(mine) > 1 and mine[1] == rows[at]
            at += 1
        for d in range(len(mine)):
            if mine[d] >= 0:
                place[mine[d]] = 0
        first = at
