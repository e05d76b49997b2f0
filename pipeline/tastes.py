"""What the taste clusters are about: how many items, what is typical of them, which are taken most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.clusters import typical
from pipeline.types import Rows

NAMES = 2  # words that a cluster is named by, at most
EXAMPLES = 5  # items that stand for a cluster, at most


@dataclass(frozen=True, slots=True)
class Taste:
    """One cluster of items that the same people take."""

    items: int
    names: tuple[str, ...]  # most typical categories and tags, the most typical first; () = there are none
    rows: Rows  # of the items that are taken most, most first


def tastes(catalog: Catalog, model: Model) -> list[Taste]:
    """Every cluster, in the order of `model.clusters`, over items that may be shown; [] before there are clusters.

    Reads all items: for a picture of them, not for a query.
    """
    if not model.clusters.begun:
        return []
    rows = np.flatnonzero(model.sequence.known[: len(catalog)] & catalog.open())
    cluster, k = model.clusters.of(model.sequence.e_out[rows]), len(model.clusters)
    categories, tags = catalog.categories[rows], catalog.tags[rows].copy()
    tags[(tags[:, :, None] == categories[:, None, :]).any(axis=2)] = 0  # an item bears a word once
    words = typical(cluster, np.concatenate((categories, tags), axis=1), k, NAMES)
    order = np.lexsort((rows, -model.trends.count[rows], cluster))
    first = np.searchsorted(cluster[order], np.arange(k + 1))
    return [
        Taste(
            int(first[c + 1] - first[c]),
            tuple(catalog.words[word] for word in words[c] if word in catalog.words),
            rows[order[first[c] : first[c + 1]][:EXAMPLES]],
        )
        for c in range(k)
    ]
