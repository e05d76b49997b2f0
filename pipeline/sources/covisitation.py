"""What follows the user's items in the histories of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, evidence, proposable
from pipeline.selection import LIMIT, Proposals, best_sparse


@dataclass(frozen=True, slots=True)
class Covisitation:
    """Ordered by cov_j / n_j^damping: without it the popular items would fill the list."""

    name: str = "covisitation"
    damping: float = 0.3
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        found = evidence(queries, model)
        count = model.trends.count[: len(catalog)].astype(np.float32)
        damped = np.exp(-self.damping * np.log(np.maximum(count, 1)))  # (n,)
        return best_sparse(
            found.start, found.rows, found.cov * damped[found.rows], proposable(queries, catalog), self.limit
        )
