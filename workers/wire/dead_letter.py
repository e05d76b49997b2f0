"""`dead-letters.v1`: a bad record with its bytes untouched, and beside them where it was and what was wrong.

Header names are those of Apache Kafka's KIP-1191, and three of ours; all values are text.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

import msgspec

from workers.wire.output import GivenHeaders, Headers, Output, Record
from workers.wire.times import rfc3339

LARGEST = 900 * 1024  # bytes of key, value and headers together that are kept whole
KEPT = 64 * 1024  # bytes of what is cut
PREFIX = "__dlq."

_OFFSET, _TEXT = (f"{PREFIX}errors.{name}" for name in ("offset", "message"))
_MESSAGE = 1000  # characters
_HEADER = 16  # bytes that a header costs beside its name and value, at most


class BadRecord(msgspec.Struct, frozen=True, gc=False):
    """A record that cannot be used, and why."""

    record: Record
    stage: str  # decode | validate | update | retrieve | publish
    reason: str
    exception: str  # the error's class


def dead_letter(bad: BadRecord, topic: str, group: str, now_ms: int, deliveries: int = 1) -> Output:
    """The dead letter of `bad` for `topic`, found by consumer group `group` at `now_ms` (wall).

    Key, value and headers are byte-identical, but for a header's name that is not UTF-8: it is escaped, or the letter
    could not be read either. Of a record above LARGEST the value is its first KEPT bytes, with
    `__dlq.truncated` (its size) and `__dlq.sha256`; where even so it is above, key and headers are cut to KEPT too.
    """
    record = bad.record
    key, value, kept = record.key, record.value, record.headers
    ours = _errors(bad, group, now_ms, deliveries)
    if _size(key, value, kept) > LARGEST:
        ours += _cut_headers(value)
        value = value[:KEPT] if value is not None else None
        if _size(key, value, kept) > LARGEST:
            key, kept = key[:KEPT] if key is not None else None, _first(kept)
    return Output(topic, key, value, [*kept, *ours] if kept else ours)


def _errors(bad: BadRecord, group: str, now_ms: int, deliveries: int) -> Headers:
    record, offset = bad.record, bad.record.offset
    log, (topic, partition, reader, count, exception, stage, time) = _of_many(
        record.topic, record.partition, group, deliveries, bad.exception, bad.stage, now_ms
    )
    message = f"{log}{offset}: {bad.reason}"[:_MESSAGE].encode("utf-8", "replace")
    return [topic, partition, (_OFFSET, b"%d" % offset), reader, count, (_TEXT, message), exception, stage, time]


@lru_cache(maxsize=1024)
def _of_many(
    topic: str, partition: int, group: str, deliveries: int, exception: str, stage: str, now_ms: int
) -> tuple[str, Headers]:
    """What the letters of a batch have in common, for poison comes in numbers: how messages begin, and headers."""
    said = {
        "topic": topic,
        "partition": str(partition),
        "group": group,
        "delivery.count": str(deliveries),
        "exception": exception,
        "stage": stage,
        "timestamp": rfc3339(now_ms),
    }
    return f"{topic}[{partition}]@", [
        (f"{PREFIX}errors.{name}", text.encode("utf-8", "replace")) for name, text in said.items()
    ]


def _cut_headers(value: bytes | None) -> Headers:
    value = value or b""
    return [(f"{PREFIX}truncated", b"%d" % len(value)), (f"{PREFIX}sha256", sha256(value).hexdigest().encode())]


def _size(key: bytes | None, value: bytes | None, headers: GivenHeaders) -> int:
    size = len(key or b"") + len(value or b"")
    return size + sum(_header_size(header) for header in headers) if headers else size


def _header_size(header: tuple[str, bytes | None]) -> int:
    return len(header[0].encode()) + len(header[1] or b"") + _HEADER


def _first(headers: GivenHeaders) -> list[tuple[str, bytes | None]]:
    """As many of `headers` as fit KEPT."""
    size = 0
    kept: list[tuple[str, bytes | None]] = []
    for header in headers:
        size += _header_size(header)
        if size > KEPT:
            break
        kept.append(header)
    return kept
