"""What every importer gives: a catalogue and a stream of data objects in the order of their times.

Data objects are plain JSON objects as wire.md describes them; `workers.wire` checks them where they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from workers.wire.times import parse_time

Data = dict[str, Any]
Kind = Literal["item", "event"]
Moment = tuple[Kind, Data]

DAY_MS = 86_400_000
WINDOW_MS = 29 * DAY_MS  # where a live clock takes events: it refuses those older than 30 days
TIMES = {"item": ("published_at", "expires_at"), "event": ("time",)}


class DatasetError(ValueError):
    """A data set that cannot be read; the message is one line: file, line, what was expected, what was found."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A readable data set. `catalog` and `stream` may be iterated more than once."""

    name: str
    catalog: Iterable[Moment]  # the items that are there before the first event
    stream: Iterable[Moment]  # events, and items that appear between them, in time order
    left_out: str = ""  # what was left out and why, for the person who imports

    def span(self) -> tuple[int, int] | None:
        """The least and greatest time of the events, ms; None where no event names one."""
        times = [parse_time(data["time"]) for kind, data in self.stream if kind == "event" and "time" in data]
        return (min(times), max(times)) if times else None


@dataclass(frozen=True, slots=True)
class Shift:
    """Move times so that the last becomes `now`; closer together where the first would be older than WINDOW_MS."""

    first: int  # ms
    last: int  # ms
    now: int  # ms

    @property
    def factor(self) -> float:
        """How much closer together times come to lie: 1 = only moved."""
        return min(1.0, WINDOW_MS / max(1, self.last - self.first))

    def __call__(self, time: int) -> int:
        """Where `time` (ms) comes to lie, ms."""
        return self.now - round((self.last - time) * self.factor)

    def apply(self, dataset: Dataset) -> Dataset:
        """The same data set with every time moved, those of its items too."""
        return replace(dataset, catalog=_Moved(dataset.catalog, self), stream=_Moved(dataset.stream, self))


def fitting(dataset: Dataset, now: int) -> Shift | None:
    """The shift that a live clock needs; None where every event already lies in its last 29 days."""
    span = dataset.span()
    if span is None or (span[0] >= now - WINDOW_MS and span[1] <= now):
        return None
    return Shift(*span, now)


@dataclass(frozen=True, slots=True)
class _Moved:
    moments: Iterable[Moment]
    shift: Shift

    def __iter__(self) -> Iterator[Moment]:
        for kind, data in self.moments:
            times = {name: data[name] for name in TIMES[kind] if data.get(name) is not None}
            yield kind, {**data, **{name: self.shift(parse_time(time)) for name, time in times.items()}}
