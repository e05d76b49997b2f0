"""Feeds by hand: what is hidden from whom, how creators are spread, and why an item is there."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pytest

from pipeline.arrangers.spread_creators import SpreadCreators
from pipeline.arrangers.spread_tastes import SpreadTastes
from pipeline.catalog import Catalog
from pipeline.filters.safe import Safe
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.provenance import Feed
from pipeline.queries import Attributes
from pipeline.recipe import HAND, home
from pipeline.retrieval import build_feeds
from pipeline.types import hash_id
from tests.retrieving import NOW, K, User, entry, lists, queries, vectors


class Shop:
    """A catalogue and a model to fill by hand."""

    def __init__(self, *items: str) -> None:
        rows = ItemRows(16)
        self.model, self.catalog = Model(rows, K), Catalog(rows)
        for at, item in enumerate(items):
            self.model.put_vectors(vectors(item, count=9.0, bias=1.0 - at / 10))

    def feeds(self, *users: User, size: int = 10, repeats: bool = False) -> list[Feed]:
        return build_feeds(queries(self.model, users), self.catalog, self.model, home(size, repeats))

    def shown(self, *users: User, **how: bool) -> list[str]:
        return ["".join(self.model.rows.ids[row] for row in feed.rows) for feed in self.feeds(*users, **how)]


def test_what_a_user_consumed_or_blocked_is_hidden_from_them_alone() -> None:
    shop = Shop("a", "b", "c")
    assert shop.shown(User(consumed=["a"], blocked=["b"]), User()) == ["c", "abc"]
    assert shop.shown(User(consumed=["a"], blocked=["b"]), repeats=True) == ["ac"]


def test_hidden_and_expired_items_are_counted_by_reason() -> None:
    shop = Shop("a", "b", "c", "d")
    shop.catalog.put(entry("a", available=False))
    shop.catalog.put(entry("b", unsafe=("nsfw",)))
    (feed,) = shop.feeds(User(consumed=["c"]))
    assert [shop.model.rows.ids[row] for row in feed.rows] == ["d"]
    assert feed.dropped == {"unavailable": 1, "unsafe": 1, "consumed": 1}
    assert (feed.gathered, feed.ranked) == (4, 1)


def test_muted_creators_and_categories_are_hidden() -> None:
    shop = Shop("a", "b", "c")
    shop.catalog.put(entry("a", creator_id="ann"))
    shop.catalog.put(entry("b", categories=("x", "y")))
    ann, y = Attributes(muted_creators=("ann",)), Attributes(muted_categories=("y", "z"))
    assert shop.shown(User(attributes=ann), User(attributes=y), User()) == ["bc", "ac", "abc"]


def test_unsafe_items_are_for_the_audiences_that_may_see_them() -> None:
    shop = Shop("a", "b", "c")
    shop.catalog.put(entry("a", unsafe=("nsfw",)))
    shop.catalog.put(entry("b", unsafe=("nsfw", "gore")))
    users = [User(attributes=Attributes(audience=name)) for name in ("", "kids", "adult")]
    assert shop.shown(*users) == ["c", "c", "abc"]
    asked, rows = queries(shop.model, [User(attributes=Attributes(audience="teen"))]), np.arange(3)
    teen = Safe(allowed=(("teen", ("nsfw", "unheard of")),))
    assert teen(asked, shop.catalog, rows, np.zeros(3, np.int64)).tolist() == [True, False, True]


def test_items_that_are_bound_to_markets_are_shown_there_alone() -> None:
    shop = Shop("a", "b", "c")
    shop.catalog.put(entry("a", markets=("de", "at")))
    shop.catalog.put(entry("b", markets=("fr",)))
    users = [User(attributes=Attributes(market=name)) for name in ("", "de", "at", "fr", "es")]
    assert shop.shown(*users) == ["c", "ac", "ac", "bc", "c"]
    shop.catalog.put(entry("a", 1))
    assert shop.shown(*users) == ["ac", "ac", "ac", "abc", "ac"]


def test_a_market_without_a_bit_of_its_own_shows_nothing_that_is_bound() -> None:
    """Two markets that share a bit would show each other's items."""
    shop = Shop("a", "b", "c")
    for at in range(63):
        shop.catalog.market(f"m{at}")
    shop.catalog.put(entry("a", markets=("late",)))
    shop.catalog.put(entry("b", markets=("later", "m62")))
    users = [User(attributes=Attributes(market=name)) for name in ("late", "later", "m62", "m0")]
    assert shop.shown(*users) == ["c", "c", "bc", "c"]


@pytest.mark.parametrize(
    ("creators", "expected"),
    [
        ("AABBCC", "ABCABC"),
        ("AAAB", "ABAA"),  # where it cannot be avoided, the better item goes first
        ("AAAA", "AAAA"),
        ("A--A", "A--A"),  # items of nobody stand anywhere
        ("----", "----"),
        ("AA--", "A--A"),
        ("", ""),
    ],
)
def test_creators_are_spread(creators: str, expected: str) -> None:
    shop = Shop()
    rows = [shop.catalog.put(entry(f"i{at}", creator_id=name.strip("-"))) for at, name in enumerate(creators)]
    asked = queries(shop.model, [User()])
    order = SpreadCreators()(asked, shop.catalog, shop.model, np.array(rows, np.int64), np.zeros(len(rows), np.int64))
    assert "".join(creators[at] for at in order) == expected
    for name in set(creators):
        places = [at for at in order if creators[at] == name]
        assert places == sorted(places)  # of one creator the better item comes first


def test_spreading_stops_at_its_depth() -> None:
    shop = Shop()
    rows = np.array([shop.catalog.put(entry(f"i{at}", creator_id=name)) for at, name in enumerate("AABBAAB")])
    asked = queries(shop.model, [User()])
    order = SpreadCreators(window=2, depth=2)(asked, shop.catalog, shop.model, rows, np.zeros(7, np.int64))
    assert order.tolist() == [0, 2, 1, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("tastes", "expected"),
    [
        ("aaaab", "aabaa"),  # of three neighbours two at most, where it can be
        ("aabab", "aabab"),
        ("aa-ab", "aa-ab"),
        ("aaaa", "aaaa"),
        ("aaaabaaab", "aabaaaaab"),  # the last is behind those that are looked at
        ("", ""),
    ],
)
def test_tastes_are_spread(tastes: str, expected: str) -> None:
    shop, axis = Shop(), np.eye(K, dtype=np.float32)
    for at, name in enumerate(tastes):
        if name != "-":  # an item that the model does not know fits everywhere
            shop.model.put_vectors(vectors(f"i{at}", e_out=axis["ab".index(name)] * (1 + at)))
    rows = np.array([shop.model.rows.row(hash_id(f"i{at}")) for at in range(len(tastes))], np.int64)
    asked, part = queries(shop.model, [User()]), SpreadTastes(window=3, most=2, depth=5, reach=6)
    plain = part(asked, shop.catalog, shop.model, rows, np.zeros(len(rows), np.int64))
    assert plain.tolist() == list(range(len(tastes)))  # there are no clusters yet
    shop.model.clusters.learn(np.repeat(axis[:2], 100, axis=0))
    order = part(asked, shop.catalog, shop.model, rows, np.zeros(len(rows), np.int64))
    assert "".join(tastes[at] for at in order) == expected


def test_tastes_are_spread_within_each_owner() -> None:
    shop, axis = Shop(), np.eye(K, dtype=np.float32)
    rows = [shop.model.put_vectors(vectors(f"i{at}", e_out=axis[at // 3])) for at in range(4)]  # a a a b
    shop.model.clusters.learn(np.repeat(axis[:2], 100, axis=0))
    asked, part = queries(shop.model, [User(), User()]), SpreadTastes(window=2, most=1)
    order = part(asked, shop.catalog, shop.model, np.array(rows + rows[::-1]), np.repeat([0, 1], 4))
    assert order.tolist() == [0, 3, 1, 2, 4, 5, 6, 7]


def test_a_feed_says_why() -> None:
    shop = Shop()
    axis = np.eye(K, dtype=np.float32)
    shop.model.put_vectors(vectors("last", e_in=axis[0], e_out=axis[7], count=1.0))
    shop.model.put_vectors(vectors("first", e_in=axis[1], e_out=axis[7], count=1.0))
    shop.model.put_vectors(vectors("like last", e_out=axis[0] * 3, count=1.0))
    shop.model.put_vectors(vectors("after first", count=1.0))
    shop.model.put_lists(lists("first", {"after first": 4.0}))
    shop.model.put_lists(lists("after first", {}, {"first": 4.0}))
    (feed,) = shop.feeds(User(["last", "first"], consumed=["last", "first"]))
    names = [shop.model.rows.ids[row] for row in feed.rows]
    why = {name: [shop.model.rows.ids[row] for row in rows] for name, rows in zip(names, feed.because, strict=True)}
    assert why == {"like last": ["last"], "after first": ["first"]}
    at = names.index("after first")
    assert feed.sources[at]["covisitation"] == 1
    weight = dict(HAND)
    by_rank = [weight["rank_sequence"] * np.log(201 / (1 + found["sequence"])) for found in feed.sources]
    assert feed.parts[at]["sequence"] == pytest.approx(by_rank[at], abs=0.006)  # its logit is 0
    cov = 0.9 * 4.0  # one step back, n = 1, no age
    of_pairs = weight["covisitation"] * np.log((1e-3 + cov) / 1e-3)
    assert feed.parts[at]["covisitation"] == pytest.approx(of_pairs, abs=0.006)
    like = names.index("like last")
    logit = 3 * np.e / np.sqrt(np.e + 0.7)
    assert feed.parts[like]["sequence"] == pytest.approx(weight["sequence"] * logit + by_rank[like], abs=0.006)
    assert feed.propensity == [1.0, 1.0]


def test_a_feed_is_cut_to_its_size() -> None:
    shop = Shop(*"abcdefgh")
    (feed,) = shop.feeds(User(), size=3)
    assert (len(feed.rows), len(feed.because), len(feed.parts), feed.ranked) == (3, 3, 3, 8)
    assert (np.diff(feed.scores) <= 0).all()


def test_a_stranger_sees_what_trends() -> None:
    shop = Shop("a", "b")
    shop.model.put_vectors(vectors("hot", count=9.0, decayed=np.full(4, 50, np.float32), reference=NOW))
    shop.model.put_vectors(vectors("cold", count=9.0, decayed=np.full(4, 0.1, np.float32), reference=NOW))
    (feed,) = shop.feeds(User())
    assert shop.model.rows.ids[feed.rows[0]] == "hot"


def test_the_terms_of_co_visitation_stand_at_their_items_newest_places() -> None:
    shop = Shop()
    for item, count in {"a": 4.0, "b": 1.0, "j": 9.0, "i": 1.0}.items():
        shop.model.put_vectors(vectors(item, count=count))
    shop.model.put_lists(lists("j", {}, {"a": 2.0, "b": 3.0, "elsewhere": 5.0}))
    asked = queries(shop.model, [User(["b", "a", "unknown", "b"]), User(), User(["a"])])
    j, i = (shop.model.rows.row(hash_id(item)) for item in "ji")
    terms = shop.model.covisitation.terms(
        asked.ring_rows[:, :5], shop.model.trends.count, np.array([0, 0, 1, 2]), np.array([j, i, j, j])
    )
    expected = np.zeros((4, 5))
    expected[0, :2] = (1 + 0.9**3) * 3, 0.9 * 2 / np.sqrt(4)
    expected[3, 0] = 2 / np.sqrt(4)
    np.testing.assert_allclose(terms, expected, rtol=1e-5)


def test_sources_of_one_name_share_their_best_rank() -> None:
    shop = Shop()
    lately, always = (np.array(counts, np.float32) for counts in ((9, 9, 9, 9), (0, 0, 0, 50)))
    shop.model.put_vectors(vectors("lately", count=9.0, decayed=lately, reference=NOW))
    shop.model.put_vectors(vectors("always", count=9.0, decayed=always, reference=NOW))
    (feed,) = shop.feeds(User(["x", "y", "z"]))
    names = [shop.model.rows.ids[row] for row in feed.rows]
    assert {name: sources["trending"] for name, sources in zip(names, feed.sources, strict=True)} == {
        "lately": 1,  # first on three half-lives, second on the longest
        "always": 1,
    }


def test_chunks_share_what_is_the_same_for_everyone_but_hide_at_once() -> None:
    shop, recipe = Shop(), home()
    for at, item in enumerate("abc"):
        shop.model.put_vectors(vectors(item, count=9.0, decayed=np.full(4, 9 - at, np.float32), reference=NOW))
    shared: dict[Hashable, object] = {}

    def shown(commons: dict[Hashable, object]) -> dict[str, int]:
        (feed,) = build_feeds(queries(shop.model, [User()], commons), shop.catalog, shop.model, recipe)
        ids = [shop.model.rows.ids[row] for row in feed.rows]
        return {item: sources["trending"] for item, sources in zip(ids, feed.sources, strict=True)}

    assert shown(shared) == {"a": 1, "b": 2, "c": 3}
    shop.model.put_vectors(vectors("c", count=9.0, decayed=np.full(4, 99, np.float32), reference=NOW))
    shop.catalog.remove(hash_id("b"), NOW)
    assert shown(shared) == {"a": 1, "c": 3}
    assert shown({}) == {"c": 1, "a": 2}
    shop.model.put_vectors(vectors("new", count=9.0, decayed=np.full(4, 5, np.float32), reference=NOW))
    assert shown(shared) == {"c": 1, "a": 2, "new": 3}  # more rows than the lists know of
