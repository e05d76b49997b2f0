"""What people begin with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import ENTRIES
from pipeline.queries import Queries, favourites
from pipeline.selection import LIMIT, Proposals
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Entry:
    """For a user of fewer than three positive events: the items that were most often others' next one at that point."""

    name: str = "entry"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        step = np.where(queries.history < ENTRIES, queries.history, -1)  # (q,) -1 = past the beginning
        return favourites(queries, catalog, self.name, partial(self._table, model, len(catalog)), step, self.limit)

    def _table(self, model: Model, n: int) -> F32:
        """(3, n) how often each row was a user's 1st, 2nd, 3rd; -inf where never."""
        table: F32 = np.array(model.trends.entry[:n].T, order="C")  # a copy: of one row the transpose is a view
        table[table <= 0] = -np.inf
        return table
