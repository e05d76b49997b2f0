"""What taste clusters are about."""

from __future__ import annotations

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.tastes import EXAMPLES, Taste, tastes
from pipeline.types import hash_id
from tests.retrieving import NOW, K, entry, vectors

AXES = np.eye(K, dtype=np.float32)


def shop() -> tuple[Catalog, Model]:
    """Dramas along one axis, comedies along another, and all of them bear the word "film"."""
    rows = ItemRows(16)
    catalog, model = Catalog(rows), Model(rows, K)
    for at in range(20):
        kind = ("drama", "comedy")[at % 2]
        model.put_vectors(vectors(f"i{at}", e_out=AXES[at % 2] * (1 + at), count=float(at)))
        catalog.put(entry(f"i{at}", categories=("film", kind), tags=(kind, "slow" if at % 4 else "fast")))
    return catalog, model


def begin(model: Model) -> None:
    model.clusters.learn(np.repeat(AXES[:2], 100, axis=0))


def filled(found: list[Taste]) -> list[Taste]:
    return [taste for taste in found if taste.items]


def test_clusters_are_named_by_what_is_typical_and_shown_by_what_is_taken() -> None:
    catalog, model = shop()
    begin(model)
    found = tastes(catalog, model)
    assert len(found) == len(model.clusters)
    dramas, comedies = sorted(filled(found), key=lambda taste: int(taste.rows[0]) % 2)
    assert (dramas.items, comedies.items) == (10, 10)
    assert dramas.names == ("drama", "fast")  # half of them are fast, of all a quarter; all are films
    assert comedies.names == ("comedy", "slow")
    assert [model.rows.ids[row] for row in comedies.rows] == ["i19", "i17", "i15", "i13", "i11"]
    assert len(dramas.rows) == EXAMPLES


def test_what_may_not_be_shown_is_not_there() -> None:
    catalog, model = shop()
    begin(model)
    catalog.remove(hash_id("i19"), NOW)
    catalog.put(entry("i17", 1, available=False))
    catalog.put(entry("new"))  # the model does not know it
    assert sum(taste.items for taste in tastes(catalog, model)) == 18


def test_there_are_none_before_there_are_items_enough() -> None:
    assert tastes(*shop()) == []


def test_a_catalogue_without_words_names_nothing() -> None:
    rows = ItemRows(16)
    catalog, model = Catalog(rows), Model(rows, K)
    begin(model)
    assert [taste.items for taste in tastes(catalog, model)] == [0] * len(model.clusters)
    model.put_vectors(vectors("a", e_out=AXES[0]))
    (taste,) = filled(tastes(catalog, model))
    assert taste.names == ()
