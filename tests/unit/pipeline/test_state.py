"""What events do to a state, case by case."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import pytest

from pipeline.blob import BlobError
from pipeline.state import Advanced, Outcome, States, Users, advance, decode, embedding, model_version, stamp
from pipeline.types import ATTRIBUTES, BLOCKS, CONSUMES, FORGETS, IDS, MARKS, NEGATIVES, POSITIVE, PROFILE, RING
from tests.streams import Ev, after, batch, blobs, nobody

K = 4
APPLIED, REPLAYED, DUPLICATE, FORGOTTEN = Outcome
CLICK = POSITIVE | CONSUMES


def run(*events: Ev, users: Users | None = None, n: int = 1) -> Advanced:
    return advance(users or nobody(n), batch(events), K)


def state(advanced: Advanced) -> States:
    return decode(blobs(advanced))


def ring(advanced: Advanced, user: int = 0) -> list[int]:
    items: list[int] = advanced.rings.items[user, : advanced.rings.length[user]].tolist()
    return items


def marks(advanced: Advanced) -> tuple[list[int], list[int]]:
    states = state(advanced)
    return states.consumed.tolist(), states.blocked.tolist()


def clicks(n: int, first: int = 0) -> list[Ev]:
    """n clicks on items first+1 .. first+n at the offsets first .. first+n-1."""
    return [Ev(first + i, CLICK, item=first + i + 1) for i in range(n)]


def test_the_first_event_makes_exactly_these_bytes() -> None:
    item = 0x1122334455667788
    done = run(Ev(7, CLICK, item=item, time=1_234_999, id=99, action=6))
    assert blobs(done) == [
        bytes([1, 0, K, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        + bytes(4 * K + 8)
        + struct.pack("<QQqq", 1, 1, 7, 1_234_999)
        + struct.pack("<QIB", item, 1_234, 6)
        + struct.pack("<Q", 99)
        + struct.pack("<I", 0x55667788)
    ]
    assert done.outcome.tolist() == [APPLIED]
    assert done.last_time.tolist() == [1_234_999]


def test_an_event_without_effect_is_counted_and_its_id_kept() -> None:
    states = state(run(Ev(3, item=5, time=8_000, id=1), Ev(4, time=2_000)))
    assert (states.count[0], states.positives[0], states.last_offset[0], states.last_time[0]) == (2, 0, 4, 2_000)
    assert states.rings.length.tolist() == [0]
    assert len(states.consumed) == len(states.blocked) == 0


def test_the_ring_keeps_the_order_of_the_log_and_repeats() -> None:
    done = run(Ev(1, POSITIVE, 10, time=9_000), Ev(2, POSITIVE, 20, time=5_000, action=2), Ev(3, POSITIVE, 10, time=-1))
    assert ring(done) == [10, 20, 10]
    assert done.rings.times[0, :3].tolist() == [0, 5, 9]
    assert done.rings.actions[0, :3].tolist() == [3, 2, 3]
    assert not done.rings.items[0, 3:].any()
    assert done.last_time.tolist() == [-1]


def test_ring_times_end_with_the_last_second_that_fits() -> None:
    assert run(Ev(1, POSITIVE, 10, time=1 << 60)).rings.times[0, 0] == (1 << 32) - 1


def test_what_falls_out_of_the_ring_is_evicted_newest_first() -> None:
    before = run(*clicks(RING - 1))
    assert before.evicted_start.tolist() == [0, 0]
    done = run(*clicks(3, first=RING - 1), users=after(before))
    assert ring(done) == list(range(RING + 2, 2, -1))
    assert done.evicted_items.tolist() == [2, 1]
    assert done.evicted_times.tolist() == [1, 1]
    assert done.evicted_actions.tolist() == [3, 3]


def test_a_batch_longer_than_the_ring_evicts_its_own_items_too() -> None:
    done = run(*clicks(RING + 5))
    assert ring(done) == list(range(RING + 5, 5, -1))
    assert done.evicted_items.tolist() == [5, 4, 3, 2, 1]


def test_evicted_items_belong_to_their_users() -> None:
    events = [Ev(2 * i + u, POSITIVE, item=100 * u + i + 1, user=u) for i in range(RING + 2) for u in (0, 1)]
    done = run(*events, n=3)
    assert done.evicted_start.tolist() == [0, 2, 4, 4]
    assert done.evicted_items.tolist() == [2, 1, 102, 101]
    assert ring(done, 2) == []


def test_an_offset_that_the_state_holds_is_replayed() -> None:
    before = run(Ev(5, CLICK, 1))
    done = run(Ev(4, CLICK, 2), Ev(5, CLICK, 3), Ev(6, CLICK, 4), users=after(before))
    assert done.outcome.tolist() == [REPLAYED, REPLAYED, APPLIED]
    assert ring(done) == [4, 1]


def test_a_state_may_come_from_another_log() -> None:
    blob = bytearray(blobs(run(Ev(5, CLICK, 1)))[0])
    struct.pack_into("<q", blob, 16 + 4 * K + 8 + 16, -1)  # what it knew of the other log's offsets is taken from it
    kept = run(users=Users([bytes(blob)], np.array([-1]), np.array([0])))
    assert blobs(kept) == [bytes(blob)]
    done = run(Ev(0, CLICK, 2), users=after(kept))
    assert (done.outcome.tolist(), ring(done)) == ([APPLIED], [2, 1])


def test_the_first_offset_of_a_log_is_applied() -> None:
    assert run(Ev(0, CLICK, 1)).outcome.tolist() == [APPLIED]


def test_a_known_id_changes_nothing_not_even_the_offset() -> None:
    before = run(Ev(5, CLICK, 1, id=77))
    done = run(Ev(6, CLICK | PROFILE, 2, id=77, attributes=b"x"), users=after(before))
    assert done.outcome.tolist() == [DUPLICATE]
    assert blobs(done) == blobs(before)


def test_an_id_is_known_as_long_as_sixteen_others_have_not_followed() -> None:
    others = [Ev(i, id=1000 + i) for i in range(1, IDS)]
    known = run(Ev(0, id=7), *others, Ev(90, id=7))
    assert known.outcome[-1] == DUPLICATE
    gone = run(Ev(0, id=7), *others, Ev(50), Ev(80, id=8), Ev(90, id=7))
    assert gone.outcome[-1] == APPLIED


def test_events_without_id_are_never_duplicates() -> None:
    assert run(Ev(0, CLICK, 1), Ev(1, CLICK, 1)).outcome.tolist() == [APPLIED, APPLIED]


def test_ids_belong_to_their_user() -> None:
    assert run(Ev(0, id=7), Ev(1, id=7, user=1), n=2).outcome.tolist() == [APPLIED, APPLIED]


def test_a_consumed_item_moves_to_the_front() -> None:
    done = run(*(Ev(at, CONSUMES, item) for at, item in enumerate([1, 2, 3, 1, (1 << 32) + 2])))
    assert marks(done) == ([2, 1, 3], [])  # the last has the truncation of item 2


def test_blocking_takes_an_item_out_of_the_consumed_for_good() -> None:
    done = run(Ev(0, CONSUMES, 1), Ev(1, CONSUMES, 2), Ev(2, CONSUMES, 3), Ev(3, BLOCKS | CONSUMES, 2))
    assert marks(done) == ([3, 1], [2])
    done = run(Ev(4, BLOCKS, 9), Ev(5, CONSUMES, 2), users=after(done))
    assert marks(done) == ([3, 1], [9, 2])
    assert marks(run(Ev(6, BLOCKS, 2), users=after(done))) == ([3, 1], [2, 9])


def test_the_oldest_consumed_makes_room() -> None:
    full = run(*(Ev(at, CONSUMES, at + 1) for at in range(MARKS)))
    assert marks(full)[0][-1] == 1
    done = run(Ev(5000, CONSUMES, 5000), users=after(full))
    assert marks(done) == ([5000, *range(MARKS, 1, -1)], [])
    done = run(Ev(6000, BLOCKS, 6000), users=after(done))
    assert marks(done) == ([5000, *range(MARKS, 2, -1)], [6000])
    assert marks(run(Ev(7000, CONSUMES, 4), users=after(done)))[0][:2] == [4, 5000]


def test_the_newest_blocked_have_the_time_of_their_event() -> None:
    many = [Ev(at, BLOCKS, 100 + at, time=1_000_000 + 1_000 * at) for at in range(NEGATIVES + 4)]
    done = state(run(*many))
    assert done.blocked_times.tolist() == [*range(1_019, 1_003, -1), 0, 0, 0, 0]
    again = [
        Ev(90, BLOCKS, 100 + NEGATIVES + 1, time=2_000_000),  # one whose time is known
        Ev(91, BLOCKS, 101, time=3_000_000),  # one whose time is not
        Ev(92, BLOCKS, 7, time=-5),
        Ev(93, CONSUMES, 102, time=4_000_000),  # consumes, and does not block again
    ]
    done = state(run(*again, users=after(run(*many))))
    assert done.blocked[:4].tolist() == [7, 101, 117, 119]
    assert done.blocked_times.tolist() == [0, 3_000, 2_000, 1_019, 1_018, *range(1_016, 1_005, -1), *[0] * 5]


def test_times_of_a_state_from_before_they_were_kept_are_unknown() -> None:
    """Its first new one has a time, and those behind it none."""
    blob = bytearray(blobs(run(Ev(1, BLOCKS, 5, time=9_000), Ev(2, BLOCKS, 6, time=9_000)))[0])
    blob[12] = 0
    old = bytes(blob[:-8])
    assert decode([old]).blocked_times.tolist() == [0, 0]
    users = Users([old], np.array([-1]), np.array([0]))
    assert blobs(run(Ev(3, CLICK, 8), users=users))[0][12] == 0
    assert state(run(Ev(3, BLOCKS, 7, time=11_000), users=users)).blocked_times.tolist() == [11, 0, 0]
    assert state(run(Ev(3, BLOCKS, 5, time=11_000), users=users)).blocked_times.tolist() == [11, 0]


def test_blocked_items_go_only_when_they_alone_are_too_many() -> None:
    consumed = [Ev(0, CONSUMES, 9000)]
    full = run(*consumed, *(Ev(1 + at, BLOCKS, at + 1) for at in range(MARKS)))
    assert marks(full) == ([], list(range(MARKS, 0, -1)))
    done = run(Ev(5000, CONSUMES, 5000), Ev(5001, BLOCKS, 5001), users=after(full))
    assert marks(done) == ([], [5001, *range(MARKS, 1, -1)])


def test_an_event_that_names_no_item_marks_and_pushes_none() -> None:
    done = run(Ev(0, CLICK | BLOCKS))
    assert ring(done) == []
    assert marks(done) == ([], [])


def test_a_profile_replaces_the_attributes() -> None:
    done = run(Ev(0, PROFILE, attributes=b"a" * ATTRIBUTES), Ev(1, CLICK, 1))
    assert state(done).attributes == [b"a" * ATTRIBUTES]
    done = run(Ev(1, PROFILE, attributes=b"old"), Ev(2, PROFILE, attributes=b"new"), users=after(done))
    assert done.outcome.tolist() == [REPLAYED, APPLIED]
    assert state(done).attributes == [b"new"]
    assert state(run(Ev(3, PROFILE), users=after(done))).attributes == [b""]


def test_attributes_go_to_their_own_user() -> None:
    events = [Ev(at, PROFILE, user=user, attributes=bytes([65 + at])) for at, user in enumerate([2, 0, 1])]
    assert state(run(*events, n=3)).attributes == [b"B", b"C", b"A"]


def test_forget_erases_everything_and_leaves_the_marker() -> None:
    before = run(Ev(1, CLICK | PROFILE, 1, id=5, attributes=b"x"))
    done = run(Ev(2, FORGETS, time=4_000), users=after(before))
    assert done.outcome.tolist() == [APPLIED]
    assert blobs(done) == [b""]
    assert (done.forgotten_time.tolist(), done.forgotten_version.tolist()) == ([4_000], [3])
    assert (done.last_time.tolist(), ring(done)) == ([0], [])


def test_after_a_forget_only_later_times_make_a_new_user() -> None:
    gone = run(Ev(9, FORGETS, time=4_000))
    done = run(
        Ev(8, CLICK, 1, time=9_000), Ev(10, CLICK, 2, time=4_000), Ev(11, CLICK, 3, time=4_001), users=after(gone)
    )
    assert done.outcome.tolist() == [REPLAYED, FORGOTTEN, APPLIED]
    states = state(done)
    assert (states.count[0], ring(done)) == (1, [3])
    assert done.forgotten_version.tolist() == [10]


def test_a_forget_of_nobody_leaves_a_marker_too() -> None:
    done = run(Ev(0, FORGETS, time=1_000))
    assert (blobs(done), done.forgotten_version.tolist()) == ([b""], [1])


def test_a_second_forget_never_moves_the_time_back() -> None:
    gone = run(Ev(9, FORGETS, time=4_000))
    again = run(Ev(10, FORGETS, time=1_000), Ev(11, CLICK, 1, time=3_000), users=after(gone))
    assert again.outcome.tolist() == [APPLIED, FORGOTTEN]
    assert (again.forgotten_time.tolist(), again.forgotten_version.tolist()) == ([4_000], [11])
    assert run(Ev(12, FORGETS, time=5_000), users=after(again)).forgotten_time.tolist() == [5_000]


def test_a_forget_told_again_by_the_log_is_replayed() -> None:
    done = run(Ev(2, FORGETS, time=4_000))
    again = run(Ev(2, FORGETS, time=4_000), users=after(done))
    assert (again.outcome.tolist(), again.forgotten_version.tolist()) == ([REPLAYED], [3])


def test_a_forget_inside_a_batch_leaves_nothing_of_what_was_before_it() -> None:
    forget = Ev(100, FORGETS, time=5_000)
    events = [*clicks(RING + 3), forget, *(Ev(101 + i, POSITIVE, 500 + i, time=6_000) for i in range(RING + 1))]
    done = run(*events)
    assert ring(done) == list(range(500 + RING, 500, -1))
    assert done.evicted_items.tolist() == [500]
    assert state(done).positives.tolist() == [RING + 1]


def test_a_forget_with_a_known_id_is_a_duplicate() -> None:
    assert run(Ev(0, CLICK, 1, id=5), Ev(1, FORGETS, id=5)).outcome.tolist() == [APPLIED, DUPLICATE]


def test_nothing_given_is_changed() -> None:
    users = Users([b""], np.array([-1]), np.array([0]))
    events = batch([Ev(1, CLICK, 1), Ev(2, FORGETS, time=7_000)])
    for column in (users.forgotten_time, users.forgotten_version, events.user, events.offset, events.time, events.item):
        column.setflags(write=False)
    assert advance(users, events, K).forgotten_time.tolist() == [7_000]
    assert users.forgotten_time.tolist() == [-1]


def test_no_users_and_no_events() -> None:
    done = run(n=0)
    assert (blobs(done), len(done.rings), done.outcome.tolist()) == ([], 0, [])
    assert stamp(done, np.zeros((0, K), np.float32), 1, 1) == []
    before = run(Ev(1, CLICK, 1), n=2)
    assert blobs(run(users=after(before))) == blobs(before)


def test_stamp_writes_embedding_and_model_and_nothing_else() -> None:
    done = run(Ev(1, CLICK, 1), Ev(2, CLICK, 2, user=2), n=3)
    bare = blobs(done)
    vectors = np.arange(3 * K, dtype=np.float32).reshape(3, K)
    stamped = stamp(done, vectors, epoch=4, version=5123)
    assert stamped[1] == b""
    for user in (0, 2):
        assert embedding(stamped[user]).tolist() == vectors[user].tolist()
        assert model_version(stamped[user]) == (4, 5123)
        assert stamped[user][:16] + stamped[user][16 + 4 * K + 8 :] == bare[user][:16] + bare[user][16 + 4 * K + 8 :]
    assert blobs(run(users=Users(stamped, done.forgotten_time, done.forgotten_version))) == bare


def test_stamp_refuses_vectors_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"expected vectors of shape \(1, 4\), found \(1, 5\)"):
        stamp(run(Ev(1)), np.zeros((1, 5), np.float32), 1, 1)


def test_a_blob_of_another_dimension_is_refused_and_named() -> None:
    users = nobody(2)
    users.blobs[1] = blobs(advance(nobody(1), batch([Ev(1)]), 8))[0]
    with pytest.raises(BlobError, match=r"state blob 1: expected the dimension of this deployment \(4\)") as refused:
        advance(users, batch([Ev(2)]), K)
    assert refused.value.row == 1


UNFIT: list[tuple[str, dict[str, Any]]] = [
    ("users below 1", {"user": np.array([1])}),
    ("users below 1", {"user": np.array([-1])}),
    ("columns of 1 events", {"item": np.array([], np.uint64)}),
    ("attributes for each PROFILE event", {"attributes": [b"x"]}),
    ("attributes for each PROFILE event", {"effect": np.array([PROFILE], np.uint8)}),
    ("at most 256 bytes", {"effect": np.array([PROFILE], np.uint8), "attributes": [b"x" * 257]}),
]


@pytest.mark.parametrize(("expected", "change"), UNFIT)
def test_events_that_do_not_fit_are_refused(expected: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=expected):
        advance(nobody(1), dataclasses.replace(batch([Ev(1)]), **change), K)


def test_markers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="markers of 1 users"):
        advance(Users([b""], np.array([-1, -1]), np.array([0])), batch([Ev(1)]), K)
