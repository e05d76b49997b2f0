"""The oracle by hand: literal bytes and positions, worked out from the design and not by running anything."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tests.oracle import (
    Attention,
    Marker,
    Record,
    RefusedError,
    Replay,
    Rules,
    User,
    embedding,
    hash_id,
    instant,
    murmur2,
    partition_of,
    replay,
)

NOW = 1_795_324_211_000  # 2026-11-22T05:10:11Z
HOME = 7  # murmur2("u-1") of 12 partitions
WALL = Rules(now=NOW)
STREAM = Rules(clock="stream")
I_1 = bytes.fromhex("f6a29ec6c79464a7")  # printf i-1 | b2sum -l 64
E_1 = bytes.fromhex("317386494bf10d9f")  # printf e-1 | b2sum -l 64


def record(
    offset: int = 0, *, headers: list[tuple[str, bytes]] | None = None, partition: int = HOME, **data: Any
) -> Record:
    """A bare record of u-1: a click on i-1 now, unless said otherwise."""
    body = {"user_id": "u-1", "action": "click", "item_id": "i-1", "time": NOW} | data
    value = json.dumps({name: value for name, value in body.items() if value is not ...}).encode()
    return Record(b"u-1", value, headers or [], NOW, partition, offset)


def one(**data: Any) -> Replay:
    """The replay of one such record under the wall clock."""
    return replay([record(**data)], WALL)


def reason(bad: Record, rules: Rules = WALL) -> str:
    """Why the record is refused, "" when it is not."""
    done = replay([bad], rules)
    assert done.positions == {bad.partition: bad.offset + 1}
    assert not (done.bad and done.users), "a bad record was applied"
    return done.bad[0][2] if done.bad else ""


def test_hash_is_that_of_b2sum() -> None:
    assert hash_id("i-1").to_bytes(8, "little") == I_1
    assert hash_id("e-1").to_bytes(8, "little") == E_1


def test_blob_of_one_click() -> None:
    expected = (
        bytes.fromhex("01 00 4000 01 01 0100 0000 0000 00000000")  # layout, flags, k=64, lengths
        + bytes.fromhex("0100000000000000 0100000000000000")  # count, positives
        + bytes.fromhex("0500000000000000 386fa901a2010000")  # offset 5, time
        + I_1
        + bytes.fromhex("3379026b 03")  # seconds, click
        + E_1
        + I_1[:4]
    )
    done = replay([record(5, event_id="e-1")], WALL)
    assert done.durable("u-1", 64).hex() == expected.hex()
    assert done.positions == {HOME: 6}
    assert done.announced() == {"u-1": 6}


def test_blob_of_a_profile() -> None:
    given = {"market": "ZÜ", "audience": "teen", "muted_creators": ["acme"], "else": 1}
    text = '{"audience":"teen","market":"ZÜ","muted_creators":["acme"]}'.encode()
    done = one(action="profile", item_id=..., attributes=given)
    assert done.durable("u-1", 4) == (
        bytes.fromhex("01 00 0400 00 00 0000 0000")
        + len(text).to_bytes(2, "little")
        + bytes(4)
        + bytes.fromhex("0100000000000000 0000000000000000 0000000000000000 386fa901a2010000")
        + text
    )


def test_a_stranger_has_no_bytes() -> None:
    assert Replay().durable("u-1", 64) == b""


def test_ring_keeps_the_newest_thirty_in_log_order_and_counts_all() -> None:
    events = [record(at, item_id=f"i-{at}", time=NOW - at * 1000) for at in range(35)]
    state = replay(events, WALL).users["u-1"]
    assert [item for item, _, _ in state.ring] == [hash_id(f"i-{at}") for at in range(34, 4, -1)]
    assert state.ring[0][1] == NOW // 1000 - 34, "event times are kept as they are; they do not order the ring"
    assert (state.count, state.positives, state.last_offset, state.last_time) == (35, 35, 34, NOW - 34_000)


def test_what_weighs_nothing_is_counted_and_leaves_the_ring() -> None:
    events = [
        record(0, action="impression"),
        record(1, action="dwell"),
        record(2, action="hide"),
        record(3, action="profile"),
    ]
    state = replay(events, WALL).users["u-1"]
    assert (state.count, state.positives, state.ring) == (4, 0, [])


@pytest.mark.parametrize(
    ("action", "value", "code", "consumed"),
    [
        ("view", None, 2, False),
        ("read", None, 2, False),
        ("click", None, 3, True),
        ("select_item", None, 3, True),
        ("star", None, 4, True),
        ("rate", 4, 4, True),
        ("rate", 3.99, None, False),
        ("rate", None, None, False),
        ("add_to_cart", None, 5, False),
        ("purchase", None, 6, True),
    ],
)
def test_actions(action: str, value: float | None, code: int | None, consumed: bool) -> None:
    state = one(action=action, value=value).users["u-1"]
    assert [entry[2] for entry in state.ring] == ([code] if code else [])
    assert bool(state.consumed) == consumed


def test_a_consumed_item_moves_to_the_front() -> None:
    state = replay([record(at, item_id=item) for at, item in enumerate(["i-1", "i-2", "i-1"])], WALL).users["u-1"]
    assert state.consumed == [hash_id("i-1") & 0xFFFFFFFF, hash_id("i-2") & 0xFFFFFFFF]


def test_blocking_takes_from_the_consumed_for_good() -> None:
    events = [record(0), record(1, item_id="i-2"), record(2, action="dislike"), record(3)]
    state = replay(events, WALL).users["u-1"]
    assert [mark for mark, _ in state.blocked] == [hash_id("i-1") & 0xFFFFFFFF]
    assert state.consumed == [hash_id("i-2") & 0xFFFFFFFF]
    assert state.positives == 3, "a blocked item still enters the ring when it is clicked"


def test_the_blocked_displace_the_consumed_and_not_the_reverse() -> None:
    hides = [record(at, action="hide", item_id=f"h-{at}") for at in range(3)]
    clicks = [record(at, item_id=f"c-{at}") for at in range(3, 1100)]
    state = replay(hides + clicks, WALL).users["u-1"]
    assert (len(state.blocked), len(state.consumed)) == (3, 1021)
    assert state.consumed[-1] == hash_id(f"c-{1100 - 1021}") & 0xFFFFFFFF
    state = replay([record(1100, action="hide", item_id="h-3")], WALL, replay(hides + clicks, WALL)).users["u-1"]
    assert state.consumed[-1] == hash_id(f"c-{1100 - 1020}") & 0xFFFFFFFF


def test_the_oldest_blocked_goes_when_they_alone_are_too_many() -> None:
    state = replay([record(at, action="hide", item_id=f"h-{at}") for at in range(1025)], WALL).users["u-1"]
    assert (state.blocked[-1][0], len(state.blocked), state.consumed) == (hash_id("h-1") & 0xFFFFFFFF, 1024, [])


def test_a_known_id_changes_nothing_within_sixteen() -> None:
    first = [record(at, event_id=f"e-{at}") for at in range(16)]
    again = replay([record(16, event_id="e-0")], WALL, replay(first, WALL))
    assert again.duplicates == 1
    assert again.durable("u-1", 64) == replay(first, WALL).durable("u-1", 64)
    assert again.announced() == {"u-1": 16}
    assert again.positions == {HOME: 17}
    later = replay([record(16, event_id="e-16"), record(17, event_id="e-0")], WALL, replay(first, WALL))
    assert (later.duplicates, later.users["u-1"].count) == (0, 18), (
        "beyond the window it is applied again, as documented"
    )


def test_replaying_changes_nothing() -> None:
    log = [record(0), record(1, action="forget"), record(2, time=NOW + 1), record(3)]
    done = replay(log, WALL)
    before = done.durable("u-1", 64)
    assert replay(log, WALL, done).durable("u-1", 64) == before
    assert (done.replayed, done.forgotten) == (3, 2), "record 3 was not applied, so it is forgotten again, not replayed"


def test_forget_leaves_the_marker_only() -> None:
    done = replay([record(0), record(1, action="forget", item_id=..., time=NOW + 5)], WALL)
    assert done.users == {}
    assert done.markers == {"u-1": Marker(2, NOW + 5)}
    assert done.announced() == {"u-1": 2}


def test_after_a_forget_only_later_times_count_and_from_nothing() -> None:
    forget = [record(0, event_id="e-1"), record(1, action="forget")]
    done = replay([*forget, record(2, time=NOW)], WALL)
    assert (done.forgotten, done.users) == (1, {})
    done = replay([*forget, record(2, time=NOW + 1, event_id="e-1")], WALL)
    assert done.users["u-1"].count == 1, "the id window went with the state"
    assert done.announced() == {"u-1": 3}


def test_a_resent_forget_with_a_known_id_is_a_duplicate_and_a_state_can_be_forgotten_twice() -> None:
    done = replay([record(0, event_id="e-1"), record(1, action="forget", event_id="e-1")], WALL)
    assert (done.duplicates, done.markers) == (1, {})
    done = replay([record(0, action="forget"), record(1, action="forget", time=NOW + 9)], WALL)
    assert done.markers == {"u-1": Marker(2, NOW + 9)}


STRUCTURED = [("content-type", b"application/cloudevents+json; charset=utf-8")]
BODY = {"user_id": "u-1", "action": "click", "item_id": "i-1"}


def binary(**attributes: str) -> list[tuple[str, bytes]]:
    """Headers of a CloudEvent in binary mode."""
    return [(f"ce_{name}", value.encode()) for name, value in attributes.items()]


def structured(**more: Any) -> bytes:
    """A CloudEvent in structured mode."""
    return json.dumps({"specversion": "1.0", "type": "t", "source": "shop", "id": "e-9", "data": BODY} | more).encode()


def test_structured_comes_before_binary_and_binary_before_bare() -> None:
    bare = replay([Record(b"u-1", json.dumps(BODY).encode(), [], NOW, HOME, 0)], WALL).users["u-1"]
    assert (bare.ids, bare.last_time) == ([], NOW)
    headers = binary(id="e-8", source="shop", time="2026-11-22T05:10:09Z")
    in_binary = replay([Record(b"u-1", json.dumps(BODY).encode(), headers, NOW, HOME, 0)], WALL).users["u-1"]
    assert (len(in_binary.ids), in_binary.last_time) == (1, NOW - 2000)
    value = structured(time="2026-11-22T05:10:10Z")
    in_both = replay([Record(b"u-1", value, STRUCTURED + headers, NOW, HOME, 0)], WALL).users["u-1"]
    assert in_both.last_time == NOW - 1000
    assert in_both.ids != in_binary.ids
    assert in_both.ring == [(hash_id("i-1"), NOW // 1000 - 1, 3)]


def test_the_body_comes_before_the_envelope() -> None:
    body = BODY | {"event_id": "e-1", "time": NOW - 7}
    headers = binary(id="e-8", source="shop", time="2026-11-22T05:10:09Z")
    state = replay([Record(b"u-1", json.dumps(body).encode(), headers, 1, HOME, 0)], WALL).users["u-1"]
    assert (state.ids, state.last_time) == ([hash_id("e-1")], NOW - 7)


def test_the_same_id_of_two_sources_is_two_ids() -> None:
    value = json.dumps(BODY).encode()
    log = [
        Record(b"u-1", value, binary(id="e-1", source=s), NOW, HOME, at) for at, s in enumerate(["shop", "app", "shop"])
    ]
    done = replay(log, WALL)
    assert (done.users["u-1"].count, done.duplicates) == (2, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-11-22T05:10:11.123Z", NOW + 123),
        ("2026-11-22T05:10:11.1239999z", NOW + 123),
        ("2026-11-22t06:40:11+01:30", NOW),
        ("2026-11-22T04:10:11-01:00", NOW),
        ("2026-11-22 05:10:11Z", NOW),
        ("2024-02-29T00:00:00.5Z", 1_709_164_800_500),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        (str(NOW), NOW),
        ("100000000000", 100_000_000_000),
    ],
)
def test_times(given: str, expected: int) -> None:
    assert instant(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "1795324211",  # seconds
        "99999999999",
        "2026-11-22",
        "2026-11-22T05:10:11",  # whose time?
        "2026-02-30T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T05:10:11+24:00",
        "2026-11-22T05:10:11-24:00",
        "2026-11-22T05:10:11-00:60",
        "0000-01-01T00:00:00Z",
        "2026-11-22T05:10:11.Z",
        "yesterday",
        "",
        "1.795e12",
    ],
)
def test_no_times(given: str) -> None:
    with pytest.raises(RefusedError, match="time"):
        instant(given)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", ...),
        ("user_id", 1),
        ("user_id", "u 1"),
        ("action", ...),
        ("action", 7),
        ("item_id", "i-{1}"),
        ("item_id", "i" * 129),
        ("item_id", ""),
        ("item_id", "i-1\n"),
        ("feed_id", "f#1"),
        ("session_id", 5),
        ("value", "1.0"),
        ("value", 1e39),
        ("value", True),
        ("event_id", 17),
        ("event_id", "é" * 257),
        ("position", 1.5),
        ("position", 2**63),
        ("context", "home"),
        ("context", {"device": 4}),
        ("attributes", []),
        ("attributes", {"market": 4}),
        ("attributes", {"muted_creators": "acme"}),
        ("items", ["i-1", "i 2"]),
        ("items", ["i-1"] * 201),
        ("time", 1_795_324_211),
        ("time", 1_795_324_211_000.5),
        ("time", True),
    ],
)
def test_bad_fields(field: str, value: Any) -> None:
    assert reason(record(**{field: value})) == field


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "size"),
        (b" " * 65_537, "size"),
        (b"", "json"),
        (b"\xff\xfe", "json"),
        (b'{"user_id":"u-1"', "json"),
        (b'{"user_id":"u-1","action":"click","item_id":"i-1","value":NaN}', "json"),
        (b'{"user_id":"u-1","action":"click","item_id":"i-1","value":1e999}', "value"),
        (b'{"user_id":"u-1","action":"click","item_id":"i-1","value":' + b"9" * 5000 + b"}", "value"),
        (b'{"user_id":"u-1","action":"click","item_id":"i-1","else":"\\ud800"}', "json"),
        (b"[" * 60_000, "json"),
        (b'{"user_id":"u-1","action":"click","item_id":"i-1","else":' + b"[" * 200 + b"]" * 200 + b"}", "json"),
        (b"[]", "data"),
        (b'"x"', "data"),
    ],
)
def test_bad_values(value: bytes | None, expected: str) -> None:
    assert reason(Record(b"u-1", value, [], NOW, HOME, 3)) == expected


def test_bad_keys_and_envelopes() -> None:
    assert reason(record()._replace(key=None)) == "key"
    assert reason(record()._replace(key=b"u-2")) == "key"
    assert reason(Record(b"u-1", b"[]", STRUCTURED, NOW, HOME, 0)) == "envelope"
    assert reason(Record(b"u-1", structured(data=None), STRUCTURED, NOW, HOME, 0)) == "data"
    assert reason(Record(b"u-1", structured(id=5), STRUCTURED, NOW, HOME, 0)) == "envelope"
    assert reason(record(headers=[("ce_id", b"\xff")])) == "envelope"
    assert reason(record(headers=[("ce_id", b"")])) == "envelope"
    assert reason(record(headers=[("ce_id", b"")], event_id="e-1")) == "", "an envelope's id that is not used"
    assert reason(record(headers=binary(id="e" * 513, source="shop"))) == "envelope"
    assert reason(record(headers=binary(id="e" * 512, source="s" * 513))) == "envelope"
    assert reason(record(headers=binary(id="e" * 512, source="s" * 512))) == ""


def test_of_a_header_given_twice_the_last_counts() -> None:
    twice = binary(id="e-8", time="2026-11-22T05:10:09Z") + binary(time="2026-11-22T05:10:10Z")
    assert replay([record(headers=twice, time=...)], WALL).users["u-1"].last_time == NOW - 1000


def test_items_are_needed_where_the_action_is_about_one() -> None:
    assert reason(record(item_id=...)) == "item"
    assert reason(record(item_id=..., action="rate", value=5)) == "item"
    for action in ("impression", "profile", "forget", "dwell"):
        assert reason(record(item_id=..., action=action)) == ""


def test_good_limits() -> None:
    longest = "i" * 128
    assert reason(record(item_id=longest, event_id="é" * 256, items=["i-1"] * 200, feed_id=None, unheard_of=[{}])) == ""
    assert reason(record(value=3.4e38, position=0, time=str(NOW))) == ""


def test_attributes_have_a_cap() -> None:
    fits = 256 - len('{"market":""}')
    assert reason(record(action="profile", attributes={"market": "m" * fits})) == ""
    assert reason(record(action="profile", attributes={"market": "m" * (fits + 1)})) == "attributes"
    assert reason(record(action="profile", attributes={"other": "m" * 300})) == ""


@pytest.mark.parametrize(
    ("time", "wall", "stream"),
    [
        (NOW - 30 * 86_400_000, "", ""),
        (NOW - 30 * 86_400_000 - 1, "clock", ""),
        (NOW + 300_000, "", ""),
        (NOW + 300_001, "clock", ""),
        ("1970-01-01T00:00:00Z", "clock", ""),
        ("1969-12-31T23:59:59Z", "clock", "clock"),
        ("2106-02-07T06:28:15.999Z", "clock", ""),
        ("2106-02-07T06:28:16Z", "clock", "clock"),
    ],
)
def test_clocks(time: int | str, wall: str, stream: str) -> None:
    assert (reason(record(time=time)), reason(record(time=time), STREAM)) == (wall, stream)


def test_a_stray_is_not_applied_and_bad_the_second_time() -> None:
    done = replay([record(4, partition=3)], WALL)
    assert (done.astray, done.users, done.bad, done.positions) == ([(3, 4)], {}, [], {3: 5})
    assert reason(record(partition=3, headers=[("headrace-rerouted", b"1")])) == "astray"
    assert reason(record(headers=[("headrace-rerouted", b"1")])) == "", "where it belongs it is an event like any other"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: str, expected: int) -> None:
    assert murmur2(key.encode()) == expected & 0xFFFFFFFF  # the vectors of Kafka's own UtilsTest


def test_crc32_is_librdkafkas() -> None:
    assert partition_of(b"123456789", Rules(partitioner="crc32", partitions=1000)) == 0xCBF43926 % 1000


def test_embedding_by_hand() -> None:
    user = User(ring=[(1, 0, 3), (9, 0, 3), (2, 0, 3)])  # 9 is unknown; 2 keeps d = 3
    made = embedding(user, {1: [1.0, 0.0], 2: [0.0, 2.0]}, 2)
    assert made.dtype == np.float32
    assert made[0] == pytest.approx(math.e / np.sqrt(math.e + 0.7**2), rel=1e-6)
    assert made[1] == pytest.approx(2 * 0.97**2 / np.sqrt(math.e + 0.97**2), rel=1e-6)
    assert not embedding(User(ring=[(9, 0, 3)]), {}, 2).any()
    assert not embedding(User(), {1: [1.0, 0.0]}, 2).any()


@pytest.mark.parametrize(("seconds", "gap"), [(-5, 0), (0, 0), (1, 1), (59, 2), (60, 3), (86_400, 7), (10**8, 9)])
def test_embedding_with_attention_by_hand(seconds: int, gap: int) -> None:
    beta = np.zeros((2, 10), np.float32)
    beta[:, gap] = 2, 4
    attention = Attention(np.full((2, 30), -1, np.float32), beta)
    user = User(last_time=(10**9 + seconds) * 1000 + 999, ring=[(1, 10**9, 3)])
    assert embedding(user, {1: [1.0, 3.0]}, 2, attention) == pytest.approx([math.exp(0.5), 3 * math.exp(1.5)], rel=1e-6)
