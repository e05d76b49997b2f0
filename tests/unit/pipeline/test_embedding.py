"""The user embedding, against a twin in NumPy that must agree bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.embedding import attend, compose, situate
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.types import F32, RING, ItemVectors, Parameters, Rings

HALF_LIVES = 4
NOW = 1_790_000_000_999
EDGES = (1, 10, 60, 300, 1800, 10_800, 86_400, 604_800, 2_592_000)  # seconds


def model_of(vectors: dict[int, F32], k: int) -> Model:
    """A model that knows these vectors of items."""
    model = Model(ItemRows(16), k)
    for item, x in vectors.items():
        model.put_vectors(record(item, x, k))
    return model


def record(item: int, x: F32, k: int) -> ItemVectors:
    """Of an item whose e_in + e_out is x."""
    return ItemVectors(
        item_id=f"i-{item}", hash=item, e_in=-x, e_out=2 * x, bias=9.0,
        accumulators=np.ones(3, np.float32), decayed=np.zeros(HALF_LIVES, np.float32), reference=0, count=0.0,
        entry=np.zeros(3, np.float32), first_seen=0, last_seen=0,
    )  # fmt: skip


def rings_of(*rings: list[int], times: list[list[int]] | None = None) -> Rings:
    """Rings of these items, taken at `times` (epoch seconds) or at 0."""
    items, taken = np.zeros((len(rings), RING), np.uint64), np.zeros((len(rings), RING), np.uint32)
    for row, ring in enumerate(rings):
        items[row, : len(ring)] = ring
        taken[row, : len(ring)] = times[row] if times else 0
    length = np.array([len(ring) for ring in rings], np.int64)
    return Rings(items, taken, np.zeros(items.shape, np.uint8), length)


def now(n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.zeros(n, np.int64)


def twin(ring: list[int], gaps: list[int], vectors: dict[int, F32], parameters: dict[str, F32], k: int) -> F32:
    """`gaps` in seconds."""
    parts = []
    for head, part in enumerate((slice(0, k // 2), slice(k // 2, k))):
        h, total = np.zeros(k, np.float32)[part], 0.0
        for d, (item, gap) in enumerate(zip(ring, gaps, strict=True)):
            if item in vectors:
                beta = parameters["beta"][head, np.searchsorted(EDGES, gap, "right")]
                w = np.float32(math.exp(float(parameters["alpha"][head, d]) + float(beta)))
                h += w * vectors[item][part]
                total += float(w)
        parts.append(h * np.float32(1 / math.sqrt(total)) if total else h)
    return np.concatenate(parts)


def learnt(model: Model, rng: np.random.Generator) -> dict[str, F32]:
    """Random attention and context for the model; a copy of them."""
    arrays = model.parameters("sequence").arrays
    for name in ("alpha", "beta", "context"):
        arrays[name] = rng.normal(0, 1, arrays[name].shape).astype(np.float32)
    model.put_parameters(Parameters("sequence", arrays))
    return arrays


def plain(vectors: dict[int, F32], k: int) -> Model:
    """A model whose attention of the newest item is 1, so that it falls from there as .7^d and .97^d."""
    model = model_of(vectors, k)
    arrays = model.parameters("sequence").arrays
    assert arrays["alpha"][:, 0].tolist() == [1, 1]
    arrays["alpha"][:, 0] = 0
    model.put_parameters(Parameters("sequence", arrays))
    return model


def random_vectors(rng: np.random.Generator, n: int, k: int) -> dict[int, F32]:
    items = rng.integers(1, 1 << 64, n, np.uint64).tolist()
    return {item: rng.normal(0, 0.1, k).astype(np.float32) for item in items}


@pytest.mark.parametrize("k", [4, 7, 64, 100])
def test_it_is_its_twin_to_the_bit(k: int) -> None:
    rng = np.random.default_rng(k)
    vectors = random_vectors(rng, 200, k)
    pool = [*vectors, *rng.integers(1, 1 << 64, 40, np.uint64).tolist()]  # some are unknown
    rings = [[pool[at] for at in rng.integers(0, len(pool), rng.integers(0, RING + 1))] for _ in range(300)]
    gaps = [np.maximum(10 ** rng.uniform(-1, 8, len(ring)) - 3, -5).astype(int).tolist() for ring in rings]
    times = [[NOW // 1000 - gap for gap in each] for each in gaps]
    model = model_of(vectors, k)
    untaught = model.parameters("sequence").arrays
    for parameters in (untaught, learnt(model, rng)):
        model.put_parameters(Parameters("sequence", parameters))
        composed = compose(rings_of(*rings, times=times), now(300) + NOW, model)
        assert composed.dtype == np.float32
        wanted = [twin(ring, each, vectors, parameters, k) for ring, each in zip(rings, gaps, strict=True)]
        assert composed.tobytes() == np.array(wanted).tobytes()


def test_one_item_gives_its_own_vector() -> None:
    vectors = {5: np.array([1, -2, 3, 0.25], np.float32)}
    assert compose(rings_of([5]), now(1), plain(vectors, 4)).tolist() == [[1, -2, 3, 0.25]]


def test_two_items_by_hand() -> None:
    vectors = {5: np.array([1, 0, 0, 1], np.float32), 6: np.array([0, 1, 0, 2], np.float32)}
    composed = compose(rings_of([5, 6]), now(1), plain(vectors, 4))
    assert composed[0] == pytest.approx([1 / 1.7**0.5, 0.7 / 1.7**0.5, 0, 2.94 / 1.97**0.5])


def test_a_repeated_item_counts_each_time() -> None:
    vectors = {5: np.array([1, 0, 0, 1], np.float32)}
    composed = compose(rings_of([5] * RING), now(1), plain(vectors, 4))
    assert composed[0, 0] == pytest.approx(sum(0.7**d for d in range(RING)) ** 0.5)
    assert composed[0, 3] == pytest.approx(sum(0.97**d for d in range(RING)) ** 0.5)


def test_unknown_items_leave_the_others_in_their_place() -> None:
    vectors = {5: np.array([1, 0, 0, 0], np.float32), 6: np.array([0, 1, 0, 0], np.float32)}
    composed = compose(rings_of([9, 5, 8, 6]), now(1), plain(vectors, 4))
    total = 0.7 + 0.7**3
    assert composed[0] == pytest.approx([0.7 / total**0.5, 0.7**3 / total**0.5, 0, 0])


def test_a_row_without_its_own_record_is_unknown() -> None:
    model = model_of({5: np.ones(4, np.float32)}, 4)
    model.rows.row(6)  # met in another item's list
    model.sequence.e_in[model.rows.row(6)] = 7
    assert compose(rings_of([6], [6, 5]), now(2), model).tolist()[0] == [0] * 4
    model.drop(5)
    assert not compose(rings_of([5]), now(1), model).any()


def test_nothing_known_gives_zeros() -> None:
    composed = compose(rings_of([], [1, 2]), now(2), model_of({}, 4))
    assert composed.tolist() == [[0] * 4, [0] * 4]
    assert compose(rings_of(), now(0), model_of({}, 4)).shape == (0, 4)


def test_what_lies_beyond_the_length_of_a_ring_is_not_read() -> None:
    vectors = {5: np.ones(4, np.float32), 6: np.full(4, 8, np.float32)}
    rings = rings_of([5, 6, 6])
    rings.length[0] = 1
    assert compose(rings, now(1), plain(vectors, 4)).tolist() == [[1] * 4]


def test_it_does_not_depend_on_who_is_composed_beside() -> None:
    rng = np.random.default_rng(3)
    vectors = random_vectors(rng, 50, 64)
    model, pool = model_of(vectors, 64), list(vectors)
    rings = [[pool[at] for at in rng.integers(0, 50, n)] for n in range(RING + 1)]
    together = compose(rings_of(*rings), now(len(rings)), model)
    alone = [compose(rings_of(ring), now(1), model)[0] for ring in rings]
    assert together.tobytes() == np.array(alone).tobytes()


def test_it_follows_a_model_that_grows() -> None:
    vectors = {item: np.full(4, item, np.float32) for item in range(1, 100)}
    model = plain({}, 4)
    for item, x in vectors.items():
        model.put_vectors(record(item, x, 4))
        assert compose(rings_of([item]), now(1), model).tolist() == [[item] * 4]
    assert compose(rings_of([1]), now(1), model).tolist() == [[1] * 4]


def test_shares_are_what_the_places_add_to_the_embedding() -> None:
    rng = np.random.default_rng(1)
    vectors = random_vectors(rng, 20, 6)
    model = model_of(vectors, 6)
    learnt(model, rng)
    model.rows.row(77)  # met in another item's list
    taken = [[NOW // 1000 - gap for gap in (0, 59, 10**6, 10**9)], [], [5]]
    rings = rings_of([*[*vectors][:3], 99], [], [77], times=taken)
    rows = model.rows.find(rings.items)
    shares = attend(rows, rings.times, now(3) + NOW, model)
    assert shares.shape == (3, 2, RING)
    assert (shares > 0).sum(axis=2).tolist() == [[3, 3], [0, 0], [0, 0]]
    x = np.array([vectors[item] for item in rings.items[0, :3].tolist()])
    summed = np.concatenate((shares[0, 0, :3] @ x[:, :3], shares[0, 1, :3] @ x[:, 3:]))
    assert summed == pytest.approx(compose(rings, now(3) + NOW, model)[0], rel=1e-5)


def test_context_adds_what_gap_and_history_say() -> None:
    model, k = model_of({}, 4), 4
    context = learnt(model, np.random.default_rng(2))["context"]
    rings = rings_of([5, 6], [], [7], times=[[NOW // 1000 - 300, 0], [], [NOW // 1000 + 9]])
    h0 = np.random.default_rng(3).normal(0, 1, (3, k)).astype(np.float32)
    before = h0.copy()
    h = situate(h0, rings, now(3) + NOW, np.array([2, 0, 10**6]), model)
    assert h.dtype == np.float32
    assert h == pytest.approx(
        h0 + np.array([context[4] + context[11], context[10], context[0] + context[15]]), rel=1e-5
    )
    assert h0.tobytes() == before.tobytes()


def test_context_that_nobody_learned_says_nothing() -> None:
    h0 = np.ones((1, 4), np.float32)
    assert situate(h0, rings_of([5]), now(1), now(1), model_of({}, 4)).tobytes() == h0.tobytes()
