"""Feeds, and why each item stands in one: its sources, what its score is made of, and the user's items behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.candidates import Candidates, ranks, starts
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.sequence import HEADS, part
from pipeline.queries import Queries, attention
from pipeline.ranking import Ranker
from pipeline.types import F32, F64, I64, Mask, Owner, Rows

DEPTH = 10  # of the user's newest items, in which reasons are looked for
PARTS = 3  # of a score that a feed tells, at most: a cached feed has a size to keep
BECAUSE = 2  # items of the user that a feed names as an item's reason, at most


@dataclass(frozen=True, slots=True)
class Feed:
    """What one query gets: m items, best first. Version, cause and times are the worker's to add."""

    rows: Rows  # (m,)
    scores: F32  # (m,)
    sources: list[dict[str, int]]  # m: the rank, from 1, that each proposing source gave the item; the best of a name
    because: list[list[int]]  # m: rows of the user's ring that speak for the item most, at most BECAUSE
    parts: list[dict[str, float]]  # m: what the score is made of, each > 0; the PARTS greatest
    propensity: list[float]  # m: the chance that the item was shown at this place; 1 = no exploration
    gathered: int  # candidates before filters
    dropped: dict[str, int]  # taken by filters and guards, by reason
    ranked: int  # candidates that were left
    skipped: tuple[str, ...]  # sources that failed


def explain(queries: Queries, catalog: Catalog, model: Model, shown: Candidates, ranker: Ranker) -> list[Feed]:
    """The feeds of q queries, from what is to be shown."""
    rows, owner, trail = shown.rows, shown.owner, shown.trail
    parts = ranker.parts(queries, catalog, model, shown)  # (f, c)
    why = _listed(because(queries, model, shown, dict(zip(ranker.names, parts, strict=True))))
    places = _told(*ranks(trail.lists, trail.sources, rows, owner, len(catalog)))
    values = _told(ranker.names, _worth_telling(parts.T))
    dropped = _told(*_transposed(trail.dropped, len(queries)))
    start, gathered, ranked = starts(owner, len(queries)).tolist(), trail.gathered.tolist(), trail.ranked.tolist()
    return [
        Feed(
            rows[a:b], shown.scores[a:b], places[a:b], why[a:b], values[a:b], [1.0] * (b - a),
            gathered[at], dropped[at], ranked[at], trail.skipped,
        )
        for at, (a, b) in enumerate(pairwise(start))
    ]  # fmt: skip


def because(queries: Queries, model: Model, shown: Candidates, parts: Mapping[str, F32]) -> Rows:
    """(c, BECAUSE) rows of each owner's newest items that speak for the candidate most, strongest first; -1 = none.

    An item's voice is its share of the sum in h . e_out[j] times the score's part "sequence" (c,), plus its share of
    cov_j times the part "covisitation" (c,); of both only what speaks for. Items without a known id are not named.
    """
    ring, rows, owner = np.ascontiguousarray(queries.ring_rows[:, :DEPTH]), shown.rows, shown.owner  # (q, D)
    sequence = model.sequence
    vectors = sequence.e_in, sequence.out, sequence.e_out[rows]
    voice = _affinity(ring, attention(queries, model), vectors, owner)  # (c, D)
    nothing = np.zeros(len(rows), np.float32)
    _weigh(voice, parts.get("sequence", nothing))
    terms = model.covisitation.terms(ring, model.trends.count, owner, rows)
    _weigh(terms, parts.get("covisitation", nothing))
    found: Rows = _loudest(voice + terms, ring, owner, model.rows.named)
    return found


def _told(names: tuple[str, ...], table: NDArray[Any]) -> list[dict[str, Any]]:
    """Each line of `table` as a dict, without what is 0."""
    told: list[dict[str, Any]] = [{} for _ in range(len(table))]
    lines, columns = np.nonzero(table)
    for line, column, value in zip(lines.tolist(), columns.tolist(), table[lines, columns].tolist(), strict=True):
        told[line][names[column]] = value
    return told


def _worth_telling(parts: F32) -> F64:
    """(c, f) rounded, and 0 but for the PARTS greatest of each item."""
    bar = np.sort(parts, axis=1)[:, -min(PARTS, parts.shape[1]), None]
    return np.where(parts < bar, np.float32(0), parts).astype(np.float64).round(2)


def _listed(pairs: Rows) -> list[list[int]]:
    """Each line as a list, without -1."""
    return [[row for row in line if row >= 0] for line in pairs.tolist()]


def _transposed(dropped: Sequence[tuple[str, I64]], q: int) -> tuple[tuple[str, ...], I64]:
    """The reasons, and the counts (q, reasons)."""
    counts = np.zeros((q, len(dropped)), np.int64)
    for at, (_, lost) in enumerate(dropped):
        counts[:, at] = lost
    return tuple(name for name, _ in dropped), counts


@njit(cache=True, fastmath={"reassoc", "contract"})
def _affinity(ring: Rows, shares: F32, vectors: tuple[F32, F32, F32], owner: Owner) -> F32:
    """(c, D) what each place of the owner's ring adds to h0 . e_out[j], at least 0; shares (q, HEADS, L)."""
    e_in, out, e_out = vectors  # of all rows, of all rows, (c, k) of the candidates
    affinity = np.zeros((len(owner), ring.shape[1]), np.float32)
    k = e_out.shape[1]
    for at in range(len(owner)):
        for d in range(ring.shape[1]):
            row, total = ring[owner[at], d], np.float32(0)
            for head in range(HEADS):
                share = shares[owner[at], head, d]
                if share > 0:
                    for i in range(*part(head, k)):
                        total += share * (e_in[row, i] + out[row, i]) * e_out[at, i]
            affinity[at, d] = max(total, np.float32(0))
    return affinity


@njit(cache=True)
def _weigh(voice: F32, weight: F32) -> None:
    """Make each line add up to its weight; a line of zeros stays."""
    for at in range(len(voice)):
        total = voice[at].sum()
        voice[at] *= weight[at] / total if total > 0 else np.float32(0)


@njit(cache=True)
def _loudest(voice: F32, ring: Rows, owner: Owner, named: Mask) -> Rows:
    """The distinct named rows of greatest voice, each judged by its loudest place in the ring; `voice` is used up."""
    out = np.full((len(voice), BECAUSE), -1)
    for at in range(len(voice)):
        mine = ring[owner[at]]
        for place in range(BECAUSE):
            loudest = -1
            for d in range(len(mine)):
                if voice[at, d] > 0 and named[mine[d]] and (loudest < 0 or voice[at, d] > voice[at, loudest]):
                    loudest = d
            if loudest < 0:
                break
            out[at, place] = mine[loudest]
            for d in range(len(mine)):
                if mine[d] == mine[loudest]:
                    voice[at, d] = 0
    return out
