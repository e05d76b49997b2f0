"""How near an item's content is to what the user took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog
from pipeline.content.profile import affinities
from pipeline.model import Model
from pipeline.queries import Queries, profile
from pipeline.types import F32


@dataclass(frozen=True, slots=True)
class Content:
    """Products of content vectors: with the owner's profile, x min(1, history/3), and with their last item.

    A profile of one or two items says little more than its items do.
    """

    name: str = "content"
    columns: tuple[str, ...] = ("content_profile", "content_last")
    eps: float = 0.0
    floors: tuple[float, ...] = (0.0, 0.0)
    full: int = 3  # positive events from which on a profile counts whole

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:  # noqa: ARG002
        owner, rows = candidates.owner, candidates.rows
        affinities(profile(queries, catalog), queries.ring_rows, catalog.content, owner, rows, out)
        out[0] *= np.minimum(queries.history / self.full, 1).astype(np.float32)[owner]
