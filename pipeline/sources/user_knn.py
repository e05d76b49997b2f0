"""What those took besides who took most of what the user took: nearest users."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, neighbours, proposable
from pipeline.selection import LIMIT, Proposals, best_sparse


@dataclass(frozen=True, slots=True)
class UserKnn:
    """Ordered by uk_j: see `pipeline.model.neighbourhood`."""

    name: str = "user_knn"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        found = neighbours(queries, model)
        return best_sparse(found.start, found.rows, found.uk, proposable(queries, catalog), self.limit)
