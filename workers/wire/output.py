"""A record as it is read, and a record to be sent: what handlers take and return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

Headers = list[tuple[str, bytes]]  # as we make them
# As they come: Kafka allows a header without a value, and a dead letter keeps what it was given.
GivenHeaders = Sequence[tuple[str, bytes | None]]


class EscapedHeaders(tuple[tuple[str, bytes | None], ...]):
    """Headers of which a name is not UTF-8: its wrong bytes are escaped. Nobody acts on a record that has such."""

    __slots__ = ()


class Record(Protocol):
    """What of a consumed record is looked at; aiokafka's `ConsumerRecord` is one."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...  # ms
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> GivenHeaders: ...


class Output(msgspec.Struct, frozen=True, gc=False):
    """A record to be sent. `partition` None: where the key belongs."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: GivenHeaders = []  # a list of its own for each
    partition: int | None = None


def place(record: Record) -> str:
    """Where `record` was, as an id: topic/partition/offset."""
    return f"{record.topic}/{record.partition}/{record.offset}"
