"""How long an item has been around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, I64, Owner, Rows


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds since the item's first event or, before it, since it was published; at least 0.

    0 where neither is known. log(1 + s) is ranked by.
    """

    name: str = "age"
    columns: tuple[str, ...] = ("age",)
    eps: float = 1.0
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:
        born = model.trends.first_seen, catalog.published_at
        _age(*born, queries.now, candidates.owner, candidates.rows, out[0])


@njit(cache=True)
def _age(first_seen: I64, published_at: I64, now: I64, owner: Owner, rows: Rows, out: F32) -> None:
    for at in range(len(rows)):
        born = first_seen[rows[at]]
        if born <= 0:
            born = published_at[rows[at]]
        age = np.float32(max(now[owner[at]] - born, 0)) * np.float32(1e-3)
        out[at] = age if born > 0 else np.float32(0)
