"""The contest on one data set: Headrace as `headrace evaluate` runs it, then each peer over the same events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.baselines import NAMES
from pipeline.evaluation.metrics import Figures, errors, figures, paired
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.prequential import Prequential, Setup
from pipeline.evaluation.stream import Stream
from pipeline.recipe import RECIPES
from pipeline.types import F64, I64
from tests.bench.peers.deeds import Deeds
from tests.bench.peers.loop import Ranks, run
from tests.bench.peers.recipes import Entry, Settings
from workers.importers import formats
from workers.importers.stream import checker, stream_of
from workers.settings import load

TUNED_ON = 5  # settings are compared on one query in so many
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Task:
    """A data set, and what counts on it."""

    folder: str
    min_rating: float | None  # from here on a rating is a like
    repeats: bool  # may items come again that the user had

    def stream(self, limit: int | None = None) -> Stream:
        """Its events. Raises DatasetError where it is not there."""
        settings = load()
        path = Path(settings.data) / self.folder
        dataset = formats.read(path, formats.detect(path), self.min_rating, None, checker(settings))
        return stream_of(dataset if limit is None else dataset.first(limit), settings).stream

    def __str__(self) -> str:
        likes = f", rating >= {self.min_rating:g} as like" if self.min_rating is not None else ""
        return f"{self.folder}{likes}{', with repeats' if self.repeats else ''}"


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one method."""

    library: str
    name: str
    settings: Settings
    figures: Figures
    errors: dict[str, float | None]
    behind: dict[str, Any]  # how far Headrace is ahead at the same queries
    learn_us: float | None
    query_us: float | None
    tried: tuple[tuple[Settings, float], ...] = ()  # and the recall@10 of each
    note: str = ""


def headrace(stream: Stream, repeats: bool, seed: int) -> Outcomes:
    """Headrace over the stream; the kernels are loaded before, so that the times are those of the work."""
    setup = Setup(recipe=RECIPES["home"](10, repeats), seed=seed)
    Prequential(_first(stream, 500), setup).run()
    return Prequential(stream, setup, time.process_time).run()


class Contest:
    """All methods over the same events, of which `ours` tells what became with Headrace. A pass of a peer may take
    `limit_s` of CPU, then it is stopped. Raises ValueError for other events than Headrace was asked before."""

    def __init__(
        self, deeds: Deeds, ours: Outcomes, repeats: bool, seed: int, say: Say, limit_s: float = np.inf
    ) -> None:
        if not np.array_equal(ours.event, deeds.event) or not np.array_equal(ours.history >= 1, deeds.history >= 1):
            raise ValueError("peers: expected a stream whose every event was applied and nobody forgets; found another")
        self._deeds, self._ours, self._repeats = deeds, ours, repeats
        self._seed, self._say, self._limit_s = seed, say, limit_s

    def lines(self, entries: tuple[Entry, ...]) -> Iterator[Line]:
        """Headrace, the plain methods of its evaluation, then the peers that are installed."""
        outcomes = self._ours
        known = outcomes.history >= 1
        cost = 1e6 * outcomes.learn_s / max(outcomes.learned, 1), 1e6 * outcomes.query_s / max(len(outcomes.rank), 1)
        yield self._line("headrace", "the default recipe", {}, outcomes.rank[known], cost)
        for name in ("popularity", self._best("trending")):
            ranks = outcomes.baselines[known, NAMES.index(name)]
            yield self._line("headrace", f"baseline {name}", {}, ranks, (None, None))
        for entry in entries:
            if entry.installed:
                yield self._entered(entry)

    def _best(self, kind: str) -> str:
        known = self._ours.history >= 1
        names = [name for name in NAMES if name.startswith(kind)]
        return max(names, key=lambda name: _recall(self._ours.baselines[known, NAMES.index(name)]))

    def _entered(self, entry: Entry) -> Line:
        """The best of an entry's settings, over all queries."""
        tried = []
        for settings in entry.settings:
            ranks = self._run(entry, settings, TUNED_ON)
            tried.append((settings, _recall(ranks.rank)))
            self._say(f"{entry.library} {entry.name} {told(settings)}: {tried[-1][1]:.4f} ({ranks.events:,} events)")
        best = max(tried, key=lambda one: one[1])[0] if len(tried) > 1 else entry.settings[0]
        ranks = self._run(entry, best, 1)
        note = ""
        if ranks.events < len(self._deeds):
            note = f"stopped after {ranks.events:,} of {len(self._deeds):,} events: {self._limit_s:.0f} s of CPU"
        cost = ranks.learn_us, ranks.query_us
        return self._line(entry.library, entry.name, best, ranks.rank, cost, ranks.event, tuple(tried), note)

    def _run(self, entry: Entry, settings: Settings, sample: int) -> Ranks:
        peer = entry.make(settings, self._seed)
        limit_s = self._limit_s
        with np.errstate(all="ignore"):  # a library may run off to infinity with steps too large: the figures say so
            return run(peer, self._deeds, time.process_time, repeats=self._repeats, sample=sample, limit_s=limit_s)

    def _line(
        self,
        library: str,
        name: str,
        settings: Settings,
        ranks: F64,
        cost: tuple[float | None, float | None],
        event: I64 | None = None,
        tried: tuple[tuple[Settings, float], ...] = (),
        note: str = "",
    ) -> Line:
        """`ranks` (q,) at `event` (q,), None = at all of known users."""
        ours = self._ours
        at = np.flatnonzero(ours.history >= 1) if event is None else np.searchsorted(ours.event, event)
        user = ours.user[at]
        behind = paired(ours.rank[at], ranks, user)
        return Line(library, name, settings, figures(ranks), errors(ranks, user), behind, cost[0], cost[1], tried, note)


def _recall(ranks: F64) -> float:
    return float(figures(ranks)["recall@10"] or 0)


def told(settings: Settings) -> str:
    """In words."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _first(stream: Stream, n: int) -> Stream:
    """The first n events."""
    columns = {name: getattr(stream, name)[:n] for name in ("user", "time", "item", "id", "action", "effect")}
    kept = {at: raw for at, raw in stream.attributes.items() if at < n}
    arrivals = [arrival for arrival in stream.arrivals if arrival[0] < n]
    return replace(stream, **columns, item_ids=stream.item_ids[:n], attributes=kept, arrivals=arrivals)
