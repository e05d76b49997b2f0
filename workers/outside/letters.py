"""Dead letters read back: each with the record that it was made of, as far as it is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from workers.replica import LogReader
from workers.settings import Settings
from workers.wire.dead_letter import PREFIX
from workers.wire.output import GivenHeaders, Record

_ERRORS = f"{PREFIX}errors."
_NOWHERE = -1
_DIGITS = 18  # more is no offset, and fits no int64


class Origin(NamedTuple):
    """Where the record was that a letter was made of."""

    topic: str  # "" = the letter does not say
    partition: int
    offset: int


@dataclass(frozen=True)
class Letter:
    """A dead letter."""

    record: Record  # of `dead-letters`

    @property
    def offset(self) -> int:
        """Where the letter is."""
        return self.record.offset

    @property
    def headers(self) -> GivenHeaders:
        """The headers of the record that it was made of."""
        return [header for header in self.record.headers if not header[0].startswith(PREFIX)]

    @property
    def whole(self) -> bool:
        """Whether it holds all of that record's value."""
        return f"{PREFIX}truncated" not in self._given

    @cached_property
    def errors(self) -> dict[str, str]:
        """What was said of it: topic, partition, offset, group, message, exception, stage, timestamp."""
        return {
            name.removeprefix(_ERRORS): value.decode("utf-8", "replace")
            for name, value in self._given.items()
            if name.startswith(_ERRORS)
        }

    @property
    def origin(self) -> Origin:
        """Where that record was."""
        said = self.errors
        return Origin(said.get("topic", ""), _number(said.get("partition")), _number(said.get("offset")))

    @cached_property
    def _given(self) -> dict[str, bytes]:
        return {name: value or b"" for name, value in self.record.headers}


async def read_letters(
    reader: LogReader, settings: Settings, on_letters: Callable[[Sequence[Letter]], None], *, begin: int = 0
) -> None:
    """Hand over every letter that is there, oldest first; with `begin`, from that offset on."""
    topic = settings.topic("dead-letters")
    for partition, span in (await reader.spans(topic)).items():
        async for records in reader.read(topic, partition, max(begin, span.begin), span.end):
            on_letters([Letter(record) for record in records])


async def refused_events(reader: LogReader, settings: Settings) -> dict[int, set[int]]:
    """The offsets of events that became dead letters, by partition; letters are kept as long as events."""
    topic = settings.topic("events")
    refused: dict[int, set[int]] = {}

    def on_letters(letters: Sequence[Letter]) -> None:
        for letter in letters:
            origin = letter.origin
            if origin.topic == topic:
                refused.setdefault(origin.partition, set()).add(origin.offset)

    await read_letters(reader, settings, on_letters)
    return refused


def text(raw: Any) -> str | None:
    """Foreign bytes, safe to show: whatever is not printable is escaped."""
    return None if raw is None else raw.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()


def _number(given: str | None) -> int:
    """-1 for what is no offset: whoever may write letters may write any text."""
    known = given is not None and given.isascii() and given.isdigit() and len(given) <= _DIGITS
    return int(given or "") if known else _NOWHERE
