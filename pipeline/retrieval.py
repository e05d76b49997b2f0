"""The read path: a chunk of queries in, a feed for each out. Four stages: gather, sift, rank, arrange and cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pipeline.candidates import Candidates, Lists, Trail, starts, union
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.provenance import Feed, explain
from pipeline.queries import Queries
from pipeline.ranking import Ranker
from pipeline.selection import Proposals, order
from pipeline.types import I64, Mask, Owner, Rows


class Source(Protocol):
    """Proposes rows for each query: unique, best first, at most 200. One that raises is skipped and noted."""

    @property
    def name(self) -> str:
        """What it is called in a feed's `sources`; sources of one kind may share it."""

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        """The proposals for each of q queries."""


class Filter(Protocol):
    """Says which candidates may be shown to their owner."""

    @property
    def name(self) -> str:
        """The reason of what it drops."""

    def __call__(self, queries: Queries, catalog: Catalog, rows: Rows, owner: Owner) -> Mask:
        """(c,) True = keep."""


class Arranger(Protocol):
    """Reorders each owner's candidates: a permutation within each owner."""

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> I64:
        """(c,) the new order, as places in the old one."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parts of the read path, in order, and the size of a feed."""

    name: str
    sources: tuple[Source, ...]
    filters: tuple[Filter, ...]
    ranker: Ranker
    guards: tuple[Filter, ...]
    arrangers: tuple[Arranger, ...]
    size: int


def build_feeds(queries: Queries, catalog: Catalog, model: Model, recipe: Recipe) -> list[Feed]:
    """Answer a chunk of queries: the four stages, in order."""
    safe = shortlist(queries, catalog, model, recipe)
    shown = cut(queries, arrange(queries, catalog, model, safe, recipe.arrangers), recipe.size)
    return explain(queries, catalog, model, shown, recipe.ranker)


def shortlist(queries: Queries, catalog: Catalog, model: Model, recipe: Recipe) -> Candidates:
    """All that may be shown, best first: what evaluation measures, before anything is arranged or cut."""
    found = gather(queries, catalog, model, recipe.sources)  # rows (c,), owner (c,): at most 200 a source and query
    kept = sift(queries, catalog, found, recipe.filters)  # only rows that may be shown to their owner
    ranked = rank(queries, catalog, model, kept, recipe.ranker)  # scores (c,), greatest first within an owner
    return sift(queries, catalog, ranked, recipe.guards)  # safety after ranking


def gather(queries: Queries, catalog: Catalog, model: Model, sources: Sequence[Source]) -> Candidates:
    """The union of what the sources propose. A source that fails costs its own proposals, not the feeds."""
    names, proposals, skipped = [], [], []
    for source in sources:
        try:
            proposals.append(source(queries, catalog, model))
            names.append(source.name)
        except Exception:  # whatever it is: the other sources still make a feed, and the feed names what is missing
            skipped.append(source.name)
    lists = Lists.of(proposals, len(queries))
    rows, owner = union(lists, len(catalog))
    gathered = np.bincount(owner, minlength=len(queries))
    trail = Trail(tuple(names), lists, tuple(skipped), gathered, np.zeros_like(gathered))
    return Candidates(rows, owner, np.zeros(len(rows), np.float32), trail)


def sift(queries: Queries, catalog: Catalog, candidates: Candidates, filters: Sequence[Filter]) -> Candidates:
    """What every filter keeps; a dropped candidate is counted for the first filter that drops it."""
    kept, dropped = np.ones(len(candidates), np.bool_), list(candidates.trail.dropped)
    none = np.zeros(len(queries), np.int64)
    for part in filters:
        mask = part(queries, catalog, candidates.rows, candidates.owner)
        if mask.all():
            dropped.append((part.name, none))
            continue
        lost = (kept & ~mask).nonzero()[0]
        dropped.append((part.name, np.bincount(candidates.owner[lost], minlength=len(queries))))
        kept &= mask
    left = candidates if kept.all() else candidates.take(kept.nonzero()[0])
    return replace(left, trail=replace(candidates.trail, dropped=tuple(dropped)))


def rank(queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, ranker: Ranker) -> Candidates:
    """Scored, each owner's greatest first."""
    scores = ranker(queries, catalog, model, candidates)
    return replace(candidates, scores=scores).take(order(candidates.owner, scores))


def arrange(
    queries: Queries, catalog: Catalog, model: Model, candidates: Candidates, arrangers: Sequence[Arranger]
) -> Candidates:
    """Reordered by each arranger in turn."""
    for part in arrangers:
        candidates = candidates.take(part(queries, catalog, model, candidates.rows, candidates.owner))
    return candidates


def cut(queries: Queries, candidates: Candidates, size: int) -> Candidates:
    """Each owner's first `size`; what there was before is counted as ranked."""
    start = starts(candidates.owner, len(queries))[:, None]  # (q+1, 1)
    places = start[:-1] + np.arange(size)  # (q, size)
    trail = replace(candidates.trail, ranked=start[1:, 0] - start[:-1, 0])
    return replace(candidates.take(places[places < start[1:]]), trail=trail)
