"""What the sequence model would say of an item that it does not know, by its content."""

from __future__ import annotations

from dataclasses import dataclass

from numba import njit

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, directions
from pipeline.types import F32, Mask, Owner, Rows


@dataclass(frozen=True, slots=True)
class Foretold:
    """z_j = [h, 1] . M' [x_j, 1] over the bridge, for items that were never taken; 0 for the others, which have a logit
    of their own, and where nothing is known of the content."""

    name: str = "foretold"
    columns: tuple[str, ...] = ("foretold",)
    eps: float = 0.0
    floors: tuple[float, ...] = (0.0,)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:
        out[:] = 0
        if model.bridge.built:
            wanted = catalog.described & ~model.sequence.known
            _foretell(directions(queries, model), catalog.content, wanted, candidates.owner, candidates.rows, out[0])


@njit(cache=True, fastmath={"reassoc", "contract"})
def _foretell(directions: F32, content: F32, wanted: Mask, owner: Owner, rows: Rows, out: F32) -> None:
    """`directions` (q, d+1), `wanted` (capacity,)."""
    for at in range(len(rows)):
        if wanted[rows[at]]:
            mine, other = directions[owner[at]], content[rows[at]]
            z = mine[len(other)]
            for i in range(len(other)):
                z += mine[i] * other[i]
            out[at] = z
