"""What many take lately."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, favourites, lately
from pipeline.selection import LIMIT, Proposals
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Trending:
    """The rows of greatest decayed count on one half-life of the ladder: one list for all, whenever they ask."""

    half_life: int  # place on the ladder HALF_LIVES_MS
    name: str = "trending"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        def table() -> F32:
            counts, _ = lately(queries, model, self.half_life)
            return np.where(counts > 0, counts, np.float32(-np.inf))[None, :]

        everyone = np.zeros(len(queries), np.int64)
        return favourites(queries, catalog, (self.name, self.half_life), table, everyone, self.limit)
