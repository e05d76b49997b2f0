"""What all items say together: how rare each feature is, and where a number lies among the numbers of its name.

Both are rebuilt from `catalog` at start and then kept up online. An item counts once, whatever becomes of it: so the
same items in any order give the same corpus, and nobody has to remember what an item said before.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from pipeline.content.item import Content, Features
from pipeline.model.sequence import mix
from pipeline.types import F32, U64, hash_id

SLOTS = 1 << 18  # counters of features; two that share one count as more frequent than they are
SAMPLE = 1024  # numbers kept of a name
NAMES = 256  # names of numbers; further ones lie in the middle

_MASK = np.uint64(SLOTS - 1)


class Corpus:
    """Document frequencies of features and samples of numbers. About 1 MB, and 60 bytes an item to know it again."""

    def __init__(self) -> None:
        self.items = 0
        self._frequency = np.zeros(SLOTS, np.uint32)
        self._met: set[int] = set()
        self._samples: dict[str, _Sample] = {}

    def meet(self, content: Content) -> bool:
        """Take the item's numbers in; False for an item that was met before: then its features count no more either."""
        if content.hash in self._met:
            return False
        self._met.add(content.hash)
        self.items += 1
        for name, number in content.numbers().items():
            if name in self._samples or len(self._samples) < NAMES:
                self._samples.setdefault(name, _Sample()).add(content.hash, number)
        return True

    def count(self, features: Features) -> None:
        """One more item has these features."""
        self._frequency[np.unique(features.keys & _MASK)] += 1

    def rarity(self, keys: U64) -> F32:
        """(m,) inverse document frequency, smoothed: log((1 + items) / (1 + those with the key)) + 1, at least 1."""
        frequency = self._frequency[keys & _MASK]
        rarity: F32 = (np.log((1.0 + self.items) / (1.0 + frequency)) + 1.0).astype(np.float32)
        return np.maximum(rarity, np.float32(1))

    def quantile(self, name: str, number: float) -> float:
        """Which share of the sample of `name` lies below `number`, ties by half; .5 where nothing is known."""
        sample = self._samples.get(name)
        return 0.5 if sample is None else sample.quantile(number)


class _Sample:
    """The numbers of the SAMPLE items whose hashes mix to the smallest values: uniform, and the same in any order."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, float]] = []  # (mixed hash, number), ascending
        self._sorted: list[float] = []

    def add(self, item: int, number: float) -> None:
        order = int(mix(np.uint64(item)))
        if len(self._kept) == SAMPLE:
            if order >= self._kept[-1][0]:
                return
            _, gone = self._kept.pop()
            del self._sorted[bisect_left(self._sorted, gone)]
        insort(self._kept, (order, number))
        insort(self._sorted, number)

    def quantile(self, number: float) -> float:
        below = bisect_left(self._sorted, number)
        same = bisect_left(self._sorted, np.nextafter(number, np.inf)) - below
        return (below + same / 2) / len(self._sorted)


def key_of(*names: str) -> int:
    """The key of a named feature."""
    return hash_id("\0".join(names))
