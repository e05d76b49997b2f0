"""Rows of `recent` into the neighbourhood: once each, only what counts, whatever else is on the topic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.model import Model
from pipeline.model.neighbourhood import HISTORY
from pipeline.model.rows import ItemRows
from pipeline.types import RING, hash_id, hash_of
from tests.records import Consumed
from workers.recent import RecentReplica
from workers.settings import ACTIONS, Settings, Users
from workers.wire.recent import pack_recent
from workers.wire.rules import Rules

Act = tuple[int, str, str, str]  # offset, user, item ("" = forget), action


def replica() -> RecentReplica:
    settings = Settings()
    return RecentReplica(settings, Rules.of(settings), Model(ItemRows(16), 4))


def record(partition: int, *acts: Act) -> Consumed:
    """A record as the embedding worker writes it."""
    value = pack_recent(
        np.array([offset for offset, _, _, _ in acts], np.uint64),
        np.array([hash_of(user) for _, user, _, _ in acts], np.uint64),
        np.array([hash_id(item) if item else 0 for _, _, item, _ in acts], np.uint64),
        np.zeros(len(acts), np.uint32),
        np.array([ACTIONS[action].code for _, _, _, action in acts], np.uint8),
    )
    return Consumed(key=b"%d" % partition, value=value, topic="headrace.recent.v1", partition=partition)


def others(followed: RecentReplica, *history: str) -> dict[str, float]:
    """What the neighbours of somebody with this history (newest first) took, by id: shares of user kNN."""
    model = followed._model
    rings = np.full((1, RING), -1, np.int64)
    rings[0, : len(history)] = [model.rows.row(hash_id(item)) for item in history]
    found = model.neighbourhood.evidence(np.zeros(1, np.uint64), rings, model.trends.count, 1.0)
    names = {hash_id(name): name for name in "abcdef"}
    items = [names[item] for item in model.rows.hashes[found.rows].tolist()]
    return dict(zip(items, found.uk.tolist(), strict=True))


def follow(*records: Sequence[Consumed]) -> RecentReplica:
    followed = replica()
    for some in records:
        followed.on_recent(some)
    return followed


def test_what_one_took_is_told_to_another() -> None:
    followed = follow([record(0, (5, "u", "a", "click"), (6, "u", "b", "like"))])
    assert others(followed, "a") == {"a": 1.0, "b": 1.0}
    assert followed.counts["recent_events"] == 2


def test_a_record_that_comes_again_is_passed_over() -> None:
    """Taken again, `a` would stand behind `b`, and `b` would be no next step from it."""
    first, again = record(0, (5, "u", "a", "click"), (6, "u", "b", "click")), record(0, (5, "u", "a", "click"))
    followed = follow([first], [again, first], [record(0, (6, "u", "b", "click"), (7, "u", "c", "click"))])
    assert others(followed, "a") == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert followed.counts["recent_seen"] == 4
    assert followed.counts["recent_events"] == 3
    assert followed._model.neighbourhood._items[:, HISTORY].max() == 3  # taken ever


def test_partitions_have_offsets_of_their_own() -> None:
    followed = follow([record(0, (5, "u", "a", "click")), record(11, (5, "v", "a", "click"), (6, "v", "b", "click"))])
    assert len(followed._model.neighbourhood) == 2
    assert others(followed, "b") == {"a": 1.0, "b": 1.0}


def test_only_positive_actions_count() -> None:
    acts = [(at, "u", "a", action) for at, action in enumerate(ACTIONS)]
    followed = follow([record(0, *acts)])
    assert followed.counts["recent_events"] == sum(action.weight > 0 for action in ACTIONS.values())
    assert len(follow([record(0, (1, "u", "a", "hide"))])._model.neighbourhood) == 0


def test_a_forget_takes_the_user_out_and_what_came_after_counts() -> None:
    followed = follow([record(0, (1, "u", "a", "click"), (2, "v", "a", "click"), (3, "v", "b", "click"))])
    followed.on_recent([record(0, (4, "v", "", "forget"))])
    assert others(followed, "a") == {"a": 1.0}
    assert followed.counts["recent_forgets"] == 1
    followed.on_recent([record(0, (5, "v", "b", "click"), (6, "v", "c", "click"))])
    assert others(followed, "b") == {"b": 1.0, "c": 1.0}


@pytest.mark.parametrize(
    "bad",
    [
        Consumed(key=b"0", value=bytes(28)),
        Consumed(key=b"zero", value=bytes(29)),
        Consumed(key=b"4096", value=bytes(29)),
        Consumed(key=None, value=bytes(29)),
    ],
    ids=["cut", "no partition", "none of the topic", "no key"],
)
def test_what_cannot_be_read_is_counted_and_the_rest_is_taken(bad: Consumed) -> None:
    followed = follow([bad, record(0, (5, "u", "a", "click")), bad])
    assert followed.counts["recent_unreadable"] == 2
    assert others(followed, "a") == {"a": 1.0}


def test_nothing_and_empty_records_are_nothing() -> None:
    followed = follow([], [Consumed(key=b"0", value=None), Consumed(key=b"0", value=b"")])
    followed.warm_up()
    assert followed.counts["recent_events"] == 0
    assert followed.counts["recent_unreadable"] == 0


def test_the_settings_bound_the_users() -> None:
    settings = Settings(users=Users(neighbours=3))
    followed = RecentReplica(settings, Rules.of(settings), Model(ItemRows(16), 4))
    followed.on_recent([record(0, *((at, f"u{at}", "a", "click") for at in range(5)))])
    assert len(followed._model.neighbourhood) == 3


def test_an_item_first_met_here_has_a_row_and_no_name() -> None:
    followed = follow([record(0, (5, "u", "a", "click"))])
    row = int(followed._model.rows.find(np.array([hash_id("a")], np.uint64))[0])
    assert row == 0
    assert not followed._model.rows.named[row]
