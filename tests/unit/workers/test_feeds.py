"""From states to feeds as bytes."""

from __future__ import annotations

from tests.bench.costs import School, Size
from workers.feeds import Asked, FeedMaker
from workers.settings import load
from workers.wire.feed import read_feed
from workers.wire.state import Cause

NOW = 1_795_324_211_132


def test_a_feed_tells_the_sources_that_ranked_an_item_best() -> None:
    """As many as the settings say; the live figures hear of every source."""
    school = School(Size(items=300, history=5))
    school.attend()
    settings = load(environ={}), load(environ={}, flags={"feed_sources": 100})
    some, all_ = (FeedMaker(one, school.model, school.catalog) for one in settings)
    asked = [Asked(str(user), 0, school.blobs[user], Cause("", NOW, None, None, 0)) for user in school.guests()[:8]]
    left_out = 0
    for one, whole in zip(some.make(asked, NOW), all_.make(asked, NOW), strict=True):
        for told, every, names in zip(
            read_feed(one.value).items, read_feed(whole.value).items, one.sources, strict=True
        ):
            assert told.item_id == every.item_id
            assert tuple(every.sources) == names
            assert sorted(told.sources.values()) == sorted(every.sources.values())[:2]
            assert told.sources.items() <= every.sources.items()
            left_out += len(every.sources) - len(told.sources)
    assert left_out > 0
