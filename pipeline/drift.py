"""Drift: is what is served as good as it used to be, and better than plain trending?

Gains come event by event: 1 / log2(1 + rank) up to rank 10, else 0 (NDCG@10 of one chosen item). Events are taken
together in blocks of BLOCK events that last BLOCK_MS, or more: the gains of one user and of one hour are alike, and
means of blocks carry that into the noise (batch means, Schmeiser 1982); and a busy hour is not "for long". Two
exponentially decayed means run over the blocks, `lately` and `past`. With their weights a_b and b_b of the blocks, each
adding up to 1, and the variance s^2 of a block's mean

    noise of (x lately + y past) = s sqrt(sum_b (x a_b + y b_b)^2)

An alarm is raised when a figure is worse than it may be, by more than CERTAIN times its noise, for PATIENCE blocks in a
row; it ends when it was not by more than LIKELY times, for as many. So the first takes 2,048 events and 160 minutes at
least, each turn 512 events and 40 minutes. A fall that lasts becomes the past, and its alarm ends: so they are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np

from pipeline.model.trendcheck import CERTAIN, LIKELY, MEMORY
from pipeline.model.trends import HALF_LIVES_MS, LADDER
from pipeline.types import F64

CUT = 10
BLOCK = 64  # events
BLOCK_MS = 5 * 60_000
LATELY = MEMORY / BLOCK  # blocks that `lately` remembers, about: as many events as the trend check
PAST = 20 * LATELY  # blocks that `past` remembers, about
LEAST = 32  # blocks before anything is said to be worse
PATIENCE = 8  # blocks
WORTH = 0.1  # of the past: a smaller fall is no alarm, however certain
ALARMS = ("falling", "below_trending")

_KEEP = np.array((1 - 1 / LATELY, 1 - 1 / PAST))
NEW, OLD = 0, 1  # the memories: lately and past
_RECALL, _GAIN = 0, 1
_SHARES = ("recall@10", "ndcg@10", "alone")  # of a source


def gain(place: float) -> float:
    """1 / log2(1 + place) from place 1 to 10; else 0, for what is no number too."""
    return 1 / log2(1 + place) if 1 <= place <= CUT else 0.0


class Means:
    """Decayed means of f figures that come together, over both memories, and their noise."""

    def __init__(self, figures: int) -> None:
        self.events = 0
        self.blocks = 0
        self._open = np.zeros(figures)  # sums of the block that is not full
        self._n = 0  # its events
        self._since = 0  # when it began, ms
        self._weights = np.zeros(2)  # sums of the blocks' weights, lately and past
        self._products = np.zeros((2, 2))  # sums of their products
        self._sums: F64 = np.zeros((2, figures))  # of the blocks' means, weighted
        self._squares = np.zeros(figures)  # of the past

    def note(self, values: Sequence[float], now: int) -> int:
        """One event's figures (f,) at `now` (ms). Returns the events of the block if they closed it, else 0."""
        if not self._n or now < self._since:
            self._since = now
        self.events += 1
        self._n += 1
        self._open += values
        if self._n < BLOCK or now - self._since < BLOCK_MS:
            return 0
        return self._close()

    def _close(self) -> int:
        n, mean = self._n, self._open / self._n
        self._weights = self._weights * _KEEP + 1
        self._products = self._products * _KEEP[:, None] * _KEEP + 1
        self._sums = self._sums * _KEEP[:, None] + mean
        self._squares = self._squares * _KEEP[1] + mean * mean
        self._open, self._n = np.zeros_like(self._open), 0
        self.blocks += 1
        return n

    def mean(self, memory: int, full: F64, rest: F64) -> F64:
        """Of figures that are kept elsewhere: `full` is the decayed sum of their blocks' means, `rest` their sum in the
        open block, which counts as the part of a block that it is."""
        part = min(self._n / BLOCK, 1.0)
        mean: F64 = (full + rest * (part / max(self._n, 1))) / max(self._weights[memory] + part, 1 / BLOCK)
        return mean

    def means(self) -> F64:
        """(2, f) lately and past; 0 before the first event."""
        return np.array([self.mean(memory, self._sums[memory], self._open) for memory in (NEW, OLD)])

    def noise(self, lately: float, past: float) -> F64:
        """(f,) standard error of lately * means[0] + past * means[1] as of the last full block; 0 below two."""
        if self.blocks < 2:
            return np.zeros(len(self._squares))
        share = np.array((lately, past)) / self._weights
        weight, squared = self._weights[1], self._products[1, 1]
        mean = self._sums[1] / weight
        variance = np.maximum(self._squares / weight - mean * mean, 0) / (1 - squared / weight**2)
        noise: F64 = np.sqrt(variance * max(float(share @ self._products @ share), 0.0))
        return noise


@dataclass(slots=True)
class Alarm:
    """On after PATIENCE looks in a row at something surely worse; off after as many at something that is not."""

    on: bool = False
    raised: int = 0  # how often
    _run: int = 0  # looks in a row that speak for a change

    def look(self, surely: float) -> bool:
        """`surely`: how much worse it is than it may be, over its noise. True when the alarm changed."""
        self._run = self._run + 1 if (surely <= LIKELY if self.on else surely >= CERTAIN) else 0
        if self._run < PATIENCE:
            return False
        self.on, self._run = not self.on, 0
        self.raised += self.on
        return True


class Drift:
    """Watches the lists of one worker. Holds no more than a few hundred numbers; nothing of it is durable."""

    def __init__(self) -> None:
        self.alarms = {name: Alarm() for name in ALARMS}
        self._served = Means(2)  # is it a hit, its gain
        self._trends = Means(1 + 2 * LADDER)  # gains of the ranked list, of plain trending, how far that is ahead
        self._sources: dict[str, F64] = {}  # (2, 3) by name: of full blocks, decayed, and of the open one

    def note(self, place: float, sources: Sequence[str], now: int) -> bool:
        """At `now` (ms) a user chose what stood at `place` of the list served before (infinity = nowhere), where
        `sources` had proposed it. True when the alarm "falling" changed."""
        gained = gain(place)
        if gained:
            self._credit(gained, sources)
        n = self._served.note((float(gained > 0), gained), now)
        if not n:
            return False
        for sums in self._sources.values():
            sums[0] = sums[0] * _KEEP[NEW] + sums[1] / n
            sums[1] = 0
        return self._served.blocks >= LEAST and self.alarms["falling"].look(self._fall())

    def compare(self, places: Sequence[float], now: int) -> bool:
        """The same event, where this is known: `places` (1 + H,) in the ranked list before any plain trending was mixed
        in, then in plain trending on each half-life. True when the alarm "below_trending" changed."""
        ranked, *trending = map(gain, places)
        closed = self._trends.note((ranked, *trending, *(theirs - ranked for theirs in trending)), now)
        enough = closed > 0 and self._trends.blocks >= LEAST
        return enough and self.alarms["below_trending"].look(float(self._lead().max()))

    def figures(self) -> dict[str, Any]:
        """All of it by name, for metrics; each mean is of lately, but for those under `past`."""
        lately, past = self._served.means()
        return {
            "events": self._served.events,
            "recall@10": float(lately[_RECALL]),
            "ndcg@10": float(lately[_GAIN]),
            "past": {"recall@10": float(past[_RECALL]), "ndcg@10": float(past[_GAIN])},
            "by_source": self._by_source(),
            "against_trending": self._against_trending(),
            "alarms": {name: {"on": alarm.on, "raised": alarm.raised} for name, alarm in self.alarms.items()},
        }

    def _credit(self, gained: float, sources: Sequence[str]) -> None:
        for name in sources:
            if name not in self._sources:
                self._sources[name] = np.zeros((2, 3))
            self._sources[name][1] += (1, gained, len(sources) == 1)

    def _fall(self) -> float:
        """How far the gain has fallen below what the past allows, over its noise."""
        lately, past = self._served.means()[:, _GAIN]
        allowed = 1 - WORTH
        return _over(allowed * past - lately, self._served.noise(-1, allowed)[_GAIN])

    def _lead(self) -> F64:
        """(H,) how far plain trending is ahead of the ranked list, over its noise."""
        ahead, noise = self._trends.means()[0, 1 + LADDER :], self._trends.noise(1, 0)[1 + LADDER :]
        return np.array([_over(*one) for one in zip(ahead.tolist(), noise.tolist(), strict=True)])

    def _by_source(self) -> dict[str, dict[str, float]]:
        """How often each source stood behind a hit, with what gain, and alone: of all events."""
        means = {name: self._served.mean(NEW, *sums).tolist() for name, sums in sorted(self._sources.items())}
        return {name: dict(zip(_SHARES, found, strict=True)) for name, found in means.items()}

    def _against_trending(self) -> dict[str, float]:
        """NDCG@10 of the ranked list, and of plain trending on the half-life that does best."""
        means = self._trends.means()[0]
        best = int(np.argmax(means[1 : 1 + LADDER]))
        return {
            "events": self._trends.events,
            "ranked": float(means[0]),
            "trending": float(means[1 + best]),
            "half_life_h": HALF_LIVES_MS[best] / 3_600_000,
        }


def _over(amount: float, noise: float) -> float:
    """amount / noise; 0 where there is no noise: then every block was the same."""
    return float(amount / noise) if noise > 0 else 0.0
