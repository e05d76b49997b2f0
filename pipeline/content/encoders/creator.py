"""Who made it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.content.corpus import Corpus, key_of
from pipeline.content.item import NOTHING, Content, Features


@dataclass(frozen=True, slots=True)
class Creator:
    """A hashed indicator of the creator."""

    name: str = "creator"
    rare: bool = False  # there is one, so its weight against the others of its block says nothing

    def __call__(self, content: Content, corpus: Corpus) -> Features:  # noqa: ARG002
        """One feature of value 1."""
        if not content.creator_id:
            return NOTHING
        return Features(np.array([key_of(self.name, content.creator_id)], np.uint64), np.ones(1, np.float32))
