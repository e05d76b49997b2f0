"""Records whose header names are not UTF-8: read all the same. The client's decoder raises for them, out of the poll,
each time it meets them: one such record would stop its partition for ever, and every partition polled with it.

The client's own decoder stays in charge. Only where it raises are the same bytes read again, by Python and more
patiently, from the record on that it fell over; so a log without such records pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

from workers.wire.output import EscapedHeaders


def read_any_header() -> None:
    """Let every consumer of this process read such records; their headers come as EscapedHeaders."""
    fetcher.MemoryRecords, fetcher.PartitionRecords = _Fetched, _PartitionRecords


class _Fetched(MemoryRecords):  # type: ignore[misc]
    """The bytes of a fetch, which can be asked for once more."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of a fetch, in log order."""

    _records: Any
    _records_iterator: Any

    def __next__(self) -> Any:
        try:
            return next(self._records_iterator)
        except StopIteration:
            self._records_iterator = None
            raise
        except (UnicodeDecodeError, CorruptRecordException):
            if not isinstance(self._records, _Fetched):  # read again already: it is no header's name
                raise
        self._records = _Again(self._records.raw, self.next_fetch_offset)
        self._records_iterator = self._read_again()
        return next(self)

    def _read_again(self) -> Iterator[Any]:
        for record in self._unpack_records():
            if any(isinstance(name, _Escaped) for name, _ in record.headers):
                headers = EscapedHeaders((str(name), value) for name, value in record.headers)
                yield replace(record, headers=headers)
            else:
                yield record


class _Escaped(str):
    """A header's name that was not UTF-8."""

    __slots__ = ()


class _Again(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of a fetch that hold records from `begin` on."""

    def __init__(self, raw: bytes, begin: int) -> None:
        super().__init__(raw)
        while self.has_next() and _DefaultRecordBatchPy(self._next_slice).next_offset <= begin:
            self._cache_next()

    def next_batch(self) -> Any:
        raw = self._next_slice
        self._cache_next()
        return _Batch(raw)


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A record batch (format 2, the only one with headers)."""

    _pos: int

    def _read_msg(self) -> Any:
        raw = self._buffer
        length, begin = decode_varint(raw, self._pos)
        time, at = decode_varint(raw, begin + 1)  # after a byte of attributes, which nobody uses
        offset, at = decode_varint(raw, at)
        key, at = _sized(raw, at)
        value, at = _sized(raw, at)
        headers, at = _headers(raw, at)
        if at - begin != length:
            raise CorruptRecordException(f"a record of {length} bytes has {at - begin}")
        self._pos = at
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        return _DefaultRecordPy(
            self.base_offset + offset,
            self.max_timestamp if appended else self.first_timestamp + time,
            self.timestamp_type,
            key,
            value,
            headers,
        )


def _headers(raw: bytearray, at: int) -> tuple[list[tuple[str, bytes | None]], int]:
    count, at = decode_varint(raw, at)
    headers = []
    for _ in range(count):
        name, at = _sized(raw, at)
        value, at = _sized(raw, at)
        headers.append((_text(name or b""), value))
    return headers, at


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return _Escaped(name.decode("utf-8", "backslashreplace"))


def _sized(raw: bytearray, at: int) -> tuple[bytes | None, int]:
    """Bytes with their length in front, and where they end; a negative length is none."""
    size, at = decode_varint(raw, at)
    return (None, at) if size < 0 else (bytes(raw[at : at + size]), at + size)
