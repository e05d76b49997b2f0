"""Price, time of publishing and other numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.content.corpus import Corpus, key_of
from pipeline.content.item import Content, Features


@dataclass(frozen=True, slots=True)
class Numbers:
    """Quantile coding: where the number lies among those of its name, split over the two nearest of a row of knots.

    Two rows, a coarse and a fine one: numbers that are near share both, others at least are in the same region. What a
    number means, and its unit, does not matter, only its place.
    """

    name: str = "numbers"
    knots: tuple[int, ...] = (4, 12)
    rare: bool = False

    def __call__(self, content: Content, corpus: Corpus) -> Features:
        """Two features a row and number."""
        keys, values = [], []
        for name, number in content.numbers().items():
            share = corpus.quantile(name, number)
            for knots in self.knots:
                place = share * (knots - 1)
                low = min(int(place), knots - 2)
                keys += [key_of(self.name, name, f"{knots}:{low + after}") for after in (0, 1)]
                values += [1 - (place - low), place - low]
        return Features.of(np.array(keys, np.uint64), np.array(values, np.float32))
