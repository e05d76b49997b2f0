"""What many take lately."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.queries import Queries, proposable
from pipeline.selection import LIMIT, Proposals, best_by


@dataclass(frozen=True, slots=True)
class Trending:
    """The rows of greatest decayed count on one half-life of the ladder.

    All counts decay alike, so their order as of the newest event is their order at any time: one list serves all.
    """

    half_life: int  # place on the ladder HALF_LIVES_MS
    name: str = "trending"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        n = len(catalog)
        reference = model.trends.reference[:n]
        age = (reference.max(initial=0) - reference).astype(np.float32)  # ms
        counts = model.trends.decayed[:n, self.half_life] * np.exp2(
            age * np.float32(-1 / HALF_LIVES_MS[self.half_life])
        )
        counts[counts <= 0] = -np.inf
        everyone = np.zeros(len(queries), np.int64)
        return best_by(counts[None, :], everyone, proposable(queries, catalog), self.limit)
