"""Nothing whose time is over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.queries import Queries
from pipeline.types import Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class NotExpired:
    """Keep what expires after its owner asks, or never."""

    name: str = "expired"

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        if not catalog.expires_at[: len(catalog)].any():
            return np.ones(len(rows), np.bool_)
        expires = catalog.expires_at[rows]
        kept: Mask = (expires == 0) | (expires > queries.now[owner])
        return kept
