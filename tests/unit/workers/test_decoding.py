"""Header names that are not UTF-8: the record is read, marked, and its neighbours come whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tests.rawlog import CODECS, ESCAPED, NAME, Compress, Given, raw_batch
from tests.records import Consumed
from workers.decoding import read_any_header
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.envelope import unwrap
from workers.wire.errors import UnreadableError
from workers.wire.output import EscapedHeaders

GOOD: list[Given] = [
    (b"k", b"v" * 300, [("ce_id", b"1"), ("none", None), ("", b"")]),
    (None, b"", []),
    (b"", None, [("\N{SNOWMAN}", b"\xff")]),
]
ODD: Given = (b"u", b"{}", [("a", b"1"), (NAME, b"\x00"), (NAME, None)])


def read(raw: bytes, begin: int = 0) -> Any:
    """The records of a fetch that was asked for from `begin` on, as a consumer takes them."""
    read_any_header()
    tp = TopicPartition("t", 0)
    return fetcher.PartitionRecords(tp, fetcher.MemoryRecords(raw), [], begin, None, None, True, 1)


def given(records: Sequence[Any]) -> list[Any]:
    return [(r.key, r.value, list(r.headers)) for r in records]


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_neighbours_come_whole_and_only_the_odd_one_is_marked(codec: Compress | None) -> None:
    raw = raw_batch([GOOD[0]], codec, 0) + raw_batch([*GOOD, ODD, *GOOD], codec, 1) + raw_batch(GOOD, codec, 8)
    fetched = read(raw)
    records = list(fetched)
    expected = [GOOD[0], *GOOD, (b"u", b"{}", [("a", b"1"), (ESCAPED, b"\x00"), (ESCAPED, None)]), *GOOD, *GOOD]
    assert given(records) == expected
    assert [r.offset for r in records] == list(range(11))
    assert [r.offset for r in records if isinstance(r.headers, EscapedHeaders)] == [4]
    assert fetched.next_fetch_offset == 11


def test_a_second_reading_tells_what_the_first_tells() -> None:
    """Timestamps, sizes, everything but the marked headers: as the client's own decoder has it."""
    plain = list(read(raw_batch([*GOOD, *GOOD], first=5)))
    again = list(read(raw_batch([ODD], first=4) + raw_batch([*GOOD, *GOOD], first=5)))[1:]
    assert again == plain


@pytest.mark.parametrize("begin", range(8))
def test_from_any_offset_on(begin: int) -> None:
    raw = raw_batch([ODD, GOOD[0], ODD], first=0) + raw_batch([GOOD[0], ODD], first=3) + raw_batch(GOOD, first=5)
    assert [r.offset for r in read(raw, begin)] == list(range(begin, 8))


def test_broken_bytes_are_still_refused() -> None:
    raw = bytearray(raw_batch([ODD]))
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        list(read(bytes(raw)))


def test_it_becomes_a_dead_letter_that_anyone_can_read() -> None:
    (record,) = read(raw_batch([ODD]))
    with pytest.raises(UnreadableError, match=r"headers: expected names in UTF-8, found .*xff") as refused:
        unwrap(record, record.value)
    letter = dead_letter(BadRecord(record, refused.value.stage, str(refused.value), "UnreadableError"), "d", "g", 0)
    assert (letter.key, letter.value) == (b"u", b"{}")
    assert list(letter.headers)[:3] == [("a", b"1"), (ESCAPED, b"\x00"), (ESCAPED, None)]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    assert builder.append(0, 0, letter.key, letter.value, list(letter.headers)) is not None


def test_the_same_names_in_plain_headers_are_nobodys_concern() -> None:
    assert unwrap(Consumed(headers=[(ESCAPED, b"")]), b"{}").data == b"{}"
