"""Dead letters: bytes untouched, and what was wrong beside them."""

from __future__ import annotations

from hashlib import sha256

import pytest

from tests.records import NOW, Consumed
from workers.wire.dead_letter import KEPT, LARGEST, BadRecord, dead_letter
from workers.wire.output import Output

LIMIT = 1_000_000  # what the producer takes


def letter(record: Consumed, reason: str = "wrong", deliveries: int = 1) -> Output:
    return dead_letter(BadRecord(record, "update", reason, "ValueError"), "dead", "group", NOW, deliveries)


def named(output: Output) -> dict[str, bytes]:
    return {name.removeprefix("__dlq."): text or b"" for name, text in output.headers if name.startswith("__dlq.")}


@pytest.mark.parametrize("key", [None, b"", b"\xff\x00"])
@pytest.mark.parametrize("value", [None, b"", b"\xff\x00" * 1000])
def test_bytes_are_untouched(key: bytes | None, value: bytes | None) -> None:
    headers = [("a", b"\xff"), ("a", b""), ("__dlq.errors.stage", b"before"), ("n", None)]
    sent = letter(Consumed(key, value, headers))
    assert (sent.topic, sent.key, sent.value, sent.partition) == ("dead", key, value, None)
    assert sent.headers[:4] == headers


def test_named_headers() -> None:
    assert named(letter(Consumed(), "expected a, found b", deliveries=3)) == {
        "errors.topic": b"headrace.events.v1",
        "errors.partition": b"3",
        "errors.offset": b"99123",
        "errors.group": b"group",
        "errors.delivery.count": b"3",
        "errors.message": b"headrace.events.v1[3]@99123: expected a, found b",
        "errors.exception": b"ValueError",
        "errors.stage": b"update",
        "errors.timestamp": b"2026-11-22T05:10:11.132Z",
    }


def test_message_is_bounded_and_always_text() -> None:
    message = named(letter(Consumed(), "\ud800" * 100_000))["errors.message"]
    assert len(message.decode()) == 1000


def test_just_below_the_limit_is_kept_whole() -> None:
    value = b"x" * (LARGEST - len(b"u-1042"))
    sent = letter(Consumed(value=value))
    assert sent.value == value
    assert "truncated" not in named(sent)


def test_above_the_limit_the_value_is_cut_and_named() -> None:
    value = bytes(range(256)) * 4096
    sent = letter(Consumed(value=value, headers=[("a", b"1")]))
    assert (sent.key, sent.value, sent.headers[0]) == (b"u-1042", value[:KEPT], ("a", b"1"))
    assert named(sent)["truncated"] == str(len(value)).encode()
    assert named(sent)["sha256"] == sha256(value).hexdigest().encode()


@pytest.mark.parametrize(
    "record",
    [
        Consumed(key=b"k" * 1_040_000, value=b"v"),
        Consumed(headers=[("a", b"h" * 1_040_000), ("b", b"")]),
        Consumed(headers=[("a" * 250, b"")] * 4000),
        Consumed(key=b"k" * 500_000, value=b"v" * 500_000),
        Consumed(headers=[("", b"")] * 400_000),
    ],
    ids=["key", "header", "headers", "key and value", "empty headers"],
)
def test_whatever_is_large_the_letter_can_be_sent(record: Consumed) -> None:
    sent = letter(record)
    size = len(sent.key or b"") + len(sent.value or b"") + sum(len(n) + len(v or b"") + 4 for n, v in sent.headers)
    assert size < LIMIT
    assert named(sent)["truncated"] == str(len(record.value or b"")).encode()
