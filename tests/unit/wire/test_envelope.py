"""The three forms of a CloudEvent on Kafka, and what holds for each."""

from __future__ import annotations

import json

import pytest

from tests.records import Consumed
from workers.wire.envelope import DEEPEST, RAW_BYTES, Envelope, unwrap
from workers.wire.errors import InvalidError, UnreadableError, WireError
from workers.wire.output import GivenHeaders

STRUCTURED = ("content-type", b"application/cloudevents+json")
BINARY = [("ce_id", b"1"), ("ce_source", b"/shop"), ("ce_time", b"2026-11-22T05:10:11Z")]


def opened(value: bytes, headers: GivenHeaders = ()) -> Envelope:
    return unwrap(Consumed(value=value, headers=headers), value)


def test_neither_header_is_bare() -> None:
    assert opened(b'{"a":1}', [("other", b"x")]) == Envelope(b'{"a":1}')


def test_ce_id_is_binary() -> None:
    assert opened(b"{}", BINARY) == Envelope(b"{}", "1", "/shop", "2026-11-22T05:10:11Z")


@pytest.mark.parametrize(
    "content_type", [b"application/cloudevents+json; charset=UTF-8", b"Application/CloudEvents+JSON"]
)
def test_content_type_is_structured_and_comes_before_ce_id(content_type: bytes) -> None:
    value = b'{"id":"2","source":"/app","time":1795324211123,"data": {"a" : [1]} ,"traceparent":"00-1"}'
    read = opened(value, [*BINARY, ("content-type", content_type)])
    assert read == Envelope(b'{"a" : [1]}', "2", "/app", 1_795_324_211_123, "00-1")


def test_a_batch_of_cloudevents_is_no_structured_one() -> None:
    assert opened(b"[]", [("content-type", b"application/cloudevents-batch+json")]) == Envelope(b"[]")


def test_of_a_header_given_twice_the_last_counts() -> None:
    assert opened(b"{}", [("ce_id", b"1"), ("ce_id", b"2")]).id == "2"


def test_a_header_without_a_value_is_absent() -> None:
    headers = [("ce_id", None), ("content-type", None), ("traceparent", None)]
    assert opened(b"{}", headers) == Envelope(b"{}")


@pytest.mark.parametrize("name", ["traceparent", "ce_traceparent"])
def test_trace_is_kept_of_every_form(name: str) -> None:
    for headers in ([], BINARY, [STRUCTURED]):
        read = opened(b'{"data":{}}', [*headers, (name, b"00-1"), ("tracestate", b"v=1")])
        assert (read.traceparent, read.tracestate) == ("00-1", "v=1")


@pytest.mark.parametrize("trace", [b"\xff", b"a\nb", b"x" * 129, b""])
def test_a_bad_trace_does_not_cost_the_event(trace: bytes) -> None:
    assert opened(b"{}", [*BINARY, ("traceparent", trace)]).traceparent is None


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b'{"id":"1"}', InvalidError),  # no data
        (b'{"data":{},"id":5}', InvalidError),
        (b'{"data":{},"time":1.5}', InvalidError),
        (b"[]", InvalidError),
        (b'{"data":{}', UnreadableError),
        (b'{"data":{}} x', UnreadableError),
    ],
)
def test_broken_structured_form(value: bytes, error: type[WireError]) -> None:
    with pytest.raises(error, match="structured CloudEvent"):
        opened(value, [STRUCTURED])


def test_header_that_is_no_text() -> None:
    with pytest.raises(UnreadableError, match="ce_source, ce_time: expected UTF-8, found"):
        opened(b"{}", [("ce_id", b"1"), ("ce_source", b"\xff")])


def test_id_is_source_and_id_together() -> None:
    assert Envelope(b"", "1", "/shop").event_id() == "/shop\x001"
    assert Envelope(b"", "1").event_id() == "\x001"
    assert Envelope(b"").event_id() == ""


@pytest.mark.parametrize(
    ("id_", "source", "said"),
    [
        ("", "/shop", "ce_id: expected 1 to 512 bytes"),
        ("x" * 513, None, "ce_id: expected 1 to 512 bytes"),
        ("é" * 257, "/shop", "ce_id: expected 1 to 512 bytes"),
        ("1", "x" * 513, "ce_source: expected at most 512 bytes"),
        ("1", "é" * 257, "ce_source: expected at most 512 bytes"),
    ],
)
def test_id_of_a_wrong_size(id_: str, source: str | None, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        Envelope(b"", id_, source).event_id()


def test_id_of_just_the_right_size() -> None:
    """The source takes nothing from the id."""
    assert Envelope(b"", "é" * 256, "x" * 512).event_id() == "x" * 512 + "\0" + "é" * 256


def test_size_limit() -> None:
    fits = b'{"a":"' + b"x" * (RAW_BYTES - 8) + b'"}'
    assert opened(fits).data == fits
    with pytest.raises(InvalidError, match=f"expected at most {RAW_BYTES} bytes, found {RAW_BYTES + 1}"):
        opened(fits + b" ")


@pytest.mark.parametrize("value", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc3'])
def test_only_utf8_also_where_nobody_looks(value: bytes) -> None:
    with pytest.raises(UnreadableError, match="expected UTF-8"):
        opened(value)


def nested(levels: int) -> bytes:
    return b'{"unknown":' * levels + b"1" + b"}" * levels


def test_depth_limit_is_a_number_not_the_stack() -> None:
    assert opened(nested(DEEPEST))
    with pytest.raises(UnreadableError, match=f"at most {DEEPEST} levels"):
        opened(nested(DEEPEST + 1))


@pytest.mark.parametrize("deep", [b"[" * 60_000, b'{"a":' * 12_000, b"[" * 30_000 + b"]" * 30_000])
def test_depth_limit_of_broken_json(deep: bytes) -> None:
    with pytest.raises(UnreadableError, match="nested too deeply"):
        opened(deep)


def test_many_brackets_are_not_depth() -> None:
    assert opened(json.dumps({"list": [[]] * 1000}).encode())
    assert opened(json.dumps({"text": '["{\\' * 1000}).encode())


def test_text_that_never_ends_is_looked_at_once() -> None:
    opened(b'"' + b'\\"[' * 20_000 + b"\\")  # quadratic, this would take a minute
