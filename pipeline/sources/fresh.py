"""What is new."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, proposable
from pipeline.selection import LIMIT, Proposals, best_by


@dataclass(frozen=True, slots=True)
class Fresh:
    """The newest items, by the time they were published or, where that is not said, first seen."""

    name: str = "fresh"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        n = len(catalog)
        born = np.where(catalog.published_at[:n] > 0, catalog.published_at[:n], model.trends.first_seen[:n])
        youth = (born - born.max(initial=0)).astype(np.float32)  # (n,) ms, 0 = the newest
        youth[born <= 0] = -np.inf
        everyone = np.zeros(len(queries), np.int64)
        return best_by(youth[None, :], everyone, proposable(queries, catalog), self.limit)
