"""What those took next, and before, who lately took the user's last items: nearest sessions."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, neighbours, proposable
from pipeline.selection import LIMIT, Proposals, best_sparse


@dataclass(frozen=True, slots=True)
class VsKnn:
    """Ordered by vs_j: see `pipeline.model.neighbourhood`."""

    name: str = "vs_knn"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        found = neighbours(queries, model)
        return best_sparse(found.start, found.rows, found.vs, proposable(queries, catalog), self.limit)
