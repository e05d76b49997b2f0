"""What follows the user's items in the histories of others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, evidence, proposable
from pipeline.selection import LIMIT, Proposals, best_sparse
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Covisitation:
    """Ordered by cov_j / n_j^damping: without it the popular items would fill the list."""

    name: str = "covisitation"
    damping: float = 0.3
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        found = evidence(queries, model)
        damped = queries.common((self.name, self.damping, len(catalog)), partial(self._damped, model, len(catalog)))
        values = found.cov * damped[found.rows]
        return best_sparse(found.start, found.rows, values, proposable(queries, catalog), self.limit)

    def _damped(self, model: Model, n: int) -> F32:
        """(n,) n_j^-damping."""
        count = np.maximum(model.trends.count[:n].astype(np.float32), 1)
        damped: F32 = np.exp(-self.damping * np.log(count))
        return damped
