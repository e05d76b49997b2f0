"""The sequence model's opinion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, logits
from pipeline.types import F32, Owner, Rows


@dataclass(frozen=True, slots=True)
class Sequence:
    """z_j = h . e_out[j] + b_j; all of it is 0 for an item that the model does not know."""

    name: str = "sequence"
    columns: tuple[str, ...] = ("sequence",)
    eps: float = 0.0
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        _pick(logits(queries, model), candidates.owner, candidates.rows, out[0])


@njit(cache=True)
def _pick(scores: F32, owner: Owner, rows: Rows, out: F32) -> None:
    for at in range(len(rows)):
        score = scores[owner[at], rows[at]]
        out[at] = score if np.isfinite(score) else np.float32(0)
