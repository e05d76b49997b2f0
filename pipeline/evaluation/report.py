"""The figures of a run, as one object that is the same for the same outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation.baselines import NAMES
from pipeline.evaluation.metrics import CUT, Figures, errors, figures, gini, mean
from pipeline.evaluation.prequential import Outcomes, Setup
from pipeline.types import F64, I64, Mask

HISTORY = ((1, "1"), (2, "2-3"), (4, "4-7"), (8, "8-15"), (16, "16-31"), (32, "32+"))
_HOUR = 3_600_000
AGES = (
    (0, "<1h"), (_HOUR, "1h-1d"), (24 * _HOUR, "1d-7d"), (7 * 24 * _HOUR, "7d-30d"), (30 * 24 * _HOUR, "30d+"),
)  # fmt: skip


def report(outcomes: Outcomes, setup: Setup) -> dict[str, Any]:
    """All figures; None where there is nothing to take a mean of. "known" = users with a positive event before."""
    known = outcomes.history >= 1
    rank = outcomes.rank[known]
    return {
        "events": outcomes.events,
        "queries": len(outcomes.rank),
        "seed": setup.seed,
        "recipe": setup.recipe.name,
        "dimension": setup.dimension,
        "sample": setup.sample,
        "known": _group(outcomes.rank, outcomes.user, known),
        "all": _group(outcomes.rank, outcomes.user, np.ones_like(known)),
        "arranged": _group(outcomes.arranged, outcomes.user, known),
        "baselines": {
            name: _group(outcomes.baselines[:, at], outcomes.user, known)
            for at, name in enumerate(NAMES[: outcomes.baselines.shape[1]])
        },
        "by_history": {"0": figures(outcomes.rank[~known]), **_binned(outcomes.history, HISTORY, outcomes.rank)},
        "by_item_age": {"never seen": figures(rank[outcomes.age[known] < 0])}
        | _binned(outcomes.age[known], AGES, rank),
        "repeats": _group(outcomes.rank, outcomes.user, known & outcomes.repeat),
        "first_time": _group(outcomes.rank, outcomes.user, known & ~outcomes.repeat),
        "by_source": _by_source(outcomes, known),
        "coverage": _share(outcomes.shown > 0),
        "gini": gini(outcomes.shown),
        "us_per_event": {
            "learn": _us(outcomes.learn_s, outcomes.learned),
            "query": _us(outcomes.query_s, len(outcomes.rank)),
        },
    }


def _group(ranks: F64, user: I64, which: Mask) -> dict[str, Any]:
    return {**figures(ranks[which]), "se": errors(ranks[which], user[which])}


def _binned(values: I64, edges: tuple[tuple[int, str], ...], ranks: F64) -> dict[str, Figures]:
    """Figures by the last edge that a value reaches."""
    bins = np.searchsorted([edge for edge, _ in edges], values, "right") - 1
    return {name: figures(ranks[bins == at]) for at, (_, name) in enumerate(edges)}


def _by_source(outcomes: Outcomes, known: Mask) -> dict[str, dict[str, float | None]]:
    """Of the known users' queries: how often each source proposed the chosen item, stood behind a hit in the first ten,
    and was alone behind one. "any" is their union, before filters."""
    proposed = outcomes.proposed[known] > 0  # (q, s)
    hit = outcomes.rank[known] <= CUT
    alone = proposed & (proposed.sum(axis=1) == 1)[:, None]
    anyone: Mask = np.logical_or.reduce(proposed, axis=1)
    found = {"any": {"proposed": _share(anyone), "hits": _share(hit), "alone": None}}
    for at, name in enumerate(outcomes.sources):
        column = proposed[:, at]
        found[name] = {"proposed": _share(column), "hits": _share(column & hit), "alone": _share(alone[:, at] & hit)}
    return found


def _share(mask: Mask) -> float | None:
    return mean(mask.astype(np.float64))


def _us(seconds: float, n: int) -> float | None:
    return round(1e6 * seconds / n, 1) if n else None
