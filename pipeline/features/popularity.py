"""How often an item was ever taken."""

from __future__ import annotations

from dataclasses import dataclass

from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, F64, Rows


@dataclass(frozen=True, slots=True)
class Popularity:
    """n_j, the all-time weight; its logarithm is ranked by."""

    name: str = "popularity"
    columns: tuple[str, ...] = ("popularity",)
    eps: float = 0.5
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        _pick(model.trends.count, candidates.rows, out[0])


@njit(cache=True)
def _pick(count: F64, rows: Rows, out: F32) -> None:
    for at in range(len(rows)):
        out[at] = count[rows[at]]
