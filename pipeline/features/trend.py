"""How often an item was taken lately."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.queries import Queries, lately
from pipeline.types import F32, Owner, Rows


@dataclass(frozen=True, slots=True)
class Trend:
    """log(eps + x_j): the count decayed on one half-life of the ladder, as of the owner's now."""

    name: str
    half_life: int  # place on the ladder HALF_LIVES_MS
    eps: float = 1e-3

    @property
    def floor(self) -> float:
        """The value of an item without this evidence."""
        return float(np.log(self.eps))

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:  # noqa: ARG002
        counts, newest = lately(queries, model, self.half_life)
        decay = np.exp2(np.maximum(queries.now - newest, 0) * (-1 / HALF_LIVES_MS[self.half_life])).astype(np.float32)
        column: F32 = np.log(counts[rows] * decay[owner] + np.float32(self.eps))
        return column
