"""No creator twice in a row."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.selection import spread
from pipeline.types import I64, Owner, Rows


@dataclass(frozen=True, slots=True)
class SpreadCreators:
    """Of `window` neighbours no two have one creator, as long as another creator's item is left.

    Each of an owner's first `depth` places goes to the best item left whose creator is not among the last window - 1
    places, else to the best item left. Items without a creator fit everywhere. Behind `depth` the order stays.
    """

    name: str = "spread_creators"
    window: int = 3
    depth: int = 30

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> I64:  # noqa: ARG002
        return spread(catalog.creator[rows], owner, self.window, 1, self.depth)
