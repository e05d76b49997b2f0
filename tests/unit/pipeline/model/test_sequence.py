"""The sequence model: its learning kernel against a plain twin, on random and on adversarial input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.model.changes import Changes
from pipeline.model.rows import ItemRows
from pipeline.model.sequence import GAPS, GAPS_S, LIMIT, Sequence, Steps, event_seeds, gap_bucket, history_bucket
from pipeline.types import RING, ItemVectors
from tests.twins import SequenceTwin, mix, normals

K = 8
NOW = 1_790_000_000_500


@dataclass(frozen=True)
class Event:
    target: int  # hash
    history: tuple[int, ...] = ()
    weight: float = 1.0
    seed: int = 1
    consumed: tuple[int, ...] = ()
    now: int = NOW  # ms
    taken: tuple[int, ...] = ()  # epoch seconds, an entry of the history each; the rest is a minute apart
    before: int = -1  # positive events before; -1 = as many as the history has

    @property
    def times(self) -> list[int]:
        """When each entry of the history was taken, seconds."""
        given = self.taken[: len(self.history)]
        return [*given, *(NOW // 1000 - 60 * d for d in range(len(given), len(self.history)))]

    @property
    def earlier(self) -> int:
        """Positive events before."""
        return len(self.history) if self.before < 0 else self.before


class Learning:
    """A model, its twin, and both fed with the same events."""

    def __init__(self, k: int = K) -> None:
        self.rows = ItemRows(16)
        self.model, self.twin = Sequence(self.rows, k), SequenceTwin(k)
        self.changes = Changes(self.rows)

    def learn(self, *events: Event, negatives: int = 100) -> int:
        reset = self.model.learn(self.steps(events), negatives, self.changes)
        for event in events:
            truncated = {item & 0xFFFFFFFF for item in event.consumed}
            self.twin.learn(
                event.target, event.history, event.weight, event.seed, negatives, truncated,
                event.now, event.times, event.earlier,
            )  # fmt: skip
        return reset

    def steps(self, events: tuple[Event, ...]) -> Steps:
        targets = self.rows.rows(np.array([event.target for event in events], np.uint64))
        self.model.begin(targets)
        rings = np.full((len(events), RING), -1, np.int64)
        taken = np.zeros((len(events), RING), np.uint32)
        known = set(self.twin.items)
        for at, event in enumerate(events):
            for d, item in enumerate(event.history):
                rings[at, d] = self.rows.row(item) if item in known else -1
            taken[at, : len(event.times)] = event.times
            known.add(event.target)
        consumed = np.array([item & 0xFFFFFFFF for event in events for item in event.consumed], np.uint32)
        return Steps(
            targets=targets,
            times=np.array([event.now for event in events], np.int64),
            rings=rings,
            ring_times=taken,
            ring_length=np.array([len(event.history) for event in events], np.int64),
            before=np.array([event.earlier for event in events], np.int64),
            weights=np.array([event.weight for event in events], np.float32),
            seeds=np.array([event.seed for event in events], np.uint64),
            owner=np.arange(len(events)),
            consumed_start=np.cumsum([0, *(len(event.consumed) for event in events)]),
            consumed=consumed,
        )

    def compare(self) -> None:
        """Every vector, bias and accumulator is the twin's, and nothing else is known."""
        assert [int(self.rows.hashes[row]) for row in self.model.pool] == list(self.twin.items)
        for item, want in self.twin.items.items():
            got = self.model.export(self.rows.row(item))
            np.testing.assert_allclose(got["e_in"], want.e_in, rtol=2e-3, atol=2e-5)
            np.testing.assert_allclose(got["e_out"], want.e_out, rtol=2e-3, atol=2e-5)
            assert got["bias"] == pytest.approx(want.bias, rel=2e-3, abs=2e-5)
            np.testing.assert_allclose(got["accumulators"], (want.g_in, want.g_out, want.g_bias), rtol=5e-3)
        self.compare_parameters()

    def compare_parameters(self) -> None:
        """Attention, context and their accumulators are the twin's."""
        got, twin = self.model.export_parameters(), self.twin
        for at, head in enumerate(twin.heads):
            for name in ("alpha", "beta"):
                np.testing.assert_allclose(got[name][at], getattr(head, name), rtol=2e-3, atol=1e-4)
                np.testing.assert_allclose(got[f"{name}_power"][at], getattr(head, f"{name}_power"), rtol=5e-3)
        names = [*(f"gap {at}" for at in range(10)), *(f"history {at}" for at in range(6))]
        for at, name in enumerate(names):
            want = twin.context.get(name, np.zeros(twin.k))
            np.testing.assert_allclose(got["context"][at], want, rtol=2e-3, atol=5e-5)
            assert got["context_power"][at] == pytest.approx(twin.context_power.get(name, 1e-6), rel=5e-3)


def test_random_streams_like_the_twin() -> None:
    rng = np.random.default_rng(3)
    items = rng.integers(1, 1 << 64, 40, np.uint64)
    learning = Learning()
    for _ in range(6):
        events = [
            Event(
                target=int(rng.choice(items)),
                history=tuple(rng.choice(items, rng.integers(0, RING + 1)).tolist()),
                weight=float(rng.choice([0.3, 1, 4])),
                seed=int(rng.integers(0, 1 << 62)),
                consumed=tuple(rng.choice(items, 5).tolist()),
                now=NOW + int(rng.integers(0, 90 * 86_400_000)),
                taken=tuple((NOW // 1000 - (10 ** rng.uniform(0, 8, RING)).astype(int)).tolist()),
            )
            for _ in range(10)
        ]
        learning.learn(*events, negatives=20)
    learning.compare()


ADVERSARIAL = {
    "nothing known, empty ring": [Event(5)],
    "one item only, again and again": [Event(5), Event(5, (5,)), Event(5, (5, 5))],
    "empty rings": [Event(5), Event(6), Event(7), Event(5)],
    "the target fills the ring": [Event(5), Event(6), Event(5, (5,) * RING)],
    "repeats": [Event(5), Event(6), Event(7, (5, 6, 5, 6, 5, 5, 6))],
    "everything is consumed": [Event(5), Event(6), Event(7, (5, 6), consumed=(5, 6, 7))],
    "unknown items in the ring keep their places": [Event(5), Event(6), Event(6, (99, 5, 98, 5))],
    "only unknown items in the ring": [Event(5), Event(6), Event(6, (99, 98))],
    "an unseen target with a history": [Event(5), Event(6, (5,))],
    "truncations that meet": [Event(5), Event(6), Event((1 << 40) + 7), Event(5, (6,), consumed=((1 << 50) + 7,))],
    "taken at one time": [Event(5), Event(6), Event(7, (5, 6, 5), taken=(NOW // 1000,) * 3)],
    "taken in the future": [Event(5), Event(6, (5,), taken=(2**32 - 1,)), Event(5, (6, 5), now=0)],
    "times before 1970": [Event(5), Event(6, (5,), now=-5, taken=(0,)), Event(7, (6,), now=-(10**15))],
    "long histories": [Event(5), Event(6, (5,), before=2**62), Event(5, (6, 5), before=31), Event(6, (5,), before=30)],
    "an unknown newest item has its context": [Event(5), Event(6, (99, 5), taken=(NOW // 1000 - 10**6,))],
    "great weights": [Event(5), Event(6), Event(5, (6,), weight=1e6), Event(6, (5,), weight=1e-6)],
}


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("negatives", [0, 1, 100])
def test_adversarial_input_like_the_twin(name: str, negatives: int) -> None:
    learning = Learning()
    assert learning.learn(*ADVERSARIAL[name], negatives=negatives) == 0
    learning.compare()


@pytest.mark.parametrize("k", [4, 13, 64])
def test_dimensions(k: int) -> None:
    learning = Learning(k)
    learning.learn(Event(5), Event(6, (5,)), Event(7, (6, 5)), Event(5, (7, 6)), negatives=7)
    learning.compare()


def test_a_thousand_consumed_items_are_never_negatives() -> None:
    learning = Learning()
    items = list(range(1, 1025))
    learning.learn(*(Event(item) for item in items), negatives=3)
    for item in (5, 9):
        before = learning.model.e_out[:].copy(), learning.model.bias.copy()
        learning.learn(Event(item, (1, 2), consumed=tuple(items)), negatives=100)
        np.testing.assert_array_equal(learning.model.e_out, before[0])
        np.testing.assert_array_equal(learning.model.bias, before[1])


def test_an_item_starts_the_same_everywhere() -> None:
    starts = []
    for others in ([], [11, 12, 13]):
        rows = ItemRows(16)
        rows.rows(np.array(others, np.uint64))
        model = Sequence(rows, K)
        row = rows.row(77)
        model.begin(np.array([row]))
        starts.append(model.export(row))
    np.testing.assert_array_equal(starts[0]["e_out"], starts[1]["e_out"])
    assert not starts[0]["e_in"].any()
    np.testing.assert_allclose(starts[0]["e_out"], normals(mix(77), K), rtol=1e-6)


def test_a_start_is_normal() -> None:
    rows = ItemRows()
    model = Sequence(rows, 64)
    new = rows.rows(np.random.default_rng(0).integers(1, 1 << 64, 500, np.uint64))
    model.begin(new)
    values = model.e_out[new].ravel() / 0.12
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02
    assert abs(np.mean(values**4) - 3) < 0.2
    assert abs(np.corrcoef(values[:-64], values[64:])[0, 1]) < 0.03


def test_seeds_differ_by_seed_partition_and_offset() -> None:
    places = [(partition, offset) for partition in range(20) for offset in range(200)]
    partition, offset = np.array(places).T
    seeds = np.concatenate([event_seeds(seed, partition, offset) for seed in (1, 2)])
    assert len(np.unique(seeds)) == 2 * len(places)


@pytest.mark.parametrize("column", ["e_in", "e_out", "bias"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, float(LIMIT) * 10])
def test_a_broken_row_begins_anew_and_is_counted(column: str, bad: float) -> None:
    learning = Learning()
    learning.learn(Event(5), Event(6, (5,)), Event(7, (6,)))
    row = learning.rows.row(6)
    getattr(learning.model, column)[row] = bad
    if np.isfinite(bad):  # finite but out of bounds: found when it is published
        assert learning.model.mend(learning.model.pool.astype(np.int64)) == 1
    else:
        assert learning.model.learn(learning.steps((Event(7, (6, 5)),)), 100, learning.changes) >= 1
    assert not learning.model.e_in[row].any()
    np.testing.assert_allclose(learning.model.e_out[row], normals(mix(6), K), rtol=1e-6)
    assert np.isfinite(learning.model.e_out[learning.model.pool]).all()
    assert np.isfinite(learning.model.bias[learning.model.pool]).all()


@pytest.mark.parametrize("name", ["alpha", "beta", "context", "alpha_power", "beta_power", "context_power"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_parameters_begin_anew_and_are_counted(name: str, bad: float) -> None:
    learning, fresh = Learning(), Learning()
    learning.learn(Event(5), Event(6, (5,)), Event(7, (6,)))
    with np.errstate(invalid="ignore"):
        learning.model._tuned._asdict()[name].flat[:] = bad
    reset = learning.model.learn(learning.steps((Event(7, (6, 5)), Event(5, (7, 6)))), 100, learning.changes)
    learnt = learning.model.export_parameters()
    if bad > 0 and name.endswith("power"):  # no step is left, but none is wrong; a flush mends it
        del learnt[name]
        reset = len(learnt[name.removesuffix("_power")])
    assert all(np.isfinite(array).all() for array in learnt.values())
    assert np.isfinite(learning.model.e_in[learning.model.pool]).all()
    assert np.isfinite(learning.model.e_out[learning.model.pool]).all()
    assert reset >= len(learnt[name.removesuffix("_power")])
    if name == "alpha":
        np.testing.assert_allclose(learnt[name], fresh.model.export_parameters()[name], atol=0.1)


def test_attention_stays_within_bounds() -> None:
    learning = Learning()
    learning.learn(Event(5), Event(6), Event(7))
    fresh = learning.model.export_parameters()
    for sign in (-1, 1):
        extreme = {"alpha": np.full((2, RING), sign * 11.999), "beta": np.full((2, GAPS), sign * 11.999)}
        learning.model.put_parameters(fresh | extreme)
        events = [Event(5 + at % 3, (5 + (at + 1) % 3, 5 + (at + 2) % 3)) for at in range(50)]
        learning.model.learn(learning.steps(tuple(events)), 10, learning.changes)
        learnt = learning.model.export_parameters()
        assert max(np.abs(learnt["alpha"]).max(), np.abs(learnt["beta"]).max()) <= 12
        assert max(np.abs(learnt["alpha"]).max(), np.abs(learnt["beta"]).max()) > 11
        assert np.isfinite(learning.model.attention).all()
        assert (learning.model.attention > 0).all()


def test_parameters_are_taken_over_and_tamed() -> None:
    learning = Learning()
    learning.learn(Event(5), Event(6, (5,)), Event(7, (6, 5)))
    there = Sequence(ItemRows(16), K)
    table = there.attention
    there.put_parameters(learning.model.export_parameters())
    np.testing.assert_array_equal(there.attention, learning.model.attention)
    assert (there.attention != table).any()
    np.testing.assert_array_equal(there.context, learning.model.context)
    wild = {name: np.full_like(array, 1e30) for name, array in learning.model.export_parameters().items()}
    there.put_parameters(wild)
    np.testing.assert_array_equal(there.attention, table)
    assert not there.context.any()


def test_the_attention_at_first_is_a_decay_whatever_the_gap() -> None:
    attention = Sequence(ItemRows(16), K).attention
    for head, decay in enumerate((0.7, 0.97)):
        decayed = np.array([np.e, *decay ** np.arange(1, RING)])
        np.testing.assert_allclose(attention[head].T, [decayed] * GAPS, rtol=1e-6)


def test_recent_items_win_attention_where_only_they_tell_what_comes_next() -> None:
    """Each item is followed by its own successor if little time went by, and by anything if much did."""
    rng, learning = np.random.default_rng(5), Learning(16)
    items = list(range(1, 21))
    learning.model.learn(learning.steps(tuple(Event(item) for item in items)), 10, learning.changes)
    learning.twin.items |= dict.fromkeys(items)  # type: ignore[arg-type]
    for _ in range(40):
        events = []
        for seed in rng.integers(0, 1 << 60, 50).tolist():
            now, old = rng.choice(items, 2).tolist()
            taken = NOW // 1000 - 5, NOW // 1000 - 100 * 86_400
            if rng.random() < 0.5:
                events.append(Event(now % 20 + 1, (now, old), seed=seed, taken=taken))
            else:
                events.append(Event(now % 20 + 1, (old, now), seed=seed, taken=taken[::-1]))
        learning.model.learn(learning.steps(tuple(events)), 10, learning.changes)
    weights = learning.model.attention
    assert (weights[:, 0, 1] > 4 * weights[:, 0, 9]).all()
    assert (weights[:, 1, 1] > 4 * weights[:, 1, 9]).all()


def test_gaps_and_histories_have_buckets() -> None:
    edges = [0, *GAPS_S]
    for at, edge in enumerate(edges):
        assert gap_bucket(NOW + 1000 * edge, NOW // 1000) == at
        assert gap_bucket(NOW // 1000 * 1000 + 1000 * edge - 1, NOW // 1000) == max(0, at - 1)
    assert gap_bucket(0, 2**32 - 1) == 0
    assert gap_bucket(2**62, 0) == GAPS - 1
    counts = [0, 1, 2, 3, 6, 7, 14, 15, 30, 31, 2**62]
    assert [history_bucket(count) for count in counts] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_what_moved_is_measured_and_only_that() -> None:
    learning = Learning()
    learning.learn(*(Event(item, tuple(range(item % 7 + 1, item, 7))) for item in range(1, 50)))
    learning.changes.moved[:] = 0
    before = np.hstack((learning.model.e_in, learning.model.e_out, learning.model.bias[:, None])).copy()
    learning.learn(Event(1, (2, 3)), negatives=5)
    after = np.hstack((learning.model.e_in, learning.model.e_out, learning.model.bias[:, None]))
    changed = (before != after).any(axis=1)
    np.testing.assert_array_equal(learning.changes.moved > 0, changed)
    assert 3 <= changed.sum() <= 8


def test_logits_are_dot_product_and_bias_and_0_for_the_unknown() -> None:
    learning = Learning()
    learning.learn(Event(5), Event(6, (5,)), Event(7, (6, 5)))
    learning.rows.row(99)
    h = np.random.default_rng(0).normal(0, 1, (4, K)).astype(np.float32)
    got = learning.model.logits(h)
    assert got.shape == (4, 4)
    np.testing.assert_allclose(got, h @ learning.model.e_out[:4].T + learning.model.bias[:4], rtol=1e-5, atol=1e-6)
    assert not got[:, 3].any()


def test_export_put_clear_keep_the_pool() -> None:
    learning = Learning()
    learning.learn(Event(5), Event(6, (5,)), Event(7, (6, 5)))
    there = ItemRows(16)
    copy = Sequence(there, K)
    for item in (7, 5, 6):
        copy.put(there.row(item), record(item, learning.model.export(learning.rows.row(item))))
    for item in (5, 6, 7):
        for name, value in learning.model.export(learning.rows.row(item)).items():
            np.testing.assert_array_equal(copy.export(there.row(item))[name], value)
    copy.clear(there.row(5))
    copy.clear(there.row(5))
    assert [int(there.hashes[row]) for row in copy.pool] == [7, 6]
    assert not copy.known[there.row(5)]
    assert not copy.e_out[there.row(5)].any()


@pytest.mark.parametrize("accumulator", [0.0, -1.0])
def test_an_accumulator_that_no_step_could_divide_by_ends_no_learning(accumulator: float) -> None:
    learning = Learning()
    learning.learn(Event(5), Event(6, (5,)), Event(7, (6, 5)))
    for item in (5, 6):
        fields = learning.model.export(learning.rows.row(item)) | {"bias": -1e3}  # as a negative it pulls by exactly 0
        fields["accumulators"] = np.full(3, accumulator, np.float32)
        learning.model.put(learning.rows.row(item), record(item, fields))
    assert learning.model.learn(learning.steps((Event(7, (6, 5)),)), 100, learning.changes) == 0
    assert np.isfinite(learning.model.e_out[learning.model.pool]).all()


def record(item: int, fields: dict[str, object]) -> ItemVectors:
    zeros = np.zeros(4, np.float32)
    rest = {"decayed": zeros, "reference": 0, "count": 0.0, "entry": zeros[:3], "first_seen": 0, "last_seen": 0}
    return ItemVectors(item_id=f"i{item}", hash=item, **fields, **rest)  # type: ignore[arg-type]
