"""The bridge from content to embedding space: where the vector of an item that nobody has taken yet should begin.

    [e_out, b] = M' [x, 1]        x the content vector (d,), M (d+1, k+1)

M is a ridge regression (Hoerl & Kennard 1970) over the items that have been taken often enough, with a memory: at each
step ROWS of them, in turn, are met as they stand now, and what was met before fades. So it follows vectors that go on
moving, and nothing has to be remembered of an item.

    A <- FADE A + sum x x',   B <- FADE B + sum x y',   M = (A + RIDGE I)^-1 B
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.sequence import LIMIT, Sequence
from pipeline.types import CONTENT, F32, F64, I64, Mask, Rows

ENOUGH = 5.0  # weight of events from which on an item's own vector is worth learning from
EVERY = 256  # events between two steps
ROWS = 128  # items met at a step
FADE = 0.98  # a memory of some 6,000 items met
RIDGE = 3.0
SETTLED = 512  # items met before anything is predicted


class Bridge:
    """The map, as the trainer publishes it and everyone follows it; zeros until enough is known."""

    def __init__(self, dimension: int, content: int = CONTENT) -> None:
        self._map: F32 = np.zeros((content + 1, dimension + 1), np.float32)

    @property
    def built(self) -> bool:
        """Is there anything to predict with?"""
        return bool(self._map.any())

    def vectors(self, content: F32) -> F32:
        """(n, k+1) predicted e_out and b of items by their content vectors (n, d)."""
        predicted: F32 = content @ self._map[:-1] + self._map[-1]
        return predicted

    def export_parameters(self) -> dict[str, NDArray[Any]]:
        """A copy of the map."""
        return {"map": self._map.copy()}

    def put_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `export_parameters` gave."""
        self._map = arrays["map"].astype(np.float32)


class Builder:
    """Learns the bridge, at fixed numbers of events: however lessons are sliced, it is the same."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._events = 0
        self._met = 0  # items, all times together
        self._turn = 0  # the row at which the next step begins
        width, height = bridge.export_parameters()["map"].shape
        self._xx: F64 = np.zeros((width, width))
        self._xy: F64 = np.zeros((width, height))

    def left(self) -> int:
        """How many events may be learned before the next step is due; at least 1."""
        return EVERY - self._events % EVERY

    def learned(self, events: int, content: F32, described: Mask, sequence: Sequence, count: F64) -> None:
        """So many events, at most `left()`, were learned.

        By row: `content` (capacity, d) of items that are `described` (capacity,), `count` (capacity,) weight of events.
        """
        self._events += events
        if self._events % EVERY:
            return
        rows = self._in_turn(np.flatnonzero(described & sequence.known & (count >= ENOUGH)))
        if len(rows):
            self._meet(content[rows], np.column_stack((sequence.e_out[rows], sequence.bias[rows])))

    def _in_turn(self, rows: Rows) -> Rows:
        """At most ROWS of `rows` (ascending), from where the last call ended."""
        if len(rows) <= ROWS:
            return rows
        begin = int(np.searchsorted(rows, self._turn))
        chosen: I64 = rows[(begin + np.arange(ROWS)) % len(rows)]
        self._turn = int(chosen[-1]) + 1
        return chosen

    def _meet(self, content: F32, vectors: F32) -> None:
        """Learn from items as they stand: content (n, d), e_out and b (n, k+1)."""
        whole = np.abs(vectors).max(axis=1) <= LIMIT  # NaN is not
        x = np.column_stack((content[whole], np.ones(int(whole.sum())))).astype(np.float64)
        self._xx = FADE * self._xx + x.T @ x
        self._xy = FADE * self._xy + x.T @ vectors[whole].astype(np.float64)
        self._met += len(x)
        if self._met >= SETTLED:
            found = np.linalg.solve(self._xx + RIDGE * np.eye(len(self._xx)), self._xy).astype(np.float32)
            if (np.abs(found) <= LIMIT).all():
                self._bridge.put_parameters({"map": found})
