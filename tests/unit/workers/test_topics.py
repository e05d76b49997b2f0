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


def test_topics_are_kept_as_the_wire_format_says() -> None:
    """Its figures, by hand: milliseconds."""
    hour, day, mib = 3_600_000, 86_400_000, 1_048_576
    deleted = {"cleanup.policy": "delete", "max.message.bytes": f"{mib}"}
    compacted = {
        "cleanup.policy": "compact", "max.message.bytes": f"{mib}", "segment.ms": f"{day}",
        "max.compaction.lag.ms": f"{7 * day}", "delete.retention.ms": f"{7 * day}", "min.cleanable.dirty.ratio": "0.1",
    }  # fmt: skip
    both = {**compacted, "cleanup.policy": "compact,delete"}
    settings = load(environ={})
    found = {topic.name: topic.config for topic in topics.declared(settings)}
    assert found == {
        settings.topic(name): config
        for name, config in {
            "events": {**deleted, "retention.ms": f"{7 * day}"},
            "states": {
                **both, "retention.ms": f"{90 * day}", "min.compaction.lag.ms": f"{day}",
                "delete.retention.ms": f"{37 * day}",
            },
            "feeds": {**both, "retention.ms": f"{7 * day}"},
            "items": compacted,
            "catalog": compacted,
            "model": {**compacted, "segment.ms": f"{hour}"},
            "recent": {**deleted, "retention.ms": f"{day}"},
            "examples": {**deleted, "retention.ms": f"{3 * day}", "retention.bytes": f"{1 << 30}"},
            "dead-letters": {**deleted, "retention.ms": f"{7 * day}"},
        }.items()
    }  # fmt: skip
