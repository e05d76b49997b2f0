"""What many take lately."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.queries import Queries, favourites
from pipeline.selection import LIMIT, Proposals
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Trending:
    """The rows of greatest decayed count on one half-life of the ladder.

    All counts decay alike, so their order as of the newest event is their order at any time: one list serves all.
    """

    half_life: int  # place on the ladder HALF_LIVES_MS
    name: str = "trending"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        everyone = np.zeros(len(queries), np.int64)
        table = partial(self._table, model, len(catalog))
        return favourites(queries, catalog, (self.name, self.half_life), table, everyone, self.limit)

    def _table(self, model: Model, n: int) -> F32:
        """(1, n) counts as of the newest event, -inf where nothing is left."""
        reference = model.trends.reference[:n]
        age = (reference.max(initial=0) - reference).astype(np.float32)  # ms
        decay = np.exp2(age * np.float32(-1 / HALF_LIVES_MS[self.half_life]))
        counts: F32 = model.trends.decayed[:n, self.half_life] * decay
        counts[counts <= 0] = -np.inf
        return counts[None, :]
