"""The workers' reading and applying against the oracle: the same records in, the same bytes and verdicts out."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.embedding import compose
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.state import Outcome, Users, advance, decode, durable, embedding, stamp
from pipeline.types import F32, ItemVectors, Parameters
from tests import oracle
from workers.settings import Kafka, Settings
from workers.wire.errors import WireError
from workers.wire.event import Rules, read_events
from workers.wire.times import parse_time

NOW = 1_795_324_211_000
K = 8
PARTITIONS = 3
USERS = [f"u-{number}" for number in range(6)]
ITEMS = [f"i-{number}" for number in range(40)]
ACTIONS = ["view", "click", "star", "purchase", "hide", "dislike", "dwell", "rate", "add_to_cart", "view_item_list"]
DAY_MS = 86_400_000

Clock = Literal["wall", "stream"]


Body = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]], int]  # key, value, headers, partition


class Record(NamedTuple):
    """What the lane hands to the wire."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass
class Workers:
    """The embedding worker without Kafka and Redis: batches through `read_events` and `advance`."""

    rules: Rules
    model: Model
    blobs: dict[str, bytes] = field(default_factory=dict)
    markers: dict[str, tuple[int, int]] = field(default_factory=dict)  # user -> time, version
    bad: list[tuple[int, int]] = field(default_factory=list)
    astray: int = 0
    outcomes: Counter[int] = field(default_factory=Counter)

    def take(self, records: Sequence[Record]) -> None:
        """One batch of one partition."""
        batch = read_events(records, self.rules, records[0].partition, NOW)
        markers = [self.markers.get(user, (-1, 0)) for user in batch.users]
        before = Users(
            [self.blobs.get(user, b"") for user in batch.users],
            np.array([time for time, _ in markers], np.int64),
            np.array([version for _, version in markers], np.int64),
        )
        after = advance(before, batch.events, K)
        blobs = stamp(after, compose(after.rings, after.last_time, self.model), epoch=1, version=2)
        for at, user in enumerate(batch.users):
            self.blobs[user] = blobs[at]
            if after.forgotten_version[at]:
                self.markers[user] = int(after.forgotten_time[at]), int(after.forgotten_version[at])
        self.bad += [(bad.record.partition, bad.record.offset) for bad in batch.bad]
        self.astray += len(batch.astray)
        self.outcomes.update(after.outcome.tolist())
        assert batch.last_offset == records[-1].offset


ATTENTION = oracle.Attention(
    *(np.random.default_rng(n).normal(0, 1, (2, n)).astype(np.float32) for n in (oracle.RING, len(oracle.GAPS_S) + 1))
)


def frozen_vectors() -> dict[int, F32]:
    """Vectors of three items in four: the others stay unknown."""
    rng = np.random.default_rng(7)
    return {oracle.hash_id(item): rng.standard_normal(K).astype(np.float32) for at, item in enumerate(ITEMS) if at % 4}


def frozen_model(vectors: dict[int, F32]) -> Model:
    """A model as a follower holds it after reading `vectors` from the model topic."""
    model = Model(ItemRows(), K)
    nothing: dict[str, Any] = {
        "bias": 0.0,
        "accumulators": np.ones(3, np.float32),
        "decayed": np.zeros(4, np.float32),
        "reference": 0,
    }
    nothing |= {"count": 0.0, "entry": np.zeros(3, np.float32), "first_seen": 0, "last_seen": 0}
    for item, vector in vectors.items():
        model.put_vectors(
            ItemVectors(item_id=f"#{item}", hash=item, e_in=vector, e_out=np.float32(0.5) * vector, **nothing)
        )
    model.put_parameters(Parameters("sequence", ATTENTION._asdict()))
    return model


def compare(records: Sequence[Record], splits: random.Random, clock: Clock = "wall") -> oracle.Replay:
    """Give `records` to both, to the workers in batches split anywhere; all that a log determines must be equal."""
    vectors = frozen_vectors()
    rules = Rules.of(Settings(clock=clock, kafka=Kafka(partitions=PARTITIONS)))
    workers = Workers(rules, frozen_model(vectors))
    for partition in range(PARTITIONS):
        mine = [record for record in records if record.partition == partition]
        while mine:
            size = splits.choice([1, 2, 7, 50, 4096])
            workers.take(mine[:size])
            mine = mine[size:]
    done = oracle.replay(
        (oracle.Record(r.key, r.value, r.headers, r.timestamp, r.partition, r.offset) for r in records),
        oracle.Rules(now=NOW, clock=clock, partitions=PARTITIONS),
    )
    agree(workers, done, vectors)
    return done


def agree(workers: Workers, done: oracle.Replay, vectors: dict[int, F32]) -> None:
    """Everything that both sides say."""
    assert sorted(workers.bad) == sorted((partition, offset) for partition, offset, _ in done.bad)
    assert workers.astray == len(done.astray)
    counted = {Outcome.REPLAYED: done.replayed, Outcome.DUPLICATE: done.duplicates, Outcome.FORGOTTEN: done.forgotten}
    assert {outcome: workers.outcomes[outcome] for outcome in counted} == counted
    assert workers.markers == {user: (marker.time, marker.version) for user, marker in done.markers.items()}
    blobs = {user: blob for user, blob in workers.blobs.items() if blob}
    assert blobs.keys() == done.users.keys()
    for user, blob in blobs.items():
        assert durable(blob) == done.durable(user, K)
        tied = {item: vector + np.float32(0.5) * vector for item, vector in vectors.items()}
        derived = oracle.embedding(done.users[user], tied, K, ATTENTION)
        assert embedding(blob).tobytes() == derived.tobytes()
    versions = dict(zip(blobs, decode(list(blobs.values())).last_offset + 1, strict=True))
    assert {user: marker[1] for user, marker in workers.markers.items()} | versions == done.announced()


# --- streams --------------------------------------------------------------------------------------------------------


def place(user: str) -> int:
    """The partition of the user."""
    return oracle.partition_of(user.encode(), oracle.Rules(partitions=PARTITIONS))


def in_a_row(bodies: Sequence[Body]) -> list[Record]:
    """Records at the next offsets of their partitions."""
    ends: Counter[int] = Counter()
    records = []
    for key, value, headers, partition in bodies:
        records.append(Record("events", partition, ends[partition], NOW, key, value, headers))
        ends[partition] += 1
    return records


def long_stream(draw: random.Random, n: int, users: int = 6, actions: Sequence[str] = ACTIONS) -> list[Record]:
    """Valid events, with times out of order, resent ids and profiles among them."""
    bodies: list[Body] = []
    for at in range(n):
        user = draw.choice(USERS[:users])
        body: dict[str, Any] = {"user_id": user, "action": draw.choice(actions), "item_id": f"i-{draw.randrange(3000)}"}
        if draw.random() < 0.5:
            body["item_id"] = draw.choice(ITEMS)
        body["time"] = NOW - draw.randrange(n) * 1000 + at // 2 * 1000  # equal ones among them
        if draw.random() < 0.8:
            body["event_id"] = f"e-{at - (draw.randrange(200) if draw.random() < 0.2 else 0)}"
        if body["action"] == "profile":
            body["attributes"] = {"market": "é" * draw.randrange(8)}
        if body["action"] == "rate":
            body["value"] = draw.choice([1, 3.9, 4, 5])
        bodies.append((user.encode(), json.dumps(body).encode(), [], place(user)))
    return in_a_row(bodies)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rarity", [50, 500])
def test_long_streams_with_forgets(seed: int, rarity: int) -> None:
    draw = random.Random(f"{seed} {rarity}")
    done = compare(long_stream(draw, 5_000, actions=[*ACTIONS * (rarity // 10), "profile", "forget"]), draw)
    assert done.markers
    assert min(done.forgotten, done.duplicates) > 10


@pytest.mark.parametrize("actions", [("click", "star", "profile"), ("hide", "view"), ("click", "purchase", "dislike")])
def test_full_states(actions: Sequence[str]) -> None:
    draw = random.Random(str(actions))
    done = compare(long_stream(draw, 8_000, users=1, actions=actions), draw)
    (user,) = done.users.values()
    assert len(user.consumed) + len(user.blocked) == oracle.MARKS, "the cap was not reached: it is not tested"


def test_replaying_any_suffix_changes_nothing() -> None:
    draw = random.Random(3)
    records = long_stream(draw, 1_500, actions=[*ACTIONS, *ACTIONS, "forget"])
    again = compare(records + [record for record in records if record.offset >= 100], draw)
    once = compare(records, draw)
    assert {user: again.durable(user, K) for user in USERS} == {user: once.durable(user, K) for user in USERS}
    assert again.replayed > 500


times = st.one_of(
    st.integers(-100_000, 1_000).map(lambda ms: NOW + ms),
    st.sampled_from([NOW - 30 * DAY_MS, NOW - 30 * DAY_MS - 1, NOW + 300_000, NOW + 300_001, NOW // 1000, 0, -1]),
    st.sampled_from(["2026-11-22T05:10:11Z", "2026-11-22t06:10:11.5+01:00", "2026-02-30T00:00:00Z", "soon", "", None]),
    st.sampled_from([str(NOW), str(NOW // 1000), 1e12, True, "2106-02-07T06:28:16Z", "0000-01-01T00:00:00Z"]),
    st.sampled_from(["2026-11-22T05:10:11+23:59", "2026-11-22T05:10:11-24:00", "2026-11-22 05:10:11.123456789Z"]),
)
ids = st.sampled_from(["e-1", "e-2", "e-3", "é" * 256, "é" * 257, "", None, 5, "\0"])
good = {
    "user_id": st.sampled_from(USERS),
    "action": st.sampled_from([*ACTIONS, "click", "profile", "forget", "impression"]),
    "item_id": st.sampled_from(ITEMS),
}
odd = {
    "user_id": st.sampled_from([*USERS, "u 1", "", None, 1]),
    "action": st.sampled_from([*ACTIONS, "", "\n", None, 3]),
    "item_id": st.sampled_from([*ITEMS, "i" * 128, "i" * 129, "{i}", "i-1\n", "", None, 4]),
    "value": st.sampled_from([4, 3.99, 1e38, 3.5e38, -1e39, 10**400, "4", None, True]),
    "position": st.sampled_from([0, 2**63 - 1, 2**63, -(2**63), 1.0, "1", None]),
    "feed_id": st.sampled_from(["f-1", "f 1", None]),
    "session_id": st.sampled_from(["s", "", None, 4]),
    "context": st.sampled_from([{}, {"surface": "home", "else": [1]}, {"device": 4}, {"locale": None}, "x", None]),
    "items": st.sampled_from([[], ["i-1"], ["i-1", 3], ["i 1"], ["i-1"] * 200, ["i-1"] * 201, None, {}]),
    "attributes": st.one_of(
        st.integers(240, 246).map(lambda size: {"market": "m" * size}),  # about 256 bytes as JSON
        st.none(),
        st.dictionaries(
            st.sampled_from(oracle.PROFILE_KEYS), st.one_of(st.text(max_size=40), st.lists(st.text(max_size=9)))
        ),
        st.fixed_dictionaries({"market": st.text(max_size=300)}),
        st.just([1]),
    ),
    "unheard_of": st.sampled_from([[[]], {"a": 1}, 10**400, "x"]),
    "time": times,
    "event_id": ids,
}
datas = st.builds(
    lambda base, more: {**base, **more},
    st.fixed_dictionaries(good, optional={"time": times, "event_id": ids, "attributes": odd["attributes"]}),
    st.one_of(st.just({}), st.fixed_dictionaries({}, optional=odd)),
)
texts = st.one_of(st.none(), st.sampled_from(["shop", "app", "", "é" * 256, "é" * 257]))


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    """A record in one of the three forms, damaged now and then."""
    data = draw(datas)
    form = draw(st.sampled_from(["bare", "bare", "binary", "structured"]))
    headers: list[tuple[str, bytes]] = []
    content: Any = data
    id_, source, time = draw(ids), draw(texts), draw(times)
    if form == "structured":
        headers.append(
            (
                "content-type",
                draw(st.sampled_from(["application/cloudevents+json", "APPLICATION/cloudevents+json;x"])).encode(),
            )
        )
        content = {"specversion": "1.0", "id": id_, "source": source, "time": time, "data": data}
    elif form == "binary":
        pairs = {"ce_id": id_ or "e-9", "ce_source": source, "ce_time": time, "content-type": "application/json"}
        headers += [(name, str(text).encode()) for name, text in pairs.items() if text is not None]
    if draw(st.integers(0, 9)) == 0:
        headers.append(
            draw(
                st.sampled_from(
                    [
                        ("headrace-rerouted", b"x"),
                        ("ce_id", b"\xff"),
                        ("ce_time", b"1"),
                        ("traceparent", b"\xff"),
                        ("ce_time", b"soon"),
                    ]
                )
            )
        )
    value: bytes | None = json.dumps(content, ensure_ascii=draw(st.booleans())).encode()
    if draw(st.integers(0, 9)) == 0:
        value = draw(st.sampled_from([None, b"", b"[]", b"null", b"\xff", b"{" * 300, value, *damaged(draw, value)]))
    user = str(data["user_id"])
    key = draw(st.sampled_from([user.encode()] * 15 + [None, b"u-0", b"\xff"]))
    partition = place(user) if draw(st.integers(0, 9)) else draw(st.integers(0, PARTITIONS - 1))
    return key, value, headers, partition


def damaged(draw: st.DrawFn, value: bytes | None) -> list[bytes]:
    """`value` with a byte changed, doubled or cut."""
    value = value or b""
    at = draw(st.integers(0, len(value)))
    return [
        value[:at],
        value[:at] + draw(st.binary(min_size=1, max_size=2)) + value[at + 1 :],
        value[:at]
        + draw(st.sampled_from([b'"', b"\\", b"{", b"]", b",", b"1", b"\\ud800", b"NaN", b" "]))
        + value[at:],
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(bodies(), min_size=1, max_size=25), st.randoms(use_true_random=False), st.sampled_from(["wall", "stream"])
)
def test_any_stream(given_bodies: list[Body], splits: random.Random, clock: Clock) -> None:
    compare(in_a_row(given_bodies), splits, clock)


@settings(max_examples=300, deadline=None)
@given(bodies())
def test_any_record(body: Body) -> None:
    compare(in_a_row([body]), random.Random(0))


def test_of_a_header_given_twice_the_last_counts() -> None:
    value = b'{"user_id":"u-1","action":"click","item_id":"i-1"}'
    headers = [
        (name, text) for at in b"12" for name, text in (("ce_id", b"e-%d" % at), ("ce_time", b"%d" % (NOW - at)))
    ]
    done = compare(in_a_row([(b"u-1", value, headers, place("u-1"))]), random.Random(0))
    assert done.users["u-1"].last_time == NOW - ord("2")


@pytest.mark.parametrize("letters", [239, 240, 241, 242])
def test_attributes_have_the_same_cap(letters: int) -> None:
    attributes = {"market": "é" + "m" * letters, "locale": None, "else": "x" * 300}
    value = json.dumps({"user_id": "u-1", "action": "profile", "attributes": attributes}, ensure_ascii=False).encode()
    done = compare(in_a_row([(b"u-1", value, [], place("u-1"))]), random.Random(0))
    assert bool(done.users) == (len('{"market":""}') + 2 + letters <= oracle.ATTRIBUTES_BYTES)


@pytest.mark.parametrize("depth", [100, 198, 199, 200, 201, 900, 20_000])
def test_depth_has_a_fixed_limit(depth: int) -> None:
    value = b'{"user_id":"u-1","action":"click","item_id":"i-1","deep":' + b"[" * depth + b"]" * depth + b"}"
    done = compare(in_a_row([(b"u-1", value, [], place("u-1"))]), random.Random(0))
    assert bool(done.users) == (depth < oracle.DEEPEST)


def taken(read: Callable[[Any], int], given_time: Any) -> int | None:
    """The time read; None when it is refused, or when every clock will."""
    try:
        time = read(given_time)
    except (oracle.RefusedError, WireError):
        return None
    return time if 0 <= time < oracle.STREAM_END_MS else None


parts = st.tuples(
    st.sampled_from(
        ["2026-11-22", "2024-02-29", "2026-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "２０２６-11-22"]
    ),
    st.sampled_from(["T", "t", " ", ""]),
    st.sampled_from(["05:10:11", "24:00:00", "23:59:60", "00:00:00", "5:10:11", "23:59:59", "05:10"]),
    st.sampled_from(["", ".", ".1", ".123", ".1239999999", ".12a"]),
    st.sampled_from(["Z", "z", "", "+00:00", "-23:59", "+24:00", "-24:00", "+05:60", "+0530", "ZZ"]),
).map("".join)
numbers = st.sampled_from([0, -1, 10**11 - 1, 10**11, -(10**11), NOW, NOW // 1000, 10**17, 10**18])


@settings(max_examples=500, deadline=None)
@example("2026-11-22T05:10:11+24:00")
@example("2026-11-22T05:10:11-24:00")
@example("2026-11-22T05:10:11+05:60")
@given(st.one_of(parts, numbers, numbers.map(str), st.text("0123456789-:T.Z+ ", max_size=26)))
def test_times_are_the_same(given_time: int | str) -> None:
    number = oracle.Number(str(given_time)) if isinstance(given_time, int) else given_time
    assert taken(parse_time, given_time) == taken(oracle.instant, number)


def test_partitions_are_the_same() -> None:
    draw = random.Random(5)
    partitioners: tuple[Literal["murmur2", "crc32"], ...] = ("murmur2", "crc32")
    for partitioner in partitioners:
        rules = Rules.of(Settings(partitioner=partitioner, kafka=Kafka(partitions=7)))
        own = oracle.Rules(partitioner=partitioner, partitions=7)
        for length in range(1, 129):
            key = bytes(draw.randrange(33, 127) for _ in range(length))
            assert rules.partition(key) == oracle.partition_of(key, own)


def test_actions_are_the_same() -> None:
    rules = Rules.of(Settings())
    known = {name: (meaning.code, meaning.effect) for name, meaning in rules.meanings.items()}
    effects = {}
    for name in [*oracle.ACTIONS, *oracle.ALSO_READ_AS]:
        meaning = oracle.ACTIONS[oracle.ALSO_READ_AS.get(name, name)]
        bits = meaning.positive + 2 * meaning.consumes + 4 * meaning.blocks
        effects[name] = meaning.code, bits + 8 * (name == "profile") + 16 * (name == "forget")
    assert known == effects
