"""Not too much of one taste."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.candidates import starts
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.selection import spread
from pipeline.types import I64, Owner, Rows


@dataclass(frozen=True, slots=True)
class SpreadTastes:
    """Of `window` neighbours at most `most` are of one taste cluster, as long as the next best of another are left.

    Only each owner's first `reach` candidates are looked at, and the first `depth` places filled so. Items that the
    model does not know fit everywhere.
    """

    name: str = "spread_tastes"
    window: int = 10
    most: int = 4
    depth: int = 20
    reach: int = 60

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> I64:  # noqa: ARG002
        if not model.clusters.begun:
            return np.arange(len(rows))
        near = np.flatnonzero(np.arange(len(rows)) - starts(owner, len(queries))[owner] < self.reach)
        keys = np.zeros(len(rows), np.int64)
        keys[near] = 1 + model.clusters.of(model.sequence.e_out[rows[near]])
        return spread(keys, owner, self.window, self.most, self.depth, self.reach)
