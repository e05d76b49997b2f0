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
        for at, half_life in enumerate(HALF_LIVES_MS):
            counts, newest = lately(queries, model, at)
            decay = np.exp2(np.maximum(queries.now - newest, 0) * (-1 / half_life)).astype(np.float32)
            _decay(counts, decay, candidates.owner, candidates.rows, out[at])


@njit(cache=True)
def _decay(counts: F32, decay: F32, owner: Owner, rows: Rows, out: F32) -> None:
    for at in range(len(rows)):
        out[at] = counts[rows[at]] * decay[owner[at]]
