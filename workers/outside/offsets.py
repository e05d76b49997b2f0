"""Where the lanes stand: what the logs hold, what the store and the groups say, and what a worker would make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workers import kafka
from workers.replica import LogCut, LogReader, Span, log_reader
from workers.settings import Settings
from workers.store import Position, Store

EMPTY = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Standing:
    """A lane in one partition of its topic."""

    topic: str
    partition: int
    begin: int  # the log's first offset, and behind its last one
    end: int
    next: int | None  # first offset not done; None = it never stood anywhere
    sent: int | None  # first offset whose outputs are not acknowledged; None where there is no such mark
    owner: str
    problem: str  # what a worker would refuse, or say as an alarm; "" = nothing
    lag: int  # records that are not done

    @property
    def unsent(self) -> int:
        """Of what is done, records whose outputs are not acknowledged."""
        return 0 if self.next is None or self.sent is None else max(0, self.next - self.sent)


def problem(span: Span, position: Position | None) -> str:
    """What the start rules of the embedding lane say of a partition; "" = it starts."""
    begin, end = span
    if position is None:
        return f"no position while the log begins at {begin}: `headrace users rebuild`" if begin else ""
    if position.next < begin:
        return f"{begin - position.next} events are gone before they were applied: `headrace worker --accept-loss`"
    if position.next > end:
        return f"the log ends {position.next - end} before the store's position: it is not the log of these states"
    if position.sent < begin:
        return f"{begin - position.sent} events are gone before they were announced: `headrace verify`"
    return ""


async def standings(settings: Settings) -> list[Standing]:
    """The embedding lane in `events`, the retrieval lane in `states`, the catalog worker in `items`."""
    store = await Store.connect(settings)
    try:
        async with log_reader(settings) as reader:
            events = await reader.spans(settings.topic("events"))
            positions = await store.positions(list(events))
            return [
                *await _events(settings, reader, events, positions),
                *await _of_group(settings, reader, "states", settings.topic("retrieval")),
                *await _of_group(settings, reader, "items", f"{settings.prefix}-catalog"),
            ]
    finally:
        await store.close()


async def _events(
    settings: Settings, reader: LogReader, spans: Mapping[int, Span], positions: Mapping[int, Position]
) -> list[Standing]:
    topic, found = settings.topic("events"), []
    for partition, span in spans.items():
        at = positions.get(partition)
        next_, sent, owner = (at.next, at.sent, at.owner) if at else (None, None, "")
        lag = await _lag(reader, topic, partition, span, next_)
        found.append(Standing(topic, partition, *span, next_, sent, owner, problem(span, at), lag))
    return found


async def _of_group(settings: Settings, reader: LogReader, dataset: str, group: str) -> list[Standing]:
    topic = settings.topic(dataset)
    spans = await reader.spans(topic)
    at, stand = await kafka.commits(settings, group, topic, spans), []
    for p, span in spans.items():
        lag = await _lag(reader, topic, p, span, at.get(p))
        stand.append(Standing(topic, p, *span, at.get(p), None, "", "", lag))
    return stand


async def _lag(reader: LogReader, topic: str, partition: int, span: Span, next_: int | None) -> int:
    """Offsets from `next_` to the log's end; 0 where none can be read: they are transactions' markers."""
    begin = max(span.begin, next_ or 0)
    try:
        async for _ in reader.read(topic, partition, begin, span.end):
            return span.end - begin
    except LogCut:  # retention took them meanwhile, or the broker is slow: what it says of its log stands
        return span.end - begin
    return 0
