from __future__ import annotations

import math

import pytest
from structlog.testing import capture_logs

from pipeline.drift import BLOCK, BLOCK_MS, LEAST
from pipeline.model.trends import LADDER
from workers.live import HitRate

FEED = [f"i{at}" for at in range(1, 13)]
SOURCES = [("sequence", "trending"), ("sequence",), ("trending",)] + [("fresh",)] * 9


def test_figures_before_the_first_event() -> None:
    figures = HitRate().figures()
    assert (figures["recall@10"], figures["ndcg@10"], figures["events"]) == (0, 0, 0)


def test_hits_within_ten_places_count_by_their_place() -> None:
    live = HitRate()
    for user, item in {"a": "i1", "b": "i3", "c": "i10", "d": "i11", "e": "other"}.items():
        live.serve(user, 7, FEED, SOURCES)
        assert live.expects(user) == 7
        live.judge(user, item, now=0)
    figures = live.figures()
    assert figures["events"] == 5
    assert figures["recall@10"] == pytest.approx(3 / 5)
    assert figures["ndcg@10"] == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 5)


def test_hits_count_for_the_sources_that_proposed_them() -> None:
    live = HitRate()
    for user, item in {"a": "i1", "b": "i3", "c": "i3", "d": "i11"}.items():
        live.serve(user, 7, FEED, SOURCES)
        live.judge(user, item, now=0)
    assert live.figures()["by_source"] == {
        "sequence": {"recall@10": 0.25, "ndcg@10": 0.25, "alone": 0},
        "trending": {"recall@10": 0.75, "ndcg@10": 0.5, "alone": 0.5},
    }


def test_a_feed_is_judged_once() -> None:
    live = HitRate()
    live.serve("a", 7, FEED, SOURCES)
    live.judge("a", "i1", now=0)
    assert live.expects("a") == -1
    live.serve("a", 9, FEED, SOURCES)
    assert live.expects("a") == 9


def test_who_is_forgotten_or_pushed_out_is_not_judged() -> None:
    live = HitRate(users=2)
    for version, user in enumerate("abca"):
        live.serve(user, version, FEED, SOURCES)
    live.forget("c")
    live.forget("never served")
    assert [live.expects(user) for user in "abc"] == [3, -1, -1]


def test_alarms_are_logged_when_they_are_raised_and_when_they_end() -> None:
    live, now = HitRate(), 0
    best, worst = [1.0, *[math.inf] * LADDER], [math.inf, 1.0, *[math.inf] * (LADDER - 1)]
    with capture_logs() as logs:
        for block in range(5 * LEAST):
            fine = not 2 * LEAST <= block < 3 * LEAST
            for at in range(BLOCK):
                live.serve("a", 7, FEED, SOURCES)
                now += BLOCK_MS // (BLOCK - 1)
                # Not every event alike, or there is no noise to be above.
                live.judge("a", "i1" if fine and at % 7 else "other", now, best if fine and at % 3 else worst)
    said = [(line["log_level"], line["event"], line["raised"]) for line in logs]
    assert said == [
        ("warning", "feeds fall below their own past", 1),
        ("warning", "the ranked list falls below plain trending", 1),
        ("info", "feeds are as good as their past again", 1),
        ("info", "the ranked list is as good as trending again", 1),
    ]
    assert logs[0]["ndcg"] < logs[0]["past"]
    assert logs[1]["ranked"] < logs[1]["trending"]
    assert logs[1]["half_life_h"] == 0.25
