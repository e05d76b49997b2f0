"""How long nobody has taken an item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, I64, Owner, Rows

NEVER_S = 10 * 365 * 86_400  # what was never taken counts as taken so long ago


@dataclass(frozen=True, slots=True)
class Recency:
    """Seconds since the item was last taken by anyone, at least 0; log(1 + s) is ranked by: greater is colder."""

    name: str = "recency"
    columns: tuple[str, ...] = ("since_last_seen",)
    eps: float = 1.0
    floors: tuple[float, ...] = (float(NEVER_S),)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        _since(model.trends.last_seen, queries.now, candidates.owner, candidates.rows, out[0])


@njit(cache=True)
def _since(last_seen: I64, now: I64, owner: Owner, rows: Rows, out: F32) -> None:
    for at in range(len(rows)):
        seen = last_seen[rows[at]]
        since = np.float32(max(now[owner[at]] - seen, 0)) * np.float32(1e-3)
        out[at] = min(since, np.float32(NEVER_S)) if seen > 0 else np.float32(NEVER_S)
