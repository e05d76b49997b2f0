"""What is like the user's items and hardly known yet: the only door for items that few have taken."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, profile, proposable
from pipeline.selection import LIMIT, Proposals, best
from pipeline.types import F32, Rows


@dataclass(frozen=True, slots=True)
class Content:
    """Of the young items those nearest to the user's profile, exactly: one matrix product a chunk.

    Young is an item of which less than `young` (weight of events) was taken. The newest `pool` of them are looked at,
    so the cost does not grow with a catalogue of which most is hardly taken.
    """

    name: str = "content"
    young: float = 5.0
    pool: int = 4096
    least: float = 0.0  # nearness above which an item is near at all: 0 = as near as to anyone
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        key = (self, len(catalog))
        rows, content = queries.common(key, partial(self._pool, catalog, model))
        scores = profile(queries, catalog) @ content.T  # (q, p)
        scores[scores <= self.least] = -np.inf
        found = best(scores, np.ascontiguousarray(proposable(queries, catalog)[:, rows]), self.limit)
        return Proposals(found.start, rows[found.rows])

    def _pool(self, catalog: Catalog, model: Model) -> tuple[Rows, F32]:
        """(p,) rows, ascending: the newest by publishing, else first event, else as they were met; (p, d) content."""
        n = len(catalog)
        rows: Rows = np.flatnonzero(catalog.described[:n] & catalog.present() & (model.trends.count[:n] < self.young))
        if len(rows) > self.pool:
            published, seen = catalog.published_at[rows], model.trends.first_seen[rows]
            born = np.where(published > 0, published, seen)
            rows = np.sort(rows[np.argsort(born, kind="stable")[-self.pool :]])
        return rows, catalog.content[rows]
