"""Co-visitation with the last few items, in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, evidence_of
from pipeline.types import F32, Owner, Rows


@dataclass(frozen=True, slots=True)
class Forward:
    """log(eps + forward_j), forward_j = sum_{d<=5} .6^(d-1) F[i_d, j] / sqrt(n_{i_d})."""

    name: str = "forward"
    eps: float = 1e-4

    @property
    def floor(self) -> float:
        """The value of an item without this evidence."""
        return float(np.log(self.eps))

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:  # noqa: ARG002
        forward = evidence_of(queries, model, rows, owner)[2]
        column: F32 = np.log(forward + np.float32(self.eps))
        return column
