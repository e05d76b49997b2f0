"""What is new."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, favourites
from pipeline.selection import LIMIT, Proposals
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Fresh:
    """The newest items, by the time they were published or, where that is not said, first seen."""

    name: str = "fresh"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        everyone = np.zeros(len(queries), np.int64)
        table = partial(self._table, catalog, model)
        return favourites(queries, catalog, self.name, table, everyone, self.limit)

    def _table(self, catalog: Catalog, model: Model) -> F32:
        """(1, n) ms from the newest item back to each, as negative numbers; -inf where nobody knows."""
        n = len(catalog)
        born = np.where(catalog.published_at[:n] > 0, catalog.published_at[:n], model.trends.first_seen[:n])
        youth: F32 = (born - born.max(initial=0)).astype(np.float32)  # (n,) ms, 0 = the newest
        youth[born <= 0] = -np.inf
        return youth[None, :]
