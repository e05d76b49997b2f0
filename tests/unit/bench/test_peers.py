"""The loop that compares Headrace with other libraries, on streams that a pencil can follow; it needs none of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.baselines import NAMES, rank_of
from pipeline.evaluation.outcomes import Notes, Outcomes
from pipeline.types import F64
from tests.bench.peers.contest import Contest
from tests.bench.peers.deeds import Deeds, by_appearance, deeds_of, earlier
from tests.bench.peers.loop import Peer, filled, place, run
from tests.bench.peers.recipes import ENTRIES, Entry, Settings
from tests.evaluating import CLICK, GLANCE, VIEW, Did, stream

MISS = math.inf


class Popular:
    """Scores items by how often they were taken, and keeps what it was asked and told."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.log: list[tuple[str, int, int]] = []

    def scores(self, user: int, n: int) -> F64 | None:
        self.log.append(("asked", user, n))
        return np.array(self.taken, np.float64)

    def learn(self, user: int, item: int) -> None:
        self.log.append(("told", user, item))
        self.taken += [0.0] * (item + 1 - len(self.taken))
        self.taken[item] += 1


class Backwards(Popular):
    """The opposite."""

    def scores(self, user: int, n: int) -> F64 | None:
        return -np.array(self.taken, np.float64)


class Silent:
    """Cannot say anything."""

    def scores(self, user: int, n: int) -> F64 | None:
        return None

    def learn(self, user: int, item: int) -> None:
        pass


def clicks(text: str) -> list[Did]:
    return [Did(word[0], word[1]) for word in text.split()]


def test_deeds_are_the_positive_events_by_number() -> None:
    events = [Did("u", "b", CLICK), Did("v", "a", GLANCE), Did("v", "c", VIEW), Did("u", "b"), Did("u", "", VIEW)]
    deeds = deeds_of(stream(events))
    assert deeds.event.tolist() == [0, 2, 3]
    assert (deeds.user.tolist(), deeds.item.tolist()) == ([0, 1, 0], [0, 1, 0])
    assert deeds.history.tolist() == [0, 0, 1]


@given(st.lists(st.integers(0, 6)))
def test_numbers_follow_appearance(values: list[int]) -> None:
    order = list(dict.fromkeys(values))
    array = np.array(values, np.int64)
    assert by_appearance(array).tolist() == [order.index(value) for value in values]
    assert earlier(array).tolist() == [values[:at].count(value) for at, value in enumerate(values)]


def test_a_peer_is_asked_before_it_is_told_and_only_of_known_users() -> None:
    peer = Popular()
    found = run(peer, deeds_of(stream(clicks("1a 2a 2b 1b 3c 1c"))), lambda: 0.0)
    assert peer.log == [
        ("told", 0, 0), ("told", 1, 0), ("asked", 1, 1), ("told", 1, 1), ("asked", 0, 2), ("told", 0, 1),
        ("told", 2, 2), ("asked", 0, 3), ("told", 0, 2),
    ]  # fmt: skip
    assert found.event.tolist() == [2, 3, 5]
    assert found.rank.tolist() == [MISS, 1, 1]  # b was new; a and then b are consumed, so the next is first
    assert found.events == 6


def test_consumed_items_stay_in_the_list_with_repeats() -> None:
    deeds = deeds_of(stream(clicks("1a 2a 1b 1a 1b")))
    assert run(Popular(), deeds, lambda: 0.0).rank.tolist() == [MISS, MISS, MISS]  # new; had; had
    assert run(Popular(), deeds, lambda: 0.0, repeats=True).rank.tolist() == [MISS, 1, 2]


def test_who_cannot_say_falls_back_to_what_is_popular() -> None:
    deeds = deeds_of(stream(clicks("1a 2b 3b 1b 2a 4c 5a 3a")))
    assert (run(Silent(), deeds, lambda: 0.0).rank == run(Popular(), deeds, lambda: 0.0).rank).all()


def test_a_sample_asks_less_and_learns_all() -> None:
    rng = np.random.default_rng(3)
    events = [Did(f"{user}", f"{item}") for user, item in rng.integers(9, size=(2000, 2)).tolist()]
    full, part = (run(Popular(), deeds_of(stream(events)), lambda: 0.0, sample=sample) for sample in (1, 5))
    assert 300 < len(part.rank) < 500
    assert part.events == 2000
    assert full.rank[np.isin(full.event, part.event)].tolist() == part.rank.tolist()


def test_time_that_runs_out_ends_the_pass() -> None:
    ticks = iter(range(10**6))
    events = [Did(f"{at % 7}", f"{at % 11}") for at in range(1000)]
    found = run(Popular(), deeds_of(stream(events)), lambda: float(next(ticks)), limit_s=700)
    assert found.events in (200, 400)
    assert (found.learn_us, found.query_us) == (1e6, 1e6)  # a tick a call


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0]), st.booleans()), min_size=1), st.data())
def test_the_place_is_that_of_the_evaluation(items: list[tuple[float, bool]], data: st.DataObject) -> None:
    item = data.draw(st.integers(0, len(items) - 1))
    scores, gone = np.array([score for score, _ in items]), np.array([consumed for _, consumed in items])
    expected = rank_of(np.flatnonzero(~gone), scores[~gone].astype(np.float32), item)
    assert place(scores, item, np.flatnonzero(gone)) == expected


def test_what_is_not_scored_stands_behind_by_popularity() -> None:
    scores = filled(np.array([np.nan, -5.0, np.nan, 0.0]), np.array([3.0, 9.0, 7.0, 1.0]))
    assert np.argsort(-scores).tolist() == [3, 1, 2, 0]
    assert np.argsort(-filled(np.full(3, np.nan), np.array([1.0, 3.0, 2.0]))).tolist() == [1, 2, 0]
    assert filled(None, np.array([1.0, 3.0])).tolist() == [1, 3]


class One(Entry):
    """An entry that is made here."""

    @property
    def installed(self) -> bool:
        return True

    def make(self, settings: Settings, seed: int) -> Peer:
        return Backwards() if settings["backwards"] else Popular()


def ours(deeds: Deeds, ranks: F64, baselines: F64) -> Outcomes:
    """What became with Headrace: of the baselines the first is popularity, the others share one trend."""
    notes = Notes()
    columns = zip(deeds.event, deeds.user, deeds.history, ranks, baselines, strict=True)
    for event, user, history, rank, place_ in columns:
        notes.add(
            event=event, user=user, history=history, age=0, repeat=False, candidates=9, rank=rank, arranged=rank,
            baselines=[place_] + [place_ + 1] * (len(NAMES) - 1), proposed=[0],
        )  # fmt: skip
    totals = {"events": len(deeds), "learned": len(deeds), "reset": 0, "query_s": 0.5, "learn_s": 0.25}
    return notes.done(("one",), len(NAMES), shown=np.zeros(1, np.int64), **totals)


def test_the_best_settings_are_kept_and_compared_at_the_same_queries() -> None:
    rng = np.random.default_rng(2)
    drawn = zip(rng.integers(20, size=400).tolist(), (rng.zipf(1.6, 400) % 40).tolist(), strict=True)
    deeds = deeds_of(stream([Did(f"{user}", f"{item}") for user, item in drawn]))
    known, ranks, places = deeds.history >= 1, rng.uniform(1, 15, 400), rng.uniform(5, 15, 400)
    contest = Contest(deeds, ours(deeds, ranks, places), repeats=True, seed=1, say=lambda _: None)
    tried: tuple[Settings, ...] = ({"backwards": True}, {"backwards": False})
    us, popular, trending, theirs = contest.lines((One("here", "one", tried, ""),))
    assert (us.library, us.behind["recall@10"]) == ("headrace", {"mean": 0, "se": 0})
    assert us.figures["recall@10"] == pytest.approx(float((ranks[known] <= 10).mean()))
    assert (us.learn_us, us.query_us) == (625, 1250)  # a quarter and half a second over 400
    assert (popular.name, trending.name[:18]) == ("baseline popularity", "baseline trending_")
    assert popular.figures["recall@10"] == pytest.approx(float((places[known] <= 10).mean()))
    assert theirs.settings == {"backwards": False}
    assert [one for one, _ in theirs.tried] == [{"backwards": True}, {"backwards": False}]
    assert theirs.figures["recall@10"] == pytest.approx(
        float((run(Popular(), deeds, lambda: 0.0, repeats=True).rank <= 10).mean())
    )
    gap = (us.figures["recall@10"] or 0) - (theirs.figures["recall@10"] or 0)
    assert theirs.behind["recall@10"]["mean"] == pytest.approx(gap)
    assert theirs.behind["n"] == us.figures["n"] == known.sum()


def test_what_is_not_installed_has_no_line() -> None:
    deeds = deeds_of(stream(clicks("1a 1b")))
    contest = Contest(deeds, ours(deeds, np.ones(2), np.ones(2)), repeats=True, seed=1, say=lambda _: None)
    assert len(list(contest.lines((Entry("no_such_library", "one", ({},), ""),)))) == 3


def test_a_stream_on_which_rules_of_the_workers_matter_is_refused() -> None:
    deeds = deeds_of(stream(clicks("1a 1b 1c")))
    applied = ours(deeds_of(stream(clicks("1a 1b"))), np.ones(2), np.ones(2))  # the third was sent twice, say
    with pytest.raises(ValueError, match="whose every event was applied"):
        Contest(deeds, applied, repeats=False, seed=1, say=lambda _: None)


def test_what_was_sent_twice_is_left_out_for_everyone() -> None:
    whole = stream(clicks("1a 1b 1b 1c"))
    deeds = deeds_of(whole, np.array([0, 1, 3]))
    assert deeds.event.tolist() == [0, 1, 3]
    assert deeds.item.tolist() == [0, 1, 2]
    assert deeds.history.tolist() == [0, 1, 2]


def test_entries_name_functions_that_are_there() -> None:
    for entry in ENTRIES:
        module, _, function = entry.maker.partition(":")
        text = (Path(__file__).parents[2] / f"bench/peers/{module}.py").read_text()
        assert f"\ndef {function}(" in text
        assert entry.settings
