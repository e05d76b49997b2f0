"""Ranking: from the candidates' features to their scores, and what there is to learn from what users chose."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Protocol

import numpy as np
from numba import njit

from pipeline.candidates import Candidates, starts
from pipeline.catalog import Catalog
from pipeline.context import CONTEXTS, buckets, contexts
from pipeline.model import Model
from pipeline.model.ranker import Choice, Layout, Training
from pipeline.model.sequence import draw, mix
from pipeline.model.trends import LADDER
from pipeline.queries import Queries
from pipeline.types import F16, F32, I32, I64, U64, Owner, Rows

_TRAINING = Training()
STRANGERS = 50  # random items beside the candidates that a ranker learns from
TREND = tuple(f"trend_{at}" for at in range(LADDER))  # columns that the trend check compares with


class Feature(Protocol):
    """Columns of the feature matrix: finite, and one candidate's values do not depend on the other candidates."""

    @property
    def name(self) -> str:
        """What its columns together are called in a feed's `parts`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names, distinct over all features: what is learned of a column is kept under its name."""

    @property
    def eps(self) -> float:
        """If > 0, values are at least 0 and the ranker takes log(eps + value) of them; 0: as they are."""

    @property
    def floors(self) -> tuple[float, ...]:
        """The values for an item of which it knows nothing, before the logarithm."""

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, out: F32) -> None:
        """Fill `out` (columns, c), which holds anything."""


class Ranker(Protocol):
    """Scores candidates, and says what a score is made of."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts of a score."""

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates) -> F32:
        """(c,) finite scores; greater is better."""

    def parts(self, queries: Queries, catalog: Catalog, model: Model, shown: Candidates) -> F32:
        """(names, c) what each part adds to the score of candidates, at least 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A feature matrix: which line each feature fills, those of which logarithms are taken first, and behind them
    how far some columns are below the best of the list."""

    features: tuple[Feature, ...]  # in the order of their lines
    begins: tuple[int, ...]  # the first line of each, and the number of lines
    eps: F32  # (lines of which logarithms are taken, 1)
    columns: tuple[str, ...]  # f, of them b for `below`
    floors: F32  # (f - b,) as ranked by: logarithms taken
    below: I64  # (b,) lines of the columns that are compared with the best of the list
    groups: I64  # (f,) place of a column's feature in `names`
    names: tuple[str, ...]  # of the features, each once


@lru_cache(maxsize=32)
def shape(features: tuple[Feature, ...], below: tuple[str, ...] = ()) -> Shape:
    """The matrix of `features`, and of how far its columns `below` are below the best of the list."""
    inside = sorted(features, key=lambda feature: feature.eps <= 0)
    names = tuple(dict.fromkeys(feature.name for feature in inside))
    eps = [feature.eps for feature in inside for _ in feature.columns]
    floors = np.array(list(chain.from_iterable(feature.floors for feature in inside)), np.float64)
    logged = np.array(eps) > 0
    floors[logged] = np.log(floors[logged] + np.array(eps)[logged])
    columns = tuple(chain.from_iterable(feature.columns for feature in inside))
    groups = [names.index(feature.name) for feature in inside for _ in feature.columns]
    lines = [columns.index(name) for name in below]
    return Shape(
        features=tuple(inside),
        begins=tuple(np.cumsum([0, *(len(feature.columns) for feature in inside)]).tolist()),
        eps=np.array([[one] for one in eps if one > 0], np.float32).reshape(-1, 1),
        columns=columns + tuple(f"{name}_below_best" for name in below),
        floors=floors.astype(np.float32),
        below=np.array(lines, np.int64),
        groups=np.array(groups + [groups[line] for line in lines], np.int64),
        names=names,
    )


def matrix(
    shape: Shape, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, best: F32 | None = None
) -> F32:
    """The features (f, c) of candidates, in one buffer.

    `best` (b, q) are the best of the list in the columns `shape.below`; None = the candidates are the list.
    """
    out = np.empty((len(shape.columns), len(candidates)), np.float32)
    for feature, (begin, end) in zip(shape.features, pairwise(shape.begins), strict=True):
        feature(queries, catalog, model, candidates, out[begin:end])
    logged = out[: len(shape.eps)]
    np.add(logged, shape.eps, out=logged)
    np.log(logged, out=logged)
    if len(shape.below):
        top = best_of(shape, out, candidates.owner, len(queries)) if best is None else best
        _subtract(out, shape.below, candidates.owner, top)
    return out


def best_of(shape: Shape, features: F32, owner: Owner, q: int) -> F32:
    """(b, q) the greatest value in the columns `shape.below` of each query's candidates; 0 where there are none."""
    best = np.zeros((len(shape.below), q), np.float32)
    _greatest(features, shape.below, owner, best)
    return best


@dataclass(frozen=True, slots=True)
class Served:
    """A ranked list as it was when it was served: what there is to learn from it, should its user choose one of it.

    m candidates, then e random items. The features are those of ranking, never computed again.
    """

    rows: Rows  # (m + e,)
    features: F32 | F16  # (f, m + e) unstandardised
    scores: F32  # (m,) of the ranker alone, before any mixing
    trends: tuple[int, ...]  # (H,) lines of plain trending; none where the ranker does not look at trends
    context: F32  # (g,)
    bucket: int

    def packed(self) -> Served:
        """With the features in half the bytes."""
        half = np.clip(self.features, -_HALF, _HALF).astype(np.float16)
        return Served(self.rows.copy(), half, self.scores.copy(), self.trends, self.context.copy(), self.bucket)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.rows.nbytes + self.features.nbytes + self.scores.nbytes + self.context.nbytes

    def chosen(self, row: int, seen: Collection[int] = ()) -> Choice | None:
        """The user chose `row` and had seen the rows `seen`; None if it was not among the candidates.

        Only who chose one of what they saw passed the others over: a choice from elsewhere does not compare with them.
        """
        m = len(self.scores)
        at = int(np.argmax(self.rows[:m] == row)) if m else 0
        if not m or self.rows[at] != row:
            return None
        keep = np.flatnonzero(self.rows[m:] == row)
        features = np.delete(self.features, m + keep, axis=1) if len(keep) else self.features
        places = np.full(1 + LADDER, np.inf, np.float32)
        places[0] = _place(self.scores, at)
        for to, line in enumerate(self.trends, 1):
            places[to] = _place(self.features[line, :m].astype(np.float32), at)
        passed = np.flatnonzero(
            np.isin(self.rows[:m], [other for other in seen if other != row] if row in seen else [])
        )
        return Choice(features.astype(np.float32, copy=False), m, m, at, self.context, self.bucket, places, passed)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """What ranking a chunk leaves."""

    candidates: Candidates  # in the order they came in
    start: I64  # (q+1,)
    features: F32  # (f, c)
    scores: F32  # (c,) before any mixing


@dataclass(frozen=True)  # no slots: what is derived of its fields is kept beside them
class Learned:
    """The ranker of `pipeline.model.ranker` over `features`, with the trend check behind it.

    `hand` are the weights of columns that serve until it has learned. Where the check finds plain trending better for a
    bucket of histories, the share a of it is mixed in: s' = (1 - a) s + a log(eps + x_j), the geometric mixture of what
    both expect.

    Of the columns `below` it sees as well how far a candidate is below the best of the list: a value says little to the
    hidden units where they do not know what else there is.
    """

    features: tuple[Feature, ...]
    hand: tuple[tuple[str, float], ...]
    below: tuple[str, ...] = ()
    training: Training = _TRAINING
    strangers: int = STRANGERS

    @cached_property
    def shape(self) -> Shape:
        """Of the feature matrix."""
        return shape(self.features, self.below)

    @cached_property
    def layout(self) -> Layout:
        """Of the parameters."""
        return _layout(self.features, self.below, self.hand)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features, `mix` for what the hidden units add, `trending` for what the trend check mixes in."""
        return (*self.shape.names, "mix", "trending")

    @cached_property
    def trends(self) -> tuple[int, ...]:
        """(H,) lines of plain trending in the feature matrix; none where it does not look at trends."""
        columns = self.shape.columns
        return tuple(columns.index(name) for name in TREND) if set(TREND) <= set(columns) else ()

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates) -> F32:
        """(c,) scores."""
        features = matrix(self.shape, queries, catalog, model, candidates)
        start = starts(candidates.owner, len(queries))
        scores = model.ranker.score(self.layout, features, start, contexts(queries, model), buckets(queries))
        queries.memo[_RANKED] = _Ranked(candidates, start, features, scores)
        if not model.ranker.check.mixes or not self.trends:
            return scores
        share, trend = self._trending(queries, model, features, candidates.owner)
        return scores * (1 - share) + share * trend

    def parts(self, queries: Queries, catalog: Catalog, model: Model, shown: Candidates) -> F32:
        """(names, c) what each feature, the hidden units and trending add, at least 0: above an unknown item."""
        told, shape = (contexts(queries, model), buckets(queries)), self.shape
        features, best = self._known(queries, shown)
        if features is None:
            features = matrix(shape, queries, catalog, model, shown)
            best = best_of(shape, features, shown.owner, len(queries))
        floors = np.repeat(shape.floors[:, None], len(queries), axis=1)  # (f - b, q)
        floors = np.concatenate((floors, floors[shape.below] - best))
        parts = np.zeros((len(self.names), len(shown)), np.float32)
        parts[:-1] = model.ranker.parts(self.layout, features, shown.owner, *told, floors, shape.groups)
        if model.ranker.check.mixes and self.trends:
            above = features[: len(shape.floors)] - shape.floors[:, None]
            share, trend = self._trending(queries, model, above, shown.owner)
            parts *= 1 - share
            parts[-1] = share * trend
        return np.maximum(parts, 0)

    def learn(self, queries: Queries, catalog: Catalog, model: Model, found: Candidates, chosen: Rows) -> None:  # noqa: ARG002
        """Learn from queries ranked in this chunk, whose users then chose `chosen` (q,); before the model has moved."""
        for served, row in zip(self.served(queries, catalog, model, range(len(queries))), chosen.tolist(), strict=True):
            choice = served.chosen(row)
            if choice is not None:
                self.take_in(model, choice)

    def take_in(self, model: Model, choice: Choice) -> None:
        """Let the model learn from what a user chose, with features of this ranker's layout."""
        model.ranker.learn(self.layout, choice, self.training)

    def served(self, queries: Queries, catalog: Catalog, model: Model, which: Sequence[int]) -> list[Served]:
        """What may be learned from queries `which` (ascending) of a chunk that was ranked."""
        ranked: _Ranked = queries.memo[_RANKED]  # type: ignore[assignment]
        rows, owner = strangers(queries, model, which, self.strangers)
        more = Candidates(rows, owner, np.zeros(len(rows), np.float32), ranked.candidates.trail)
        best = best_of(self.shape, ranked.features, ranked.candidates.owner, len(queries))
        others = matrix(self.shape, queries, catalog, model, more, best)
        told, bucket = contexts(queries, model), buckets(queries)
        out = []
        for query in which:
            mine = slice(int(ranked.start[query]), int(ranked.start[query + 1]))
            theirs = slice(*np.searchsorted(owner, (query, query + 1)).tolist())
            out.append(Served(
                np.concatenate((ranked.candidates.rows[mine], rows[theirs])),
                np.concatenate((ranked.features[:, mine], others[:, theirs]), axis=1),
                ranked.scores[mine], self.trends, told[query], int(bucket[query]),
            ))  # fmt: skip
        return out

    def _trending(self, queries: Queries, model: Model, features: F32, owner: Owner) -> tuple[F32, F32]:
        """(c,) the share that is mixed in, and the trend on the half-life that leads."""
        check, bucket = model.ranker.check, buckets(queries)[owner]
        lines = np.array(self.trends)[check.best[bucket]]
        return check.share[bucket], features[lines, np.arange(len(owner))]

    def _known(self, queries: Queries, shown: Candidates) -> tuple[F32 | None, F32]:
        """The features of candidates that were ranked in this chunk, and the best of their lists; None if some were
        not."""
        ranked, none = queries.memo.get(_RANKED), np.empty((0, 0), np.float32)
        if not isinstance(ranked, _Ranked) or len(ranked.features) != len(self.shape.columns):
            return None, none
        at = _find(ranked.start, ranked.candidates.rows, shown.owner, shown.rows)
        if not (at >= 0).all():
            return None, none
        best = best_of(self.shape, ranked.features, ranked.candidates.owner, len(queries))
        return np.take(ranked.features, at, axis=1), best  # C order, as kernels know it


_RANKED = "ranked"
_HALF = np.float32(65_000)  # what float16 can hold


def strangers(queries: Queries, model: Model, which: Sequence[int], n: int) -> tuple[Rows, Owner]:
    """Random items for some queries, uniform over those that the model knows, and their owners.

    `n` draws a query, less what its user has consumed or blocked. What a query draws depends on its user's history and
    its time alone.
    """
    pool, asking = model.sequence.pool, np.array(which, np.int64)
    newest = queries.ring.items[asking, 0]
    drawn = _draws(newest, queries.now[asking], queries.count[asking], pool, n if len(pool) else 0)
    rows, owner = drawn.reshape(-1), np.repeat(asking, drawn.shape[1])
    hashes = model.rows.hashes[rows]
    keep = ~(queries.consumed.contains(owner, hashes) | queries.blocked.contains(owner, hashes))
    return rows[keep], owner[keep]


@lru_cache(maxsize=32)
def _layout(features: tuple[Feature, ...], below: tuple[str, ...], hand: tuple[tuple[str, float], ...]) -> Layout:
    return Layout.of(shape(features, below).columns, CONTEXTS, dict(hand))


def _place(values: F32, at: int) -> float:
    """The rank of values[at] among `values`, from 1; equal ones share the middle of theirs."""
    mine = values[at]
    return 1 + float((values > mine).sum()) + (float((values == mine).sum()) - 1) / 2


@njit(cache=True)
def _end(owner: Owner, first: int) -> int:
    """Where the part of owner[first] ends."""
    end = first + 1
    while end < len(owner) and owner[end] == owner[first]:
        end += 1
    return end


@njit(cache=True, fastmath={"nnan", "nsz", "reassoc"})  # features are finite: a maximum of them is vectorised
def _greatest(features: F32, lines: I64, owner: Owner, best: F32) -> None:
    first = 0
    while first < len(owner):
        end = _end(owner, first)
        for b in range(len(lines)):
            top = features[lines[b], first]
            for at in range(first, end):
                top = max(top, features[lines[b], at])
            best[b, owner[first]] = top
        first = end


@njit(cache=True)
def _subtract(features: F32, lines: I64, owner: Owner, best: F32) -> None:
    """Fill the last lines with how far those of `lines` are above `best`, at most 0 for the candidates of the list."""
    begin, first = len(features) - len(lines), 0
    while first < len(owner):
        end = _end(owner, first)
        for b in range(len(lines)):
            top = best[b, owner[first]]
            for at in range(first, end):
                features[begin + b, at] = features[lines[b], at] - top
        first = end


@njit(cache=True)
def _draws(newest: U64, now: I64, count: I64, pool: I32, n: int) -> Rows:
    """(q, n)"""
    out = np.empty((len(newest), n), np.int64)
    for query in range(len(newest)):
        seed = mix(mix(newest[query] + np.uint64(now[query])) + np.uint64(count[query]))
        for at in range(n):
            high = draw(seed, at) >> np.uint64(32)
            out[query, at] = pool[np.int64((high * np.uint64(len(pool))) >> np.uint64(32))]
    return out


@njit(cache=True)
def _find(start: I64, rows: Rows, owner: Owner, wanted: Rows) -> I64:
    """Where each wanted row stands among its owner's `rows`; -1 = nowhere."""
    out = np.full(len(wanted), -1, np.int64)
    for at in range(len(wanted)):
        for place in range(start[owner[at]], start[owner[at] + 1]):
            if rows[place] == wanted[at]:
                out[at] = place
                break
    return out
