"""Nothing that the user disliked or hid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.queries import Queries
from pipeline.types import Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class NotBlocked:
    """Keep what its owner has not blocked."""

    name: str = "blocked"

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        if not len(queries.blocked.marks):
            return np.ones(len(rows), np.bool_)
        return ~queries.blocked.contains(owner, catalog.hashes[rows])
