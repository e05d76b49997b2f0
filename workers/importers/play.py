"""Play a data set into the topics: at a steady rate, whatever the answers take (open loop), or as fast as it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from msgspec.structs import replace

from workers.importers.dataset import Check, Moment
from workers.producer import Producer
from workers.settings import Settings
from workers.wire.errors import convert
from workers.wire.event import Rules, read_event, write_event
from workers.wire.item import ItemData, read_item, write_item
from workers.wire.output import GivenHeaders, Output

CHUNK = 500  # records a write when nothing limits the rate

Written = Callable[[Sequence[Moment], float], None]  # what is being written, and when (perf_counter)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When events are due: the n-th (from 0) at `begun` + n / `rate` seconds. A late one does not delay the next."""

    rate: float  # events/s, > 0
    begun: float  # perf_counter

    def due(self, played: int, now: float) -> int:
        """How many more than `played` are due at `now`."""
        return max(0, int((now - self.begun) * self.rate) + 1 - played)

    def wait(self, played: int, now: float) -> float:
        """Seconds until the next one is due."""
        return max(0.0, self.begun + played / self.rate - now)


class Player:
    """Writes moments to `events` and `items`, in order; every write is acknowledged before the next one begins."""

    def __init__(self, settings: Settings, producer: Producer, written: Written | None = None) -> None:
        self.events = 0
        self.items = 0
        self._settings = settings
        self._producer = producer
        self._written = written
        self._stopping = False

    def stop(self) -> None:
        """End `play` after the write in flight."""
        self._stopping = True

    async def play(self, moments: Iterable[Moment], rate: float | None = None) -> None:
        """Write all of `moments`; `rate` counts events, items between them ride along.

        What becomes due while a write is in flight goes with the next: the rate holds, latency counts from the write.
        Raises ProduceError, and DatasetError for a data object that is not valid.
        """
        source = iter(moments)
        schedule = Schedule(rate, time.perf_counter()) if rate else None
        begun = self.events
        while not self._stopping:
            wanted = CHUNK if schedule is None else await self._next_due(schedule, self.events - begun)
            chunk = list(_take(source, wanted))
            if not chunk:
                return
            await self._write(chunk)

    async def _next_due(self, schedule: Schedule, played: int) -> int:
        await asyncio.sleep(schedule.wait(played, time.perf_counter()))
        return max(1, schedule.due(played, time.perf_counter()))

    async def _write(self, chunk: Sequence[Moment]) -> None:
        outputs = [encode(self._settings, moment) for moment in chunk]
        if self._written is not None:
            self._written(chunk, time.perf_counter())
        await self._producer.send(outputs)
        events = sum(kind == "event" for kind, _ in chunk)
        self.events += events
        self.items += len(chunk) - events


def encode(settings: Settings, moment: Moment) -> Output:
    """A moment as the record to write. Raises WireError for what cannot be written."""
    kind, data = moment
    if kind == "event":
        return Output(settings.topic("events"), *write_event(data))
    return Output(settings.topic("items"), *write_item(convert(data, ItemData, "item")))


def checker(settings: Settings) -> Check:
    """A check of moments by the rules that the workers read them by, but for the clock's window."""
    rules = Rules.of(replace(settings, clock="stream"))

    def check(moment: Moment) -> None:
        output = encode(settings, moment)
        record = _Record(output.key, output.value, output.headers)
        if moment[0] == "event":
            read_event(record, rules, now_ms=0)
        else:
            read_item(record)

    return check


@dataclass(frozen=True, slots=True)
class _Record:
    """A record as it would be read."""

    key: bytes | None
    value: bytes | None
    headers: GivenHeaders
    topic: str = ""
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def _take(source: Iterator[Moment], events: int) -> Iterator[Moment]:
    """The next moments: at most CHUNK of them, and as many events as given."""
    for moment in islice(source, CHUNK):
        yield moment
        events -= moment[0] == "event"
        if events == 0:
            return
