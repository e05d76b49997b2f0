"""Co-visitation with the whole history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, evidence_of
from pipeline.types import F32, Owner, Rows


@dataclass(frozen=True, slots=True)
class Covisitation:
    """log(eps + cov_j), cov_j = sum_d .9^(d-1) S[i_d, j] / sqrt(n_{i_d})."""

    name: str = "covisitation"
    eps: float = 1e-3

    @property
    def floor(self) -> float:
        """The value of an item without this evidence."""
        return float(np.log(self.eps))

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:  # noqa: ARG002
        cov = evidence_of(queries, model, rows, owner)[0]
        column: F32 = np.log(cov + np.float32(self.eps))
        return column
