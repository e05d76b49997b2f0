"""A made-up user of a made-up shop asks for a feed, so that no real one waits for a kernel to be loaded or compiled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.blob import States
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.queries import NO_ATTRIBUTES, queries_from
from pipeline.retrieval import Recipe, build_feeds
from pipeline.types import RING, Rings

_ITEMS = {1: "first", 2: "second", 3: "third"}  # by hash


def rehearse(recipe: Recipe, dimension: int) -> int:
    """Answer one user by `recipe`, through every kernel of the read path; returns how many items they would see."""
    rows = ItemRows()
    model, catalog = Model(rows, dimension), Catalog(rows)
    for item, item_id in _ITEMS.items():
        row = rows.row(item, item_id)
        model.put_vectors(replace(model.vectors(row), count=1.0, first_seen=1, reference=1))
        others = np.array([other for other in _ITEMS if other != item], np.uint64)
        weights = np.ones(len(others), np.float32)
        model.put_lists(replace(model.lists(row), reference=1, hashes=(others,) * 4, weights=(weights,) * 4))
    model.neighbourhood.add(np.ones(2, np.uint64), np.arange(2))  # a neighbour took the first and the second
    now = np.ones(1, np.int64)
    (feed,) = build_feeds(queries_from(_state(), now, model, [NO_ATTRIBUTES]), catalog, model, recipe)
    return len(feed.rows)


def _state() -> States:
    """A user who took the first item, consumed the second and blocked the third."""
    one, items = np.ones(1, np.int64), np.zeros((1, RING), np.uint64)
    items[0, 0] = 1
    rings = Rings(items, np.zeros((1, RING), np.uint32), np.zeros((1, RING), np.uint8), one)
    start = np.array([0, 1])
    consumed, blocked = np.array([2], np.uint32), np.array([3], np.uint32)
    return States(one, one, one, one, rings, start, consumed, start, blocked, [b""], np.ones(1, np.uint32))
