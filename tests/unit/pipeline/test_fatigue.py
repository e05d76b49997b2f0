"""A dislike pushes its kind down, in steps that end. What is kin, by hand; the whole against a plain twin."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrangers.fatigue import Fatigue
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.types import F32, NEGATIVES, hash_id
from tests.retrieving import DAY, NOW, K, User, entry, queries, vectors

PART = Fatigue(steps=((0.5, 1.0), (2, 0.5)), category=0.5, taste=0.6, off=0.9, places=4)
AXES = np.eye(K, dtype=np.float32)


class Shop:
    """`a-xy1` is by a, of categories x and y. What begins with a digit is of that taste, and no catalogue lists it."""

    def __init__(self, names: str) -> None:
        rows = ItemRows(16)
        self.model, self.catalog, self.names = Model(rows, K), Catalog(rows), names.split()
        self.model.clusters.learn(np.repeat(AXES[:3], 100, axis=0))
        for at, name in enumerate(self.names):
            taste = int(name[0]) if name[0].isdigit() else 7
            self.model.put_vectors(vectors(name, e_out=AXES[taste] if taste < 7 else np.zeros(K, np.float32)))
            if taste == 7:
                creator, categories = name.rstrip("0123456789").split("-")
                self.catalog.put(entry(name, at, creator_id=creator, categories=tuple(categories)))

    def after(self, blocked: str, *days: float, part: Fatigue = PART, later: float = 0) -> str:
        """The items, arranged for someone who blocked those so many days ago, newest first. A stranger asks, too."""
        user = User(blocked=blocked.split(), blocked_days=days, now=NOW + int(later * DAY))
        n = len(self.names)
        rows = self.model.rows.find(np.array([hash_id(name) for name in self.names], np.uint64))
        owner = np.repeat((0, 1), n)
        order = part(queries(self.model, [User(), user]), self.catalog, self.model, np.tile(rows, 2), owner)
        np.testing.assert_array_equal(order[:n], np.arange(n))
        return " ".join(self.names[at - n] for at in order[n:].tolist())


CREATORS = "a-x1 b-z1 a-y2 b-z2 b-z3 b-z4 b-z5 b-z6 b-z7 b-z8"


def test_a_creator_is_off_then_back_in_steps() -> None:
    shop = Shop(CREATORS)
    off = "b-z1 b-z2 b-z3 b-z4 b-z5 b-z6 b-z7 b-z8 a-x1 a-y2"
    for later in (-1, 0, 0.3):  # who asks as of a time before it is as tired as at once
        assert shop.after("a-x1", 0.1, later=later) == off
    back = "b-z1 a-x1 b-z2 a-y2 b-z3 b-z4 b-z5 b-z6 b-z7 b-z8"  # two places
    assert shop.after("a-x1", 0.1, later=0.4) == back
    assert shop.after("a-x1", 0.1, later=1.8) == back
    assert shop.after("a-x1", 0.1, later=1.9) == CREATORS


def test_dislikes_of_one_kind_add_up_and_kinds_do_not_touch_each_other() -> None:
    shop = Shop("a-x1 b-y1 c-z1 c-z2 c-z3 c-z4 a-w1")
    assert shop.after("a-x1", 1) == "b-y1 a-x1 c-z1 c-z2 c-z3 c-z4 a-w1"  # two places; at a tie who stood before
    assert shop.after("a-w1 a-x1", 1, 1) == "b-y1 c-z1 a-x1 c-z2 c-z3 c-z4 a-w1"  # three
    assert shop.after("b-y1 a-x1", 1, 1) == "a-x1 c-z1 b-y1 c-z2 c-z3 c-z4 a-w1"  # two each


def test_categories_count_by_what_is_shared() -> None:
    shop = Shop("c-xy1 a-x1 f-z1 f-z2 f-z3 f-z4 f-z5 f-z6 f-z7 f-z8 -x1")
    wide = Fatigue(category=0.8, places=10, off=0.9)  # one of one: eight places; one of two: four
    assert shop.after("-x1", 0.1, part=wide) == "f-z1 f-z2 c-xy1 f-z3 f-z4 f-z5 f-z6 f-z7 a-x1 f-z8 -x1"
    assert shop.after("-x1", 0.1, part=Fatigue(category=0)) == " ".join(shop.names)
    assert Shop("a-xx1 -xx2 f-z1 f-z2 f-z3").after("-xx2", 0.1) == "a-xx1 f-z1 -xx2 f-z2 f-z3"  # told twice


def test_where_no_catalogue_says_it_tastes_count() -> None:
    shop = Shop("0 0b 1 a-x1 1b 1c 1d 1e")
    assert shop.after("0", 0.1) == "1 0 a-x1 0b 1b 1c 1d 1e"
    assert shop.after("1", 0.1) == "0 0b a-x1 1 1b 1c 1d 1e"
    assert shop.after("a-x1", 0.1) == "0 0b 1 1b 1c 1d 1e a-x1"


def test_times_that_nobody_knows_and_items_that_nobody_knows_say_nothing() -> None:
    shop = Shop(CREATORS)
    assert shop.after("a-x1") == CREATORS
    assert shop.after("never-x9", 0.1) == CREATORS
    assert shop.after("never-x9 a-x1 a-y2", 0.1, 1) != CREATORS
    full = Shop(" ".join(["a-x1", *(f"{name}-y1" for name in "bcdefghijklmno"), "a-x2"]))  # every row is somebody's
    assert full.after("never-x9", 0.1) == " ".join(full.names)
    assert Shop("8 8b 1").after("8", 0.1) == "8 8b 1"  # of no taste that anyone knows


def test_without_others_the_tired_remain() -> None:
    shop = Shop("a-x1 a-x2 a-x3")
    assert shop.after("a-x1 a-x2", 0.1, 0.1) == "a-x1 a-x2 a-x3"


def plain(shop: Shop, blocked: list[str], days: list[float], part: Fatigue) -> list[float]:
    """How tired the user is of each item."""

    def kin(one: str, other: str) -> float:
        if one[0].isdigit() or other[0].isdigit():
            return part.taste if one[0].isdigit() and one[0] == other[0] else 0.0
        (mine, these), (theirs, those) = (name.rstrip("0123456789").split("-") for name in (one, other))
        if mine and mine == theirs:
            return 1.0
        either = set(these) | set(those)
        return part.category * len(set(these) & set(those)) / len(either) if either else 0.0

    def weight(age: float) -> float:
        return next((share for until, share in part.steps if age < until), 0.0)

    out = []
    for name in shop.names:
        fresh = 1.0
        for one, age in zip(blocked[:NEGATIVES], days, strict=False):
            fresh *= 1 - weight(age) * kin(one, name)
        out.append(1 - fresh)
    return out


NAMES = "a-x1 a-xy2 b-y1 b-yz2 -x3 -xyz4 c-5 c-6 0 0b 1 2"


AGES = [0.1, 0.4, 1.0, 1.9, 2.5, 9.0]


@settings(max_examples=80, deadline=None)
@given(
    did=st.lists(
        st.tuples(st.sampled_from(NAMES.split()), st.sampled_from([0.1, 0.4, 1.0, 1.9, 2.5, 9.0])), max_size=9
    ),
    off=st.sampled_from([0.45, 0.9, 1.1]),
    places=st.sampled_from([0.7, 4.3, 31.0]),
)
def test_like_the_plain_twin(did: list[tuple[str, float]], off: float, places: float) -> None:
    part = Fatigue(PART.name, PART.steps, PART.category, PART.taste, off, places)
    shop = Shop(NAMES)
    blocked, days = [name for name, _ in did], [age for _, age in did]
    tired = plain(shop, blocked, days, part)
    keys: F32 = np.array([1e6 if one >= off else places * one for one in tired], np.float32)
    wanted = [shop.names[at] for at in np.argsort(np.arange(len(tired)) + keys.round(4), kind="stable")]
    assert shop.after(" ".join(blocked), *days, part=part).split() == wanted
