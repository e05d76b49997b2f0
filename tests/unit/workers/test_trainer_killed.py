"""A trainer that is killed in mid-stream: recommendations lose no more than seeds differ by."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.prequential import Setup
from pipeline.evaluation.stream import Stream
from pipeline.recipe import home
from tests.evaluating import Did, stream
from tests.restarting import Killed, Loss, after, unharmed

EVENTS, SAVED, KILLED = 1_600, 750, 900
KINDS, OF_A_KIND, USERS = 10, 12, 60
SETUP = Setup(home(repeats=True), dimension=16, sample=2, baselines=False)


@pytest.fixture(scope="module")
def events() -> Stream:
    """Users who go through the items of one kind in their order, more often than not."""
    rng = np.random.default_rng(8)
    at, told = rng.integers(OF_A_KIND, size=USERS), []
    for user in rng.integers(USERS, size=EVENTS).tolist():
        at[user] = (at[user] + (1 if rng.random() < 0.6 else rng.integers(OF_A_KIND))) % OF_A_KIND
        kind = user % KINDS if rng.random() < 0.85 else rng.integers(KINDS)
        told.append(Did(f"u{user}", f"i{kind}-{at[user]}"))
    return stream(told)


@pytest.fixture(scope="module")
def whole(events: Stream) -> tuple[tuple[float, float], ...]:
    return unharmed(events, SETUP, KILLED)


class Robbed(Killed):
    """What the checkpoint wrote is gone."""

    def _save(self) -> None:
        super()._save()
        self.records = []


def test_a_kill_costs_no_more_than_the_spread_of_five_seeds(
    events: Stream, whole: tuple[tuple[float, float], ...]
) -> None:
    run = Killed(events, SETUP, SAVED, KILLED)
    found = Loss(whole, after(run.run(), KILLED))
    assert len(run.records) > KINDS * OF_A_KIND
    assert min(recall for recall, _ in whole) > 0.4
    assert found.bearable(), found


def test_without_its_records_it_costs_more(events: Stream, whole: tuple[tuple[float, float], ...]) -> None:
    assert not Loss(whole, after(Robbed(events, SETUP, SAVED, KILLED).run(), KILLED)).bearable()
