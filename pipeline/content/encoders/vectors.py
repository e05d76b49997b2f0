"""Vectors that come with the item: of its image, its sound, or what a language model made of its text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.content.corpus import Corpus, key_of
from pipeline.content.item import NOTHING, Content, Features
from pipeline.types import F32, U64


@dataclass(frozen=True, slots=True)
class Vectors:
    """Each given vector at length 1, a feature a component. Vectors of different names or models are never compared."""

    name: str = "vectors"
    rare: bool = False

    def __call__(self, content: Content, corpus: Corpus) -> Features:  # noqa: ARG002
        """The components of all given vectors."""
        keys: list[U64] = []
        values: list[F32] = []
        for name, given in content.vectors.items():
            length = np.sqrt(np.square(given.values, dtype=np.float64).sum())
            if 0 < length < np.inf:
                first = np.uint64(key_of(self.name, name, given.model))
                keys.append(first + np.arange(len(given.values), dtype=np.uint64))
                values.append((given.values / length).astype(np.float32))
        return Features.of(np.concatenate(keys), np.concatenate(values)) if keys else NOTHING
