"""Nothing that is not fit for the audience. A guard: it runs after ranking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import OTHER_LABEL, Catalog
from pipeline.queries import Queries
from pipeline.types import Mask, Owner, Rows

EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Safe:
    """Keep items all of whose safety labels the owner's audience may see; an unnamed audience may see none."""

    name: str = "unsafe"
    allowed: tuple[tuple[str, tuple[str, ...]], ...] = (("adult", (EVERYTHING,)),)  # audience -> labels it may see

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        unsafe = catalog.unsafe[rows]
        if not unsafe.any():
            return np.ones(len(rows), np.bool_)
        open_to = {audience: self._bits(catalog, labels) for audience, labels in self.allowed}
        seen = np.array([open_to.get(attributes.audience, 0) for attributes in queries.attributes], np.uint64)  # (q,)
        kept: Mask = (unsafe & ~seen[owner]) == 0
        return kept

    @staticmethod
    def _bits(catalog: Catalog, labels: tuple[str, ...]) -> int:
        if EVERYTHING in labels:
            return 0xFFFFFFFFFFFFFFFF
        return sum({catalog.labels[label] for label in labels if label in catalog.labels} - {OTHER_LABEL})
