from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.drift import (
    BLOCK,
    BLOCK_MS,
    LATELY,
    LEAST,
    NEW,
    OLD,
    PAST,
    PATIENCE,
    WORTH,
    Alarm,
    Drift,
    Means,
    gain,
)
from pipeline.model.trends import HALF_LIVES_MS, LADDER
from pipeline.types import F64

MISS = math.inf
KEEP = (1 - 1 / LATELY, 1 - 1 / PAST)


# ---------------------------------------------------------------- by pencil


@pytest.mark.parametrize(
    ("place", "expected"),
    [(1, 1), (3, 0.5), (7, 1 / 3), (10, 1 / math.log2(11)), (10.5, 0), (MISS, 0), (math.nan, 0), (0, 0), (-3, 0)],
)
def test_gain(place: float, expected: float) -> None:
    assert gain(place) == pytest.approx(expected)


def test_before_the_first_event_all_is_zero() -> None:
    figures = Drift().figures()
    assert (figures["events"], figures["recall@10"], figures["ndcg@10"]) == (0, 0, 0)
    assert figures["past"] == {"recall@10": 0, "ndcg@10": 0}
    assert figures["by_source"] == {}
    assert figures["alarms"] == {name: {"on": False, "raised": 0} for name in ("falling", "below_trending")}


def test_a_few_events_count_alike() -> None:
    drift = Drift()
    for place, sources in ((1, ("sequence",)), (3, ("sequence", "trending")), (MISS, ()), (11, ("trending",))):
        assert not drift.note(place, sources, now=0)
    figures = drift.figures()
    assert (figures["events"], figures["recall@10"], figures["ndcg@10"]) == (4, 0.5, pytest.approx(1.5 / 4))
    assert figures["past"] == {"recall@10": 0.5, "ndcg@10": pytest.approx(1.5 / 4)}
    assert figures["by_source"] == {
        "sequence": {"recall@10": 0.5, "ndcg@10": pytest.approx(1.5 / 4), "alone": 0.25},
        "trending": {"recall@10": 0.25, "ndcg@10": pytest.approx(0.5 / 4), "alone": 0},
    }


def test_blocks_fade() -> None:
    """A block of hits, one of misses, then a quarter of a block of hits."""
    drift = Drift()
    feed(drift, [1] * BLOCK + [MISS] * BLOCK + [1] * (BLOCK // 4), sources=("fresh",))
    for name, keep in zip(("recall@10", "past"), KEEP, strict=True):
        expected = (keep + 0.25) / (keep + 1 + 0.25)
        found = drift.figures()[name]
        assert (found["recall@10"] if name == "past" else found) == pytest.approx(expected)
    by_source = drift.figures()["by_source"]["fresh"]
    assert by_source == pytest.approx(
        {name: drift.figures()["recall@10"] for name in ("recall@10", "ndcg@10", "alone")}
    )


def test_a_block_has_events_and_lasts() -> None:
    means = Means(1)
    for at in range(BLOCK - 1):
        assert not means.note([1], now=at * BLOCK_MS)
    assert means.note([1], now=BLOCK * BLOCK_MS) == BLOCK  # long enough, and now full
    for at in range(5 * BLOCK):
        assert not means.note([1], now=at)  # full soon, but over in no time
    assert means.note([0], now=BLOCK_MS) == 5 * BLOCK + 1
    assert means.blocks == 2
    assert means.means()[NEW, 0] == pytest.approx((KEEP[0] + 5 * BLOCK / (5 * BLOCK + 1)) / (KEEP[0] + 1))


def test_a_clock_that_went_back_begins_again() -> None:
    means = Means(1)
    for at in range(2 * BLOCK):
        assert not means.note([1], now=10 * BLOCK_MS - at)
    assert means.note([1], now=11 * BLOCK_MS) == 2 * BLOCK + 1


def test_an_alarm_is_patient_both_ways() -> None:
    alarm = Alarm()
    looks = [9.0] * (PATIENCE - 1) + [0.0] + [9.0] * PATIENCE  # one look that is fine starts it anew
    assert [at for at, surely in enumerate(looks) if alarm.look(surely)] == [2 * PATIENCE - 1]
    assert (alarm.on, alarm.raised) == (True, 1)
    looks = [0.0] * (PATIENCE - 1) + [2.0] + [0.0] * PATIENCE  # 2: no longer certain, and still likely
    assert [at for at, surely in enumerate(looks) if alarm.look(surely)] == [2 * PATIENCE - 1]
    assert (alarm.on, alarm.raised) == (False, 1)
    assert not any(alarm.look(2.0) for _ in range(5 * PATIENCE))


def test_plain_trending_is_named_by_its_best_half_life() -> None:
    drift = Drift()
    for _ in range(3):
        drift.compare([3, MISS, 1, MISS, 7], now=0)
    assert drift.figures()["against_trending"] == {
        "events": 3, "ranked": 0.5, "trending": 1, "half_life_h": HALF_LIVES_MS[1] / 3_600_000,
    }  # fmt: skip


# ---------------------------------------------------------------- against an oracle


def weights(memory: float, blocks: int) -> F64:
    """Of blocks, oldest first, adding up to 1."""
    raw = np.array([(1 - 1 / memory) ** (blocks - 1 - at) for at in range(blocks)])
    shares: F64 = raw / raw.sum()
    return shares


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_means_and_noise_are_those_of_the_blocks(blocks: list[float]) -> None:
    means, observed = Means(1), np.array(blocks)
    for at, value in enumerate(blocks):
        for _ in range(BLOCK - 1):
            means.note([value], now=at * 2 * BLOCK_MS)
        means.note([value], now=(at * 2 + 1) * BLOCK_MS)  # ends the block
    lately, past = weights(LATELY, len(blocks)), weights(PAST, len(blocks))
    assert means.blocks == len(blocks)
    assert means.means()[:, 0] == pytest.approx([lately @ observed, past @ observed], abs=1e-9)
    variance = past @ (observed - past @ observed) ** 2 / (1 - past @ past)
    for x, y in ((1, 0), (-1, 0.9), (0, 1)):
        expected = math.sqrt(variance * float(((x * lately + y * past) ** 2).sum()))
        assert means.noise(x, y)[0] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_noise_says_how_far_a_mean_strays() -> None:
    """Over many repetitions, the mean of lately strays as far as its noise says, though gains of a user are alike."""
    rng = np.random.default_rng(5)
    strayed, said = [], []
    for _ in range(60):
        means, tastes = Means(1), rng.beta(1, 4, 60 * 8)
        for taste in tastes:  # a user comes eight times in a row, half of each block
            for hit in rng.random(8) < taste:
                means.note([hit], now=means.events * BLOCK_MS)
        strayed.append(means.means()[NEW, 0] - 0.2)
        said.append(means.noise(1, 0)[0])
    assert np.mean(said) == pytest.approx(float(np.std(strayed)), rel=0.35)
    binomial = math.sqrt(0.2 * 0.8 / (60 * 64))
    assert np.mean(said) > 1.3 * binomial


# ---------------------------------------------------------------- alarms


def feed(drift: Drift, places: Iterable[float], sources: tuple[str, ...] = (), begin: int = 0) -> list[int]:
    """Note events, BLOCK to a block; returns the places at which the alarm "falling" changed."""
    changed = []
    for at, place in enumerate(places, begin):
        now = at * BLOCK_MS // BLOCK + (at % BLOCK == BLOCK - 1) * BLOCK_MS
        if drift.note(place, sources, now):
            changed.append(at)
    return changed


def hits(rng: np.random.Generator, n: int, recall: float) -> list[float]:
    """Ranks of events in user-like runs: `recall` of them among the first ten, anywhere there."""
    chance = np.repeat(rng.beta(recall * 4, (1 - recall) * 4, -(-n // 4)), 4)[:n]
    places: list[float] = np.where(rng.random(n) < chance, rng.integers(1, 11, n), np.inf).tolist()
    return places


@pytest.mark.parametrize("seed", range(3))
def test_what_stays_as_it_is_raises_no_alarm(seed: int) -> None:
    drift = Drift()
    feed(drift, hits(np.random.default_rng(seed), 60_000, 0.2))
    assert drift.figures()["alarms"]["falling"] == {"on": False, "raised": 0}


def test_nothing_is_said_before_there_is_evidence() -> None:
    drift = Drift()
    n = LEAST * BLOCK
    assert not feed(drift, [1.0] * (n // 2) + [MISS] * (n // 2 - 1))


@pytest.mark.parametrize(("recall", "within"), [(0.001, 1_500), (0.1, 2_600)])
def test_a_fall_raises_the_alarm_once_and_its_end_ends_it(recall: float, within: int) -> None:
    rng, drift = np.random.default_rng(7), Drift()
    healthy = 20_000
    assert not feed(drift, hits(rng, healthy, 0.2))
    (raised,) = feed(drift, hits(rng, 4_000, recall), begin=healthy)
    assert PATIENCE * BLOCK <= raised - healthy <= within
    assert drift.figures()["alarms"]["falling"] == {"on": True, "raised": 1}
    assert drift.figures()["ndcg@10"] < (1 - WORTH) * drift.figures()["past"]["ndcg@10"]
    assert len(feed(drift, hits(rng, 15_000, 0.2), begin=healthy + 4_000)) == 1
    assert drift.figures()["alarms"]["falling"] == {"on": False, "raised": 1}


def test_a_fall_that_lasts_becomes_the_past() -> None:
    rng, drift = np.random.default_rng(8), Drift()
    feed(drift, hits(rng, 20_000, 0.2))
    assert len(feed(drift, hits(rng, 250_000, 0.1), begin=20_000)) == 2
    assert drift.figures()["alarms"]["falling"] == {"on": False, "raised": 1}


def test_a_small_fall_is_none_however_certain() -> None:
    drift = Drift()
    feed(drift, [1.0, MISS] * 20_000)
    assert not feed(drift, ([1.0, MISS] * 48 + [MISS, MISS]) * 200, begin=40_000)
    means = drift.figures()
    assert means["ndcg@10"] < means["past"]["ndcg@10"]


def compare(drift: Drift, ranked: list[float], trending: list[float], begin: int = 0) -> list[int]:
    changed = []
    for at, places in enumerate(zip(ranked, trending, strict=True), begin):
        now = at * BLOCK_MS // BLOCK + (at % BLOCK == BLOCK - 1) * BLOCK_MS
        if drift.compare([*places, *[MISS] * (LADDER - 1)], now):
            changed.append(at)
    return changed


def test_below_plain_trending_for_long() -> None:
    rng, drift = np.random.default_rng(9), Drift()
    assert not compare(drift, hits(rng, 8_000, 0.2), hits(rng, 8_000, 0.2))  # no better, no worse
    assert len(compare(drift, hits(rng, 6_000, 0.15), hits(rng, 6_000, 0.25), begin=8_000)) == 1
    assert drift.figures()["alarms"]["below_trending"] == {"on": True, "raised": 1}
    assert len(compare(drift, hits(rng, 8_000, 0.2), hits(rng, 8_000, 0.1), begin=14_000)) == 1
    assert drift.figures()["alarms"]["below_trending"] == {"on": False, "raised": 1}
    assert drift.figures()["alarms"]["falling"]["raised"] == 0


def test_all_alike_is_no_alarm() -> None:
    drift = Drift()
    assert not feed(drift, [MISS] * 10_000)
    assert not compare(drift, [MISS] * 10_000, [MISS] * 10_000)
    assert drift.figures()["ndcg@10"] == 0


def test_memories() -> None:
    assert (NEW, OLD) == (0, 1)
    assert pytest.approx(2000) == LATELY * BLOCK
