"""Co-visitation with the whole history."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, evidence_of
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Covisitation:
    """cov_j = sum_d .9^(d-1) S[i_d, j] / sqrt(n_{i_d}); its logarithm is ranked by."""

    name: str = "covisitation"
    columns: tuple[str, ...] = ("covisitation",)
    eps: float = 1e-3
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        out[0] = evidence_of(queries, model, candidates.rows, candidates.owner)[0]
