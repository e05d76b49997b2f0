"""From ranks to figures: Recall@k, NDCG@10, MRR, and their standard errors clustered by user.

A rank is 1 for the best place; ties take the middle rank, so ranks may be halves; infinity is a miss. With one chosen
item a query, NDCG@10 = 1 / log2(1 + rank) up to rank 10 (Jarvelin and Kekalainen 2002), and Recall@k is the hit rate.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.types import F64, I64

Figures = dict[str, float | int | None]
Errors = dict[str, float | None]

CUT = 10  # of NDCG
METRICS = ("recall@10", "recall@20", "ndcg@10", "mrr")
WITH_ERRORS = ("recall@10", "ndcg@10")


def scores(ranks: F64, metric: str) -> F64:
    """(q,) what each query adds to `metric` (one of METRICS), given the ranks (q,)."""
    if metric == "ndcg@10":
        gains: F64 = np.where(ranks <= CUT, 1 / np.log2(1 + ranks), 0.0)
    elif metric == "mrr":
        gains = 1 / ranks
    else:
        gains = (ranks <= int(metric.removeprefix("recall@"))).astype(np.float64)
    return gains


def mean(values: F64) -> float | None:
    """The mean; None of nothing."""
    return float(values.mean()) if len(values) else None


def clustered_error(values: F64, cluster: I64) -> float | None:
    """The standard error of the mean of `values` (q,), which are correlated within a cluster (q,); None below two.

    sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2) / q: the cluster-robust sandwich of an intercept (Liang and
    Zeger 1986) with the usual correction for G clusters.
    """
    _, group = np.unique(cluster, return_inverse=True)
    n_groups = int(group.max(initial=-1)) + 1
    if n_groups < 2:
        return None
    sums = np.bincount(group, values - values.mean(), minlength=n_groups)
    return math.sqrt(n_groups / (n_groups - 1) * float(sums @ sums)) / len(values)


def figures(ranks: F64) -> Figures:
    """How many queries, and the mean of each metric over them."""
    return {"n": len(ranks), **{metric: mean(scores(ranks, metric)) for metric in METRICS}}


def errors(ranks: F64, user: I64) -> Errors:
    """Standard errors clustered by user, of the metrics that have them."""
    return {metric: clustered_error(scores(ranks, metric), user) for metric in WITH_ERRORS}


def paired(ranks: F64, others: F64, user: I64) -> dict[str, Any]:
    """How far `ranks` are ahead of `others` at the same queries: n, and of each metric the mean difference and its
    standard error clustered by user."""
    found: dict[str, Any] = {"n": len(ranks)}
    for metric in METRICS:
        ahead = scores(ranks, metric) - scores(others, metric)
        found[metric] = {"mean": mean(ahead), "se": clustered_error(ahead, user)}
    return found


def gini(counts: I64) -> float | None:
    """Of how often each item was shown: 0 = all alike, towards 1 = one item alone; None where nothing was shown."""
    total, n = int(counts.sum()), len(counts)
    if not total:
        return None
    ordered = np.sort(counts).astype(np.float64)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))
