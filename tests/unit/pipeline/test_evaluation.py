"""Prequential evaluation: figures that a pencil gives too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.catalog import Catalog
from pipeline.evaluation.baselines import NAMES
from pipeline.evaluation.metrics import clustered_error, errors, figures, gini, scores
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.prequential import Prequential, Setup
from pipeline.evaluation.report import difference, learning_curve, report
from pipeline.evaluation.stream import Stream
from pipeline.filters.available import Available
from pipeline.model import Model
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.queries import Queries, evidence, logits
from pipeline.recipe import home
from pipeline.selection import Proposals
from tests.evaluating import DISLIKE, FORGET, GLANCE, Alike, Did, numbers, plain, stream, told
from tests.retrieving import entry


def test_the_metrics_of_five_ranks() -> None:
    ranks = np.array([1, 3, 10.5, 20, math.inf])
    found = figures(ranks)
    assert found["n"] == 5
    assert found["recall@10"] == 2 / 5
    assert found["recall@20"] == 4 / 5
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2) / 5)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 10.5 + 1 / 20) / 5)


def test_of_nothing_there_is_no_figure() -> None:
    assert figures(np.empty(0)) == {"n": 0, "recall@10": None, "recall@20": None, "ndcg@10": None, "mrr": None}
    assert errors(np.empty(0), np.empty(0, np.int64)) == {"recall@10": None, "ndcg@10": None}
    assert gini(np.zeros(3, np.int64)) is None


def test_one_user_has_no_standard_error() -> None:
    assert clustered_error(np.array([0.0, 1, 1]), np.array([7, 7, 7])) is None


def test_the_clustered_error_of_three_users() -> None:
    """Mean 1/2; sums of residuals 1, -1/2, -1/2."""
    values, user = np.array([1, 1, 0, 0.0]), np.array([4, 4, 9, 2])
    assert clustered_error(values, user) == pytest.approx(math.sqrt(3 / 2 * (1 + 1 / 4 + 1 / 4)) / 4)


def test_clusters_of_one_give_the_plain_standard_error() -> None:
    values = np.random.default_rng(3).normal(size=50)
    assert clustered_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_doubling_every_event_of_a_user_leaves_the_clustered_error() -> None:
    values, user = np.random.default_rng(3).normal(size=50), np.arange(50)
    twice = clustered_error(np.tile(values, 2), np.tile(user, 2))
    assert twice == pytest.approx(clustered_error(values, user))


def test_the_gini_of_shown_items() -> None:
    assert gini(np.array([4, 4, 4])) == pytest.approx(0)
    assert gini(np.array([0, 0, 9])) == pytest.approx(2 / 3)


def test_a_miss_is_worth_nothing() -> None:
    assert [scores(np.array([math.inf]), metric)[0] for metric in ("recall@20", "ndcg@10", "mrr")] == [0, 0, 0]


# ------------------------------------------------------------------ the loop, by pencil


def run(events: Stream, setup: Setup | None = None) -> Outcomes:
    return Prequential(events, setup or plain()).run()


def test_each_event_is_tested_with_what_was_known_before_it() -> None:
    """Popularity, consumed items left out. Ranks: a is new; a alone; b is new; b alone (a consumed); c is new;
    behind a and b; a and b share places 1 and 2 (c consumed)."""
    found = run(told("1a 2a 1b 2b 1c 3c 3a"))
    assert found.rank.tolist() == [math.inf, 1, math.inf, 1, math.inf, 3, 1.5]
    assert found.history.tolist() == [0, 0, 1, 1, 2, 0, 1]
    assert found.arranged.tolist() == [math.inf, 1, math.inf, 1, math.inf, 3, 1]
    popularity = found.baselines[:, NAMES.index("popularity")]
    assert popularity.tolist() == found.rank.tolist()


def test_the_report_of_a_stream_that_a_pencil_can_follow() -> None:
    found = report(run(told("1a 2a 1b 2b 1c 3c 3a")), plain())
    gains = [0, 1, 0, 1 / math.log2(2.5)]
    assert (found["events"], found["queries"]) == (7, 7)
    assert found["known"] == {
        "n": 4,
        "recall@10": 0.5,
        "recall@20": 0.5,
        "ndcg@10": pytest.approx(sum(gains) / 4),
        "mrr": pytest.approx((1 + 1 / 1.5) / 4),
        "se": {
            # User 1 missed twice, users 2 and 3 hit once each.
            "recall@10": pytest.approx(math.sqrt(3 / 2 * (1 + 1 / 4 + 1 / 4)) / 4),
            "ndcg@10": pytest.approx(clustered(gains, [1, 2, 1, 3])),
        },
    }
    assert found["all"]["recall@10"] == 4 / 7
    assert {name: group["n"] for name, group in found["by_history"].items() if group["n"]} == {"0": 3, "1": 3, "2-3": 1}
    assert {name: group["n"] for name, group in found["by_item_age"].items() if group["n"]} == {
        "never seen": 2,
        "<1h": 2,
    }
    assert found["by_source"] == {
        "any": {"proposed": 0.5, "hits": 0.5, "alone": None},
        "everything": {"proposed": 0.5, "hits": 0.5, "alone": 0.25},
        "later": {"proposed": 0.25, "hits": 0.25, "alone": 0},
    }


def clustered(values: Sequence[float], user: Sequence[int]) -> float:
    """The definition, user by user."""
    mean, n, users = sum(values) / len(values), len(values), sorted(set(user))
    sums = [sum(value - mean for value, its in zip(values, user, strict=True) if its == one) for one in users]
    return math.sqrt(len(users) / (len(users) - 1) * sum(total**2 for total in sums)) / n


def test_with_repeats_an_item_may_come_again_and_is_reported_apart() -> None:
    found = report(run(told("1a 1b 1a 1a 2b"), plain(repeats=True)), plain(repeats=True))
    assert (found["repeats"]["n"], found["first_time"]["n"]) == (2, 1)
    assert found["repeats"]["mrr"] == pytest.approx((1 / 1.5 + 1) / 2)  # a and b alike, then a before b
    assert found["first_time"]["recall@10"] == 0  # b was new


def test_without_repeats_an_item_that_comes_again_is_a_miss_for_all() -> None:
    found = run(told("1a 2a 1a"))
    assert found.rank[2] == math.inf
    assert (found.baselines[2] == math.inf).all()


def test_all_equal_scores_give_the_middle_rank() -> None:
    found = run(told("1a 1b 1c 1d 1e 2c 3e"), plain(ranker=Alike()))
    assert found.rank[5:].tolist() == [3, 3]


def test_events_without_weight_move_the_state_and_are_not_queried() -> None:
    found = run(stream([Did("1", "a"), Did("2", "a", GLANCE), Did("2", "a", DISLIKE), Did("2", "b"), Did("2", "a")]))
    assert found.event.tolist() == [0, 3, 4]
    assert found.history.tolist() == [0, 0, 1]
    assert found.rank[2] == math.inf  # blocked
    assert found.learned == 3


def test_a_user_who_is_forgotten_is_a_stranger() -> None:
    found = run(stream([Did("1", "a"), Did("2", "b"), Did("1", "", FORGET), Did("1", "a")]))
    assert found.history.tolist() == [0, 0, 0]
    assert found.rank[2] == 1.5  # not consumed any more


def test_an_event_that_its_producer_sent_twice_counts_once() -> None:
    found = run(stream([Did("1", "a", id=7), Did("1", "a", id=7), Did("1", "b", id=8)]))
    assert (found.event.tolist(), found.learned, found.events) == ([0, 2], 2, 3)


def test_times_out_of_order_are_sorted_and_equal_ones_stay() -> None:
    given = stream([Did("1", "a", time=5), Did("2", "b", time=3), Did("3", "c", time=5), Did("4", "d", time=4)])
    found, late = given.ordered()
    assert late == 2
    assert found.item_ids == ["b", "d", "a", "c"]
    assert found.user.tolist() == [1, 3, 0, 2]
    assert found.time.tolist() == [3000, 4000, 5000, 5000]
    again, late = found.ordered()
    assert (again is found, late) == (True, 0)


def test_an_item_enters_the_catalogue_before_its_event() -> None:
    arrivals = [(0, entry("a")), (2, entry("b", available=False))]
    setup = plain()
    listed = replace(setup, recipe=replace(setup.recipe, filters=(*setup.recipe.filters, Available())))
    found = run(stream([Did("1", "b"), Did("2", "b"), Did("3", "b"), Did("1", "a")], arrivals), listed)
    assert found.rank.tolist() == [math.inf, 1, math.inf, math.inf]


@pytest.mark.parametrize("text", ["", "1a", "1a 2a 3a 4a", "1a 1b 1c"], ids=["empty", "one", "one item", "one user"])
def test_little_gives_defined_figures(text: str) -> None:
    for setup in (plain(), Setup(home(), dimension=4), Setup(home(repeats=True), dimension=4, sample=3)):
        found = report(run(told(text), setup), setup)
        assert found["events"] == len(text.split())
        assert not [path for path, number in numbers(found) if not math.isfinite(number)]


def test_two_runs_print_the_same_and_a_sample_asks_less() -> None:
    events = synthetic(400)
    setup = Setup(home(), dimension=8)
    one, other = (report(run(events, setup), setup) for _ in range(2))
    assert one == other
    assert one["known"]["recall@10"] > 0
    some = run(events, replace(setup, sample=4))
    assert 50 < len(some.rank) < 150
    assert some.learned == 400
    every = run(events, setup)
    at = np.searchsorted(every.event, some.event)
    assert some.rank.tolist() == every.rank[at].tolist()  # the same queries, the same answers


def test_another_seed_is_another_run() -> None:
    events = synthetic(200)
    ranks = [run(events, Setup(home(), dimension=8, seed=seed)).rank.tolist() for seed in (1, 2)]
    assert ranks[0] != ranks[1]


def synthetic(n: int) -> Stream:
    """Users who take items near each other."""
    rng = np.random.default_rng(5)
    users, centre = rng.integers(20, size=n), rng.integers(40, size=20)
    items = (centre[users] + rng.integers(15, size=n)) % 40
    return stream([Did(f"u{user}", f"i{item}") for user, item in zip(users, items, strict=True)])


def test_a_source_that_fails_ends_the_run() -> None:
    setup = plain()
    broken = replace(setup, recipe=replace(setup.recipe, sources=(*setup.recipe.sources, Broken())))
    with pytest.raises(RuntimeError, match="the source broken failed"):
        run(told("1a 1b"), broken)


class Broken:
    name = "broken"

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        raise ZeroDivisionError


def test_two_runs_are_compared_at_the_queries_that_both_were_asked() -> None:
    """Without repeats user 1's second a is a miss, with them its rank is 1.5; the sample leaves one event out."""
    events = told("1a 2b 1a 2b 2a 1b")
    one, other = run(events), run(events, plain(repeats=True))
    found = difference(one, other)
    assert found["known"]["n"] == 4
    gains = [1, 1, 0, 0]  # of recall@10: the two repeats; then a and b are in both lists
    assert found["known"]["recall@10"] == {"mean": 0.5, "se": pytest.approx(clustered(gains, [1, 2, 2, 1]))}
    assert found["repeats"]["recall@10"]["mean"] == 1
    assert found["first_time"]["recall@10"]["mean"] == 0
    assert found["all"]["n"] == 6
    again = difference(other, one)
    assert again["known"]["mrr"]["mean"] == -found["known"]["mrr"]["mean"]
    left_out = replace(other, **{
        name: getattr(other, name)[1:] for name in ("event", "user", "history", "rank", "arranged", "repeat")
    })  # fmt: skip
    assert difference(one, left_out)["all"]["n"] == 5


def test_the_learning_curve_follows_the_stream() -> None:
    found = run(told("1a 2a 1b 2b 1c 2c 3c"))  # known: b new, b first, c new, c first
    assert found.rank[2:6].tolist() == [math.inf, 1, math.inf, 1]
    place, mean = learning_curve(found, found.rank, "recall@10", points=2)
    assert (place.tolist(), mean.tolist()) == ([2.5, 4.5], [0.5, 0.5])
    place, mean = learning_curve(found, found.rank, "recall@10", points=100)
    assert (place.tolist(), mean.tolist()) == ([2, 3, 4, 5], [0, 1, 0, 1])
    assert [len(part) for part in learning_curve(run(told("1a")), np.array([1.0]), "mrr", points=4)] == [0, 0]


# ------------------------------------------------------------------ baselines


def test_the_baselines_order_as_their_definitions_say() -> None:
    """At every event, by brute force over all items, from the model as it was before it."""
    events = synthetic(150)
    setup = Setup(home(), dimension=8)
    expected: list[list[float]] = []

    class Watched(Prequential):
        def _note(self, at: int, user: int, item: int, queries: Queries, chosen: int, *rest: Any) -> None:
            expected.append(by_definition(self, queries, chosen))
            super()._note(at, user, item, queries, chosen, *rest)

    found = Watched(events, setup).run()
    assert found.baselines.tolist() == expected
    assert np.isfinite(found.baselines).any(axis=0).all()


def by_definition(loop: Prequential, queries: Queries, chosen: int) -> list[float]:
    model, n = loop.model, len(loop.model.rows)
    now = int(queries.now[0])
    rows = np.arange(n)
    consumed = set(queries.consumed.marks.tolist())
    allowed = np.array([int(h) & 0xFFFFFFFF not in consumed for h in model.rows.hashes[:n].tolist()], bool)
    cov = np.zeros(n)
    found = evidence(queries, model)
    cov[found.rows] = found.cov
    age = now - model.trends.reference[:n]
    tables = [
        model.trends.count[:n],
        *(model.trends.decayed[:n, h].astype(np.float64) * 2.0 ** (-age / ms) for h, ms in enumerate(HALF_LIVES_MS)),
        cov,
        np.where(model.sequence.known[:n], np.exp(logits(queries, model)[0].astype(np.float64)), 0),
    ]
    out = []
    for table in tables:
        if chosen < 0 or not allowed[chosen] or not table[chosen] > 0:
            out.append(math.inf)
            continue
        rivals = table[allowed & (rows >= 0)]
        out.append(1 + float((rivals > table[chosen]).sum()) + (float((rivals == table[chosen]).sum()) - 1) / 2)
    return out
