"""From what an item says to one content vector: transform (encoders), compress (projection), weigh, normalise.

    x = unit(sum_b weight_b P unit(f_b)),   f_b the features of encoder b, by rarity where it says so

P is a sparse random projection (Johnson-Lindenstrauss; Kane & Nelson 2014): a key adds to one seeded place of each of
SPARSITY equal parts of the vector, with a seeded sign. It is never stored: any key has its column. x_i . x_j is about
the weighted mean of the blocks' cosines, with an error of about 1/sqrt(dimension).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit

from pipeline.content.corpus import Corpus
from pipeline.content.item import Content, Features
from pipeline.model.sequence import draw, mix
from pipeline.types import CONTENT, F32, U64, hash_of

SPARSITY = 8  # places that a key adds to


class Encoder(Protocol):
    """Makes features of one side of an item. A part: it knows no other part, and does not learn."""

    @property
    def name(self) -> str:
        """Of its block; two encoders of one name would share keys."""

    @property
    def rare(self) -> bool:
        """Are its features weighted by how rare they are in the catalogue?"""

    def __call__(self, content: Content, corpus: Corpus) -> Features:
        """Distinct keys, finite values; none where the item says nothing of it."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """Which encoders, each with the weight of its block, and how large a vector they are compressed to."""

    encoders: tuple[tuple[Encoder, float], ...]
    dimension: int = CONTENT
    seed: int = 1

    def __post_init__(self) -> None:
        if self.dimension < SPARSITY or self.dimension % SPARSITY:
            raise ValueError(f"encoding: expected a dimension that {SPARSITY} divides, found {self.dimension}")

    @property
    def code(self) -> int:
        """Tells encodings apart: vectors of two encodings are never compared."""
        return hash_of(repr(self))

    def observe(self, content: Content, corpus: Corpus) -> None:
        """Count the item in `corpus`, once; before anything like it is encoded."""
        if corpus.meet(content):
            for encoder, _ in self.encoders:
                if encoder.rare:
                    corpus.count(encoder(content, corpus))

    def __call__(self, content: Content, corpus: Corpus) -> F32:
        """(dimension,) the content vector, of length 1; zeros for an item that says nothing."""
        out = np.zeros(self.dimension, np.float32)
        for encoder, weight in self.encoders:
            features = encoder(content, corpus)
            values = features.values * corpus.rarity(features.keys) if encoder.rare else features.values
            length = np.sqrt(np.square(values, dtype=np.float64).sum())
            if 0 < length < np.inf:
                scaled = (values * (weight / length)).astype(np.float32)
                project(features.keys, scaled, np.uint64(self.seed), out)
        return unit(out)

    def all(self, contents: Sequence[Content], corpus: Corpus) -> F32:
        """(n, dimension) the vectors of n items, all of them counted first."""
        for content in contents:
            self.observe(content, corpus)
        return np.array([self(content, corpus) for content in contents], np.float32).reshape(-1, self.dimension)


def unit(vector: F32) -> F32:
    """At length 1; zeros stay zeros, and what is not finite becomes zeros."""
    length = np.sqrt(np.square(vector, dtype=np.float64).sum())
    if not 1e-20 < length < np.inf:
        return np.zeros_like(vector)
    scaled: F32 = (vector / length).astype(np.float32)
    return scaled


@njit(cache=True)
def project(keys: U64, values: F32, seed: np.uint64, out: F32) -> None:
    """Add the projection of a sparse vector to `out`; a single key keeps its length."""
    width = len(out) // SPARSITY
    scale = np.float32(1 / np.sqrt(SPARSITY))
    for at in range(len(keys)):
        value, generator = values[at] * scale, mix(keys[at] + seed)
        for part in range(SPARSITY):
            bits = draw(generator, part)
            place = part * width + np.int64((bits >> np.uint64(1)) % np.uint64(width))
            out[place] += value if bits & np.uint64(1) else -value
