"""Whatever the stream: evaluation says the same twice, its figures are finite or absent, and shares are shares."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import Entry
from pipeline.evaluation.metrics import METRICS, clustered_error, figures
from pipeline.evaluation.prequential import Prequential, Setup
from pipeline.evaluation.report import difference, report
from pipeline.recipe import home
from tests.evaluating import CLICK, DISLIKE, FORGET, GLANCE, VIEW, Did, numbers, stream
from tests.retrieving import entry

ITEMS = "abcdefgh"

times = st.one_of(st.integers(0, 3), st.sampled_from([10**6, 1_700_000_000, (1 << 32) - 1]))
events = st.builds(
    Did,
    user=st.sampled_from("123"),
    item=st.sampled_from(ITEMS),
    action=st.sampled_from([CLICK, CLICK, CLICK, VIEW, DISLIKE, GLANCE, FORGET]),
    time=times,
    id=st.sampled_from([0, 0, 7]),
)
published = st.builds(
    entry,
    item=st.sampled_from([*ITEMS, "never taken"]),
    available=st.booleans(),
    unsafe=st.sampled_from([(), ("adult",)]),
    expires_at=st.sampled_from([0, 1, 2_000]),
    published_at=st.sampled_from([0, 1, 10**12]),
)
arrivals = st.lists(st.tuples(st.integers(0, 30), published), max_size=4)


@settings(max_examples=25)
@given(st.lists(events, max_size=30), arrivals, st.booleans(), st.sampled_from([1, 2]))
def test_any_stream_gives_defined_figures(
    given_events: list[Did], given_arrivals: list[tuple[int, Entry]], repeats: bool, sample: int
) -> None:
    arriving = sorted(given_arrivals, key=lambda arrival: arrival[0])
    ordered, _ = stream(given_events, arriving).ordered()
    assert (np.diff(ordered.time) >= 0).all()
    setup = Setup(home(repeats=repeats), dimension=4, negatives=3, sample=sample)
    one, other = (Prequential(ordered, setup).run() for _ in range(2))
    found = report(one, setup)
    assert found == report(other, setup)
    assert found["queries"] == len(one.rank) <= one.learned <= found["events"] == len(given_events)
    for path, number in numbers(found):
        assert math.isfinite(number), path
        assert number >= 0 or "behind" in path, path
    assert (one.rank >= 1).all()
    assert ((one.arranged >= 1) & (np.isfinite(one.arranged) == np.isfinite(one.rank))).all()
    assert [number for path, number in numbers(difference(one, other)) if not path.endswith("n") and number] == []


ranks = st.one_of(st.floats(1, 50), st.just(math.inf))


@given(st.lists(st.tuples(ranks, st.integers(0, 4)), min_size=1, max_size=30))
def test_figures_by_their_definitions(pairs: list[tuple[float, int]]) -> None:
    values, user = np.array([rank for rank, _ in pairs]), np.array([owner for _, owner in pairs])
    found = figures(values)
    n = len(pairs)
    expected = {
        "recall@10": sum(rank <= 10 for rank, _ in pairs) / n,
        "recall@20": sum(rank <= 20 for rank, _ in pairs) / n,
        "ndcg@10": sum(1 / math.log2(1 + rank) for rank, _ in pairs if rank <= 10) / n,
        "mrr": sum(1 / rank for rank, _ in pairs) / n,
    }
    for metric in METRICS:
        value = found[metric]
        assert value is not None
        assert abs(value - expected[metric]) < 1e-12
    hits = [float(rank <= 10) for rank, _ in pairs]
    error, oracle = clustered_error(np.array(hits), user), sandwich(hits, user.tolist())
    assert (error is None) == (oracle is None)
    assert error is None or oracle is None or abs(error - oracle) < 1e-12


def sandwich(values: list[float], user: list[int]) -> float | None:
    """Least squares of an intercept: bread (X'X)^-1 = 1/n, meat = sum over users of (X_g' e_g)^2, in plain Python."""
    owners, n, mean = sorted(set(user)), len(values), sum(values) / len(values)
    if len(owners) < 2:
        return None
    meat = sum(sum(v - mean for v, u in zip(values, user, strict=True) if u == owner) ** 2 for owner in owners)
    return math.sqrt(len(owners) / (len(owners) - 1) * meat) / n
