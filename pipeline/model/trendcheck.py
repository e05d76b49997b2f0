"""The trend check: does the ranked list beat plain trending? Where it does not, plain trending is mixed in.

For each event whose item was among the candidates, the gains (1 / log2(1 + rank) up to rank 10, else 0) of the ranked
list and of plain trending on each half-life are noted by bucket of histories, decayed an event. The lead of trending is
the sum of gain differences; its noise the root of the sum of their squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.model.trends import LADDER
from pipeline.types import F32, F64, I64

BUCKETS = 6  # of histories: see pipeline.context
MEMORY = 2000.0  # events of a bucket that are remembered, about
CERTAIN = 3.0  # lead over noise at which plain trending takes the list over
LIKELY = 1.0  # lead over noise at which it begins to be mixed in
CUT = 10
FIGURES = ("ranked", "trending", "share")
_LEAST = 16.0  # squares of differences below which nothing is certain


class TrendCheck:
    """Gains and the squares of their differences, by bucket."""

    def __init__(self) -> None:
        self.events: F64 = np.zeros(BUCKETS)  # decayed, as the others
        self.ranked: F64 = np.zeros(BUCKETS)  # gains of the ranked list
        self.trending: F64 = np.zeros((BUCKETS, LADDER))  # of plain trending
        self.squares: F64 = np.zeros((BUCKETS, LADDER))  # of their differences
        self.share: F32 = np.zeros(BUCKETS, np.float32)  # of plain trending, to be mixed in: 0..1
        self.best: I64 = np.zeros(BUCKETS, np.int64)  # the half-life that leads, as a place on the ladder

    @property
    def mixes(self) -> bool:
        """Is plain trending mixed in for any bucket?"""
        return bool(self.share.any())

    def note(self, bucket: int, places: F32) -> None:
        """An event's item stood at these ranks (1 + H,; from 1, halves at ties): in the ranked list before any mixing,
        then in plain trending on each half-life."""
        _note(bucket, places, self.events, self.ranked, self.trending, self.squares)
        _weigh(self.ranked, self.trending, self.squares, self.share, self.best)

    def figures(self) -> dict[str, list[float]]:
        """By bucket, for metrics: mean gains of the ranked list and of the best plain trending, the share mixed in."""
        events = np.maximum(self.events, 1e-9)
        trending = self.trending[np.arange(BUCKETS), self.best]
        lines = (self.ranked / events, trending / events, self.share.astype(np.float64))
        return {name: line.round(4).tolist() for name, line in zip(FIGURES, lines, strict=True)}

    def export(self) -> dict[str, NDArray[Any]]:
        """Copies of all counters, by name."""
        return {
            "check_events": self.events.copy(), "check_ranked": self.ranked.copy(),
            "check_trending": self.trending.copy(), "check_squares": self.squares.copy(),
        }  # fmt: skip

    def put(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `export` gave."""
        self.events, self.ranked = arrays["check_events"].copy(), arrays["check_ranked"].copy()
        self.trending, self.squares = arrays["check_trending"].copy(), arrays["check_squares"].copy()
        _weigh(self.ranked, self.trending, self.squares, self.share, self.best)


@njit(cache=True)
def _gain(place: float) -> float:
    return 1 / np.log2(1 + place) if 1 <= place <= CUT else 0.0


@njit(cache=True)
def _note(bucket: int, places: F32, events: F64, ranked: F64, trending: F64, squares: F64) -> None:
    keep = 1 - 1 / MEMORY
    mine = _gain(places[0])
    events[bucket] = keep * events[bucket] + 1
    ranked[bucket] = keep * ranked[bucket] + mine
    for h in range(trending.shape[1]):
        gain = _gain(places[1 + h])
        trending[bucket, h] = keep * trending[bucket, h] + gain
        squares[bucket, h] = keep * squares[bucket, h] + (gain - mine) ** 2


@njit(cache=True)
def _weigh(ranked: F64, trending: F64, squares: F64, share: F32, best: I64) -> None:
    for bucket in range(len(ranked)):
        most = -np.inf
        for h in range(trending.shape[1]):
            surely = (trending[bucket, h] - ranked[bucket]) / np.sqrt(max(squares[bucket, h], _LEAST))
            if surely > most:
                most, best[bucket] = surely, h
        share[bucket] = min(max((most - LIKELY) / (CERTAIN - LIKELY), 0.0), 1.0)
