"""Whatever lies on `events`: an event, a bad record with its bytes intact, or a stray; never an exception."""

from __future__ import annotations

import json
import struct
from collections import Counter
from typing import Any

import numpy as np
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.types import ATTRIBUTES, hash_id
from tests.records import NOW, Consumed
from workers.settings import Kafka, Settings
from workers.wire.dead_letter import dead_letter
from workers.wire.errors import WireError
from workers.wire.event import (
    Attributes,
    Event,
    EventData,
    Rules,
    read_event,
    read_events,
    write_attributes,
    write_event,
)
from workers.wire.ids import event_hashes
from workers.wire.partition import murmur2, partition_of
from workers.wire.times import parse_time, rfc3339

RULES = Rules.of(Settings(kafka=Kafka(partitions=2)))
FORMS = ["bare", "binary", "structured"]
FIELDS = [
    "user_id", "action", "item_id", "value", "time", "event_id", "session_id", "feed_id", "position", "context",
    "items", "attributes", "unknown",
]  # fmt: skip
ID = st.from_regex(r"\A[A-Za-z0-9_.:@/+=-]{1,128}\Z")


def as_json(body: Any, ascii_: bool) -> bytes:
    """JSON as Python writes it: with NaN, and with halves of surrogate pairs."""
    return json.dumps(body, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner), max_leaves=9)
valid = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["u-1", "u-2", "u-5"]),
        "action": st.sampled_from(["click", "profile", "forget", "rate", "impression", "other"]),
        "item_id": st.just("i-1"),
    },
    optional={
        "value": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "time": st.sampled_from([NOW, str(NOW), rfc3339(NOW)]),
        "event_id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
        "feed_id": ID,
        "position": st.integers(-(2**63), 2**63 - 1),
        "context": st.just({"surface": "home"}),
        "items": st.lists(ID, max_size=5),
        "attributes": st.just({"audience": "adult", "muted_creators": ["acme"]}),
        "unknown": scalars.filter(lambda scalar: not isinstance(scalar, float)),
    },
)
# One field of a valid event becomes anything, or disappears.
broken = st.builds(
    lambda body, name, anything: {**body, name: anything}, valid, st.sampled_from(FIELDS), trees
) | st.builds(
    lambda body, name: {field: body[field] for field in body if field != name}, valid, st.sampled_from(FIELDS)
)
no_event = st.none() | st.binary(max_size=200) | st.builds(as_json, trees, st.booleans())
names = st.sampled_from(
    ["ce_id", "ce_source", "ce_time", "ce_subject", "content-type", "traceparent", "tracestate", "headrace-rerouted"]
)
contents = (
    st.binary(max_size=30)
    | st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.sampled_from([b"application/cloudevents+json", b"application/json", b"2026-11-22T05:10:11Z"])
    | st.none()
)
Headers = list[tuple[str, bytes]]
headers: st.SearchStrategy[Any] = st.lists(st.tuples(names | st.text(max_size=9), contents), max_size=6)
keys = st.none() | st.sampled_from([b"u-1", b"u-2", b""]) | st.binary(max_size=20)
FAULTS = ["none", "none", "none", "key", "value", "field", "cut", "headers", "timestamp"]


@st.composite
def records(draw: st.DrawFn) -> Consumed:
    """A record in any of the three forms, with one thing wrong in two of three."""
    fault = draw(st.sampled_from(FAULTS))
    body = draw(broken if fault == "field" else valid)
    user = body.get("user_id", "u-1")
    key = user.encode("utf-8", "surrogatepass") if isinstance(user, str) else b"u-1"
    value, given_headers = enveloped(draw(st.sampled_from(FORMS)), as_json(body, draw(st.booleans())))
    return Consumed(
        key=draw(keys) if fault == "key" else key,
        value=draw(no_event) if fault == "value" else value[: draw(st.integers(0, 99))] if fault == "cut" else value,
        headers=given_headers + (draw(headers) if fault == "headers" else []),
        partition=0,
        timestamp=draw(st.sampled_from([-1, 0, 2**62])) if fault == "timestamp" else NOW,
    )


def enveloped(form: str, body: bytes) -> tuple[bytes, Headers]:
    """The data object in one of the three forms."""
    if form == "structured":
        return b'{"id":"1","source":"s","data":%s}' % body, [("content-type", b"application/cloudevents+json")]
    return body, [("ce_id", b"1"), ("ce_source", b"s")] if form == "binary" else []


def test_the_records_drawn_here_are_of_every_kind() -> None:
    kinds: Counter[str] = Counter()

    @settings(database=None, derandomize=True)
    @given(st.lists(records(), max_size=20))
    def count(drawn: list[Consumed]) -> None:
        batch = read_events(drawn, RULES, 0, NOW)
        kinds.update(good=len(batch.events), astray=len(batch.astray))
        kinds.update(bad.stage for bad in batch.bad)

    count()
    assert min(kinds[kind] for kind in ("good", "astray", "decode", "validate")) > 5, kinds


@given(st.lists(records(), max_size=20))
def test_every_record_is_an_event_or_bad_or_astray(given_: list[Consumed]) -> None:
    batch = read_events(given_, RULES, 0, NOW)
    assert len(batch.events) + len(batch.bad) + len(batch.astray) == len(given_)
    owners = [batch.users[row] for row in batch.events.user]
    assert owners == [json.loads(event.data)["user_id"] for event in batch.fresh]
    assert sorted(set(owners)) == sorted(batch.users)
    for bad in batch.bad:
        assert bad.stage in ("decode", "validate")
        sent = dead_letter(bad, "dead", "group", NOW)
        assert (sent.key, sent.value) == (bad.record.key, bad.record.value)
        assert sent.headers[: len(bad.record.headers)] == bad.record.headers


def one(record: Consumed) -> tuple[Event | None, str]:
    """The event in `record`, or the reason why there is none."""
    try:
        return read_event(record, RULES, NOW), ""
    except WireError as error:
        return None, str(error)


@given(st.lists(records(), max_size=20))
def test_a_batch_reads_what_its_records_read_one_by_one(given_: list[Consumed]) -> None:
    batch = read_events(given_, RULES, 0, NOW)
    good = set(batch.positions)
    for at, record in enumerate(given_):
        event, reason = one(record)
        if event is None:
            assert at not in good
            assert reason in [bad.reason for bad in batch.bad if bad.record is record]
        elif at in good:
            row = batch.positions.index(at)
            assert batch.users[batch.events.user[row]] == event.data.user_id
            assert batch.events.time[row] == event.time_ms
            assert batch.events.id[row] == (hash_id(event.id) if event.id else 0)
            assert batch.events.item[row] == event.item
            assert np.isfinite(np.float32(event.data.value or 0))


datas = st.builds(
    EventData,
    user_id=ID,
    action=st.text(max_size=20),
    item_id=ID,
    value=st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
    time=st.integers(NOW - 10**9, NOW).flatmap(lambda time: st.sampled_from([time, str(time), rfc3339(time)])),
    event_id=st.none() | st.text(min_size=1, max_size=128),
    session_id=st.none() | st.text(),
    feed_id=st.none() | ID,
    position=st.none() | st.integers(-(2**63), 2**63 - 1),
    items=st.none() | st.lists(ID, max_size=200),
)


@given(datas, st.text(max_size=20))
def test_what_is_written_is_read(data: EventData, source: str) -> None:
    key, value, headers = write_event(data, source)
    event = read_event(Consumed(key, value, headers), RULES, NOW)
    assert (event.data, event.id) == (data, data.event_id or "")
    assert data.time is not None
    assert event.time_ms == parse_time(data.time)


@given(datas)
def test_a_stray_arrives_as_the_same_event(data: EventData) -> None:
    key, value, headers = write_event(data)
    home = RULES.partition(key)
    batch = read_events([Consumed(key, value, headers, partition=1 - home)], RULES, 1 - home, NOW)
    [sent] = batch.astray
    assert sent.partition == home
    arrived = read_events([Consumed(sent.key, sent.value, sent.headers)], RULES, home, NOW)
    before = read_event(Consumed(key, value, headers), RULES, NOW)
    assert [event.data for event in arrived.fresh] == [before.raw]
    assert arrived.events.time.tolist() == [before.time_ms]
    if before.id:
        assert arrived.events.id.tolist() == [hash_id(before.id)]


attributes = st.fixed_dictionaries(
    {},
    optional={
        "audience": st.text(max_size=20),
        "locale": st.text(max_size=20),
        "market": st.text(max_size=20),
        "muted_categories": st.lists(st.text(max_size=20)),
        "muted_creators": st.lists(st.text(max_size=20)),
    },
)


@given(attributes)
@example({"audience": '\x00\x1f\x7f\u2028"\\/é🙂'})
def test_attributes_are_what_sorted_compact_json_is(given_: dict[str, Any]) -> None:
    expected = json.dumps(given_, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert write_attributes(Attributes(**given_)) == expected
    profile = json.dumps({"user_id": "u-1", "action": "profile", "attributes": given_}).encode()
    batch = read_events([Consumed(b"u-1", profile)], RULES, RULES.partition(b"u-1"), NOW)
    assert batch.events.attributes == ([expected] if len(expected) <= ATTRIBUTES else [])


@given(st.binary(max_size=64), st.integers(1, 1024))
def test_partitions_are_those_of_the_clients(key: bytes, count: int) -> None:
    assert murmur2(key) == murmur2_of_aiokafka(key)
    assert partition_of(key, count, "murmur2") == (murmur2_of_aiokafka(key) & 0x7FFFFFFF) % count


@given(st.lists(st.text(max_size=40)))
def test_hashes_of_events_are_the_common_hashes(ids: list[str]) -> None:
    assert event_hashes(ids).tolist() == [hash_id(text) if text else 0 for text in ids]


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_times_come_back(time: int) -> None:
    assert parse_time(rfc3339(time)) == time


@given(st.text(max_size=30) | st.integers())
def test_a_time_is_read_or_refused(text: str | int) -> None:
    try:
        time = parse_time(text)
    except WireError:
        return
    assert -(2**63) <= time < 2**63 or isinstance(text, int)


@given(st.floats(allow_nan=False))
def test_values_are_finite_as_float32_or_refused(value: float) -> None:
    record = Consumed(
        b"u-1", b'{"user_id":"u-1","action":"rate","item_id":"i","value":%s}' % json.dumps(value).encode()
    )
    try:
        struct.pack("<f", value)
        fits = abs(value) != float("inf")
    except OverflowError:
        fits = False
    batch = read_events([record], RULES, RULES.partition(b"u-1"), NOW)
    assert len(batch.events) == fits
