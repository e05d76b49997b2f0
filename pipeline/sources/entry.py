"""What people begin with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import ENTRIES
from pipeline.queries import Queries, proposable
from pipeline.selection import LIMIT, Proposals, best_by


@dataclass(frozen=True, slots=True)
class Entry:
    """For a user of fewer than three positive events: the items that were most often others' next one at that point."""

    name: str = "entry"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        step = np.where(queries.history < ENTRIES, queries.history, -1)  # (q,) -1 = past the beginning
        if (step < 0).all():
            return Proposals.none(len(queries))
        table = np.ascontiguousarray(model.trends.entry[: len(catalog)].T)  # (3, n)
        table[table <= 0] = -np.inf
        return best_by(table, step, proposable(queries, catalog), self.limit)
