"""What `states` says of users in the end: of each the record with the greatest offset, which may not be the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.blob import BlobError, decode
from workers.replica import LogReader, Span
from workers.settings import Settings
from workers.wire.errors import WireError
from workers.wire.ids import id_from_key
from workers.wire.output import Record, place
from workers.wire.state import decode_state, read_forgotten


class Announced(NamedTuple):
    """A user's state, or that they were forgotten, as it was announced."""

    offset: int  # of the last event in the state, or of the forget; CARRIED from another log
    blob: bytes  # b"" = forgotten
    written: int  # ms, when the record was written
    forgotten_at: int = -1  # ms, event time of the forget


class Cut(NamedTuple):
    """Where the log of a partition of `events` begins, and from where on it is to be replayed."""

    begin: int
    at: int


@dataclass(slots=True)
class Announcements:
    """What records of one partition of `states` say."""

    newest: dict[str, Announced] = field(default_factory=dict)
    forgotten: dict[str, Announced] = field(default_factory=dict)  # the newest forget, also of who is back since
    base: dict[str, Announced] = field(default_factory=dict)  # what the log from `first` on has to be replayed upon
    first: int = 0  # the cut, or the first event below it that came in one state with events above it
    unheard: set[str] = field(default_factory=set)  # of whom the log has a forget, and `states` nothing
    unreadable: list[str] = field(default_factory=list)  # place and reason


async def announcements(
    reader: LogReader, settings: Settings, partition: int, span: Span, cut: Cut | None = None
) -> Announcements:
    """Read a partition of `states`; with `cut` also the states to begin a replay with."""
    found = Announcements(first=cut.at if cut else 0)
    async for records in reader.read(settings.topic("states"), partition, *span):
        take(found, records, cut)
    return found


def take(found: Announcements, records: Sequence[Record], cut: Cut | None) -> None:
    """Take records of `states` in; what cannot be read is listed."""
    read = []
    for record in records:
        try:
            user = id_from_key(record.key, "user id")
            if record.value is None:
                forgotten = read_forgotten(record.headers)
                said = Announced(forgotten.offset, b"", record.timestamp, forgotten.time_ms)
                _note(found, user, said, [], cut)
            else:
                state = decode_state(record.value)
                read.append((record, user, state.blob, [fresh.offset for fresh in state.fresh]))
        except WireError as error:
            found.unreadable.append(_why(record, error))
    for record, user, blob, offset, fresh in _dated(read, found.unreadable):
        _note(found, user, Announced(offset, blob, record.timestamp), fresh, cut)


def _dated(
    read: list[tuple[Record, str, bytes, list[int]]], unreadable: list[str]
) -> list[tuple[Record, str, bytes, int, list[int]]]:
    """With the offset of each state's last event; what is no state goes to `unreadable`."""
    while True:
        try:
            offsets = decode([blob for _, _, blob, _ in read]).last_offset.tolist()
            break
        except BlobError as error:
            unreadable.append(_why(read.pop(error.row)[0], error))
    return [(record, user, blob, at, fresh) for (record, user, blob, fresh), at in zip(read, offsets, strict=True)]


def _note(found: Announcements, user: str, said: Announced, fresh: Sequence[int], cut: Cut | None) -> None:
    _raise(found.newest, user, said)
    if not said.blob:
        _raise(found.forgotten, user, said)
    if cut is None:
        return
    first = min(fresh, default=cut.at)
    if said.offset < cut.at or first < cut.begin:  # of the latter the log no longer has all that led to it
        _raise(found.base, user, said)
    else:
        found.first = min(found.first, first)


def _raise(known: dict[str, Announced], user: str, said: Announced) -> None:
    if user not in known or said.offset >= known[user].offset:
        known[user] = said


def _why(record: Record, error: Exception) -> str:
    return f"{place(record)}: {error}"
