"""How often an item was taken lately."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import HALF_LIVES_MS, LADDER
from pipeline.queries import Queries
from pipeline.types import F32, I64, Owner, Rows

_RATES = (-1 / np.array(HALF_LIVES_MS)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Trend:
    """x_j: the count decayed on each half-life of the ladder, as of the owner's now; its logarithm is ranked by."""

    name: str = "trend"
    columns: tuple[str, ...] = tuple(f"trend_{at}" for at in range(LADDER))
    eps: float = 1e-3
    floors: tuple[float, ...] = (0.0,) * LADDER

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        trends = model.trends
        _decay(trends.decayed, trends.reference, queries.now, candidates.owner, candidates.rows, _RATES, out)


@njit(cache=True)
def _decay(decayed: F32, reference: I64, now: I64, owner: Owner, rows: Rows, rates: F32, out: F32) -> None:
    for at in range(len(rows)):
        row = rows[at]
        age = np.float32(max(now[owner[at]] - reference[row], 0))
        for h in range(len(rates)):
            out[h, at] = decayed[row, h] * np.exp2(age * rates[h])
