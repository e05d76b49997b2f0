"""The figures of a run, as one object that is the same for the same outcomes; of two runs, how far one is ahead.

"known" are queries of users with a positive event before; without further word, all figures but "all" are of these.
Where there is nothing to take a mean of, a figure is None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluation.baselines import NAMES
from pipeline.evaluation.metrics import CUT, errors, figures, gini, mean, paired, scores
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.prequential import Setup
from pipeline.types import F64, I64, Mask

HISTORY = ((0, "0"), (1, "1"), (2, "2-3"), (4, "4-7"), (8, "8-15"), (16, "16-31"), (32, "32+"))
_HOUR, _DAY = 3_600_000, 86_400_000
AGES = ((-1, "never seen"), (0, "<1h"), (_HOUR, "1h-1d"), (_DAY, "1d-7d"), (7 * _DAY, "7d-30d"), (30 * _DAY, "30d+"))

Bins = tuple[tuple[int, str], ...]  # each from a value on, and what it is called


def report(outcomes: Outcomes, setup: Setup) -> dict[str, Any]:
    """All figures of a run."""
    known, everyone = outcomes.history >= 1, np.ones(len(outcomes.rank), np.bool_)
    return {
        "events": outcomes.events,
        "queries": len(outcomes.rank),
        "seed": setup.seed,
        "recipe": setup.recipe.name,
        "dimension": setup.dimension,
        "sample": setup.sample,
        "known": _group(outcomes.rank, outcomes.user, known),
        "all": _group(outcomes.rank, outcomes.user, everyone),
        "arranged": _group(outcomes.arranged, outcomes.user, known),
        "baselines": _baselines(outcomes, known),
        "by_history": binned(outcomes.history, HISTORY, outcomes.rank, outcomes.user),  # strangers are the bin "0"
        "by_item_age": binned(outcomes.age[known], AGES, outcomes.rank[known], outcomes.user[known]),
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


def difference(a: Outcomes, b: Outcomes) -> dict[str, Any]:
    """How far `b` is ahead of `a`, at the queries that both were asked: see metrics.paired."""
    _, at, to = np.intersect1d(a.event, b.event, assume_unique=True, return_indices=True)
    known = (a.history[at] >= 1) & (b.history[to] >= 1)
    groups = {
        "known": known,
        "all": np.ones(len(at), np.bool_),
        "repeats": known & a.repeat[at],
        "first_time": known & ~a.repeat[at],
    }
    user, rank, other = a.user[at], b.rank[to], a.rank[at]
    found = {name: paired(rank[which], other[which], user[which]) for name, which in groups.items()}
    return found | {"arranged": paired(b.arranged[to][known], a.arranged[at][known], user[known])}


def binned(values: I64, bins: Bins, ranks: F64, user: I64) -> dict[str, Any]:
    """Figures by the last of `bins` whose beginning a value reaches."""
    place = np.searchsorted([begin for begin, _ in bins], values, "right") - 1
    return {name: _group(ranks, user, place == at) for at, (_, name) in enumerate(bins)}


def learning_curve(outcomes: Outcomes, ranks: F64, metric: str, points: int) -> tuple[F64, F64]:
    """`metric` over the stream: known users' queries in `points` runs of equal length; for each its mean place in the
    stream (p,), in events, and the mean (p,). `ranks` (q,) are those of the outcomes or of a baseline."""
    known = np.flatnonzero(outcomes.history >= 1)
    runs = [run for run in np.array_split(known, points) if len(run)]
    gains = scores(ranks, metric)
    return np.array([outcomes.event[run].mean() for run in runs]), np.array([gains[run].mean() for run in runs])


def _group(ranks: F64, user: I64, which: Mask) -> dict[str, Any]:
    return {**figures(ranks[which]), "se": errors(ranks[which], user[which])}


def _baselines(outcomes: Outcomes, known: Mask) -> dict[str, Any]:
    """Of each its figures, and how far the recipe is ahead of it."""
    user, rank, found = outcomes.user[known], outcomes.rank[known], {}
    for at, name in enumerate(NAMES[: outcomes.baselines.shape[1]]):
        column = outcomes.baselines[known, at]
        found[name] = {**figures(column), "se": errors(column, user), "behind": paired(rank, column, user)}
    return found


def _by_source(outcomes: Outcomes, known: Mask) -> dict[str, dict[str, float | None]]:
    """How often each source proposed the chosen item, stood behind a hit in the first ten, and was alone behind one.
    "any" is their union, before filters."""
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
