"""Nothing twice."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.queries import Queries
from pipeline.types import Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class NotConsumed:
    """Keep what its owner has not consumed yet."""

    name: str = "consumed"

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        return ~queries.consumed.contains(owner, catalog.hashes[rows])
