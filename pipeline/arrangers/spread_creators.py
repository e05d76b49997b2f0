"""No creator twice in a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.catalog import Catalog
from pipeline.queries import Queries
from pipeline.types import I64, U64, Owner, Rows


@dataclass(frozen=True, slots=True)
class SpreadCreators:
    """Of `window` neighbours no two have one creator, as long as another creator's item is left.

    Each of an owner's first `depth` places goes to the best item left whose creator is not among the last window - 1
    places, else to the best item left. Items without a creator fit everywhere. Behind `depth` the order stays.
    """

    name: str = "spread_creators"
    window: int = 3
    depth: int = 30

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> I64:  # noqa: ARG002
        order: I64 = _spread(catalog.creator, rows, owner, self.window, self.depth)
        return order


@njit(cache=True)
def _spread(creator: U64, rows: Rows, owner: Owner, window: int, depth: int) -> I64:
    """The order (c,): places of the candidates, owner by owner."""
    order, first = np.arange(len(rows)), 0
    while first < len(rows):
        end = first
        while end < len(rows) and owner[end] == owner[first]:
            end += 1
        for place in range(first, min(first + depth, end)):
            chosen = _fitting(creator, rows, order, max(first, place - window + 1), place, end)
            taken = order[chosen]
            for at in range(chosen, place, -1):
                order[at] = order[at - 1]
            order[place] = taken
        first = end
    return order


@njit(cache=True)
def _fitting(creator: U64, rows: Rows, order: I64, since: int, place: int, end: int) -> int:
    """The first of order[place:end] whose creator is none of order[since:place]; `place` if there is none."""
    for at in range(place, end):
        mine, fits = creator[rows[order[at]]], True
        for before in range(since, place):
            fits = fits and (mine == 0 or creator[rows[order[before]]] != mine)
        if fits:
            return at
    return place
