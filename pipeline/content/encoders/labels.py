"""Categories, tags and attributes: what an item is labelled with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.content.corpus import Corpus, key_of
from pipeline.content.item import Content, Features

_LONGEST = 128  # characters of an attribute's value: longer ones are text, not labels


@dataclass(frozen=True, slots=True)
class Labels:
    """Hashed indicators of the names in one field: a set, so neither order nor repetition matters."""

    field: str  # "categories", "tags" or "attributes"
    rare: bool = True

    @property
    def name(self) -> str:
        """Its field."""
        return self.field

    def __call__(self, content: Content, corpus: Corpus) -> Features:  # noqa: ARG002
        """A feature of value 1 for each name; of an attribute for each `name = value` that is no number."""
        names = _facts(content) if self.field == "attributes" else [(name,) for name in getattr(content, self.field)]
        keys = np.unique(np.array([key_of(self.field, *name) for name in names], np.uint64))
        return Features(keys, np.ones(len(keys), np.float32))


def _facts(content: Content) -> list[tuple[str, str]]:
    """Attribute and value of each fact; a list is several."""
    found: list[tuple[str, str]] = []
    for name, value in content.attributes.items():
        if isinstance(value, bool):
            found.append((name, str(value)))
        elif isinstance(value, str | tuple):
            found += [(name, one) for one in ((value,) if isinstance(value, str) else value) if len(one) <= _LONGEST]
    return found
