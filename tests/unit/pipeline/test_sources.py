"""What each source proposes first, by hand."""

from __future__ import annotations

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.recipe import SOURCES
from pipeline.retrieval import Source
from pipeline.sources.trending import Trending
from pipeline.types import hash_id, hash_of
from tests.retrieving import DAY, NOW, K, User, entry, lists, queries, vectors

BY_NAME: dict[str, Source] = {source.name: source for source in SOURCES}
BY_NAME |= {"trending_6h": Trending(half_life=1), "trending_3d": Trending(half_life=2)}


class Shop:
    """A catalogue and a model to fill by hand."""

    def __init__(self) -> None:
        rows = ItemRows(16)
        self.model, self.catalog = Model(rows, K), Catalog(rows)

    def know(self, item: str, **fields: object) -> None:
        self.model.put_vectors(vectors(item, None, **fields))

    def follow(self, user: str, *items: str) -> None:
        """A user took these, one after the other."""
        rows = self.model.rows.rows(np.array([hash_id(item) for item in items], np.uint64))
        self.model.neighbourhood.add(np.full(len(rows), hash_of(user), np.uint64), rows)

    def proposals(self, source: str, *users: User) -> list[list[str]]:
        found = BY_NAME[source](queries(self.model, users), self.catalog, self.model)
        parts = np.split(found.rows, found.start[1:-1])
        return [[self.model.rows.ids[row] for row in part] for part in parts]


def axis(at: int, value: float = 1.0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    out = np.zeros(K, np.float32)
    out[at] = value
    return out


def test_sequence_orders_by_the_dot_product_and_the_bias() -> None:
    shop = Shop()
    shop.know("here", e_in=axis(0), e_out=axis(1))
    shop.know("near", e_out=axis(0, 2.0))
    shop.know("far", e_out=axis(0, -1.0))
    shop.know("loved", bias=2.0)
    shop.catalog.put(entry("never seen"))
    shop.model.put_lists(lists("here", {"nameless": 1.0}))
    assert shop.proposals("sequence", User(["here"]), User()) == [
        ["near", "loved", "here", "far"],  # 2 r, 2, r, -r: r is the root of e, which the newest item counts
        ["loved", "here", "near", "far"],  # a stranger's embedding is zero: the bias alone
    ]


def test_covisitation_is_damped_by_popularity() -> None:
    shop = Shop()
    shop.know("here", count=1.0)
    shop.know("rare", count=1.0)
    shop.know("common", count=1000.0)
    shop.model.put_lists(lists("here", {"rare": 1.0, "common": 2.0}))
    assert shop.proposals("covisitation", User(["here"]), User(["unknown"])) == [["rare", "common"], []]


def test_covisitation_reads_backward_lists_too() -> None:
    shop = Shop()
    for item in ("here", "next", "before"):
        shop.know(item, count=1.0)
    shop.model.put_lists(lists("here", {"next": 0.2}, {"before": 1.0}))  # .2 against .3 x 1
    assert shop.proposals("covisitation", User(["here"])) == [["before", "next"]]


def test_forward_looks_at_the_last_five_items_only() -> None:
    shop = Shop()
    for item in ("old", "new", "after old", "after new"):
        shop.know(item, count=1.0)
    for item in ("old", "new"):
        shop.model.put_lists(lists(item, {f"after {item}": 9.0}, {}, {f"after {item}": 1.0}))
    filler = ["x", "y", "z"]
    assert shop.proposals("forward", User(["new", *filler, "old"]), User(["new", *filler, "w", "old"])) == [
        ["after new", "after old"],
        ["after new"],
    ]


def test_neighbours_propose_what_they_took_next_or_at_all() -> None:
    shop = Shop()
    for item in ("here", "next", "later", "before", "far"):
        shop.know(item, count=1.0)
    shop.follow("a", "far", "before", "here", "next", "later", "x", "y", "z", "v", "w")
    shop.follow("b", "here", "next")
    shop.follow("asker", "here", "far")
    who = User(["here"], id="asker")
    assert shop.proposals("vs_knn", who) == [["next", "later", "before", "far"]]  # 1, .4 and .2 at most, .16
    # Two took `next`; only `a` took the rest. What the asker took, too, is for a filter to drop.
    (users,) = shop.proposals("user_knn", who)
    assert set(users[:2]) == {"here", "next"}
    assert set(users[2:]) == {"far", "before", "later"}
    assert shop.proposals("vs_knn", User(["nobody's"]), User()) == [[], []]


def test_trending_decays_each_count_from_its_own_reference() -> None:
    shop = Shop()
    counts = np.array([8, 8, 8, 8], np.float32)
    shop.know("yesterday", decayed=counts, reference=NOW - DAY)
    shop.know("today", decayed=counts / 2, reference=NOW)
    shop.know("never", decayed=counts * 0, reference=NOW)
    assert shop.proposals("trending_6h", User(), User(["today"])) == [["today", "yesterday"]] * 2  # 8 / 2^4 < 4
    assert shop.proposals("trending_3d", User()) == [["yesterday", "today"]]  # 8 / 2^(1/3) > 4


def test_trending_keeps_its_order_whenever_it_is_asked() -> None:
    shop = Shop()
    shop.know("a", decayed=np.full(4, 3, np.float32), reference=NOW + DAY)
    shop.know("b", decayed=np.full(4, 4, np.float32), reference=NOW)
    early, late = User(now=NOW - 400 * DAY), User(now=NOW + 400 * DAY)
    assert shop.proposals("trending_3d", early, late) == [["b", "a"]] * 2


def test_entry_serves_beginners_by_what_came_at_their_point() -> None:
    shop = Shop()
    shop.know("first", entry=np.array([5, 0, 0], np.float32))
    shop.know("second", entry=np.array([1, 5, 0], np.float32))
    users = User(), User(["x"]), User(["x", "y"]), User(["x", "y", "z"])
    assert shop.proposals("entry", *users) == [["first", "second"], ["second"], [], []]


def test_fresh_takes_the_publishing_time_before_the_first_sight() -> None:
    shop = Shop()
    shop.know("old but just met", first_seen=NOW)
    shop.know("met a day ago", first_seen=NOW - DAY)
    shop.know("never met", first_seen=0)
    shop.catalog.put(entry("old but just met", published_at=NOW - 9 * DAY))
    shop.catalog.put(entry("announced", published_at=NOW - DAY // 2))
    assert shop.proposals("fresh", User()) == [["announced", "met a day ago", "old but just met"]]


def test_deleted_and_expired_items_take_no_place() -> None:
    shop = Shop()
    for at, item in enumerate(["deleted", "expired", "hidden", "open"]):
        shop.know(item, decayed=np.full(4, 9 - at, np.float32), count=1.0)
    shop.model.put_lists(lists("open", *[dict.fromkeys(("deleted", "expired", "hidden"), 1.0)] * 3))
    shop.catalog.remove(hash_id("deleted"), NOW)
    shop.catalog.put(entry("expired", expires_at=NOW))
    shop.catalog.put(entry("hidden", available=False))  # may be back: a filter drops and counts it
    assert shop.proposals("trending_3d", User(), User(now=NOW - 1)) == [
        ["hidden", "open"],
        ["expired", "hidden", "open"],
    ]
    assert shop.proposals("covisitation", User(["open"])) == [["hidden"]]
    assert "expired" not in shop.proposals("sequence", User(["open"]))[0]
