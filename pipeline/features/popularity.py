"""How often an item was ever taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, Owner, Rows


@dataclass(frozen=True, slots=True)
class Popularity:
    """log(eps + n_j), n_j the all-time weight."""

    name: str = "popularity"
    eps: float = 0.5

    @property
    def floor(self) -> float:
        """The value of an item without this evidence."""
        return float(np.log(self.eps))

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:  # noqa: ARG002
        n = len(model.rows)

        def compute() -> F32:
            column: F32 = np.log(model.trends.count[:n].astype(np.float32) + np.float32(self.eps))
            return column

        return queries.common((self.name, self.eps, n), compute)[rows]
