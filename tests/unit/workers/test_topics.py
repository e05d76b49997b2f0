"""What the declared topics must keep."""

from __future__ import annotations

import pytest

from workers import topics
from workers.settings import load
from workers.wire.marker import KEPT_MS
from workers.wire.times import DAY_MS


@pytest.mark.parametrize("ttl_days", [90, 400])
def test_a_null_on_states_lives_as_long_as_the_marker_that_it_makes_again(ttl_days: int) -> None:
    settings = load(environ={}, flags={"users_ttl_days": ttl_days})
    states = next(topic for topic in topics.declared(settings) if topic.name == settings.topic("states"))
    assert int(states.config["delete.retention.ms"]) >= KEPT_MS == 37 * DAY_MS
    assert int(states.config["retention.ms"]) >= KEPT_MS
