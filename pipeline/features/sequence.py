"""The sequence model's opinion."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries, logits
from pipeline.types import F32, Owner, Rows


@dataclass(frozen=True, slots=True)
class Sequence:
    """z_j = h . e_out[j] + b_j; all of it is 0 for an item that the model does not know."""

    name: str = "sequence"

    @property
    def floor(self) -> float:
        """The value of an item without this evidence."""
        return 0.0

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:  # noqa: ARG002
        scores = logits(queries, model)
        column: F32 = scores.reshape(-1)[owner * scores.shape[1] + rows]
        return column
