"""Profiles and affinities against a plain twin, and what the source and the feature make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.candidates import Candidates, Lists, Trail
from pipeline.catalog import Catalog
from pipeline.content.profile import affinities, profiles
from pipeline.features.content import Content as ContentFeature
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.queries import profile
from pipeline.selection import LIMIT
from pipeline.sources.content import Content as ContentSource
from pipeline.types import CONTENT, F32, RING, Owner, Rows, hash_id
from tests.retrieving import DAY, NOW, K, User, entry, queries, vectors

rings = st.lists(st.lists(st.integers(-1, 6), max_size=RING), min_size=1, max_size=4)


def rows_of(histories: list[list[int]]) -> Rows:
    out = np.full((len(histories), RING), -1, np.int64)
    for query, history in enumerate(histories):
        out[query, : len(history)] = history
    return out


def twin_profile(history: list[int], content: F32, described: list[bool], typical: F32) -> F32:
    met = [(0.9**d, content[row]) for d, row in enumerate(history) if row >= 0 and described[row]]
    if not met:
        return np.zeros(content.shape[1], np.float32)
    mean = sum(weight * vector for weight, vector in met) / sum(weight for weight, _ in met)
    return np.asarray(mean - typical, np.float32)


@settings(max_examples=80, deadline=None)
@given(rings, st.integers(0, 99))
def test_profiles_and_affinities_are_their_twins(histories: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    described = (rng.random(7) < 0.7).tolist()
    content = rng.standard_normal((7, 8)).astype(np.float32) * np.array(described, np.float32)[:, None]
    content /= np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-9)
    typical = content.mean(axis=0)
    found = profiles(rows_of(histories), content, np.array(described), typical)
    want = np.array([twin_profile(history, content, described, typical) for history in histories])
    np.testing.assert_allclose(found, want, atol=1e-5)
    owner, rows = np.repeat(np.arange(len(histories)), 7), np.tile(np.arange(7), len(histories))
    out = np.full((2, len(rows)), np.nan, np.float32)
    affinities(found, rows_of(histories), content, owner, rows, out)
    for query, history in enumerate(histories):
        last = content[history[0]] if history and history[0] >= 0 else np.zeros(8)
        np.testing.assert_allclose(out[0, owner == query], content @ want[query], atol=1e-5)
        np.testing.assert_allclose(out[1, owner == query], content @ last, atol=1e-5)


# ---------------------------------------------------------------- a small shop


class Shop:
    """Items in content space by angle (degrees), in a plane of it. What is typical is its middle: each has an opposite,
    which nobody can have any more.
    """

    def __init__(self) -> None:
        rows = ItemRows(16)
        self.model, self.catalog = Model(rows, K), Catalog(rows)

    def item(self, name: str, angle: float | None = None, taken: float = 0, age_days: int = 1, **fields: Any) -> int:
        content = np.zeros(CONTENT if angle is not None else 0, np.float32)
        if angle is not None:
            content[:2] = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            self.catalog.put(entry(f"not {name}", content=-content, expires_at=1))
            self.model.put_vectors(vectors(f"not {name}", count=100))
        published = NOW - age_days * DAY
        row = self.catalog.put(entry(name, content=content, published_at=published, **fields))
        if taken:
            self.model.put_vectors(vectors(name, count=taken))
        return row

    def proposed(self, *rings: list[str], source: ContentSource | None = None) -> list[list[str]]:
        found = (source or ContentSource())(
            queries(self.model, [User(ring) for ring in rings]), self.catalog, self.model
        )
        names = [self.model.rows.ids[row] for row in found.rows.tolist()]
        return [names[begin:end] for begin, end in zip(found.start, found.start[1:], strict=False)]


def test_the_source_proposes_young_items_near_the_profile() -> None:
    shop = Shop()
    for name, angle, taken in (("liked", 0, 50), ("near", 10, 0), ("nearer", 5, 4), ("old", 1, 5), ("far", 170, 0)):
        shop.item(name, angle, taken)
    shop.item("unknown")
    shop.item("gone", 2, expires_at=NOW - 1)
    shop.catalog.remove(hash_id("hidden"), NOW)
    assert shop.proposed(["liked"], ["far", "liked"], [], ["unknown"]) == [["nearer", "near"], ["far"], [], []]
    assert shop.proposed(["liked"], source=ContentSource(limit=1)) == [["nearer"]]
    assert shop.proposed(["liked"], source=ContentSource(young=100)) == [["liked", "old", "nearer", "near"]]


def test_of_many_young_items_the_newest_are_looked_at() -> None:
    shop = Shop()
    shop.item("liked", 0, 50)
    for at in range(30):
        shop.item(f"i{at}", at, age_days=at + 1)
    shop.item("seen", 0, 1, age_days=40)
    assert shop.proposed(["liked"], source=ContentSource(pool=4)) == [["i0", "i1", "i2", "i3"]]
    assert len(shop.proposed(["liked"])[0]) == 31


def test_an_empty_shop_proposes_nothing() -> None:
    assert Shop().proposed([], ["liked"]) == [[], []]


def test_proposals_are_bounded() -> None:
    shop = Shop()
    for at in range(LIMIT + 50):
        shop.item(f"i{at}", at / 10)
    assert len(shop.proposed(["i3"])[0]) == LIMIT


def test_the_feature_trusts_a_profile_of_three() -> None:
    shop = Shop()
    rows = [shop.item("a", 0), shop.item("b", 90), shop.item("unknown")]
    asked = queries(shop.model, [User(["a"]), User(["a", "a"]), User(["a", "a", "b"]), User([])])
    np.testing.assert_allclose(shop.catalog.typical, 0, atol=1e-7)
    owner: Owner = np.repeat(np.arange(4), 3)
    none = Trail((), Lists.of((), 4), (), np.zeros(4, np.int64), np.zeros(4, np.int64))
    candidates = Candidates(np.tile(rows, 4), owner, np.zeros(12, np.float32), none)
    out = np.full((2, 12), np.nan, np.float32)
    ContentFeature()(asked, shop.catalog, shop.model, candidates, out)
    third = profile(asked, shop.catalog)[2, :2]
    expected = [[1 / 3, 0, 0], [2 / 3, 0, 0], [third[0], third[1], 0], [0, 0, 0]]
    np.testing.assert_allclose(out[0].reshape(4, 3), expected, atol=1e-6)
    np.testing.assert_allclose(out[1].reshape(4, 3), [[1, 0, 0]] * 3 + [[0, 0, 0]], atol=1e-6)
