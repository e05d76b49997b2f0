"""What the user had before. For recipes that allow repeats: on click streams a third of what people take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, proposable
from pipeline.selection import LIMIT, Proposals
from pipeline.types import Mask, Rows


@dataclass(frozen=True, slots=True)
class Own:
    """The items of the user's ring, the newest first, each once."""

    name: str = "own"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:  # noqa: ARG002
        start, rows = _own(queries.ring_rows, proposable(queries, catalog), self.limit)
        return Proposals(start, rows)


@njit(cache=True)
def _own(ring: Rows, mask: Mask, limit: int) -> tuple[Rows, Rows]:
    start, rows, n = np.zeros(len(ring) + 1, np.int64), np.empty(ring.size, np.int64), 0
    for query in range(len(ring)):
        for d in range(ring.shape[1]):
            row = ring[query, d]
            if row < 0 or n - start[query] == limit or not mask[query % len(mask), row]:
                continue
            new = True
            for at in range(start[query], n):
                new = new and rows[at] != row
            if new:
                rows[n] = row
                n += 1
        start[query + 1] = n
    return start, rows[:n]
