"""Where an item stands in the lists of a source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.candidates import Candidates, ranks
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.selection import LIMIT
from pipeline.types import F32, I16

_VALUES = -np.log1p(np.minimum(np.where(np.arange(1 << 15) > 0, np.arange(1 << 15), LIMIT), LIMIT)).astype(np.float32)
_NOWHERE = float(_VALUES[0])


@dataclass(frozen=True, slots=True)
class Rank:
    """-log(1 + min(rank, 200)), the best rank in the lists of `source`; what it does not propose is like rank 200.

    In a feed's `parts` it is told with `name`, what the source and the features of its kind are called together.
    """

    source: str
    name: str
    eps: float = 0.0
    floors: tuple[float, ...] = (_NOWHERE,)

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"rank_{self.source}",)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        names, places = _places(queries, catalog, candidates)
        if self.source in names:
            np.take(_VALUES, places[:, names.index(self.source)], out=out[0], mode="clip")
        else:
            out[0] = _NOWHERE


def _places(queries: Queries, catalog: Catalog, candidates: Candidates) -> tuple[tuple[str, ...], I16]:
    """The best rank of each candidate by each name of a source; once for the same candidates, whatever source asks."""

    def compute() -> tuple[tuple[str, ...], I16, Candidates]:
        trail, rows, owner = candidates.trail, candidates.rows, candidates.owner
        return *ranks(trail.lists, trail.sources, rows, owner, len(catalog)), candidates

    names, places, _ = queries.once(("places", id(candidates)), compute)  # the memo holds them: the id stays theirs
    return names, places
