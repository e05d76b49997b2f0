"""Nothing of creators and categories that the user muted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import CATEGORIES, Catalog
from pipeline.queries import Marks, Queries
from pipeline.types import Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class NotMuted:
    """Keep what has neither a muted creator nor a muted category, as the owner's attributes say."""

    name: str = "muted"

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        kept = np.ones(len(rows), np.bool_)
        if not any(attributes.muted_creators or attributes.muted_categories for attributes in queries.attributes):
            return kept
        creators = Marks.of([attributes.muted_creators for attributes in queries.attributes])
        if len(creators.marks):
            kept &= ~creators.contains(owner, catalog.creator[rows])
        categories = Marks.of([attributes.muted_categories for attributes in queries.attributes])
        if len(categories.marks):
            muted = categories.contains(np.repeat(owner, CATEGORIES), catalog.categories[rows].reshape(-1))
            kept &= ~muted.reshape(-1, CATEGORIES).any(axis=1)
        return kept
