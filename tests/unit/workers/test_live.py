from __future__ import annotations

import math

import pytest

from workers.live import HitRate

FEED = [f"i{at}" for at in range(1, 13)]


def test_figures_before_the_first_event() -> None:
    assert HitRate().figures() == {"recall@10": 0, "ndcg@10": 0, "events": 0}


def test_hits_within_ten_places_count_by_their_place() -> None:
    live = HitRate()
    for user, item in {"a": "i1", "b": "i3", "c": "i10", "d": "i11", "e": "other"}.items():
        live.serve(user, 7, FEED)
        assert live.expects(user) == 7
        live.judge(user, item)
    figures = live.figures()
    assert figures["events"] == 5
    assert figures["recall@10"] == pytest.approx(3 / 5)
    assert figures["ndcg@10"] == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 5)


def test_a_feed_is_judged_once() -> None:
    live = HitRate()
    live.serve("a", 7, FEED)
    live.judge("a", "i1")
    assert live.expects("a") == -1
    live.serve("a", 9, FEED)
    assert live.expects("a") == 9


def test_who_is_forgotten_or_pushed_out_is_not_judged() -> None:
    live = HitRate(users=2)
    for version, user in enumerate("abca"):
        live.serve(user, version, FEED)
    live.forget("c")
    live.forget("never served")
    assert [live.expects(user) for user in "abc"] == [3, -1, -1]
