"""Nothing that is not for the user's market."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import OTHER_LABEL, Catalog
from pipeline.queries import Queries
from pipeline.types import Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class InMarket:
    """Keep what is bound to no market, or to the owner's; whoever has none sees only the former.

    Beyond 63 markets those met last have no bit of their own: what is bound to them is shown to nobody.
    """

    name: str = "market"

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        if not catalog.named_markets:
            return np.ones(len(rows), np.bool_)
        bound, known = catalog.markets[rows], catalog.named_markets
        mine = np.array([known.get(attributes.market, 0) for attributes in queries.attributes], np.uint64)  # (q,)
        mine[mine == OTHER_LABEL] = 0
        kept: Mask = (bound == 0) | ((bound & mine[owner]) != 0)
        return kept
