"""The ranker's parameters: what a score is made of, learned from what users chose of the lists they were served.

    s_j = (W + W_bucket) . z_j + v . relu(A z_j + B c + b0)        z, c: features and context, standardised, clipped

Learning to rank is listwise (Cao et al. 2007, ListNet, top one): the gradient of log softmax_t(s) for the chosen t over
all candidates and some random items; a candidate that was seen beside t counts `Training.passed_over` times. Adagrad
(Duchi et al. 2011) moves W, Adam (Kingma and Ba 2015) the rest; v begins at 0, so the ranker begins linear.

A life: WARM examples only tell mean and deviation of each column, which are frozen then, and W begins as the hand
weights in the new units, so that no score moves. Hand weights serve until EARNED updates were made.

Columns are known by their names' hashes, and arrays have room for COLUMNS of them: a version with other features takes
over what was learned of those that both have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.model.sequence import draw, mix
from pipeline.model.trendcheck import BUCKETS, TrendCheck
from pipeline.types import F32, F64, I64, U64, Mask, hash_id, hash_of

COLUMNS, CONTEXTS, HIDDEN = 64, 16, 16  # room for features and contexts; hidden units
WARM = 300  # examples that standardisation is taken from
EARNED = 50  # updates until the learned weights serve: they begin as the hand weights, so little is risked
CLIP = np.float32(8)  # deviations
START = np.float32(1e-6)  # of Adagrad's sums

_WIDTH = COLUMNS + CONTEXTS + 2  # of a hidden unit: A, B, b0, v
_BIAS, _OUT = COLUMNS + CONTEXTS, COLUMNS + CONTEXTS + 1
_M1, _M2, _TINY = np.float32(0.9), np.float32(0.999), np.float32(1e-8)  # Adam's
_FLAT = 1e-6  # a deviation below it: the column was constant so far, and keeps its unit
_SEED = 0x7A4E5EED  # of A's first values and of draws

# NaN must survive: the guard looks for it. Sums may be reordered, so that they are vectorised; they must be so in every
# process alike. Hence they run into a local variable, in loops that store nothing: others are vectorised or not as
# their arrays happen to lie in memory.
_FAST = {"reassoc", "contract", "nsz"}


@dataclass(frozen=True, slots=True)
class Training:
    """How a ranker learns. The defaults were chosen on three sets at once."""

    rate: float = 0.02  # of W
    bucket_rate: float = 0.01
    hidden_rate: float = 0.0015  # of the hidden units
    decay: float = 0.001  # L2 of the hidden units
    draws: int = 0  # learn from so many uniform draws of the candidates that were not chosen; 0 = from all
    passed_over: float = 20.0  # what a candidate weighs that the user saw beside the chosen one; others 1
    pairwise: bool = False  # the pair-wise logistic loss (Rendle et al. 2009, BPR) instead of the listwise one


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The columns of a feature matrix, in its order."""

    columns: U64  # (f,) hashes of their names
    contexts: U64  # (g,)
    hand: F32  # (f,) weights of the unstandardised columns that serve until the ranker has learned
    key: int  # hash of all names, in their order

    @staticmethod
    def of(columns: tuple[str, ...], contexts: tuple[str, ...], hand: Mapping[str, float]) -> Layout:
        """The layout of named columns. Raises ValueError for a name twice, too many, a hand weight of none of them."""
        fit = len(set(columns)) == len(columns) <= COLUMNS and len(contexts) <= CONTEXTS
        if not fit or hand.keys() - set(columns):
            raise ValueError(
                f"ranker: expected at most {COLUMNS} distinct columns, {CONTEXTS} contexts and hand weights of these, "
                f"found {columns}, {contexts}, {dict(hand)}"
            )
        weights = np.array([hand.get(name, 0.0) for name in columns], np.float32)
        return Layout(_hashes(columns), _hashes(contexts), weights, hash_of(" ".join(columns + contexts)))


def _nothing() -> I64:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user chose of a list, with the features of serving time: n = r + e columns of a feature matrix."""

    features: F32  # (f, n) unstandardised: r logged candidates, then e random items
    logged: int  # r
    total: int  # candidates that there were; r < total: the logged are the chosen one and uniform draws of the others
    chosen: int  # column
    context: F32  # (g,)
    bucket: int
    places: F32  # (1 + H,) the chosen one's rank in the list and in plain trending: see `TrendCheck.note`
    seen: I64 = field(default_factory=_nothing)  # (s,) columns of other candidates seen together with the chosen one

    def sampled(self, draws: int, seed: int) -> Choice:
        """With the chosen one, first, those seen, and uniform draws of the other candidates, in all at most `draws`
        beside the chosen one, if there are more."""
        if not 0 < draws < self.logged - 1 or self.logged < self.total:
            return self
        seen = self.seen[:draws]
        drawn = np.empty(1 + draws - len(seen), np.int64)
        _draw(np.uint64(seed), self.logged, self.chosen, drawn)
        kept = np.concatenate((drawn[:1], seen, drawn[1:][~np.isin(drawn[1:], seen)]))
        strangers = np.arange(self.logged, self.features.shape[1])
        told = np.arange(1, 1 + len(seen))
        # `take` keeps columns in a line's order; an index would turn the matrix, for which kernels were compiled anew.
        features = self.features.take(np.concatenate((kept, strangers)), axis=1)
        return Choice(features, len(kept), self.total, 0, self.context, self.bucket, self.places, told)


@dataclass(slots=True)
class _Weights:
    """All that is learned; columns beyond those of the layout are zeros."""

    columns: U64  # (COLUMNS,) hashes, 0 = free
    contexts: U64  # (CONTEXTS,)
    sums: F64  # (3, COLUMNS) of values, of their squares, of ones
    context_sums: F64  # (3, CONTEXTS)
    scale: F32  # (2, COLUMNS) mean and deviation
    context_scale: F32  # (2, CONTEXTS)
    linear: F32  # (1 + BUCKETS, COLUMNS) W, then what each bucket adds
    squares: F32  # the same shape: Adagrad's sums
    hidden: F32  # (3, HIDDEN, _WIDTH) A, B, b0, v, then Adam's two moments of each
    counts: I64  # (3,) examples, updates, resets

    @staticmethod
    def empty() -> _Weights:
        lines = 1 + BUCKETS
        return _Weights(
            np.zeros(COLUMNS, np.uint64), np.zeros(CONTEXTS, np.uint64),
            np.zeros((3, COLUMNS)), np.zeros((3, CONTEXTS)),
            _unscaled(COLUMNS), _unscaled(CONTEXTS),
            np.zeros((lines, COLUMNS), np.float32), np.full((lines, COLUMNS), START),
            np.zeros((3, HIDDEN, _WIDTH), np.float32), np.zeros(3, np.int64),
        )  # fmt: skip


class RankerModel:
    """The parameters, the examples they come from, and the trend check beside them."""

    def __init__(self) -> None:
        self.check = TrendCheck()
        self._weights = _Weights.empty()
        self._layout: Layout | None = None  # the one that `_weights` is arranged by
        self._other: tuple[Layout, _Weights] | None = None  # arranged by another, for serving

    @property
    def examples(self) -> int:
        """Examples that were learned from, those that told the standardisation included."""
        return int(self._weights.counts[0])

    @property
    def updates(self) -> int:
        """Updates of the weights."""
        return int(self._weights.counts[1])

    @property
    def resets(self) -> int:
        """Columns and hidden units that were not finite and began anew."""
        return int(self._weights.counts[2])

    @property
    def earned(self) -> bool:
        """Do the learned weights serve?"""
        return self.updates >= EARNED

    def score(self, layout: Layout, features: F32, start: I64, contexts: F32, buckets: I64) -> F32:
        """Scores (c,), finite, of candidates (f, c); query i has columns start[i]:start[i+1], contexts (q, g)."""
        scores = np.empty(features.shape[1], np.float32)
        if not self.earned:
            _plain(features, layout.hand, scores)
        else:
            own = self._arranged(layout)
            _score(
                features, start, contexts, buckets,
                own.scale, own.context_scale, own.linear, own.hidden, scores,
            )  # fmt: skip
        return scores

    def parts(
        self, layout: Layout, features: F32, owner: I64, contexts: F32, buckets: I64, floors: F32, groups: I64
    ) -> F32:
        """(1 + groups, c) what each group of columns (f,), and last the hidden units, adds to a score.

        It is counted from the score of an item of which nothing is known: `floors` (f, q). The sum of a column is the
        difference of the two scores.
        """
        out = np.zeros((2 + int(groups.max(initial=-1)), features.shape[1]), np.float32)
        if not self.earned:
            _plain_parts(features, owner, layout.hand, floors, groups, out)
        else:
            own = self._arranged(layout)
            _parts(
                features, owner, contexts, buckets, floors, groups,
                own.scale, own.context_scale, own.linear, own.hidden, out,
            )  # fmt: skip
        return out

    def learn(self, layout: Layout, choice: Choice, how: Training) -> bool:
        """Learn from one choice; False while examples only tell the standardisation, or if weights had to be reset."""
        own = self._begun(layout)
        own.counts[0] += 1
        self.check.note(choice.bucket, choice.places)
        if own.counts[0] <= WARM:
            self._look(own, choice)
            if own.counts[0] == WARM:
                _freeze(own, layout)
            return False
        choice = choice.sampled(how.draws, int(own.counts[0]) ^ _SEED)
        finite: bool = _learn(
            choice.features, choice.chosen, _offsets(choice, how.passed_over), choice.context, 1 + choice.bucket,
            own.scale, own.context_scale, own.linear, own.squares, own.hidden, own.counts,
            (how.rate, how.bucket_rate, how.hidden_rate, how.decay), how.pairwise,
        )  # fmt: skip
        if not finite:
            self.mend(layout)
        return finite

    def mend(self, layout: Layout) -> int:
        """Give columns and hidden units that are not finite their first values; returns how many there were."""
        own = self._begun(layout)
        f = len(layout.columns)
        columns = ~(_finite(own.linear) & _finite(own.squares) & _finite(own.scale))[:f]
        for array in (own.linear, own.squares, own.scale):
            array[:, :f][:, columns] = 0
        own.squares[:, :f][:, columns] = START
        own.scale[1, :f][columns] = 1
        own.linear[0, :f][columns] = layout.hand[columns]
        units = ~np.isfinite(own.hidden).all(axis=(0, 2))
        _begin_hidden(own.hidden, np.flatnonzero(units), f)
        broken = int(columns.sum() + units.sum())
        own.counts[2] += broken
        return broken

    def export_parameters(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters, by name."""
        own = {field.name: getattr(self._weights, field.name).copy() for field in fields(_Weights)}
        return own | self.check.export()

    def put_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `export_parameters` gave."""
        self._weights = _Weights(*(arrays[field.name].copy() for field in fields(_Weights)))
        self._layout = self._other = None
        self.check.put(arrays)

    def _begun(self, layout: Layout) -> _Weights:
        """The weights, arranged by `layout` from now on."""
        if self._layout is not layout:
            self._weights = _arranged(self._weights, layout)
            self._layout, self._other = layout, None
        return self._weights

    def _arranged(self, layout: Layout) -> _Weights:
        """The weights as `layout` has them; nothing changes. Learning with another layout is not seen from here."""
        if self._layout is layout:
            return self._weights
        if self._other is None or self._other[0] is not layout:
            self._other = layout, _arranged(self._weights, layout)
        return self._other[1]

    @staticmethod
    def _look(own: _Weights, choice: Choice) -> None:
        """Take an example into the statistics."""
        f, g = len(choice.features), len(choice.context)
        values, context = choice.features.astype(np.float64), choice.context.astype(np.float64)
        own.sums[:, :f] += values.sum(axis=1), (values**2).sum(axis=1), np.full(f, values.shape[1])
        own.context_sums[:, :g] += context, context**2, np.ones(g)


def _hashes(names: tuple[str, ...]) -> U64:
    return np.array([hash_id(name) for name in names], np.uint64)


def _unscaled(n: int) -> F32:
    return np.stack((np.zeros(n, np.float32), np.ones(n, np.float32)))


def _finite(lines: F32) -> Mask:
    """(columns,)"""
    finite: Mask = np.asarray(np.isfinite(lines).all(axis=0))
    return finite


def _offsets(choice: Choice, passed_over: float) -> F32:
    """(n,) logarithms of weights: of what was seen, and on each draw what makes up for those that were not drawn."""
    offsets = np.zeros(choice.features.shape[1], np.float32)
    if choice.logged < choice.total:
        others = 1 + len(choice.seen)
        offsets[: choice.logged] = math.log(max(choice.total - others, 1) / max(choice.logged - others, 1))
        offsets[choice.chosen] = 0
    offsets[choice.seen] = math.log(passed_over)
    return offsets


def _arranged(old: _Weights, layout: Layout) -> _Weights:
    """`old` in the order of `layout`. New columns begin at hand weights, unstandardised where others are frozen."""
    new = _Weights.empty()
    f, g = len(layout.columns), len(layout.contexts)
    new.columns[:f], new.contexts[:g], new.counts = layout.columns, layout.contexts, old.counts.copy()
    new.linear[0, :f] = layout.hand
    if not old.columns.any():
        _begin_hidden(new.hidden, np.arange(HIDDEN), f)
        return new
    to, at = _matched(layout.columns, old.columns)
    for name in ("sums", "scale", "linear", "squares", "hidden"):
        getattr(new, name)[..., to] = getattr(old, name)[..., at]
    new.hidden[..., COLUMNS + CONTEXTS :] = old.hidden[..., COLUMNS + CONTEXTS :]
    to, at = _matched(layout.contexts, old.contexts)
    new.context_sums[:, to], new.context_scale[:, to] = old.context_sums[:, at], old.context_scale[:, at]
    new.hidden[..., COLUMNS + to] = old.hidden[..., COLUMNS + at]
    return new


def _matched(wanted: U64, held: U64) -> tuple[I64, I64]:
    """Places in `wanted` of what is in `held`, and where it is there."""
    same = wanted[:, None] == held[None, :]
    to, at = np.nonzero(same)
    return to, at


def _freeze(own: _Weights, layout: Layout) -> None:
    """Mean and deviation become what was seen; W begins as the hand weights in these units."""
    for sums, scale in ((own.sums, own.scale), (own.context_sums, own.context_scale)):
        n = np.maximum(sums[2], 1)
        mean = sums[0] / n
        deviation = np.sqrt(np.maximum(sums[1] / n - mean**2, 0))
        scale[0], scale[1] = mean, np.where(deviation > _FLAT, deviation, 1)
    f = len(layout.hand)
    own.linear[0, :f] = layout.hand * own.scale[1, :f]


def _begin_hidden(hidden: F32, units: I64, f: int) -> None:
    """First values of some hidden units: A is drawn from N(0, 1/f), all else is 0."""
    hidden[:, units] = 0
    for unit in units.tolist():
        hidden[0, unit, :f] = _normals(np.uint64(_SEED + unit), f) / math.sqrt(max(f, 1))


@njit(cache=True)
def _normals(seed: np.uint64, n: int) -> F32:
    out = np.empty(n, np.float32)
    for at in range(n):
        bits = draw(seed, at)
        radius = (np.float64(bits >> np.uint64(32)) + 1.0) / 4294967296.0
        angle = np.float64(bits & np.uint64(0xFFFFFFFF)) / 4294967296.0
        out[at] = math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * angle)
    return out


@njit(cache=True)
def _draw(seed: np.uint64, m: int, chosen: int, kept: I64) -> None:
    """kept[0] = chosen; the others are drawn uniformly, with replacement, from 0..m-1 without it."""
    kept[0] = chosen
    start = mix(seed)
    for at in range(1, len(kept)):
        high = draw(start, at) >> np.uint64(32)
        one = np.int64((high * np.uint64(m - 1)) >> np.uint64(32))
        kept[at] = one + (one >= chosen)


@njit(cache=True, fastmath=_FAST)
def _plain(features: F32, hand: F32, scores: F32) -> None:
    scores[:] = 0
    for i in range(len(features)):
        if hand[i] != 0:
            for j in range(len(scores)):
                scores[j] += hand[i] * features[i, j]


@njit(cache=True)
def _plain_parts(features: F32, owner: I64, hand: F32, floors: F32, groups: I64, out: F32) -> None:
    for i in range(len(features)):
        for j in range(features.shape[1]):
            out[groups[i], j] += hand[i] * (features[i, j] - floors[i, owner[j]])


@njit(cache=True)
def _z(value: np.float32, mean: np.float32, inverse: np.float32) -> np.float32:
    """Standardised and clipped; what is no number becomes the lower end."""
    z = (value - mean) * inverse
    z = z if z > -CLIP else -CLIP
    return z if z < CLIP else CLIP


@njit(cache=True, fastmath=_FAST)
def _context(context: F32, scale: F32, hidden: F32, out: F32) -> None:
    """out (HIDDEN,) = B c + b0."""
    for h in range(len(out)):
        total = hidden[0, h, _BIAS]
        for i in range(len(context)):
            z = _z(context[i], scale[0, i], np.float32(1) / scale[1, i])
            total += hidden[0, h, COLUMNS + i] * z
        out[h] = total


@njit(cache=True, fastmath=_FAST)
def _score(
    features: F32, start: I64, contexts: F32, buckets: I64,
    scale: F32, context_scale: F32, linear: F32, hidden: F32, scores: F32,
) -> None:  # fmt: skip
    # Blocks of candidates stay in the nearest cache, and every inner loop runs along them; the hidden units take four
    # features at a time, for a loop of one would wait for memory. A block is worked on whole, however few are in it.
    f, block = len(features), 64
    z, unit = np.zeros(((f + 3) // 4 * 4, block), np.float32), np.empty(block, np.float32)
    total, base = np.empty(block, np.float32), np.empty(HIDDEN, np.float32)
    for query in range(len(start) - 1):
        _context(contexts[query], context_scale, hidden, base)
        line = 1 + buckets[query]
        for begin in range(start[query], start[query + 1], block):
            n = min(block, start[query + 1] - begin)
            total[:] = 0
            for i in range(f):
                weight, mean, inverse = linear[0, i] + linear[line, i], scale[0, i], np.float32(1) / scale[1, i]
                for j in range(n):
                    z[i, j] = _z(features[i, begin + j], mean, inverse)
                    total[j] += weight * z[i, j]
            for h in range(HIDDEN):
                unit[:] = base[h]
                for i in range(0, len(z), 4):
                    a, b, c, d = hidden[0, h, i], hidden[0, h, i + 1], hidden[0, h, i + 2], hidden[0, h, i + 3]
                    za, zb, zc, zd = z[i], z[i + 1], z[i + 2], z[i + 3]
                    for j in range(block):
                        unit[j] += (a * za[j] + b * zb[j]) + (c * zc[j] + d * zd[j])
                weight = hidden[0, h, _OUT]
                for j in range(block):
                    total[j] += weight * max(unit[j], np.float32(0))
            scores[begin : begin + n] = total[:n]


@njit(cache=True, fastmath=_FAST)
def _parts(
    features: F32, owner: I64, contexts: F32, buckets: I64, floors: F32, groups: I64,
    scale: F32, context_scale: F32, linear: F32, hidden: F32, out: F32,
) -> None:  # fmt: skip
    f, last = len(features), len(out) - 1
    base, z, floor = np.empty(HIDDEN, np.float32), np.empty(f, np.float32), np.empty(f, np.float32)
    for j in range(features.shape[1]):
        line = 1 + buckets[owner[j]]
        _context(contexts[owner[j]], context_scale, hidden, base)
        for i in range(f):
            inverse = np.float32(1) / scale[1, i]
            z[i], floor[i] = _z(features[i, j], scale[0, i], inverse), _z(floors[i, owner[j]], scale[0, i], inverse)
            out[groups[i], j] += (linear[0, i] + linear[line, i]) * (z[i] - floor[i])
        for h in range(HIDDEN):
            unit, nothing = base[h], base[h]
            for i in range(f):
                unit += hidden[0, h, i] * z[i]
                nothing += hidden[0, h, i] * floor[i]
            out[last, j] += hidden[0, h, _OUT] * (max(unit, np.float32(0)) - max(nothing, np.float32(0)))


@njit(cache=True, fastmath=_FAST)
def _learn(
    features: F32, chosen: int, offsets: F32, context: F32, line: int,
    scale: F32, context_scale: F32, linear: F32, squares: F32, hidden: F32, counts: I64,
    rates: tuple[float, float, float, float], pairwise: bool,
) -> bool:  # fmt: skip
    f, n = features.shape
    z, units, pull = np.empty((f, n), np.float32), np.empty((HIDDEN, n), np.float32), offsets.copy()
    _forward(features, context, line, scale, context_scale, linear, hidden, z, units, pull)
    if not _pull(pull, chosen, offsets, pairwise):
        return False
    for i in range(f):
        gradient = np.float32(0)
        for j in range(n):
            gradient += pull[j] * z[i, j]
        for at, rate in ((0, np.float32(rates[0])), (line, np.float32(rates[1]))):
            squares[at, i] += gradient * gradient
            linear[at, i] += rate * gradient / np.sqrt(squares[at, i])
    counts[1] += 1
    slope = _slope(context, context_scale, hidden, z, units, pull)
    return _adam(hidden, slope, counts[1], np.float32(rates[2]), np.float32(rates[3]))


@njit(cache=True, fastmath=_FAST)
def _forward(
    features: F32, context: F32, line: int, scale: F32, context_scale: F32, linear: F32, hidden: F32,
    z: F32, units: F32, pull: F32,
) -> None:  # fmt: skip
    """Fill `z` (f, n) and `units` (HIDDEN, n), and add the scores to `pull` (n,)."""
    f, n = features.shape
    base = np.empty(HIDDEN, np.float32)
    for i in range(f):
        weight, mean, inverse = linear[0, i] + linear[line, i], scale[0, i], np.float32(1) / scale[1, i]
        for j in range(n):
            z[i, j] = _z(features[i, j], mean, inverse)
            pull[j] += weight * z[i, j]
    _context(context, context_scale, hidden, base)
    for h in range(HIDDEN):
        units[h] = base[h]
        for i in range(f):
            weight = hidden[0, h, i]
            for j in range(n):
                units[h, j] += weight * z[i, j]
        weight = hidden[0, h, _OUT]
        for j in range(n):
            units[h, j] = max(units[h, j], np.float32(0))
            pull[j] += weight * units[h, j]


@njit(cache=True, fastmath=_FAST)
def _slope(context: F32, context_scale: F32, hidden: F32, z: F32, units: F32, pull: F32) -> F32:
    """(HIDDEN, _WIDTH) the gradient by A, B, b0 and v; `units` is used up."""
    slope, (f, n) = np.zeros((HIDDEN, hidden.shape[2]), np.float32), z.shape
    for h in range(HIDDEN):
        through, out, weight = np.float32(0), np.float32(0), hidden[0, h, _OUT]
        for j in range(n):
            out += pull[j] * units[h, j]
        for j in range(n):
            units[h, j] = weight * pull[j] if units[h, j] > 0 else np.float32(0)
        for j in range(n):
            through += units[h, j]
        slope[h, _OUT] = out
        for i in range(f):
            gradient = np.float32(0)
            for j in range(n):
                gradient += units[h, j] * z[i, j]
            slope[h, i] = gradient
        for i in range(len(context)):
            slope[h, COLUMNS + i] = through * _z(context[i], context_scale[0, i], np.float32(1) / context_scale[1, i])
        slope[h, _BIAS] = through
    return slope


@njit(cache=True, fastmath=_FAST)
def _pull(pull: F32, chosen: int, offsets: F32, pairwise: bool) -> bool:
    """From scores, offsets included, to the gradient of the loss's negative by each; False if one is not finite."""
    n, total = len(pull), np.float32(0)
    if pairwise:
        mine = pull[chosen]
        for j in range(n):
            total += np.exp(offsets[j])
        total -= 1
        share = np.float32(-1) / max(total, np.float32(1))
        for j in range(n):
            weight = share * np.exp(offsets[j])
            pull[j] = weight / (np.float32(1) + np.exp(min(mine - pull[j] + offsets[j], np.float32(80))))
        pull[chosen] = 0
        total = np.float32(0)
        for j in range(n):
            total += pull[j]
        pull[chosen] = -total
        return bool(np.isfinite(total))
    peak = pull.max()
    for j in range(n):
        pull[j] = np.exp(pull[j] - peak)
    for j in range(n):
        total += pull[j]
    if not total <= n:  # a comparison: fast math folds isfinite away
        return False
    share = np.float32(-1) / total
    for j in range(n):
        pull[j] *= share
    pull[chosen] += 1
    return True


@njit(cache=True, fastmath=_FAST)
def _adam(hidden: F32, slope: F32, step: int, rate: np.float32, decay: np.float32) -> bool:
    first, second = np.float32(1 / (1 - 0.9**step)), np.float32(1 / (1 - 0.999**step))
    total = np.float32(0)
    for h in range(hidden.shape[1]):
        for i in range(hidden.shape[2]):
            gradient = slope[h, i] - decay * hidden[0, h, i]
            hidden[1, h, i] = _M1 * hidden[1, h, i] + (np.float32(1) - _M1) * gradient
            hidden[2, h, i] = _M2 * hidden[2, h, i] + (np.float32(1) - _M2) * gradient * gradient
            hidden[0, h, i] += rate * hidden[1, h, i] * first / (np.sqrt(hidden[2, h, i] * second) + _TINY)
        for i in range(hidden.shape[2]):
            total += abs(hidden[0, h, i])
    return bool(total < np.float32(1e9))
