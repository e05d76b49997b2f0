"""Streams by hand, and recipes whose lists a pencil can follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.candidates import Candidates
from pipeline.catalog import Catalog, Entry
from pipeline.evaluation.prequential import Setup
from pipeline.evaluation.stream import Stream
from pipeline.filters.not_blocked import NotBlocked
from pipeline.filters.not_consumed import NotConsumed
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.retrieval import Arranger, Recipe
from pipeline.selection import Proposals
from pipeline.types import BLOCKS, CONSUMES, F32, FORGETS, POSITIVE, hash_of

CLICK, DISLIKE, VIEW, GLANCE, FORGET = 3, 7, 2, 1, 10
EFFECTS = {CLICK: POSITIVE | CONSUMES, DISLIKE: CONSUMES | BLOCKS, VIEW: POSITIVE, GLANCE: 0, FORGET: FORGETS}
WEIGHTS = np.zeros(256, np.float32)
WEIGHTS[[CLICK, VIEW, DISLIKE]] = 1.0, 0.3, -1.0
SECOND = 1_000


class Did(NamedTuple):
    """One event; what a test does not care about has a default."""

    user: str
    item: str
    action: int = CLICK
    time: int = -1  # s; -1 = a second after the event before
    id: int = 0


def stream(events: Sequence[Did], arrivals: Sequence[tuple[int, Entry]] = ()) -> Stream:
    """The events as a stream, from second 1 on."""
    users = {user: at for at, user in enumerate(dict.fromkeys(event.user for event in events))}
    return Stream(
        user=np.array([users[event.user] for event in events], np.int64),
        user_hash=np.array([hash_of(user) for user in users], np.uint64),
        time=np.array([SECOND * (at + 1 if did.time < 0 else did.time) for at, did in enumerate(events)], np.int64),
        item=np.array([hash_of(event.item) if event.item else 0 for event in events], np.uint64),
        item_ids=[event.item for event in events],
        id=np.array([event.id for event in events], np.uint64),
        action=np.array([event.action for event in events], np.uint8),
        effect=np.array([EFFECTS[event.action] for event in events], np.uint8),
        attributes={},
        weights=WEIGHTS,
        arrivals=arrivals,
    )


def told(text: str) -> Stream:
    """A stream of clicks: "1a 2b" is user 1 with item a, then user 2 with item b."""
    return stream([Did(word[0], word[1:]) for word in text.split()])


@dataclass(frozen=True, slots=True)
class Everything:
    """Proposes every item that has been taken, in the order of its row."""

    name: str = "everything"
    first: int = 0

    def __call__(self, queries: Queries, catalog: Catalog, model: Model) -> Proposals:
        rows = np.flatnonzero(model.trends.count[: len(model.rows)] > 0)[self.first :]
        return Proposals(np.array((0, len(rows))), rows)


@dataclass(frozen=True, slots=True)
class Counted:
    """Scores by the all-time weight of items; learns nothing."""

    names: tuple[str, ...] = ()

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates) -> F32:
        return model.trends.count[candidates.rows].astype(np.float32)

    def parts(self, queries: Queries, catalog: Catalog, model: Model, shown: Candidates) -> F32:
        return np.zeros((0, len(shown)), np.float32)


@dataclass(frozen=True, slots=True)
class Alike(Counted):
    """Finds nothing better than anything."""

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, candidates: Candidates) -> F32:
        return np.zeros(len(candidates), np.float32)


def plain(*arrangers: Arranger, repeats: bool = False, ranker: Any = None) -> Setup:
    """By all-time popularity."""
    filters = (NotBlocked(),) if repeats else (NotBlocked(), NotConsumed())
    sources = (Everything(), Everything("later", 1))
    scoring: Any = ranker or Counted()  # no more of a ranker than evaluation asks for
    return Setup(Recipe("plain", sources, filters, scoring, (), arrangers, 10), dimension=4, negatives=2)


def numbers(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a report."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from numbers(value, f"{path}.{name}")
    elif isinstance(found, int | float):
        yield path, found
