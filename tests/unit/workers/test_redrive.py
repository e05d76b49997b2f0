"""Which letters become records again, and that these say what the first ones said."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.records import Consumed
from workers.outside.letters import Letter, Origin, text
from workers.outside.redrive import Redrive, Verdict
from workers.settings import Settings
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.event import Rules, read_event, read_events
from workers.wire.item import read_item
from workers.wire.output import GivenHeaders, Output

WALL = Settings()
SETTINGS = Settings(clock="stream")  # whatever the time is when this runs
RULES = Rules.of(SETTINGS)
NOW = round(time.time() * 1000)
REFUSED_AT = NOW - 7_000
EVENTS, ITEMS = SETTINGS.topic("events"), SETTINGS.topic("items")
CLICK: dict[str, Any] = {"user_id": "u-1042", "item_id": "i-7", "action": "click"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def letter_of(record: Consumed, reason: str = "bad") -> Letter:
    """The letter that a worker writes of a record, as it is read back."""
    made = dead_letter(BadRecord(record, "validate", reason, "InvalidError"), "d", "g", REFUSED_AT)
    return Letter(Consumed(made.key, made.value, made.headers, "d", 0, 5))


def event(data: dict[str, Any], headers: GivenHeaders = (), **more: Any) -> Consumed:
    return Consumed(value=json.dumps(data).encode(), headers=list(headers), topic=EVENTS, timestamp=NOW, **more)


def judge(record: Consumed, published: dict[str, int] | None = None, settings: Settings = SETTINGS) -> Verdict:
    return Redrive(settings, published or {}).judge(letter_of(record))


def written(record: Consumed) -> Consumed:
    """What a worker will read."""
    output = judge(record).output
    assert isinstance(output, Output)
    assert output.partition is not None
    return Consumed(output.key, output.value, output.headers, output.topic, output.partition, 777, NOW)


STRUCTURED = {"specversion": "1.0", "id": "s", "source": "/s", "type": "x", "data": CLICK, "traceparent": TRACE}
BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"b"), ("ce_type", b"x")]
FORMS = {
    "bare": event(CLICK),
    "own id": event({**CLICK, "event_id": "e-1", "time": NOW - 5}),
    "structured": event(STRUCTURED, [("content-type", b"application/cloudevents+json")]),
    "binary": event(CLICK, [*BINARY, ("ce_source", b"/s"), ("ce_time", b"2026-01-01T00:00:00Z")]),
    "binary without source": event(CLICK, [*BINARY, ("traceparent", TRACE.encode())]),
    "re-routed and still astray": event(CLICK, [("headrace-rerouted", b"there")], partition=0),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_event_says_again_what_it_said(form: str) -> None:
    """Data untouched, the same id and time where it had them, at home; and a second time it is the same event."""
    record = FORMS[form]
    first, again = read_event(record, RULES, NOW), read_event(written(record), RULES, NOW)
    assert again.raw == first.raw
    assert again.data == first.data
    given = first.data.time is not None or first.envelope.time is not None
    assert again.time_ms == (first.time_ms if given else REFUSED_AT)
    assert again.id == (first.id or f"/headrace\0{EVENTS}/{record.partition}/{record.offset}")
    assert again.envelope.traceparent == first.envelope.traceparent
    batch = read_events([written(record)], RULES, written(record).partition, NOW)
    assert (len(batch.events), batch.bad, batch.astray) == (1, [], [])
    assert read_event(written(record), RULES, NOW).id == again.id


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (event({**CLICK, "time": "1999-01-01T00:00:00Z"}), "time: expected"),
        (event({**CLICK, "item_id": "{x}"}), "item_id: expected"),
        (event({**CLICK, "user_id": "else"}), "key: expected"),
        (Consumed(value=b"\xff", topic=EVENTS), "UTF-8"),
        (Consumed(key=None, topic=EVENTS), "key: found null"),
        (Consumed(value=b"x" * 1_000_000, topic=EVENTS), "only the beginning of its value was kept"),
        (Consumed(topic=SETTINGS.topic("states")), "the pipeline makes it again"),
        (Consumed(topic="other.events.v1"), "expected a record of headrace.events.v1 or headrace.items.v1"),
        (Consumed(key=b"i-1", value=b'{"item_id":"i-2"}', topic=ITEMS), "key: expected the item id"),
    ],
)
def test_what_is_still_bad_is_not_written(record: Consumed, reason: str) -> None:
    verdict = judge(record, settings=WALL)
    assert verdict.output is None
    assert reason in verdict.reason


def test_a_letter_that_says_nothing_is_not_written() -> None:
    verdict = Redrive(SETTINGS, {}).judge(Letter(Consumed(headers=[("__dlq.errors.offset", b"x")])))
    assert verdict.letter.origin == Origin("", -1, -1)
    assert "found one of no topic" in verdict.reason


def test_one_record_is_written_once() -> None:
    """A batch that was delivered twice leaves two letters of each bad record."""
    redrive, letter = Redrive(SETTINGS, {}), letter_of(event(CLICK))
    assert redrive.judge(letter).output is not None
    assert redrive.judge(letter).reason == "the same record as an earlier letter"
    assert redrive.judge(letter_of(event(CLICK, offset=99124))).output is not None


@pytest.mark.parametrize("value", [b'{"item_id":"i-1","title":"One"}', None], ids=["published", "deleted"])
def test_an_item_is_written_as_it_was_unless_it_was_published_since(value: bytes | None) -> None:
    record = Consumed(b"i-1", value, [("ce_id", b"x"), ("none", None)], ITEMS, 1, 50)
    for known in ({}, {"i-1": 49}, {"i-2": 51}):
        output = judge(record, known).output
        assert output is not None
        assert (output.topic, output.key, output.value, list(output.headers), output.partition) == (
            ITEMS, b"i-1", value, record.headers, None,
        )  # fmt: skip
        assert read_item(Consumed(output.key, output.value, output.headers)).item_id == "i-1"
    assert judge(record, {"i-1": 51}).reason == "the item was published again since, at offset 51"


def test_foreign_bytes_are_shown_without_acting() -> None:
    cases: Sequence[tuple[bytes | None, str | None]] = [
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\xff\n", "\\\\xff\\n"),
        (b"plain", "plain"),
        (None, None),
    ]
    for raw, shown in cases:
        assert text(raw) == shown
