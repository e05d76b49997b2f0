from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.catalog import OTHER_LABEL, Catalog
from pipeline.model.rows import ItemRows
from pipeline.types import hash_id
from tests.retrieving import DAY, NOW, entry


def catalog(unlisted: bool = True) -> Catalog:
    return Catalog(ItemRows(16), unlisted)


def test_put_replaces_all_that_was_known() -> None:
    c = catalog()
    c.put(
        entry(
            "a",
            3,
            creator_id="ann",
            categories=("x", "y"),
            tags=("t",),
            unsafe=("nsfw",),
            markets=("de",),
            expires_at=NOW,
            published_at=NOW - DAY,
        )
    )
    row = c.put(entry("a", 4, title="", available=False, categories=("z",)))
    assert (c.listed[row], c.available[row], c.deleted[row]) == (True, False, False)
    assert (c.creator[row], c.unsafe[row], c.expires_at[row], c.published_at[row]) == (0, 0, 0, 0)
    assert c.markets[row] == 0
    assert c.categories[row].tolist() == [hash_id("z"), *[0] * 7]
    assert c.tags[row].tolist() == [0] * 8
    assert c.title(row) == ""


def test_what_is_published_lies_in_columns() -> None:
    c = catalog()
    names = tuple(f"c{at}" for at in range(10))
    row = c.put(entry("a", creator_id="ann", categories=names, unsafe=("nsfw", "gore"), expires_at=5, published_at=4))
    assert c.hashes[row] == hash_id("a")
    assert c.creator[row] == hash_id("ann")
    assert c.categories[row].tolist() == [hash_id(name) for name in names[:8]]
    assert c.unsafe[row] == c.label("nsfw") | c.label("gore")
    assert (c.expires_at[row], c.published_at[row], c.title(row)) == (5, 4, "A")


def test_categories_and_tags_are_known_by_name() -> None:
    c = catalog()
    tags = tuple(f"t{at}" for at in range(10))
    row = c.put(entry("a", categories=("x", "y"), tags=tags))
    assert c.tags[row].tolist() == [hash_id(tag) for tag in tags[:8]]
    assert c.words == {hash_id(name): name for name in ("x", "y", *tags[:8])}


def test_a_content_vector_lies_in_a_column_while_it_holds() -> None:
    c, vector = Catalog(ItemRows(16), dimension=3), np.array([0.6, 0, -0.8], np.float32)
    row = c.put(entry("a", 1, content=vector))
    assert (c.described[row], c.content[row].tolist()) == (True, vector.tolist())
    c.put(entry("a", 2))
    assert (c.described[row], c.content[row].tolist()) == (False, [0, 0, 0])
    for at, none in enumerate((np.zeros(3, np.float32), np.ones(4, np.float32), np.empty(0, np.float32))):
        c.put(entry("a", 3 + at, content=none))
        assert (c.described[row], c.content[row].tolist()) == (False, [0, 0, 0])
    ends: list[Callable[[], object]] = [lambda: c.remove(hash_id("a"), NOW), lambda: c.drop(hash_id("a"))]
    for end in ends:
        c.put(entry("a", 9, content=vector))
        assert c.described[row]
        end()
        assert (c.described[row], c.content[row].tolist()) == (False, [0, 0, 0])


def test_what_is_typical_is_the_mean_of_the_content_there_is() -> None:
    c, rng = Catalog(ItemRows(16), dimension=3), np.random.default_rng(1)
    assert c.typical.tolist() == [0, 0, 0]
    for at in range(60):
        name = f"i{rng.integers(8)}"
        vector = rng.standard_normal(3).astype(np.float32) if rng.random() < 0.6 else np.empty(0, np.float32)
        c.put(entry(name, at, content=vector))
        if rng.random() < 0.2:
            c.remove(hash_id(name), NOW)
        if rng.random() < 0.1:
            c.drop(hash_id(name))
        there = c.content[: len(c)][c.described[: len(c)]]
        np.testing.assert_allclose(c.typical, there.mean(axis=0) if len(there) else np.zeros(3), atol=1e-6)


def test_a_lower_offset_is_ignored() -> None:
    c = catalog()
    row = c.put(entry("a", 7))
    assert c.put(entry("a", 6, available=False)) == row
    assert c.available[row]
    c.remove(hash_id("a"), NOW, offset=6)
    assert not c.deleted[row]
    c.put(entry("a", 7, available=False))
    assert not c.available[row]


def test_a_gravestone_hides_until_a_later_record() -> None:
    c = catalog()
    row = c.put(entry("a", 7))
    c.remove(hash_id("a"), NOW)
    assert (c.listed[row], c.deleted[row], c.open()[row], c.present()[row]) == (False, True, False, False)
    c.put(entry("a", 6))
    assert c.deleted[row]
    c.put(entry("a", 8))
    assert c.open()[row]


def test_a_null_forgets_the_gravestone() -> None:
    c = catalog()
    c.put(entry("a", 7))
    c.remove(hash_id("a"), NOW)
    c.drop(hash_id("a"))
    c.drop(hash_id("never met"))
    row = c.put(entry("a", 1))
    assert c.open()[row]
    assert len(c) == 1


def test_who_may_be_shown() -> None:
    for unlisted in (True, False):
        c = catalog(unlisted)
        listed, hidden = c.put(entry("a")), c.put(entry("b", available=False))
        from_events, nameless = c.rows.row(hash_id("c"), "c"), c.rows.row(hash_id("d"))
        assert [bool(c.open()[row]) for row in (listed, hidden, from_events, nameless)] == [
            True,
            False,
            unlisted,
            False,
        ]
        assert [bool(c.present()[row]) for row in (listed, hidden, from_events, nameless)] == [
            True, True, unlisted, False,
        ]  # fmt: skip


def test_labels_beyond_the_63rd_share_a_bit() -> None:
    c = catalog()
    bits = [c.label(f"label {at}") for at in range(66)]
    assert len(set(bits)) == 64
    assert bits[63] == bits[65] == OTHER_LABEL
    assert c.label("label 0") == 1


def test_columns_outgrow_their_first_size() -> None:
    c = catalog()
    for at in range(100):
        c.put(entry(f"i{at}", at, expires_at=at))
    assert c.expires_at[: len(c)].tolist() == list(range(100))
    assert c.open().sum() == 100
    assert c.hashes.dtype == np.uint64
