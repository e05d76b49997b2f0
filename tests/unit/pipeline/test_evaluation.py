"""Prequential evaluation: figures that a pencil gives too."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.evaluation.metrics import clustered_error, errors, figures, gini, scores


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
