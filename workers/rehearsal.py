"""A made-up user of a made-up shop asks for a feed, so that no real one waits for a kernel to be loaded or compiled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.blob import States
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.ranker import EARNED, WARM, Choice
from pipeline.model.rows import ItemRows
from pipeline.model.trends import LADDER
from pipeline.queries import NO_ATTRIBUTES, queries_from
from pipeline.ranking import Learned
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
    queries = queries_from(_state(), now, model, [NO_ATTRIBUTES])
    (feed,) = build_feeds(queries, catalog, model, recipe)
    if isinstance(recipe.ranker, Learned):
        recipe.ranker.served(queries, catalog, model, [0])
        rehearse_learning(recipe.ranker, model)
        build_feeds(queries_from(_state(), now, model, [NO_ATTRIBUTES]), catalog, model, recipe)  # by learned weights
    return len(feed.rows)


def rehearse_learning(ranker: Learned, model: Model) -> None:
    """Users of the shop choose from lists until the learned weights serve; `model` is to be thrown away."""
    layout, places = ranker.layout, np.ones(1 + LADDER, np.float32)
    features, context = np.zeros((len(layout.columns), 4), np.float32), np.zeros(len(layout.contexts), np.float32)
    choice = Choice(features, logged=4, total=4, chosen=0, context=context, bucket=0, places=places).sampled(1, seed=1)
    for _ in range(WARM + EARNED):
        ranker.take_in(model, choice)


def _state() -> States:
    """A user who took the first item, consumed the second and blocked the third."""
    one, items = np.ones(1, np.int64), np.zeros((1, RING), np.uint64)
    items[0, 0] = 1
    rings = Rings(items, np.zeros((1, RING), np.uint32), np.zeros((1, RING), np.uint8), one)
    start = np.array([0, 1])
    consumed, blocked = np.array([2], np.uint32), np.array([3], np.uint32)
    return States(one, one, one, one, rings, start, consumed, start, blocked, [b""], np.ones(1, np.uint32))
