"""What the sequence model expects next."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, logits, proposable
from pipeline.selection import LIMIT, Proposals, best


@dataclass(frozen=True, slots=True)
class Sequence:
    """The rows of greatest logit z = h . e_out + b, exactly: one matrix product a chunk."""

    name: str = "sequence"
    limit: int = LIMIT

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        known = model.sequence.known[: len(catalog)]
        return best(logits(queries, model), proposable(queries, catalog) & known, self.limit)
