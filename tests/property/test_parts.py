"""What every part of the read path must hold, whatever the catalogue, the model and the users. One suite for all."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import arrangers, filters
from pipeline.candidates import Candidates, starts
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.provenance import Feed
from pipeline.queries import Queries, proposable
from pipeline.ranking import Feature, Learned, matrix, shape
from pipeline.recipe import ARRANGERS, FILTERS, GUARDS, RANKER, RECIPES, SOURCES, home
from pipeline.retrieval import Arranger, Filter, Recipe, Source, build_feeds, gather, shortlist, sift
from pipeline.selection import LIMIT, Proposals, owners
from pipeline.types import I64, Owner, Rows
from tests.retrieving import World, world


def every(folder: ModuleType, listed: Iterable[Any]) -> tuple[Any, ...]:
    """The parts that a recipe lists, and one of each other kind in their folder."""
    parts: dict[type[Any], Any] = {type(part): part for part in listed}
    for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
        kinds = [kind for kind in vars(import_module(module.name)).values() if isinstance(kind, type)]
        for kind in kinds:
            if is_dataclass(kind) and kind.__module__ == module.name and "__call__" in vars(kind):
                parts.setdefault(kind, kind())
    return tuple(parts.values())


ALL_FILTERS = every(filters, (*FILTERS, *home().filters, *GUARDS))
ALL_ARRANGERS = every(arrangers, ARRANGERS)
FEATURES = RANKER.features

worlds = st.builds(
    world,
    seed=st.integers(0, 1 << 32),
    items=st.sampled_from([0, 1, 2, 10, 50, 300]),
    users=st.sampled_from([0, 1, 3, 8]),
    unlisted=st.booleans(),
    one_time=st.booleans(),
)
some_worlds = settings(max_examples=12, deadline=None)


def segments(proposals: Proposals) -> list[Rows]:
    return [proposals.rows[a:b] for a, b in pairwise(proposals.start.tolist())]


def any_rows(seed: int, here: World) -> tuple[Rows, Owner]:
    """Candidates as no source would pick them: any rows that are in use, also ones without a name."""
    rng, n, q = np.random.default_rng(seed), len(here.catalog), len(here.users)
    counts = rng.integers(0, min(n, 30) + 1, q) if n else np.zeros(q, np.int64)
    rows = [rng.choice(n, count, replace=False) for count in counts.tolist()]
    return np.concatenate([np.empty(0, np.int64), *rows]), owners(np.cumsum([0, *counts]))


def one_by_one(rows: Rows, owner: Owner, q: int) -> list[tuple[I64, Rows, Owner]]:
    """Each query's candidates as of a chunk of one: places in the whole, rows, owner 0."""
    places = [np.flatnonzero(owner == at) for at in range(q)]
    return [(place, rows[place], np.zeros(len(place), np.int64)) for place in places]


@pytest.mark.parametrize("source", SOURCES, ids=repr)
class TestSources:
    @some_worlds
    @given(here=worlds)
    def test_proposes_unique_proposable_rows_at_most_the_limit(self, source: Source, here: World) -> None:
        queries = here.ask()
        found = source(queries, here.catalog, here.model)
        assert len(found.start) == len(queries) + 1
        allowed = proposable(queries, here.catalog)
        for query, rows in enumerate(segments(found)):
            assert len(rows) <= LIMIT
            assert len(set(rows.tolist())) == len(rows)
            assert allowed[query % len(allowed)][rows].all()

    @some_worlds
    @given(here=worlds)
    def test_is_pure(self, source: Source, here: World) -> None:
        first, second = (source(here.ask(), here.catalog, here.model) for _ in range(2))
        np.testing.assert_array_equal(first.start, second.start)
        np.testing.assert_array_equal(first.rows, second.rows)

    @some_worlds
    @given(here=worlds)
    def test_a_chunk_proposes_what_its_queries_propose_one_by_one(self, source: Source, here: World) -> None:
        for query, rows in enumerate(segments(source(here.ask(), here.catalog, here.model))):
            alone = source(here.ask([query]), here.catalog, here.model).rows
            assert len(alone) == len(rows)
            strange = set(rows.tolist()) ^ set(alone.tolist())  # ties at the end of the list may go either way
            assert len(strange) <= 2

    def test_nobody_asks(self, source: Source) -> None:
        here = world(1, 20, 0)
        assert source(here.ask(), here.catalog, here.model).rows.tolist() == []


@pytest.mark.parametrize("part", ALL_FILTERS, ids=lambda part: part.name)
class TestFilters:
    @some_worlds
    @given(here=worlds, seed=st.integers(0, 99))
    def test_each_row_is_judged_alone(self, part: Filter, here: World, seed: int) -> None:
        rows, owner = any_rows(seed, here)
        kept = part(here.ask(), here.catalog, rows, owner)
        assert kept.dtype == np.bool_
        assert kept.shape == rows.shape
        for query, (places, mine, me) in enumerate(one_by_one(rows, owner, len(here.users))):
            np.testing.assert_array_equal(part(here.ask([query]), here.catalog, mine, me), kept[places])
            np.testing.assert_array_equal(part(here.ask([query]), here.catalog, mine[::2], me[::2]), kept[places][::2])

    def test_drops_something_and_keeps_something(self, part: Filter) -> None:
        here = world(3, 300, 8)
        rows = np.tile(np.arange(len(here.catalog)), 8)
        kept = part(here.ask(), here.catalog, rows, owners(np.arange(9) * len(here.catalog)))
        assert 0 < kept.sum() < len(kept)


def candidates(rows: Rows, owner: Owner, here: World, which: Sequence[int] | None = None) -> Candidates:
    """`rows` as if the recipe's sources had been asked, whatever they proposed."""
    trail = gather(here.ask(which), here.catalog, here.model, SOURCES).trail
    return Candidates(rows, owner, np.zeros(len(rows), np.float32), trail)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda part: part.name)
class TestFeatures:
    @some_worlds
    @given(here=worlds, seed=st.integers(0, 99))
    def test_finite_columns_whose_rows_do_not_depend_on_each_other(
        self, feature: Feature, here: World, seed: int
    ) -> None:
        rows, owner = any_rows(seed, here)
        columns = matrix(shape((feature,)), here.ask(), here.catalog, here.model, candidates(rows, owner, here))
        assert columns.dtype == np.float32
        assert columns.shape == (len(feature.columns), len(rows))
        assert np.isfinite(columns).all()
        for query, (places, mine, me) in enumerate(one_by_one(rows, owner, len(here.users))):
            asked, some = here.ask([query]), candidates(mine[::-1], me, here, [query])
            alone = matrix(shape((feature,)), asked, here.catalog, here.model, some)[:, ::-1]
            np.testing.assert_allclose(alone, columns[:, places], rtol=1e-5, atol=1e-5)

    def test_fills_all_of_its_columns(self, feature: Feature) -> None:
        here = world(3, 50, 3)
        rows, owner = any_rows(1, here)
        out = np.full((len(feature.columns), len(rows)), np.nan, np.float32)
        feature(here.ask(), here.catalog, here.model, candidates(rows, owner, here), out)
        assert np.isfinite(out).all()
        assert feature.eps == 0 or (out >= 0).all()

    def test_an_item_without_evidence_has_the_floor(self, feature: Feature) -> None:
        here = world(3, 50, 3)
        stranger = candidates(np.full(3, here.model.rows.row(12345)), np.arange(3), here)
        whole = shape((feature,))
        columns = matrix(whole, here.ask(), here.catalog, here.model, stranger)
        np.testing.assert_allclose(columns, np.repeat(whole.floors[:, None], 3, axis=1), atol=1e-6)


@pytest.mark.parametrize("part", ALL_ARRANGERS, ids=lambda part: part.name)
class TestArrangers:
    def test_moves_something(self, part: Arranger) -> None:
        here = world(3, 300, 8)
        cluster = here.model.clusters.of(here.model.sequence.e_out[: len(here.catalog)])
        rows = np.tile(np.argsort(-cluster), 8)  # one taste after the other
        order = part(here.ask(), here.catalog, here.model, rows, owners(np.arange(9) * len(here.catalog)))
        assert (order != np.arange(len(rows))).any()

    @some_worlds
    @given(here=worlds, seed=st.integers(0, 99))
    def test_a_permutation_within_each_owner(self, part: Arranger, here: World, seed: int) -> None:
        rows, owner = any_rows(seed, here)
        order = part(here.ask(), here.catalog, here.model, rows, owner)
        assert sorted(order.tolist()) == list(range(len(rows)))
        np.testing.assert_array_equal(owner[order], owner)
        for query, (places, mine, me) in enumerate(one_by_one(rows, owner, len(here.users))):
            alone = part(here.ask([query]), here.catalog, here.model, mine, me)
            np.testing.assert_array_equal(places[alone], order[places])


class TestRanker:
    @some_worlds
    @given(here=worlds, seed=st.integers(0, 99), taught=st.booleans())
    def test_parts_say_what_a_score_is_made_of(self, here: World, seed: int, taught: bool) -> None:
        if taught:
            teach(here, RANKER)
        queries, found = here.ask(), candidates(*any_rows(seed, here), here)
        scores = RANKER(queries, here.catalog, here.model, found)
        parts = RANKER.parts(queries, here.catalog, here.model, found)
        assert scores.dtype == parts.dtype == np.float32
        assert parts.shape == (len(RANKER.names), len(found))
        assert (parts >= 0).all()
        assert np.isfinite(scores).all()
        again = RANKER.parts(here.ask(), here.catalog, here.model, found)  # without the features of the ranking
        np.testing.assert_allclose(again, parts, rtol=1e-5, atol=1e-5)


def teach(here: World, ranker: Learned, times: int = 900) -> None:
    """Let every user choose the last of their list again and again, until learned weights serve."""
    queries = here.ask()
    found = shortlist(queries, here.catalog, here.model, home(repeats=True))
    start = starts(found.owner, len(queries))
    some = np.flatnonzero(start[1:] > start[:-1])
    while len(some) and here.model.ranker.examples < times:
        chosen = np.full(len(queries), -1)
        chosen[some] = found.rows[start[1:][some] - 1]
        ranker.learn(queries, here.catalog, here.model, found, chosen)
    assert here.model.ranker.earned == (len(some) > 0)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("name", RECIPES)
class TestFeeds:
    @some_worlds
    @given(here=worlds)
    def test_a_chunk_gives_what_its_queries_give_one_by_one(self, name: str, repeats: bool, here: World) -> None:
        recipe = RECIPES[name](repeats=repeats)
        feeds = build_feeds(here.ask(), here.catalog, here.model, recipe)
        assert len(feeds) == len(here.users)
        for query, feed in enumerate(feeds):
            (alone,) = build_feeds(here.ask([query]), here.catalog, here.model, recipe)
            assert_same(alone, feed)

    @some_worlds
    @given(here=worlds)
    def test_shows_only_what_may_be_shown(self, name: str, repeats: bool, here: World) -> None:
        recipe, catalog = RECIPES[name](repeats=repeats), here.catalog
        for user, feed in zip(here.users, build_feeds(here.ask(), catalog, here.model, recipe), strict=True):
            rows, ids = feed.rows, [here.model.rows.ids[row] for row in feed.rows]
            assert len(set(ids)) == len(ids) <= recipe.size
            assert all(ids)
            assert not catalog.deleted[rows].any()
            assert (catalog.available | ~catalog.listed)[rows].all()
            assert catalog.unlisted or catalog.listed[rows].all()
            assert ((catalog.expires_at[rows] == 0) | (catalog.expires_at[rows] > user.now)).all()
            assert not set(ids) & set(user.blocked)
            assert repeats or not set(ids) & set(user.consumed)
            assert user.attributes.audience == "adult" or not catalog.unsafe[rows].any()
            market = np.uint64(catalog.named_markets.get(user.attributes.market, 0))
            assert ((catalog.markets[rows] == 0) | (catalog.markets[rows] & market != 0)).all()

    @some_worlds
    @given(here=worlds)
    def test_counts_add_up_and_reasons_are_the_users_own(self, name: str, repeats: bool, here: World) -> None:
        recipe = RECIPES[name](repeats=repeats)
        for user, feed in zip(here.users, build_feeds(here.ask(), here.catalog, here.model, recipe), strict=True):
            assert feed.gathered == sum(feed.dropped.values()) + feed.ranked
            assert len(feed.rows) == min(feed.ranked, recipe.size)
            assert np.isfinite(feed.scores).all()
            assert feed.skipped == ()
            for sources, because, parts in zip(feed.sources, feed.because, feed.parts, strict=True):
                assert sources
                assert all(1 <= place <= LIMIT for place in sources.values())
                assert all(value > 0 for value in parts.values())
                assert {here.model.rows.ids[row] for row in because} <= set(user.ring)
                assert len(set(because)) == len(because) <= 2


def assert_same(one: Feed, other: Feed) -> None:
    """The same items and scores; order may differ where scores are equal but for rounding."""
    assert set(one.rows.tolist()) == set(other.rows.tolist())
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5, rtol=1e-5)
    assert (one.gathered, one.ranked, one.dropped) == (other.gathered, other.ranked, other.dropped)


def test_a_stranger_in_an_empty_world_gets_an_empty_feed() -> None:
    here = world(0, 0, 1)
    (feed,) = build_feeds(here.ask(), here.catalog, here.model, home())
    assert feed.rows.tolist() == []
    assert (feed.gathered, feed.ranked, feed.dropped) == (0, 0, {})


def test_a_source_that_fails_is_skipped_and_named() -> None:
    class Broken:
        name = "broken"

        def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
            raise ZeroDivisionError

    here, whole = world(5, 100, 4), home()
    broken = Recipe("broken", (Broken(), *SOURCES), whole.filters, RANKER, GUARDS, ARRANGERS, whole.size)
    for one, other in zip(
        build_feeds(here.ask(), here.catalog, here.model, broken),
        build_feeds(here.ask(), here.catalog, here.model, whole),
        strict=True,
    ):
        assert_same(one, other)
        assert one.skipped == ("broken",)


def test_a_candidate_is_counted_for_the_first_filter_that_drops_it() -> None:
    here = world(7, 200, 6)
    found = gather(here.ask(), here.catalog, here.model, SOURCES)
    kept = sift(here.ask(), here.catalog, found, [*FILTERS, *FILTERS])
    again = kept.trail.dropped[len(FILTERS) :]
    assert sum(counts.sum() for _, counts in kept.trail.dropped) == len(found) - len(kept) > 0
    assert all(not counts.any() for _, counts in again)
