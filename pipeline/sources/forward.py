"""What follows the user's last items closely in the histories of others."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, evidence, proposable
from pipeline.selection import LIMIT, Proposals, best_sparse


@dataclass(frozen=True, slots=True)
class Forward:
    """Ordered by forward_j = sum over the last five items of .6^(d-1) F[i_d, j] / sqrt(n_{i_d})."""

    name: str = "forward"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        found = evidence(queries, model)
        return best_sparse(found.start, found.rows, found.forward, proposable(queries, catalog), self.limit)
