"""Where an item stands in the lists of the sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.candidates import Candidates, ranks
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.selection import LIMIT
from pipeline.types import F32

_VALUES = -np.log1p(np.minimum(np.where(np.arange(1 << 15) > 0, np.arange(1 << 15), LIMIT), LIMIT)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Ranks:
    """-log(1 + min(rank, 200)) in the lists of each of `sources`, the best of a name; not proposed is like rank 200."""

    sources: tuple[str, ...]
    name: str = "ranks"
    eps: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"rank_{source}" for source in self.sources)

    @property
    def floors(self) -> tuple[float, ...]:
        return (float(_VALUES[0]),) * len(self.sources)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        trail = candidates.trail
        some = [at for at, name in enumerate(trail.sources) if name in self.sources]
        lists, names = [trail.proposals[at] for at in some], [trail.sources[at] for at in some]
        once, found = ranks(lists, names, candidates.rows, candidates.owner, len(queries), len(catalog))
        out[:] = _VALUES[0]
        for at, name in enumerate(once):
            np.take(_VALUES, found[:, at], out=out[self.sources.index(name)], mode="clip")
