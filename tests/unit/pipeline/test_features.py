"""What features say of candidates and contexts of queries, against plain Python on any world, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.candidates import Candidates, Lists, Trail
from pipeline.context import CONTEXTS, buckets, contexts
from pipeline.features.rank import Rank
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.queries import Queries
from pipeline.ranking import Learned, matrix, shape, strangers
from pipeline.recipe import RANKER, home
from pipeline.retrieval import gather
from pipeline.types import F32, hash_id
from tests.retrieving import DAY, NOW, User, World, entry, queries, vectors, world

BY_NAME = {feature.name: feature for feature in RANKER.features if not isinstance(feature, Rank)}
BY_NAME |= {column: feature for feature in RANKER.features if isinstance(feature, Rank) for column in feature.columns}
RANKS = [name for name, feature in BY_NAME.items() if isinstance(feature, Rank)]
SECOND = 1000

worlds = st.builds(
    world, seed=st.integers(0, 1 << 32), items=st.sampled_from([1, 5, 60]), users=st.sampled_from([1, 4]),
    one_time=st.booleans(),
)  # fmt: skip
some_worlds = settings(max_examples=25, deadline=None)


def asked(here: World, seed: int) -> Queries:
    """With times of the rings that differ: newest first, some in the future."""
    rng, found = np.random.default_rng(seed), here.ask()
    gaps = np.cumsum(rng.choice([0, 1, 90, 4000, 200_000], found.ring.times.shape), axis=1)
    found.ring.times[:] = NOW // SECOND + int(rng.choice([-3000, 0, 3000])) - gaps
    return found


def everything(here: World) -> Candidates:
    """All rows, for everyone."""
    n, q = len(here.catalog), len(here.users)
    found = gather(here.ask(), here.catalog, here.model, home(repeats=True).sources)
    rows, owner = np.tile(np.arange(n), q), np.repeat(np.arange(q), n)
    return Candidates(rows, owner, np.zeros(n * q, np.float32), found.trail)


def columns(name: str, here: World, found: Queries, candidates: Candidates) -> dict[str, F32]:
    """By column, as ranked by."""
    whole = shape((BY_NAME[name],))
    return dict(zip(whole.columns, matrix(whole, found, here.catalog, here.model, candidates), strict=True))


@some_worlds
@given(here=worlds, seed=st.integers(0, 99))
def test_counts_and_times(here: World, seed: int) -> None:
    found, candidates, trends = asked(here, seed), everything(here), here.model.trends
    told = {name: columns(name, here, found, candidates) for name in ("popularity", "trend", "recency", "age", "entry")}
    newest = int(trends.reference[: len(here.catalog)].max(initial=0))
    for at, (row, owner) in enumerate(zip(candidates.rows.tolist(), candidates.owner.tolist(), strict=True)):
        now = int(found.now[owner])
        assert told["popularity"]["popularity"][at] == pytest.approx(math.log(0.5 + trends.count[row]), rel=1e-5)
        seen, born = int(trends.last_seen[row]), int(trends.first_seen[row]) or int(here.catalog.published_at[row])
        since = min(max(now - seen, 0) / SECOND, 10 * 365 * 86_400) if seen else 10 * 365 * 86_400
        age = max(now - born, 0) / SECOND if born else 0
        assert told["recency"]["since_last_seen"][at] == pytest.approx(math.log1p(since), rel=1e-5)
        assert told["age"]["age"][at] == pytest.approx(math.log1p(age), rel=1e-5)
        step = min(int(found.history[owner]), 2)
        assert told["entry"]["entry"][at] == pytest.approx(math.log(0.3 + trends.entry[row, step]), rel=1e-5, abs=1e-6)
        for h, half_life in enumerate(HALF_LIVES_MS):
            late = newest - int(trends.reference[row]) + max(now - newest, 0)
            count = float(trends.decayed[row, h]) * 2 ** (-late / half_life)
            assert told["trend"][f"trend_{h}"][at] == pytest.approx(math.log(1e-3 + count), rel=1e-3, abs=1e-3)


@some_worlds
@given(here=worlds, seed=st.integers(0, 99))
def test_own_items(here: World, seed: int) -> None:
    found, candidates = asked(here, seed), everything(here)
    told = columns("own", here, found, candidates)
    for at, (row, owner) in enumerate(zip(candidates.rows.tolist(), candidates.owner.tolist(), strict=True)):
        ring = found.ring_rows[owner].tolist()
        expected = [0.0] * 5
        if row in ring:
            gap = max(int(found.now[owner]) / SECOND - int(found.ring.times[owner, ring.index(row)]), 0)
            expected = [1, -math.log1p(gap), math.log(ring.count(row)), float(ring[0] == row), float(ring[1] == row)]
        assert [float(told[name][at]) for name in BY_NAME["own"].columns] == pytest.approx(expected, rel=1e-5)


@some_worlds
@given(here=worlds, seed=st.integers(0, 99))
def test_contexts(here: World, seed: int) -> None:
    found, trends = asked(here, seed), here.model.trends
    told = contexts(found, here.model)
    assert told.dtype == np.float32
    assert np.isfinite(told).all()
    for query in range(len(found)):
        n, rows = int(found.ring.length[query]), found.ring_rows[query].tolist()
        items, times = found.ring.items[query, :n].tolist(), found.ring.times[query, :n].tolist()
        now, expected = int(found.now[query]) / SECOND, [math.log1p(found.history[query]), *[0.0] * 6]
        if n:
            known = [(0.9**d, row, times[d]) for d, row in enumerate(rows[:n]) if row >= 0]
            total = sum(w for w, _, _ in known)
            ages = [w * math.log1p(max(t - trends.first_seen[row] / SECOND, 0)) for w, row, t in known]
            counts = [w * math.log1p(trends.count[row]) for w, row, _ in known]
            expected[1] = math.log1p(max(now - times[0], 0))
            expected[2] = sum(ages) / total if known else 0
            expected[3] = sum(counts) / total if known else 0
            expected[4] = sum(item in items[d + 1 :] for d, item in enumerate(items)) / n
            expected[5] = float(items[0] in items[1:])
            expected[6] = math.log1p(max(times[0] - times[1], 0)) if n > 1 else 0
        assert told[query].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6), dict(
            zip(CONTEXTS, expected, strict=True)
        )


def test_a_stranger_is_told_by_zeros_and_lies_in_the_first_bucket() -> None:
    here = world(1, 20, 0)
    nobody = queries(here.model, [User()])
    assert not contexts(nobody, here.model).any()
    assert buckets(nobody).tolist() == [0]


def test_buckets_of_histories() -> None:
    here = world(1, 5, 0)
    many = queries(here.model, [User(["x"] * n) for n in (0, 1, 2, 3, 6, 7, 14, 15, 30, 31, 500)])
    assert buckets(many).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_ranks_are_the_best_of_a_name_and_200_where_nothing_was_proposed() -> None:
    here = world(4, 40, 3)
    candidates = everything(here)
    lists = candidates.trail.lists
    proposals = [lists.source(at) for at in range(len(candidates.trail.sources))]
    told, proposed = {name: columns(name, here, here.ask(), candidates)[name] for name in RANKS}, 0
    for at, (row, owner) in enumerate(zip(candidates.rows.tolist(), candidates.owner.tolist(), strict=True)):
        for column, values in told.items():
            places = [
                some.rows[some.start[owner] : some.start[owner + 1]].tolist()
                for name, some in zip(candidates.trail.sources, proposals, strict=True)
                if name == column.removeprefix("rank_")
            ]
            best = min((place.index(row) + 1 for place in places if row in place), default=200)
            assert values[at] == pytest.approx(-math.log1p(best), rel=1e-5)
            proposed += best < 200
    assert proposed > 100


def test_a_source_that_gave_nothing_leaves_its_rank_at_the_floor() -> None:
    here = world(4, 40, 2)
    whole = everything(here)
    trail = Trail((), Lists.of((), len(whole.trail.gathered)), ("sequence",), whole.trail.gathered, whole.trail.ranked)
    without = Candidates(whole.rows, whole.owner, whole.scores, trail)
    for name in RANKS:
        assert columns(name, here, here.ask(), without)[name] == pytest.approx(-math.log(201))


@pytest.mark.parametrize("name", BY_NAME)
def test_without_candidates_there_are_no_values(name: str) -> None:
    here = world(4, 10, 2)
    none = np.empty(0, np.int64)
    trail = everything(here).trail
    told = columns(name, here, here.ask(), Candidates(none, none, none.astype(np.float32), trail))
    assert all(values.shape == (0,) for values in told.values())


def test_the_logarithm_is_taken_of_evidence_alone() -> None:
    here = world(1, 5, 1)
    plain, logged = BY_NAME["own"], BY_NAME["popularity"]
    whole = shape((plain, logged))
    assert whole.features == (logged, plain)  # those of which logarithms are taken come first
    assert whole.columns == ("popularity", *plain.columns)
    assert whole.floors[0] == pytest.approx(math.log(0.5))
    assert whole.names == ("popularity", "own")
    assert whole.groups.tolist() == [0, 1, 1, 1, 1, 1]
    matrix(whole, here.ask(), here.catalog, here.model, everything(here))


def test_ranks_are_told_with_what_they_are_ranks_of() -> None:
    assert {feature.name for feature in RANKER.features if isinstance(feature, Rank)} < set(BY_NAME) - set(RANKS)
    whole = RANKER.shape
    assert whole.groups[whole.columns.index("rank_trending")] == whole.groups[whole.columns.index("trend_0")]
    assert len(set(whole.names)) == len(whole.names)


def test_features_have_distinct_columns() -> None:
    names = [column for feature in RANKER.features for column in feature.columns]
    assert len(set(names)) == len(names)
    assert {feature.name for feature in RANKER.features} <= set(RANKER.names)


class TestBelowTheBest:
    """How far columns are below the best of the list."""

    BELOW = ("trend_2", "popularity")

    @some_worlds
    @given(here=worlds)
    def test_is_the_distance_from_the_greatest_of_the_owner(self, here: World) -> None:
        whole, candidates = shape((BY_NAME["popularity"], BY_NAME["trend"]), self.BELOW), everything(here)
        values = matrix(whole, here.ask(), here.catalog, here.model, candidates)
        assert whole.columns[-2:] == ("trend_2_below_best", "popularity_below_best")
        assert whole.groups[-2:].tolist() == [whole.names.index("trend"), whole.names.index("popularity")]
        for name, below in zip(self.BELOW, values[-2:], strict=True):
            plain = values[whole.columns.index(name)]
            for query in range(len(here.users)):
                mine = candidates.owner == query
                np.testing.assert_allclose(below[mine], plain[mine] - max(plain[mine].tolist()), atol=1e-6)

    def test_of_items_outside_the_list_is_the_distance_from_the_lists_best(self) -> None:
        here = world(9, 60, 6)
        ranker = Learned((BY_NAME["popularity"],), (("popularity", 1.0),), below=("popularity",))
        asked, n = here.ask(), len(here.catalog)
        best = int(np.argmax(here.model.trends.count[:n]))
        rows = np.tile(np.delete(np.arange(n), best)[:9], 6)  # lists without the most popular item of all
        found = Candidates(rows, np.repeat(np.arange(6), 9), np.zeros(54, np.float32), everything(here).trail)
        ranker(asked, here.catalog, here.model, found)
        served = ranker.served(asked, here.catalog, here.model, range(6))
        assert any(best in one.rows[9:] for one in served)
        for one in served:
            np.testing.assert_allclose(one.features[1], one.features[0] - one.features[0, :9].max(), atol=1e-6)

    def test_nobody_asks_and_nothing_is_found(self) -> None:
        here = world(1, 5, 1)
        none = np.empty(0, np.int64)
        nothing = Candidates(none, none, none.astype(np.float32), everything(here).trail)
        whole = shape((BY_NAME["popularity"],), ("popularity",))
        assert matrix(whole, here.ask(), here.catalog, here.model, nothing).shape == (2, 0)


class TestStrangers:
    """Random items to learn from."""

    def test_are_known_items_that_the_user_neither_consumed_nor_blocked(self) -> None:
        here = world(9, 60, 6)
        found = here.ask()
        rows, owner = strangers(found, here.model, [1, 4], 50)
        assert set(owner.tolist()) == {1, 4}
        assert here.model.sequence.known[rows].all()
        for query in (1, 4):
            user = here.users[query]
            drawn = {here.model.rows.ids[row] for row in rows[owner == query]}
            assert len(drawn) > 5
            assert not drawn & (set(user.consumed) | set(user.blocked))

    def test_of_a_query_are_the_same_in_any_chunk(self) -> None:
        here = world(9, 60, 6)
        together = strangers(here.ask(), here.model, range(6), 50)
        for query in range(6):
            alone, _ = strangers(here.ask([query]), here.model, [0], 50)
            np.testing.assert_array_equal(together[0][together[1] == query], alone)

    def test_are_uniform(self) -> None:
        here = world(9, 0, 0)
        for at in range(8):
            here.model.put_vectors(vectors(f"i{at}"))
        asking = queries(here.model, [User(now=NOW + at) for at in range(2000)])
        rows, _ = strangers(asking, here.model, range(2000), 10)
        counts = np.bincount(rows, minlength=8)
        assert (abs(counts - 2500) < 5 * math.sqrt(2500)).all()

    def test_nobody_knows_an_item(self) -> None:
        here = world(1, 0, 1)
        rows, owner = strangers(here.ask(), here.model, [0], 50)
        assert (len(rows), len(owner)) == (0, 0)


def test_age_goes_by_the_publishing_time_until_somebody_takes_the_item() -> None:
    here = world(1, 0, 1)
    here.catalog.put(entry("announced", published_at=NOW - DAY))
    row = int(here.model.rows.row(hash_id("announced")))
    one = Candidates(np.array([row]), np.zeros(1, np.int64), np.zeros(1, np.float32), everything(here).trail)
    assert columns("age", here, here.ask(), one)["age"][0] == pytest.approx(math.log1p(DAY / SECOND))
    here.model.put_vectors(vectors("announced", first_seen=NOW - 9 * SECOND))
    assert columns("age", here, here.ask(), one)["age"][0] == pytest.approx(math.log1p(9))
