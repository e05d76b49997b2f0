"""What every importer gives: a catalogue and a stream of data objects in the order of their times.

Data objects are plain JSON objects as wire.md describes them; `workers.wire` checks them where they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from workers.wire.times import DAY_MS, parse_time, rfc3339

Data = dict[str, Any]
Kind = Literal["item", "event"]
Moment = tuple[Kind, Data]
Check = Callable[[Moment], object]  # raises ValueError for a moment that the workers would refuse

WINDOW_MS = 29 * DAY_MS  # where a live clock takes events: it refuses those older than 30 days
TIMES = {"item": ("published_at", "expires_at"), "event": ("time",)}


class DatasetError(ValueError):
    """A data set that cannot be read; the message is one line: file, line, what was expected, what was found."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading of a data set finds."""

    items: int
    events: int
    span: tuple[int, int] | None  # least and greatest time of the events, ms; None where no event names one


@dataclass(frozen=True, slots=True)
class Dataset:
    """A readable data set. `catalog` and `stream` may be iterated more than once."""

    name: str
    catalog: Iterable[Moment]  # the items that are there before the first event; but see `by_date`
    stream: Iterable[Moment]  # events, and items that appear between them, in time order
    left_out: str = ""  # what was left out and why, for the person who imports
    by_date: bool = (
        False  # evaluated, items of `catalog` enter when they say that they were published, not all at first
    )

    def first(self, events: int) -> Dataset:
        """The same, up to so many events."""
        return replace(self, stream=_First(self.stream, events))

    def now(self) -> Dataset:
        """The same without the times of events: they happen when they are written."""
        return replace(self, stream=_Timeless(self.stream))

    def survey(self) -> Survey:
        """Read all of it once. Raises DatasetError for the first thing that is wrong."""
        items = sum(1 for _ in self.catalog)
        events, span = 0, None
        for kind, data in self.stream:
            if kind == "item":
                items += 1
                continue
            events += 1
            if data.get("time") is not None:
                time = parse_time(data["time"])
                span = (min(span[0], time), max(span[1], time)) if span else (time, time)
        return Survey(items, events, span)


def checked(moment: Moment, check: Check | None, where: str) -> Moment:
    """`moment`, if `check` takes it. Raises DatasetError, naming `where`, if not."""
    if check is not None:
        try:
            check(moment)
        except ValueError as error:
            raise DatasetError(f"{where}: {error}") from None
    return moment


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

    def __str__(self) -> str:
        was, becomes = (f"{rfc3339(a)[:10]} to {rfc3339(b)[:10]}" for a, b in self._spans())
        return f"{was} is written as {becomes}" + (f", {1 / self.factor:.3g} times as dense" if self.factor < 1 else "")

    def apply(self, dataset: Dataset) -> Dataset:
        """The same data set with every time moved, those of its items too."""
        return replace(dataset, catalog=_Moved(dataset.catalog, self), stream=_Moved(dataset.stream, self))

    def _spans(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.first, self.last), (self(self.first), self.now)


def fitting(survey: Survey, now: int) -> Shift | None:
    """The shift that a live clock needs; None where every event already lies in its last 29 days."""
    span = survey.span
    if span is None or (span[0] >= now - WINDOW_MS and span[1] <= now):
        return None
    return Shift(*span, now)


@dataclass(frozen=True, slots=True)
class Again:
    """What `begin` gives, from its beginning at each iteration."""

    begin: Callable[[], Iterator[Moment]]

    def __iter__(self) -> Iterator[Moment]:
        return self.begin()


@dataclass(frozen=True, slots=True)
class _First:
    moments: Iterable[Moment]
    events: int

    def __iter__(self) -> Iterator[Moment]:
        left = self.events
        for moment in self.moments:
            left -= moment[0] == "event"
            if left < 0:
                return
            yield moment


@dataclass(frozen=True, slots=True)
class _Moved:
    moments: Iterable[Moment]
    shift: Shift

    def __iter__(self) -> Iterator[Moment]:
        for kind, data in self.moments:
            times = {name: data[name] for name in TIMES[kind] if data.get(name) is not None}
            yield kind, {**data, **{name: rfc3339(self.shift(parse_time(time))) for name, time in times.items()}}


@dataclass(frozen=True, slots=True)
class _Timeless:
    moments: Iterable[Moment]

    def __iter__(self) -> Iterator[Moment]:
        for kind, data in self.moments:
            yield kind, {name: value for name, value in data.items() if kind == "item" or name != "time"}
