"""The ranker against a twin in float64, and its life: standardisation, hand weights, room for other columns, resets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.model.parameters import put
from pipeline.model.ranker import (
    COLUMNS,
    CONTEXTS,
    EARNED,
    HIDDEN,
    WARM,
    Choice,
    Layout,
    RankerModel,
    Training,
    _offsets,
)
from pipeline.model.trendcheck import BUCKETS, TrendCheck
from pipeline.types import F32, F64

NAMES, TOLD = ("a", "b", "c", "d"), ("x", "y")
HAND = {"a": 0.5, "c": -0.3}
LAYOUT = Layout.of(NAMES, TOLD, HAND)
NOWHERE = np.full(5, np.inf, np.float32)


def choice(
    seed: int, n: int = 20, strangers: int = 3, f: int = len(NAMES), bucket: int | None = None, spread: float = 2.0
) -> Choice:
    """The user prefers what has much of the first column and little of the third."""
    rng = np.random.default_rng(seed)
    features = rng.normal(1.0, spread, (f, n + strangers)).astype(np.float32)
    taste = features[0, :n] - features[2 % f, :n] + 0.5 * rng.gumbel(size=n)
    context = rng.normal(3, 2, len(TOLD)).astype(np.float32)
    bucket = int(rng.integers(BUCKETS)) if bucket is None else bucket
    return Choice(features, n, n, int(np.argmax(taste)), context, bucket, NOWHERE)


@dataclass
class Twin:
    """The same mathematics in float64, after the standardisation is frozen."""

    mean: F64
    deviation: F64
    context_mean: F64
    context_deviation: F64
    linear: F64  # (1 + BUCKETS, f)
    a: F64  # (HIDDEN, f)
    b: F64 = field(default_factory=lambda: np.zeros((HIDDEN, len(TOLD))))
    b0: F64 = field(default_factory=lambda: np.zeros(HIDDEN))
    v: F64 = field(default_factory=lambda: np.zeros(HIDDEN))
    updates: int = 0

    def __post_init__(self) -> None:
        self.squares = np.full(self.linear.shape, 1e-6)
        self.moments = [[np.zeros_like(one), np.zeros_like(one)] for one in (self.a, self.b, self.b0, self.v)]

    def z(self, features: NDArray[Any]) -> F64:
        raw = (features.astype(np.float64) - self.mean[:, None]) / self.deviation[:, None]
        return np.clip(np.nan_to_num(raw, nan=-8, posinf=8, neginf=-8), -8, 8)

    def told(self, context: F32) -> F64:
        return np.clip((context - self.context_mean) / self.context_deviation, -8, 8)

    def score(self, one: Choice) -> F64:
        z = self.z(one.features)
        units = np.maximum(self.a @ z + (self.b @ self.told(one.context) + self.b0)[:, None], 0)
        scores: F64 = (self.linear[0] + self.linear[1 + one.bucket]) @ z + self.v @ units
        return scores

    def learn(self, one: Choice, how: Training, offsets: F64) -> None:
        z, told, t = self.z(one.features), self.told(one.context), one.chosen
        before = self.a @ z + (self.b @ told + self.b0)[:, None]
        units, scores = np.maximum(before, 0), self.score(one)
        if how.pairwise:
            weight = np.exp(offsets)
            weight[t] = 0
            pull = -weight / max(weight.sum(), 1) / (1 + np.exp(scores[t] - scores))
        else:
            p = np.exp(scores + offsets - (scores + offsets).max())
            pull = -p / p.sum()
            pull[t] = 0
        pull[t] = -pull.sum()
        through = self.v[:, None] * pull * (before > 0)
        slopes = [through @ z.T, np.outer(through.sum(axis=1), told), through.sum(axis=1), units @ pull]
        gradient = z @ pull
        for line, rate in ((0, how.rate), (1 + one.bucket, how.bucket_rate)):
            self.squares[line] += gradient**2
            self.linear[line] += rate * gradient / np.sqrt(self.squares[line])
        self.updates += 1
        for value, slope, moments in zip((self.a, self.b, self.b0, self.v), slopes, self.moments, strict=True):
            g = slope - how.decay * value
            moments[0][...] = 0.9 * moments[0] + 0.1 * g
            moments[1][...] = 0.999 * moments[1] + 0.001 * g**2
            first, second = moments[0] / (1 - 0.9**self.updates), moments[1] / (1 - 0.999**self.updates)
            np.add(value, how.hidden_rate * first / (np.sqrt(second) + 1e-8), out=value)


def warm(ranker: RankerModel, seed: int = 0, **how: Any) -> list[Choice]:
    seen = [choice(seed * 1000 + at, **how) for at in range(WARM)]
    for one in seen:
        assert not ranker.learn(LAYOUT, one, Training())
    return seen


def twin_of(ranker: RankerModel, seen: list[Choice]) -> Twin:
    """With the ranker's own first values of A, all else computed here."""
    values = np.concatenate([one.features for one in seen], axis=1).astype(np.float64)
    told = np.array([one.context for one in seen], np.float64)
    linear = np.zeros((1 + BUCKETS, len(NAMES)))
    linear[0] = LAYOUT.hand * values.std(axis=1)
    a = ranker.export_parameters()["hidden"][0, :, : len(NAMES)].astype(np.float64)
    return Twin(values.mean(axis=1), values.std(axis=1), told.mean(axis=0), told.std(axis=0), linear, a)


def scores_of(ranker: RankerModel, one: Choice, layout: Layout = LAYOUT) -> F32:
    start = np.array([0, one.features.shape[1]])
    return ranker.score(layout, one.features, start, one.context[None], np.array([one.bucket]))


def agree(ranker: RankerModel, twin: Twin) -> None:
    got, f = ranker.export_parameters(), len(NAMES)
    np.testing.assert_allclose(got["linear"][:, :f], twin.linear, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(got["hidden"][0, :, :f], twin.a, rtol=2e-3, atol=5e-4)
    np.testing.assert_allclose(got["hidden"][0, :, COLUMNS : COLUMNS + len(TOLD)], twin.b, rtol=2e-3, atol=5e-4)
    np.testing.assert_allclose(got["hidden"][0, :, COLUMNS + CONTEXTS], twin.b0, rtol=2e-3, atol=5e-4)
    np.testing.assert_allclose(got["hidden"][0, :, -1], twin.v, rtol=2e-3, atol=5e-4)


@pytest.mark.parametrize("how", [Training(), Training(pairwise=True), Training(rate=0.1, decay=0.1)], ids=repr)
def test_learns_as_its_twin(how: Training) -> None:
    ranker = RankerModel()
    twin = twin_of(ranker, warm(ranker))
    for at in range(200):
        one = choice(at)
        assert ranker.learn(LAYOUT, one, how)
        twin.learn(one, how, np.zeros(one.features.shape[1]))
    agree(ranker, twin)


@settings(deadline=None, max_examples=30)
@given(
    n=st.sampled_from([1, 2, 5, 70]),
    strangers=st.sampled_from([0, 1, 9]),
    value=st.sampled_from([0.0, 1.0, -1e30, 3e38, np.nan, np.inf]),
    pairwise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_whatever_features_hold_a_step_is_finite_and_as_its_twins(
    n: int, strangers: int, value: float, pairwise: bool, seed: int
) -> None:
    ranker = RankerModel()
    twin = twin_of(ranker, warm(ranker))
    one, how = choice(seed, n, strangers), Training(pairwise=pairwise)
    one.features[:, seed % (n + strangers)] = value
    assert ranker.learn(LAYOUT, one, how)
    with np.errstate(over="ignore", invalid="ignore"):
        twin.learn(one, how, np.zeros(n + strangers))
    agree(ranker, twin)
    assert all(np.isfinite(array).all() for array in ranker.export_parameters().values())


def test_a_sample_of_draws_makes_up_for_the_candidates_that_were_not_drawn() -> None:
    ranker, how = RankerModel(), Training(draws=10)
    twin = twin_of(ranker, warm(ranker))
    whole = choice(5, n=50, strangers=4)
    some = whole.sampled(10, 99)
    assert (some.logged, some.total, some.chosen, some.features.shape[1]) == (11, 50, 0, 15)
    np.testing.assert_array_equal(some.features[:, 0], whole.features[:, whole.chosen])
    np.testing.assert_array_equal(some.features[:, 11:], whole.features[:, 50:])
    others = {tuple(column) for at, column in enumerate(whole.features[:, :50].T.tolist()) if at != whole.chosen}
    assert {tuple(column) for column in some.features[:, 1:11].T.tolist()} <= others
    offsets = np.zeros(15)
    offsets[1:11] = math.log(49 / 10)
    assert ranker.learn(LAYOUT, some, how)  # a sample is not sampled again
    twin.learn(some, how, offsets)
    agree(ranker, twin)


def test_draws_are_uniform_over_the_others_and_repeatable() -> None:
    whole = choice(5, n=12, strangers=0)
    whole.features[0] = np.arange(12)
    drawn = np.concatenate([whole.sampled(5, seed).features[0, 1:] for seed in range(4000)])
    counts = np.bincount(drawn.astype(np.int64), minlength=12)
    assert counts[whole.chosen] == 0
    assert (abs(np.delete(counts, whole.chosen) - 20_000 / 11) < 5 * math.sqrt(20_000 / 11)).all()
    np.testing.assert_array_equal(whole.sampled(5, 7).features, whole.sampled(5, 7).features)
    assert choice(1, n=6).sampled(5, 1).logged == 6  # too few to draw from
    assert choice(1, n=60).sampled(0, 1).logged == 60


def test_the_mean_gradient_of_samples_is_that_of_the_whole_list() -> None:
    """With the correction, learning from draws goes where learning from all goes."""
    moved = []
    for draws in (0, 20):
        ranker = RankerModel()
        warm(ranker)
        for at in range(400):
            ranker.learn(LAYOUT, choice(at, n=80, strangers=0, bucket=0), Training(rate=0.05, draws=draws))
        moved.append(ranker.export_parameters()["linear"][0, : len(NAMES)])
    np.testing.assert_allclose(moved[1], moved[0], atol=0.15 * np.abs(moved[0]).max())


def test_hand_weights_serve_until_it_has_learned_and_freezing_moves_no_score() -> None:
    ranker, one = RankerModel(), choice(77, spread=0.5)
    by_hand = np.array([0.5, 0, -0.3, 0]) @ one.features
    np.testing.assert_allclose(scores_of(ranker, one), by_hand, rtol=1e-5, atol=1e-6)
    warm(ranker, spread=0.5)
    assert (ranker.examples, ranker.updates, ranker.earned) == (WARM, 0, False)
    np.testing.assert_allclose(scores_of(ranker, one), by_hand, rtol=1e-5, atol=1e-6)
    frozen = RankerModel()
    arrays = ranker.export_parameters()
    arrays["counts"][1] = EARNED  # as if it served from here on
    frozen.put_parameters(arrays)
    shift = scores_of(frozen, one) - by_hand
    np.testing.assert_allclose(shift, shift[0], atol=1e-5)  # all scores move by the same: no place changes


def test_learned_weights_serve_after_enough_updates_and_find_the_taste() -> None:
    ranker = RankerModel()
    warm(ranker)
    for at in range(EARNED - 1):
        ranker.learn(LAYOUT, choice(10_000 + at), Training())
    assert not ranker.earned
    ranker.learn(LAYOUT, choice(10_000 + EARNED), Training())
    assert ranker.earned
    for at in range(950):
        ranker.learn(LAYOUT, choice(20_000 + at), Training())
    tests = [choice(50_000 + at) for at in range(200)]
    hits = [int(np.argmax(scores_of(ranker, one)[: one.logged])) == one.chosen for one in tests]
    assert np.mean(hits) > 0.6  # one in twenty by chance; the noise leaves about two in three


def test_scores_of_a_chunk_are_those_of_its_queries_and_of_the_twin() -> None:
    ranker = RankerModel()
    twin = twin_of(ranker, warm(ranker))
    for at in range(EARNED):
        ranker.learn(LAYOUT, choice(at), Training())
        twin.learn(choice(at), Training(), np.zeros(23))
    asked = [choice(900 + at, n) for at, n in enumerate([1, 63, 64, 65, 300])]
    features = np.concatenate([one.features for one in asked], axis=1)
    start = np.cumsum([0, *(one.features.shape[1] for one in asked)])
    contexts, buckets = np.array([one.context for one in asked]), np.array([one.bucket for one in asked])
    together = ranker.score(LAYOUT, features, start, contexts, buckets)
    alone = np.concatenate([scores_of(ranker, one) for one in asked])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([twin.score(one) for one in asked]), rtol=5e-3, atol=5e-3)


def test_nobody_asks() -> None:
    none = np.empty((len(NAMES), 0), np.float32)
    scores = RankerModel().score(LAYOUT, none, np.array([0]), np.empty((0, 2), np.float32), np.empty(0, np.int64))
    assert scores.shape == (0,)


@pytest.mark.parametrize("updates", [0, EARNED])
def test_parts_add_up_to_the_distance_from_an_unknown_item(updates: int) -> None:
    ranker = RankerModel()
    warm(ranker)
    for at in range(updates):
        ranker.learn(LAYOUT, choice(at), Training(hidden_rate=0.05))
    one, groups = choice(3), np.array([0, 1, 1, 2])
    floors = np.array([[-2], [1], [0], [0.5]], np.float32)
    n = one.features.shape[1]
    told, bucket = one.context[None], np.array([one.bucket])
    parts = ranker.parts(LAYOUT, one.features, np.zeros(n, np.int64), told, bucket, floors, groups)
    assert parts.shape == (4, n)
    unknown = ranker.score(LAYOUT, floors, np.array([0, 1]), told, bucket)
    np.testing.assert_allclose(parts.sum(axis=0), scores_of(ranker, one) - unknown, rtol=1e-4, atol=1e-4)
    assert (parts[3] != 0).any() == (updates > 0)


class TestColumns:
    """What is learned of a column goes with its name."""

    def trained(self) -> RankerModel:
        ranker = RankerModel()
        warm(ranker)
        for at in range(EARNED):
            ranker.learn(LAYOUT, choice(at), Training(hidden_rate=0.01))
        return ranker

    def test_another_order_is_the_same_ranker(self) -> None:
        ranker, one, order = self.trained(), choice(1), [2, 0, 3, 1]
        other = Layout.of(tuple(NAMES[at] for at in order), ("y", "x"), HAND)
        turned = Choice(one.features[order], 20, 20, one.chosen, one.context[::-1].copy(), one.bucket, NOWHERE)
        before = scores_of(ranker, one)
        np.testing.assert_allclose(scores_of(ranker, turned, other), before, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(scores_of(ranker, one), before)  # looking changes nothing
        ranker.learn(other, turned, Training())
        again = self.trained()
        again.learn(LAYOUT, one, Training())
        np.testing.assert_allclose(scores_of(ranker, turned, other), scores_of(again, one), rtol=1e-4, atol=1e-4)

    def test_a_new_column_begins_at_its_hand_weight_and_a_lost_one_is_gone(self) -> None:
        ranker, one = self.trained(), choice(1)
        other = Layout.of(("a", "new", "b", "d"), TOLD, {"new": 0.25})
        one.features[1] = np.clip(one.features[1], -5, 5)
        scores = scores_of(ranker, one, other)
        one.features[1] += 2.0
        np.testing.assert_allclose(scores_of(ranker, one, other) - scores, 0.5, rtol=1e-3)
        assert ranker.learn(other, one, Training())
        assert np.isfinite(scores_of(ranker, one, other)).all()
        exported = ranker.export_parameters()["columns"]
        assert (exported[:4] == other.columns).all()
        assert not exported[4:].any()

    def test_parameters_go_on_where_they_were_exported(self) -> None:
        one, other = self.trained(), RankerModel()
        put("ranker", other, one.export_parameters())
        for at in range(20):
            for ranker in (one, other):
                ranker.learn(LAYOUT, choice(700 + at), Training())
        for name, array in one.export_parameters().items():
            np.testing.assert_array_equal(other.export_parameters()[name], array, err_msg=name)
        np.testing.assert_array_equal(scores_of(one, choice(9)), scores_of(other, choice(9)))

    def test_names_must_be_distinct_known_and_few(self) -> None:
        with pytest.raises(ValueError, match="distinct"):
            Layout.of(("a", "a"), (), {})
        with pytest.raises(ValueError, match="hand weights"):
            Layout.of(("a",), (), {"b": 1.0})
        with pytest.raises(ValueError, match="at most"):
            Layout.of(tuple(f"c{at}" for at in range(COLUMNS + 1)), (), {})


class TestPassedOver:
    def test_weighs_as_if_it_had_been_there_so_many_times(self) -> None:
        once, often = TestColumns().trained(), TestColumns().trained()
        for seed in range(20):
            one = choice(seed)
            seen = np.array([at for at in (3, 11) if at != one.chosen])
            more = np.repeat(one.features[:, seen], 4, axis=1)  # four more of each of them
            copied = replace(one, features=np.concatenate((one.features, more), axis=1))
            assert once.learn(LAYOUT, replace(one, seen=seen), Training(passed_over=5.0))
            assert often.learn(LAYOUT, copied, Training())
        got, wanted = once.export_parameters(), often.export_parameters()
        for name in ("linear", "hidden"):
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-3, atol=1e-4, err_msg=name)
        plain = TestColumns().trained()
        assert plain.learn(LAYOUT, choice(0), Training())
        assert not np.array_equal(plain.export_parameters()["linear"], got["linear"])

    def test_is_kept_where_others_are_drawn(self) -> None:
        whole = choice(1, n=200, strangers=2)
        others = [at for at in range(200) if at != whole.chosen]
        whole = replace(whole, seen=np.array(others[50:54]))
        some = whole.sampled(40, 7)
        assert (some.chosen, some.seen.tolist(), some.total) == (0, [1, 2, 3, 4], 200)
        assert some.logged + 2 == some.features.shape[1] <= 43
        np.testing.assert_array_equal(some.features[:, :5], whole.features[:, [whole.chosen, *others[50:54]]])
        drawn = some.features[:, 5 : some.logged]
        assert not (drawn[:, :, None] == whole.features[:, None, whole.seen]).all(axis=0).any()
        weights = np.exp(_offsets(some, 20.0))
        np.testing.assert_allclose(weights[:5], [1, 20, 20, 20, 20], rtol=1e-5)
        np.testing.assert_allclose(weights[5 : some.logged].sum(), 195, rtol=1e-5)  # those that stand for the rest
        np.testing.assert_allclose(weights[some.logged :], 1)
        assert len(replace(whole, seen=np.array(others[:60])).sampled(40, 7).seen) == 40


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_begins_anew_and_is_counted(broken: float) -> None:
    ranker, one = TestColumns().trained(), choice(1)
    arrays = ranker.export_parameters()
    arrays["linear"][2, 1] = broken
    arrays["hidden"][0, 5, 2] = broken
    ranker.put_parameters(arrays)
    whole = [Choice(one.features, 20, 20, one.chosen, one.context, 1, NOWHERE), one]
    while ranker.learn(LAYOUT, whole[0], Training()):
        pass
    assert ranker.resets == 2
    got = ranker.export_parameters()
    assert all(np.isfinite(array).all() for array in got.values())
    assert (got["linear"][:, 1] == 0).all()  # its hand weight
    np.testing.assert_array_equal(got["linear"][:, 0], arrays["linear"][:, 0])
    assert (got["hidden"][:, 5, -1] == 0).all()
    assert got["hidden"][0, 5, : len(NAMES)].any()
    assert ranker.learn(LAYOUT, one, Training())


def test_a_column_that_never_moved_keeps_its_unit() -> None:
    ranker = RankerModel()
    for at in range(WARM):
        one = choice(at)
        one.features[1] = 7.0
        ranker.learn(LAYOUT, one, Training())
    scale = ranker.export_parameters()["scale"]
    assert scale[:, 1].tolist() == [7.0, 1.0]


class TestTrendCheck:
    def told(self, *places: float) -> F32:
        return np.array(places, np.float32)

    def test_gains_fade_as_the_formula_says(self) -> None:
        check = TrendCheck()
        ranks = [(1, 3, np.inf, 2.5, 11), (10, 1, 1, 1, 1), (np.inf, np.inf, np.inf, 4, 1)]
        gains = np.array([[1 / math.log2(1 + r) if r <= 10 else 0 for r in line] for line in ranks])
        keep = 1 - 1 / 2000
        for line in ranks:
            check.note(2, self.told(*line))
        fading = keep ** np.arange(2, -1, -1)
        assert check.ranked[2] == pytest.approx(fading @ gains[:, 0])
        np.testing.assert_allclose(check.trending[2], fading @ gains[:, 1:])
        np.testing.assert_allclose(check.squares[2], fading @ (gains[:, 1:] - gains[:, :1]) ** 2)
        assert check.events[2] == pytest.approx(fading.sum())
        assert not check.events[[0, 1, 3, 4, 5]].any()

    def test_a_list_that_loses_to_trending_is_mixed_with_it_in_its_bucket_alone(self) -> None:
        check = TrendCheck()
        for at in range(200):
            check.note(1, self.told(np.inf, np.inf, 1 if at % 4 == 0 else np.inf, np.inf, np.inf))
            check.note(3, self.told(2, np.inf, 3, np.inf, np.inf))
        assert check.mixes
        assert check.share[1] == 1
        assert check.best[1] == 1
        assert not check.share[[0, 2, 3, 4, 5]].any()
        figures = check.figures()
        assert figures["trending"][1] == pytest.approx(0.25, abs=0.01)
        assert figures["ranked"][3] == pytest.approx(1 / math.log2(3), abs=0.01)
        for _ in range(1500):  # the list has recovered
            check.note(1, self.told(1, np.inf, 2, np.inf, np.inf))
        assert not check.mixes

    def test_luck_is_not_enough(self) -> None:
        check = TrendCheck()
        for at in range(300):
            check.note(0, self.told(*((1, 2) if at % 2 else (2, 1)), np.inf, np.inf, np.inf))
        check.note(0, self.told(np.inf, 1, np.inf, np.inf, np.inf))
        assert not check.mixes

    def test_an_exported_check_goes_on(self) -> None:
        one, other = TrendCheck(), TrendCheck()
        for _ in range(100):
            one.note(4, self.told(np.inf, 1, 1, 1, 2))
        other.put(one.export())
        assert other.figures() == one.figures()
        assert other.mixes
        one.note(4, self.told(1, 1, 1, 1, 1))
        assert other.figures() != one.figures()
