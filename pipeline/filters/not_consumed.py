"""Nothing twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.queries import Queries
from pipeline.types import Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class NotConsumed:
    """Keep what its owner has not consumed yet."""

    name: str = "consumed"

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        if not len(queries.consumed.marks):
            return np.ones(len(rows), np.bool_)
        return ~queries.consumed.contains(owner, catalog.hashes[rows])
