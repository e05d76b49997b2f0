"""What people begin with."""

from __future__ import annotations

from dataclasses import dataclass

from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, I64, Owner, Rows


@dataclass(frozen=True, slots=True)
class Entry:
    """How often the item was some user's 1st, 2nd or 3rd positive event, whichever the owner's next one is.

    Past the third, the third. Its logarithm is ranked by.
    """

    name: str = "entry"
    columns: tuple[str, ...] = ("entry",)
    eps: float = 0.3
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        _pick(model.trends.entry, queries.history, candidates.owner, candidates.rows, out[0])


@njit(cache=True)
def _pick(entry: F32, history: I64, owner: Owner, rows: Rows, out: F32) -> None:
    for at in range(len(rows)):
        out[at] = entry[rows[at], min(history[owner[at]], entry.shape[1] - 1)]
