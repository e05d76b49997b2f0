"""What became of the queries of a run: a column a fact, and how the columns grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from pipeline.types import F64, I16, I64, Mask


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of q queries, in order, and of the items."""

    event: I64  # (q,) place in the stream
    user: I64  # (q,)
    history: I64  # (q,) positive events of the user before it
    age: I64  # (q,) ms since the chosen item was first seen; -1 = never
    repeat: Mask  # (q,) the user had chosen the item before
    candidates: I64  # (q,) how many were ranked
    rank: F64  # (q,) of the chosen item after filters and guards; inf = a miss
    arranged: F64  # (q,) as the arrangers placed it
    baselines: F64  # (q, b) by each of baselines.NAMES; b = 0 without them
    sources: tuple[str, ...]  # s names
    proposed: I16  # (q, s) the best rank each source gave the chosen item, 0 = none
    shown: I64  # (n,) how often each item that is present in the end stood among the first ten
    events: int  # of the stream
    learned: int  # of them
    reset: int  # rows of the model that were not finite
    query_s: float
    learn_s: float


_COLUMNS: dict[str, DTypeLike] = {
    "event": np.int64, "user": np.int64, "history": np.int64, "age": np.int64, "repeat": np.bool_,
    "candidates": np.int64, "rank": np.float64, "arranged": np.float64, "baselines": np.float64, "proposed": np.int16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notes:
    """The columns of Outcomes, a query at a time."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})

    def add(self, **facts: Any) -> None:
        """What became of one query: a value for each column."""
        for name, column in self.columns.items():
            column.append(facts[name])

    def done(self, sources: tuple[str, ...], baselines: int, **totals: Any) -> Outcomes:
        """All of it. `baselines` is their number; `totals` are the fields of Outcomes that are no columns."""
        found: dict[str, Any] = {name: np.array(column, _COLUMNS[name]) for name, column in self.columns.items()}
        n = len(found["event"])
        found["baselines"] = found["baselines"].reshape(n, baselines)
        found["proposed"] = found["proposed"].reshape(n, len(sources))
        return Outcomes(**found, sources=sources, **totals)
