"""What others took right after the user's last item."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, evidence_of
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Last:
    """F1[i_1, j] / sum_j F1[i_1, j], a share in 0..1; its logarithm is ranked by."""

    name: str = "last"
    columns: tuple[str, ...] = ("last",)
    eps: float = 1e-3
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        out[0] = evidence_of(queries, model, candidates.rows, candidates.owner)[3]
