"""A learner that takes in what another published, from an empty memory."""

from __future__ import annotations

import numpy as np

from pipeline.learning import Learner
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.types import ItemLists, ItemVectors, hash_id

K = 4


def vectors(number: int) -> ItemVectors:
    item_id = f"v{number}"
    ones = np.ones(K, np.float32)
    return ItemVectors(
        item_id, hash_id(item_id), ones, ones, 0.5, np.ones(3, np.float32),
        np.ones(4, np.float32), 1_000, 1.0, np.zeros(3, np.float32), 1_000, 1_000,
    )  # fmt: skip


def lists(number: int) -> ItemLists:
    item_id = f"l{number}"
    empty = (np.empty(0, np.uint64),) * 4
    return ItemLists(item_id, hash_id(item_id), 1_000, empty, (np.empty(0, np.float32),) * 4)


def test_more_items_than_there_were_rows() -> None:
    rows = ItemRows(capacity=16)
    learner = Learner(Model(rows, K), seed=1, negatives=5)
    for number in range(100):
        learner.follow(vectors(number))
        learner.follow(lists(number))
    assert len(rows) == 200
    assert all(learner.knows(hash_id(f"v{number}")) for number in range(100))
    assert list(learner.sweep()) == []  # nothing of it counts as changed
