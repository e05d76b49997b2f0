"""What `verify` and `users rebuild` make of `states` and a log is what the whole log makes, wherever it is cut, however
it came in batches, and whatever compaction and retention have taken of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.blob import decode, durable
from tests import oracle
from tests.records import NOW, Consumed
from workers.outside.announced import Announcements, Cut, take
from workers.outside.replay import Known, Replay, from_announced, lenient
from workers.settings import Kafka, Model, Settings
from workers.wire.marker import Marker
from workers.wire.state import StateRecord, carried_over, encode_state, forgotten_headers

K = 4
SETTINGS = Settings(kafka=Kafka(partitions=1), model=Model(dimension=K))
USERS = ["u-1", "u-2", "u-3"]
KINDS = ["click"] * 6 + ["forget", "late", "again", "bad"]


@dataclass(frozen=True)
class Said:
    """A record of `states`, and the batch that led to it."""

    batch: int
    record: Consumed


@st.composite
def logs(draw: st.DrawFn) -> list[Consumed]:
    """Events, some of them forgets, repeats, late ones or none at all."""
    count = draw(st.integers(1, 40))
    log = []
    for offset in range(count):
        user, kind = (
            draw(st.sampled_from(USERS)),
            draw(st.sampled_from(["click"] * 6 + ["forget", "late", "again", "bad"])),
        )
        data: dict[str, Any] = {"user_id": user, "action": "click", "item_id": f"i-{draw(st.integers(0, 5))}"}
        data |= {"time": NOW + offset, "event_id": f"e-{draw(st.integers(0, 2)) if kind == 'again' else offset + 10}"}
        if kind == "forget":
            data |= {"action": "forget"}
        elif kind == "late":
            data |= {"time": NOW - 1000}
        value = b"\xff" if kind == "bad" else json.dumps(data).encode()
        log.append(Consumed(user.encode(), value, partition=0, offset=offset, timestamp=NOW))
    return log


def replayed(records: Sequence[Consumed], begin: dict[str, Known] | None = None) -> Replay:
    replay = Replay(lenient(SETTINGS), 0, K, set(), dict(begin or {}))
    replay.take(records, lambda _: 1 << 62)
    return replay


def announced(log: Sequence[Consumed], bounds: Sequence[int]) -> list[Said]:
    """What a worker would have said of the log in these batches."""
    said: list[Said] = []
    replay = replayed([])
    for number, (begin, end) in enumerate(zip([0, *bounds], [*bounds, len(log)], strict=True)):
        before = dict(replay.users)
        replay.take(log[begin:end], lambda _: 1 << 62)
        for user, known in replay.users.items():
            was = before.get(user, Known(b"", Marker(0, -1), 0))
            if known.marker != was.marker:
                headers = forgotten_headers(known.marker.version - 1, known.marker.time)
                said.append(Said(number, Consumed(user.encode(), None, headers, "states", 0, len(said), NOW)))
            if known.blob and known.blob != was.blob:
                fresh = fresh_of(log[begin:end], user, known)
                value = encode_state(StateRecord(known.blob, None, fresh, True, None))
                said.append(Said(number, Consumed(user.encode(), value, [], "states", 0, len(said), NOW)))
    return said


def fresh_of(batch: Sequence[Consumed], user: str, known: Known) -> list[Any]:
    """At least the first event of the user since the forget, and the last applied one."""
    last = int(decode([known.blob]).last_offset[0])
    offsets = [
        r.offset for r in batch if r.key == user.encode() and r.value != b"\xff" and r.offset >= known.marker.version
    ]
    return [[offset, NOW, 0, b"{}"] for offset in offsets if offset <= last]


def compacted(said: Sequence[Said], horizon: int, nulls: bool) -> list[Consumed]:
    """Of batches before `horizon` the last record of each key alone, and perhaps no nulls."""
    last = {one.record.key: one for one in said if one.batch < horizon}
    kept = [one for one in said if one.batch >= horizon or last[one.record.key] is one]
    return [one.record for one in kept if one.batch >= horizon or nulls or one.record.value is not None]


@given(logs(), st.data())
def test_a_replay_from_any_cut_is_the_whole_replay(log: list[Consumed], data: st.DataObject) -> None:
    bounds = sorted(data.draw(st.sets(st.integers(1, len(log)), max_size=6)) - {len(log)})
    whole, said = replayed(log), announced(log, bounds)
    at = data.draw(st.integers(1, len(log)))
    begin = data.draw(st.integers(1, at))
    horizon = data.draw(st.integers(0, sum(bound <= at for bound in bounds)))
    found = Announcements(first=at)
    records = compacted(said, horizon, data.draw(st.booleans()))
    stale = data.draw(st.lists(st.sampled_from(said), max_size=3)) if said else []
    take(found, [*records, *(one.record for one in stale if one.batch >= horizon)], Cut(begin, at))
    users = {user: from_announced(one, None) for user, one in found.base.items()}
    first = max(min(found.first, at), begin)
    for user, known in whole.users.items():  # what the store's markers tell of earlier forgets
        mine = users.get(user, Known(b"", Marker(0, -1), 0))
        if mine.marker.version < known.marker.version <= max(first, 1):
            users[user] = mine._replace(marker=known.marker)
    part = replayed(log[first:], users)
    for user, known in whole.users.items():
        mine = part.users.get(user, Known(b"", Marker(0, -1), 0))
        assert durable(mine.blob) == durable(known.blob), user
        assert mine.marker == known.marker or not known.blob, user
    assert part.users.keys() <= whole.users.keys()


@given(logs())
def test_the_replay_agrees_with_the_oracle(log: list[Consumed]) -> None:
    rules = oracle.Rules(partitions=1, clock="stream")
    expected = oracle.replay([oracle.Record(r.key, r.value, r.headers, r.timestamp, 0, r.offset) for r in log], rules)
    found = replayed(log).users
    assert {user: durable(known.blob) for user, known in found.items() if known.blob} == {
        user: expected.durable(user, K) for user in expected.users
    }
    markers = {user: tuple(known.marker) for user, known in found.items() if known.marker.version}
    assert markers == {user: tuple(marker) for user, marker in expected.markers.items()}


@given(logs(), st.sampled_from([4, 16, 64]))
def test_a_state_that_is_carried_over_is_the_same_but_for_its_log_and_dimension(log: list[Consumed], k: int) -> None:
    for known in replayed(log).users.values():
        if not known.blob:
            continue
        was, carried = decode([known.blob]), carried_over(known.blob, k)
        now = decode([carried])
        assert (int(now.last_offset[0]), len(carried) - len(known.blob)) == (-1, 4 * (k - K))
        assert durable(carried_over(carried, K)) == durable(carried_over(known.blob, K))
        for name in ("count", "positives", "last_time", "consumed", "blocked"):
            assert (getattr(now, name) == getattr(was, name)).all(), name
        assert (now.rings.items == was.rings.items).all()
        assert now.attributes == was.attributes
        assert not any(carried[16 : 16 + 4 * k + 8]), "no embedding until the next event"
