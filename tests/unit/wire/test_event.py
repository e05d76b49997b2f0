"""Events: what is taken, what is refused and why, where it goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.structs import ConsumerRecord

from pipeline.types import BLOCKS, CONSUMES, FORGETS, POSITIVE, PROFILE, hash_id
from tests.records import NOW, Consumed
from workers.settings import Action, Kafka, Settings, SettingsError
from workers.wire.errors import InvalidError, UnreadableError, WireError
from workers.wire.event import EventBatch, EventData, Rules, read_data, read_event, read_events, write_event
from workers.wire.rules import Home
from workers.wire.state import Cause, Fresh

DAY = 86_400_000
HOME = 8  # partition of u-1042 among 12, murmur2
RULES = Rules.of(Settings())
STREAM = Rules.of(Settings(clock="stream"))


def body(**fields: Any) -> bytes:
    """A click, with `fields` in place."""
    return json.dumps({"user_id": "u-1042", "item_id": "i-77", "action": "click"} | fields).encode()


def record(**fields: Any) -> Consumed:
    """A bare record that holds `body(**fields)`."""
    return Consumed(value=body(**fields), partition=HOME)


def batch(*records: Consumed, rules: Rules = RULES) -> EventBatch:
    return read_events(records, rules, HOME, NOW)


def refused(broken: Consumed, rules: Rules = RULES) -> WireError:
    with pytest.raises(WireError) as raised:
        read_event(broken, rules, NOW)
    return raised.value


# --- what an event means -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "value", "code", "effect", "refreshes"),
    [
        ("impression", None, 1, 0, False),
        ("view_item_list", None, 1, 0, False),
        ("view", None, 2, POSITIVE, True),
        ("view_item", None, 2, POSITIVE, True),
        ("read", None, 2, POSITIVE, True),
        ("click", None, 3, POSITIVE | CONSUMES, True),
        ("select_item", None, 3, POSITIVE | CONSUMES, True),
        ("like", None, 4, POSITIVE | CONSUMES, True),
        ("star", None, 4, POSITIVE | CONSUMES, True),
        ("rate", 4, 4, POSITIVE | CONSUMES, True),
        ("rate", 3.99, 0, 0, False),
        ("rate", None, 0, 0, False),
        ("add_to_cart", None, 5, POSITIVE, True),
        ("purchase", None, 6, POSITIVE | CONSUMES, True),
        ("dislike", None, 7, CONSUMES | BLOCKS, True),
        ("hide", None, 8, CONSUMES | BLOCKS, True),
        ("profile", None, 9, PROFILE, True),
        ("forget", None, 10, FORGETS, False),
        ("dwell", None, 0, 0, False),
        ("Click", None, 0, 0, False),
    ],
)
def test_actions(action: str, value: float | None, code: int, effect: int, refreshes: bool) -> None:
    read = batch(record(action=action, value=value))
    assert read.bad == []
    assert (read.events.action.tolist(), read.events.effect.tolist()) == ([code], [effect])
    assert read.refreshes == [refreshes]
    assert read.events.item.tolist() == [hash_id("i-77")]


def test_own_actions_thresholds_and_aliases() -> None:
    listened = Action(code=32, weight=1.5, refreshes=True, aliases=("play",))
    rules = Rules.of(Settings(actions={"listen": listened}, rating_threshold=0.5))
    read = batch(record(action="play"), record(action="rate", value=0.5), rules=rules)
    assert read.events.action.tolist() == [32, 4]
    assert read.events.effect.tolist() == [POSITIVE, POSITIVE | CONSUMES]


@pytest.mark.parametrize("alias", ["click", "star"])
def test_an_alias_has_one_meaning(alias: str) -> None:
    with pytest.raises(SettingsError, match=f"alias '{alias}' has another meaning"):
        Rules.of(Settings(actions={"listen": Action(code=32, aliases=(alias,))}))


def test_unknown_actions_are_events_counted_by_name() -> None:
    strange = "x\ny" * 100
    actions = ["dwell", "dwell", "scroll", strange, "click", "rate"]
    read = batch(*(record(action=action, item_id=None) if action != "click" else record() for action in actions))
    assert len(read.events) == 6
    assert read.unknown == {"dwell": 2, "scroll": 1, "rate": 1, "(not a name)": 1}


@pytest.mark.parametrize(
    "action", ["view", "click", "like", "add_to_cart", "purchase", "dislike", "hide", "select_item"]
)
def test_an_action_on_an_item_needs_one(action: str) -> None:
    error = refused(record(action=action, item_id=None))
    assert str(error) == f"item_id: expected with action '{action}', found none"


def test_a_rating_that_is_a_like_needs_an_item() -> None:
    assert "item_id" in str(refused(record(action="rate", value=5, item_id=None)))


@pytest.mark.parametrize("action", ["impression", "profile", "forget", "dwell", "rate"])
def test_other_actions_need_none(action: str) -> None:
    assert batch(record(action=action, item_id=None)).events.item.tolist() == [0]


# --- attributes --------------------------------------------------------------------------------------------------


def test_attributes_are_canonical() -> None:
    given = {"market": "AT", "height": 180, "audience": "Erwachsene ü", "muted_creators": [], "locale": None}
    read = batch(record(action="profile", attributes=given), record(), record(action="profile"))
    assert read.events.attributes == ['{"audience":"Erwachsene ü","market":"AT","muted_creators":[]}'.encode(), b"{}"]


@pytest.mark.parametrize(("size", "fits"), [(256, True), (257, False)])
def test_attributes_limit(size: int, fits: bool) -> None:
    empty = len('{"audience":""}')
    read = batch(record(action="profile", attributes={"audience": "x" * (size - empty)}))
    assert [len(attributes) for attributes in read.events.attributes] == ([size] if fits else [])
    assert [bad.reason for bad in read.bad] == (
        [] if fits else ["attributes: expected at most 256 bytes as compact JSON, found 257"]
    )


def test_attributes_of_another_action_are_not_kept() -> None:
    assert batch(record(attributes={"audience": "x" * 300})).events.attributes == []


# --- ids and times -----------------------------------------------------------------------------------------------


def ce(id_: str | None, source: str | None = "/shop", time: str | None = None) -> list[tuple[str, bytes]]:
    named = [("ce_id", id_), ("ce_source", source), ("ce_time", time)]
    return [(name, text.encode()) for name, text in named if text is not None]


@pytest.mark.parametrize(
    ("event_id", "headers", "expected"),
    [
        (None, ce(None), ""),
        ("a", ce(None), "a"),
        ("a", ce("1"), "a"),
        (None, ce("1"), "/shop\x001"),
        (None, ce("1", None), "\x001"),
        ("é" * 256, [], "é" * 256),
    ],
)
def test_ids(event_id: str | None, headers: list[tuple[str, bytes]], expected: str) -> None:
    sent = Consumed(value=body(event_id=event_id), headers=headers, partition=HOME)
    assert read_event(sent, RULES, NOW).id == expected
    assert batch(sent).events.id.tolist() == [hash_id(expected) if expected else 0]


@pytest.mark.parametrize("event_id", ["", "x" * 513, "é" * 257])
def test_event_id_of_a_wrong_size(event_id: str) -> None:
    assert "event_id: expected 1 to 512 bytes" in str(refused(record(event_id=event_id)))


def test_time_is_the_bodys_then_the_envelopes_then_the_records() -> None:
    times = [
        read_event(Consumed(value=body(time=time), headers=headers), RULES, NOW).time_ms
        for time in (NOW - 1, None)
        for headers in (ce("1", time="2026-11-22T05:10:11.130Z"), ce("1"))
    ]
    assert times == [NOW - 1, NOW - 1, NOW - 2, NOW]


def test_a_broken_time_is_not_replaced_by_another() -> None:
    assert "expected RFC 3339" in str(refused(Consumed(value=body(time="soon"), headers=ce("1"))))
    assert "expected RFC 3339" in str(refused(Consumed(value=body(), headers=ce("1", time="soon"))))


@pytest.mark.parametrize(
    ("rules", "time", "taken"),
    [
        (RULES, NOW - 30 * DAY, True),
        (RULES, NOW - 30 * DAY - 1, False),
        (RULES, NOW + 300_000, True),
        (RULES, NOW + 300_001, False),
        (STREAM, "1970-01-01T00:00:00Z", True),
        (STREAM, "1969-12-31T23:59:59.999Z", False),
        (STREAM, (1 << 32) * 1000 - 1, True),
        (STREAM, (1 << 32) * 1000, False),
        (STREAM, 10**30, False),
    ],
)
def test_clocks(rules: Rules, time: int | str, taken: bool) -> None:
    read = batch(record(time=time), rules=rules)
    assert len(read.events) == taken
    if not taken:
        assert read.bad[0].reason.startswith("time: expected ")
        assert f"(clock = {rules.clock})" in read.bad[0].reason


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"user_id": None}, "Expected `str`, got `null` - at `$.user_id`"),
        ({"action": None}, "Expected `str`, got `null` - at `$.action`"),
        ({"action": 5}, "Expected `str`, got `int` - at `$.action`"),
        ({"item_id": 77}, "at `$.item_id`"),
        ({"value": "1"}, "at `$.value`"),
        ({"value": True}, "at `$.value`"),
        ({"value": 3.5e38}, "value: expected a finite float32, found 3.5e+38"),
        ({"value": -(2.0**128)}, "value: expected a finite float32"),
        ({"time": 1795324211123.5}, "at `$.time`"),
        ({"time": 1795324211}, "looks like seconds"),
        ({"event_id": 5}, "at `$.event_id`"),
        ({"session_id": 5}, "at `$.session_id`"),
        ({"feed_id": "a b"}, "feed_id: expected ^[A-Za-z0-9_.:@/+=-]{1,128}$, found 'a b'"),
        ({"position": 1.5}, "at `$.position`"),
        ({"position": 2**63}, "at `$.position`"),
        ({"context": "home"}, "at `$.context`"),
        ({"context": {"device": 5}}, "at `$.context.device`"),
        ({"items": ["i-1"] * 201}, "at `$.items`"),
        ({"items": ["i-1", "{i}"]}, "items: expected"),
        ({"items": "i-1"}, "at `$.items`"),
        ({"attributes": []}, "at `$.attributes`"),
        ({"attributes": {"muted_creators": "acme"}}, "at `$.attributes.muted_creators`"),
        *(
            ({"item_id": wrong}, "item_id: expected")
            for wrong in ("", "a b", "{x}", "a#b", "a\n", "ä", "x" * 129, "a\x00")
        ),
    ],
)
def test_invalid_events(fields: dict[str, Any], reason: str) -> None:
    error = refused(record(**fields))
    assert isinstance(error, InvalidError)
    assert reason in str(error)


@pytest.mark.parametrize("wrong", ["", "a b", "{x}", "a#b", "a\n", "x" * 129, "ü"])
def test_user_ids_that_must_not_reach_a_key(wrong: str) -> None:
    sent = Consumed(key=wrong.encode(), value=body(user_id=wrong))
    assert "user_id: expected" in str(refused(sent))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"user_id":"u-1042","action":"click","item_id":"i-77"',
        b'{"user_id":"u-1042","action":"click","item_id":"i-77"}}',
        b'{"user_id":"u-1042","action":"click","item_id":"i-77","value":NaN}',
        b'{"user_id":"u-1042","action":"click","item_id":"i-77","extra":Infinity}',
        b'{"user_id":"u-1042","action":"\\ud800 lone","item_id":"i-77"}',
        b'\xef\xbb\xbf{"user_id":"u-1042","action":"click","item_id":"i-77"}',
        b'{"user_id":"u-1042","action":"click","item_id":"i-77","a":' + b"[" * 100_000,
    ],
)
def test_unreadable_events(value: bytes) -> None:
    error = refused(Consumed(value=value))
    assert isinstance(error, UnreadableError | InvalidError)
    assert isinstance(error, InvalidError) == (len(value) > 64 * 1024)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 5000])
def test_numbers_beyond_every_float(number: str) -> None:
    value = b'{"user_id":"u-1042","action":"click","item_id":"i-77","value":%s}' % number.encode()
    assert "out of range" in str(refused(Consumed(value=value)))


@pytest.mark.parametrize("value", [b"[]", b"5", b"null", b'"text"'])
def test_json_that_is_no_object(value: bytes) -> None:
    assert "Expected `object`" in str(refused(Consumed(value=value)))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, body(), "key: found null"),
        (b"u-1042", None, "value: found null"),
        (b"u-1043", body(), "key: expected the user id 'u-1042', found b'u-1043'"),
        (b"\xff", body(), "key: expected the user id"),
        (b"", body(), "key: expected the user id"),
    ],
)
def test_keys(key: bytes | None, value: bytes | None, reason: str) -> None:
    assert reason in str(refused(Consumed(key=key, value=value)))


def test_unknown_fields_and_nulls_are_ignored_and_travel_on() -> None:
    sent = record(colour={"deep": [1, None]}, value=None, items=None, context=None, attributes=None)
    read = batch(sent)
    assert [event.data for event in read.fresh] == [sent.value]


def test_largest_float32_is_a_value() -> None:
    assert read_event(record(value=3.4028235e38), RULES, NOW).data.value == 3.4028235e38


# --- batches -----------------------------------------------------------------------------------------------------


def in_partition(rules: Rules, partition: int, count: int) -> list[str]:
    users = (f"u-{number}" for number in range(10_000))
    return [user for user in users if rules.partition(user.encode()) == partition][:count]


def of(user: str, offset: int, **fields: Any) -> Consumed:
    return Consumed(user.encode(), body(user_id=user, **fields), partition=HOME, offset=offset)


def test_a_batch_as_arrays() -> None:
    ann, bob = in_partition(RULES, HOME, 2)
    records = [
        of(bob, 10, time=NOW - 5, event_id="e1"),
        Consumed(bob.encode(), b"{", partition=HOME, offset=11),
        of(ann, 12, action="hide", item_id="i-2"),
        of(bob, 14, action="dwell"),
        of(ann, 15, action="profile", attributes={"market": "AT"}),
        Consumed(None, b"{}", partition=HOME, offset=17),
    ]
    read = batch(*records)
    events = read.events
    assert read.users == [bob, ann]
    assert events.user.tolist() == [0, 1, 0, 1]
    assert events.offset.tolist() == [10, 12, 14, 15]
    assert events.time.tolist() == [NOW - 5, NOW, NOW, NOW]
    assert events.id.tolist() == [hash_id("e1"), 0, 0, 0]
    assert events.item.tolist() == [hash_id("i-77"), hash_id("i-2"), hash_id("i-77"), hash_id("i-77")]
    assert events.attributes == [b'{"market":"AT"}']
    assert read.positions == [0, 2, 3, 4]
    assert [event.data for event in read.fresh] == [records[at].value for at in read.positions]
    assert [(bad.record.offset, bad.stage, bad.exception) for bad in read.bad] == [
        (11, "decode", "UnreadableError"),
        (17, "validate", "InvalidError"),
    ]
    assert read.last_offset == 17
    assert read.fresh[0] == Fresh(10, NOW - 5, hash_id("e1"), records[0].value or b"")


def test_users_have_their_hashes() -> None:
    ours = [user for user in (f"u-{n}" for n in range(100)) if RULES.home(user).partition == HOME][:3]
    read = batch(*(Consumed(value=body(user_id=user), key=user.encode(), partition=HOME) for user in [*ours, ours[0]]))
    assert read.users == ours
    assert read.user_hashes.tolist() == [hash_id(user) for user in ours]


def test_a_home_is_made_once_and_the_wrong_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.wire.rules._KNOWN", 2)
    rules = Rules.of(Settings())
    home = rules.home("u-1")
    assert home == Home(b"u-1", rules.partition(b"u-1"), hash_id("u-1"))
    assert rules.home("u-1") is home
    for user in ("", "u 1", "u" * 129):
        with pytest.raises(InvalidError, match="user_id"):
            rules.home(user)
    assert rules.home("u-1") is home
    for user in ("u-2", "u-3"):  # one more than are kept
        rules.home(user)
    again = rules.home("u-1")
    assert (again == home, again is home) == (True, False)


def test_arrays_have_the_types_that_kernels_take() -> None:
    for read in (batch(), batch(record())):
        events = read.events
        types: list[Any] = [
            events.user,
            events.offset,
            events.time,
            events.item,
            events.id,
            events.action,
            events.effect,
        ]
        assert [str(column.dtype) for column in types] == ["int64"] * 3 + ["uint64"] * 2 + ["uint8"] * 2
        assert all(column.flags.writeable and column.flags.c_contiguous for column in types)
        assert read.user_hashes.dtype == np.uint64


def test_nothing_is_a_batch() -> None:
    read = batch()
    assert (read.users, read.fresh, read.bad, read.astray, read.unknown, read.last_offset) == ([], [], [], [], {}, -1)
    assert len(read.events) == 0


def test_a_user_without_a_valid_event_is_not_in_the_batch() -> None:
    assert batch(record(item_id=None)).users == []


def test_causes() -> None:
    trace = [("traceparent", b"00-1"), ("tracestate", b"v=1")]
    read = batch(
        record(event_id="e1", time=NOW - 5),
        Consumed(value=body(), headers=[*ce("1"), *trace], partition=HOME, offset=7),
        Consumed(value=body(), headers=trace[:1], partition=HOME, offset=8),
    )
    assert [read.cause(at) for at in range(3)] == [
        Cause("e1", NOW - 5, None, None, 99123),
        Cause("1", NOW, "00-1", "v=1", 7),
        Cause("headrace.events.v1/8/8", NOW, "00-1", None, 8),
    ]


def test_a_consumed_record_of_aiokafka_is_a_record() -> None:
    given: Any = ConsumerRecord("t", HOME, 5, NOW, 0, b"u-1042", body(), None, 6, 60, ())
    read: EventBatch = read_events([given], RULES, HOME, NOW)
    assert (read.users, read.last_offset) == (["u-1042"], 5)


# --- records elsewhere than their key says -----------------------------------------------------------------------


def astray(headers: Sequence[tuple[str, bytes]] = (), **fields: Any) -> EventBatch:
    sent = Consumed(value=body(**fields), headers=list(headers), partition=4, offset=7)
    return read_events([sent], RULES, 4, NOW)


def test_an_astray_record_is_rerouted_and_not_applied() -> None:
    read = astray(time=NOW - 5)
    [sent] = read.astray
    assert (read.users, len(read.events), read.bad) == ([], 0, [])
    assert (sent.topic, sent.key, sent.partition) == ("headrace.events.v1", b"u-1042", HOME)
    headers = dict(sent.headers)
    assert headers["ce_time"] == b"2026-11-22T05:10:11.127Z"
    assert (headers["ce_id"], headers["ce_source"]) == (b"headrace.events.v1/4/7", b"/headrace")
    assert headers["headrace-rerouted"] == b"headrace.events.v1/4/7"


@pytest.mark.parametrize(
    ("headers", "fields"),
    [(ce("1"), {}), (ce("1", None), {}), (ce("1"), {"event_id": "e1"}), ([], {"event_id": "e1"})],
)
def test_a_rerouted_record_keeps_its_id_and_time(headers: list[tuple[str, bytes]], fields: dict[str, Any]) -> None:
    before = read_event(Consumed(value=body(**fields), headers=headers), RULES, NOW)
    [sent] = astray(headers, **fields).astray
    moved = Consumed(sent.key, sent.value, sent.headers, partition=HOME, timestamp=NOW + 60_000)
    after = read_event(moved, RULES, NOW)
    assert (after.id, after.time_ms, after.raw) == (before.id, before.time_ms, before.raw)
    assert batch(moved).users == ["u-1042"]


def test_a_record_is_rerouted_once() -> None:
    [bad] = astray([("headrace-rerouted", b"")]).bad
    assert bad.stage == "validate"
    assert "partition: expected 8 for this key, found 4, re-routed before" in bad.reason


def test_a_bad_record_is_bad_wherever_it_lies() -> None:
    read = astray(item_id=None)
    assert (len(read.bad), read.astray) == (1, [])


def test_partitioner_and_partitions_are_settings() -> None:
    rules = Rules.of(Settings(partitioner="crc32", kafka=Kafka(partitions=5)))
    [user] = in_partition(rules, 3, 1)
    sent = Consumed(user.encode(), body(user_id=user), partition=3)
    assert read_events([sent], rules, 3, NOW).users == [user]
    assert len(read_events([sent], rules, 2, NOW).astray) == 1


# --- writing -----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read() -> None:
    data = EventData("u-1042", "click", item_id="i-77", value=0.5, time=NOW - 3, event_id="e1", items=["a"])
    key, value, headers = write_event(data)
    read = read_event(Consumed(key, value, headers), RULES, NOW)
    assert (read.data, read.id, read.time_ms) == (data, "e1", NOW - 3)
    assert dict(headers)["ce_time"] == b"2026-11-22T05:10:11.129Z"


def test_a_plain_object_is_written_as_well() -> None:
    plain = {"user_id": "u-1042", "action": "click", "item_id": "i-77", "event_id": "e1", "colour": "red"}
    assert write_event(plain) == write_event(msgspec.convert(plain, EventData))


def test_an_event_without_an_id_is_written_bare() -> None:
    _, _, headers = write_event(EventData("u-1042", "click", item_id="i-77"))
    assert headers == [("content-type", b"application/json")]


@pytest.mark.parametrize(
    "plain",
    [
        {"user_id": "u 1", "action": "click"},
        {"user_id": "u-1", "action": 5},
        {"user_id": "u-1", "action": "click", "item_id": "{"},
        {"user_id": "u-1", "action": "click", "time": "soon"},
        {"user_id": "u-1", "action": "click", "event_id": ""},
        {"user_id": "u-1", "action": "click", "value": float("inf")},
        {"action": "click"},
    ],
)
def test_what_readers_would_refuse_is_not_written(plain: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        write_event(plain)


def test_read_data_reads_what_was_fresh() -> None:
    data = read_data(batch(record(value=2)).fresh[0].data)
    assert (data.item_id, data.action, data.value) == ("i-77", "click", 2.0)
    with pytest.raises(UnreadableError):
        read_data(b"{")
