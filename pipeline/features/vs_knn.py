"""What the nearest sessions took around the user's last items."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, neighbours_of
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class VsKnn:
    """vs_j of `pipeline.model.neighbourhood`; its logarithm is ranked by."""

    name: str = "vs_knn"
    columns: tuple[str, ...] = ("vs_knn",)
    eps: float = 1e-3
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        out[0] = neighbours_of(queries, model, candidates.rows, candidates.owner)[0]
