"""One place for a young item that fits, and a bound on items that nobody has taken."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrangers.newcomers import Newcomers
from pipeline.types import I64
from tests.retrieving import User, queries
from tests.unit.pipeline.content.test_profile import Shop


def arranged(items: str, part: Newcomers, ring: str = "x") -> str:
    """`items` as the arranger orders them. k: known; n: new and near; f: new and far; y: young, taken, near."""
    shop = Shop()
    shop.item("x", 0, 50)
    kinds = {"k": (0, 50), "n": (10, 0), "f": (90, 0), "y": (10, 3)}
    rows = [shop.item(f"{kind}{at}", *kinds[kind]) for at, kind in enumerate(items)]
    asked = queries(shop.model, [User([]), User([ring])])
    owner = np.ones(len(rows), np.int64)
    order: I64 = part(asked, shop.catalog, shop.model, np.array(rows, np.int64), owner)
    assert sorted(order.tolist()) == list(range(len(items)))
    return "".join(items[at] for at in order)


def test_one_that_fits_is_lifted_to_its_place() -> None:
    part = Newcomers(place=3, most=2, depth=6)
    assert arranged("kkkkkkkn", part) == "kknkkkkk"
    assert arranged("kkkkfkyn", part) == "kkykkfkn"
    assert arranged("kk", part) == "kk"
    assert arranged("kn", part) == "kn"
    assert arranged("kkkf", part) == "kkkf"
    assert arranged("", part) == ""


def test_one_that_stands_before_its_place_stays() -> None:
    part = Newcomers(place=3, most=2, depth=6)
    assert arranged("nkkkkn", part) == "nkkkkn"
    assert arranged("kkykkn", part) == "kkykkn"


def test_whoever_took_nothing_yet_has_no_guest() -> None:
    assert arranged("kkkkkkkn", Newcomers(place=3), ring="nothing") == "kkkkkkkn"


def test_items_that_nobody_has_taken_are_few() -> None:
    part = Newcomers(place=3, most=2, depth=4)
    assert arranged("fffkkkk", part) == "ffkkfkk"
    assert arranged("fnfnfkkkk", part) == "fnkkfnfkk"
    assert arranged("ffffkkkn", part) == "fnkkfffk"
    assert arranged("ffff", part) == "ffff"
    assert arranged("ffffk", part) == "ffkff"
    assert arranged("yyyyk", part) == "yyyyk"


@settings(max_examples=60, deadline=None)
@given(st.text("knfy", max_size=12), st.integers(1, 6), st.integers(1, 3), st.integers(1, 8))
def test_the_place_and_the_bound_hold(items: str, place: int, most: int, depth: int) -> None:
    shown = arranged(items, Newcomers(place=place, most=most, depth=depth))
    young = [at for at, kind in enumerate(shown) if kind in "ny"]
    assert not young or young[0] < max(place, 1)
    new = sum(kind in "nf" for kind in shown[:depth])
    assert new <= most or not set(shown[depth:]) & set("ky")
    for kind in "knfy":  # one kind's order stays but for the guest's
        before, after = ([at for at, one in enumerate(text) if one == kind] for text in (items, shown))
        assert len(before) == len(after)
