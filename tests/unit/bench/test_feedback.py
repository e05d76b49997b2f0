"""The town that feedback is measured in: the same each time, its users act by their tastes, figures are paired."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.blob import decode
from pipeline.types import BLOCKS, CONSUMES
from tests.bench.feedback.__main__ import BASE, DAY_MS, FATIGUES, _by_user, _compared
from tests.bench.feedback.town import Town, Visit

USERS, ITEMS, STEPS = 6, 60, 40


def test_a_town_is_the_same_each_time_whatever_is_looked_at() -> None:
    first, second = (Town(3, BASE, USERS, ITEMS) for _ in range(2))
    visits = first.run(STEPS // 2) + first.run(0)
    for user in range(USERS):
        second.look(user, second.blobs[user], second.now, BASE.recipe)
    assert second.run(STEPS // 2) == visits
    assert first.blobs == second.blobs
    assert all(0 <= visit.taken <= 1 for visit in visits)


def test_who_hides_does_so_as_the_arm_says() -> None:
    towns = {how: Town(3, replace(BASE, hides=how), USERS, ITEMS) for how in ("never", "ignored", "blocked")}
    visits = {how: town.run(STEPS) for how, town in towns.items()}
    assert visits["never"] == visits["ignored"]
    blocked = decode([blob for blob in towns["blocked"].blobs if blob])
    assert len(blocked.blocked) == (blocked.blocked_times > 0).sum() > USERS
    assert not len(decode(towns["ignored"].blobs).blocked)


def test_what_is_graded_tells_of_tastes() -> None:
    town = Town(3, replace(BASE, graded=True), USERS, ITEMS)
    town.run(4 * STEPS)
    liked: dict[int, list[float]] = {}
    rings = decode(town.blobs).rings
    for user in range(USERS):
        for item, action in zip(rings.items[user], rings.actions[user], strict=True):
            if action:
                at = int(np.flatnonzero(town.model.rows.hashes == item)[0])
                ranked = (town.affinity[user] < town.affinity[user][town.ids.index(town.model.rows.ids[at])]).mean()
                liked.setdefault(int(action), []).append(ranked)
    view, click, like, purchase = (np.mean(liked[action]) for action in (2, 3, 4, 6))
    assert view < click < like <= purchase + 0.05


def test_a_session_tires_and_days_later_all_is_as_before() -> None:
    town = Town(3, BASE, USERS, ITEMS)
    town.run(STEPS)
    fed = town.look(0, town.blobs[0], town.now, BASE.recipe)
    blob = town.blobs[0]
    for item in fed[3:6]:
        blob, _ = town.act(blob, "hide", BLOCKS | CONSUMES, int(item), town.now)
    plain, whole = FATIGUES["blocked only"], FATIGUES["as configured"]
    now, then = ({kind: town.look(0, blob, at, kind).tolist() for kind in (plain, whole)}
                 for at in (town.now, town.now + 8 * DAY_MS))  # fmt: skip
    assert now[plain] != now[whole]
    assert then[plain] == then[whole]
    assert not set(fed[3:6]) & {*now[whole], *then[whole]}


def test_differences_are_paired_by_user() -> None:
    ours = _by_user([Visit(0, 1.0, 2.0, 0.1), Visit(2, 4.0, 4.0, 0.5), Visit(0, 3.0, 2.0, 0.3)])
    np.testing.assert_allclose(ours[[0, 2]], [[2.0, 2.0, 0.2], [4.0, 4.0, 0.5]])
    assert np.isnan(ours[1]).all()
    better = ours + np.array([[1.0], [9.0], [3.0]])
    first, second = _compared(("liked", "wanted", "taken"), {"ours": ours, "better": better})
    assert first.ahead["liked"] == (0.0, 0.0)
    assert second.ahead["liked"] == pytest.approx((2.0, 1.0))  # deviation 1.414 over the root of 2
    assert second.figures["liked"] == pytest.approx(5.0)
