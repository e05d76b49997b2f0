"""How often an item was taken lately."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import HALF_LIVES_MS, LADDER
from pipeline.queries import Queries, lately
from pipeline.types import F32, Owner, Rows

_RATES = -1 / np.array(HALF_LIVES_MS)[:, None]


@dataclass(frozen=True, slots=True)
class Trend:
    """x_j: the count decayed on each half-life of the ladder, as of the owner's now; its logarithm is ranked by.

    Counts are as `lately` has them: a moment old where queries share what is the same for everyone.
    """

    name: str = "trend"
    columns: tuple[str, ...] = tuple(f"trend_{at}" for at in range(LADDER))
    eps: float = 1e-3
    floors: tuple[float, ...] = (0.0,) * LADDER

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        tables, newest = zip(*(lately(queries, model, at) for at in range(LADDER)), strict=True)
        age = np.maximum(queries.now - np.array(newest)[:, None], 0)  # (H, q)
        _decay(tables, np.exp2(age * _RATES).astype(np.float32), candidates.owner, candidates.rows, out)


@njit(cache=True)
def _decay(tables: tuple[F32, ...], decay: F32, owner: Owner, rows: Rows, out: F32) -> None:
    for h in range(len(tables)):
        table = tables[h]
        for at in range(len(rows)):
            out[h, at] = table[rows[at]] * decay[h, owner[at]]
