"""Selection, against NumPy's plain sorts."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.selection import Proposals, best, best_sparse, order, owners, spread
from pipeline.types import F32, Mask

seeds = st.integers(0, 1 << 32)


def scores_like(rng: np.random.Generator, q: int, n: int, kind: str) -> F32:
    """Scores without structure, with many ties, mostly missing, or growing with the row (the worst for a guess)."""
    scores = rng.normal(size=(q, n)).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores).astype(np.float32)
    elif kind == "missing":
        scores[rng.random((q, n)) < 0.97] = -np.inf
        scores[rng.random((q, n)) < 0.01] = np.nan
    elif kind == "growing":
        scores = np.sort(scores, axis=1)
    return scores


def twin(scores: F32, mask: Mask, k: int) -> list[list[int]]:
    """The contract in one line a query: by score, then by row."""
    return [
        sorted((row for row in np.flatnonzero(allowed & (line > -np.inf)).tolist()), key=lambda row: (-line[row], row))[
            :k
        ]
        for line, allowed in zip(scores, np.broadcast_to(mask, scores.shape), strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    q=st.sampled_from([0, 1, 5]),
    n=st.sampled_from([0, 1, 63, 64, 65, 1_900, 6_000]),
    kind=st.sampled_from(["plain", "ties", "missing", "growing"]),
    share=st.sampled_from([0.0, 0.05, 1.0]),
    own=st.booleans(),
    k=st.sampled_from([1, 7, 200]),
)
def test_best_is_exact(seed: int, q: int, n: int, kind: str, share: float, own: bool, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = scores_like(rng, q, n, kind)
    mask = rng.random((q if own else 1, n)) < share
    found = best(scores, mask, k)
    expected = twin(scores, mask, k)
    assert found.start.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert found.rows.tolist() == [row for rows in expected for row in rows]


def test_a_wrong_guess_is_put_right() -> None:
    """The sample sees only high scores, which the line's own mask forbids: the first pass finds nothing."""
    rng = np.random.default_rng(0)
    scores = rng.random((2, 8_000)).astype(np.float32)
    scores[1, :4_000] += 10
    mask = np.ones((2, 8_000), np.bool_)
    mask[1, :4_000] = False
    assert best(scores, mask, 200).rows.tolist() == list(chain.from_iterable(twin(scores, mask, 200)))


def test_pick_gives_each_query_its_line() -> None:
    lists = Proposals(np.array([0, 2, 2, 5]), np.array([7, 8, 1, 2, 3]))
    picked = lists.pick(np.array([2, 0, -1, 1, 2]))
    assert picked.start.tolist() == [0, 3, 5, 5, 5, 8]
    assert picked.rows.tolist() == [1, 2, 3, 7, 8, 1, 2, 3]
    assert picked.owner.tolist() == [0, 0, 0, 1, 1, 4, 4, 4]
    assert lists.pick(np.array([], np.int64)).start.tolist() == [0]


@settings(max_examples=40, deadline=None)
@given(seed=seeds, k=st.sampled_from([1, 7, 200]), own=st.booleans(), narrow=st.booleans())
def test_best_sparse_is_exact(seed: int, k: int, own: bool, narrow: bool) -> None:
    rng = np.random.default_rng(seed)
    n, sizes = 1_200, rng.integers(0, 1_200, 5)  # those above 4 k are guessed at
    start = np.cumsum([0, *sizes])
    rows = np.concatenate([rng.choice(n, size, replace=False) for size in sizes])
    values = np.maximum(np.round(rng.normal(size=len(rows)), 1), 0).astype(np.float32)  # a third is no evidence
    mask = rng.random((5 if own else 1, n)) < 0.8
    found = best_sparse(start, rows.astype(np.int32) if narrow else rows, values, mask, k)
    dense = np.full((5, n), -np.inf, np.float32)
    dense[owners(start), rows] = np.where(values > 0, values, -np.inf)
    expected = twin(dense, mask, k)
    assert found.rows.tolist() == [row for some in expected for row in some]
    assert found.start.tolist() == np.cumsum([0, *map(len, expected)]).tolist()


def test_a_wrong_guess_at_a_long_segment_is_put_right() -> None:
    """The greatest values are all of rows that are not allowed: nothing allowed is above the guessed floor."""
    rows = np.arange(2_000)
    values = np.where(rows < 1_000, 10, 1).astype(np.float32)
    mask = (rows >= 1_000)[None]
    assert best_sparse(np.array([0, 2_000]), rows, values, mask, 200).rows.tolist() == list(range(1_000, 1_200))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, sizes=st.lists(st.integers(0, 40), max_size=6))
def test_order_is_stable_greatest_first_within_owners(seed: int, sizes: list[int]) -> None:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    scores = np.round(np.random.default_rng(seed).normal(size=len(owner)), 1).astype(np.float32)
    np.testing.assert_array_equal(order(owner, scores), np.lexsort((-scores, owner)))


def test_order_puts_what_is_no_number_last() -> None:
    scores = np.array([np.nan, -np.inf, 1, np.inf, -1], np.float32)
    assert order(np.zeros(5, np.int64), scores).tolist() == [3, 2, 4, 0, 1]


def test_order_refuses_what_its_keys_cannot_hold() -> None:
    with pytest.raises(ValueError, match="at most 1,024 queries"):
        order(np.array([1024]), np.zeros(1, np.float32))


def plainly_spread(keys: list[int], window: int, most: int, depth: int, reach: int) -> list[int]:
    """Place by place, the best left that fits; `keys` of one owner."""
    shown: list[int] = []
    left = list(range(len(keys)))
    for _ in range(min(depth, len(keys))):
        last = [keys[at] for at in shown[max(len(shown) - window + 1, 0) :]]
        fits = [at for at in left if at < reach and (keys[at] == 0 or last.count(keys[at]) < most)]
        shown.append((fits or left)[0])
        left.remove(shown[-1])
    return shown + left


@settings(max_examples=200, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 4), max_size=25), min_size=1, max_size=4),
    window=st.integers(1, 8),
    most=st.integers(1, 4),
    depth=st.integers(0, 30),
    reach=st.integers(1, 30),
)
def test_spread_like_the_twin(lists: list[list[int]], window: int, most: int, depth: int, reach: int) -> None:
    keys = np.array([key for some in lists for key in some], np.int64)
    owner = np.repeat(np.arange(len(lists)), [len(some) for some in lists])
    found, first = spread(keys, owner, window, most, depth, reach).tolist(), 0
    for some in lists:
        want = plainly_spread(some, window, most, depth, reach)
        assert [at - first for at in found[first : first + len(some)]] == want
        first += len(some)
