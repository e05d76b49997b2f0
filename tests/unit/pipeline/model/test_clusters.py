"""Taste clusters: like a plain twin, on planted clusters, on vectors that say nothing; and what a cluster is about."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.clusters import MEMORY, STARVED, Clusters, typical
from pipeline.types import F32

K, D = 4, 8


def planted(seed: int, n: int, noise: float = 0.2) -> tuple[F32, list[int]]:
    """Vectors of any length around K directions, and whose they are."""
    rng = np.random.default_rng(seed)
    mine = rng.integers(0, K, n)
    vectors = np.eye(D)[mine] + rng.normal(0, noise, (n, D)) / math.sqrt(D)
    return (vectors * rng.uniform(0.1, 10, (n, 1))).astype(np.float32), mine.tolist()


def begun(seed: int = 1) -> Clusters:
    clusters = Clusters(D, K)
    clusters.learn(planted(seed, 200)[0])
    return clusters


def twin(means: list[list[float]], counts: list[float], batch: F32) -> tuple[list[list[float]], list[float]]:
    """A mini-batch, vector by vector."""
    units = [[x / math.hypot(*v) for x in v] for v in batch.tolist() if any(v) and all(map(math.isfinite, v))]
    members: list[list[list[float]]] = [[] for _ in means]
    worst, least = None, math.inf
    for unit in units:
        fits = [sum(a * b for a, b in zip(unit, m, strict=True)) / max(math.hypot(*m), 1e-30) for m in means]
        best = max(range(len(means)), key=lambda c: fits[c])
        members[best].append(unit)
        if fits[best] < least:
            worst, least = unit, fits[best]
    if worst is None:
        return means, counts
    fading = max(1 - len(units) / (MEMORY * len(means)), 0.5)
    new_means, new_counts = [], []
    for mean, count, mine in zip(means, counts, members, strict=True):
        n = min(count * fading + len(mine), MEMORY)
        centre = [sum(column) / len(mine) for column in zip(*mine, strict=True)] if mine else mean
        pace = min(len(mine), MEMORY) / max(n, 1)
        new_means.append([m + pace * (c - m) for m, c in zip(mean, centre, strict=True)])
        new_counts.append(n)
    c = min(range(len(new_counts)), key=lambda c: new_counts[c])
    if new_counts[c] < STARVED * sum(new_counts) / len(new_counts):
        new_means[c], new_counts[c] = worst, 1.0
    return new_means, new_counts


def compare(clusters: Clusters, batch: F32) -> None:
    before = clusters.export_parameters()
    means, counts = twin(before["means"].tolist(), before["counts"].tolist(), batch)
    clusters.learn(batch)
    after = clusters.export_parameters()
    np.testing.assert_allclose(after["means"], means, atol=1e-5)
    np.testing.assert_allclose(after["counts"], counts, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 100, 4000])
def test_batches_like_the_twin(size: int) -> None:
    clusters = begun()
    for seed in range(3):
        compare(clusters, planted(seed, size, 1.0)[0])


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-4, 1e4]), min_size=D, max_size=D).map(tuple), max_size=20
    )
)
def test_odd_batches_like_the_twin(rows: list[tuple[float, ...]]) -> None:
    """Axes and diagonals in any number and order, zeros among them. Equal fits are left out: either cluster will do."""
    batch = np.array([*rows], np.float32).reshape(-1, D)
    clusters = begun()
    units = batch / np.maximum(np.linalg.norm(batch, axis=1, keepdims=True), 1e-30)
    means = clusters.export_parameters()["means"]
    fits = np.sort(units @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T, axis=1)
    batch = batch[(fits[:, -1] - fits[:, -2] > 1e-5) | ~batch.any(axis=1)]
    best = np.sort(fits[:, -1])
    if len(best) < 2 or best[1] - best[0] > 1e-5:
        compare(clusters, batch)


def test_a_starved_cluster_begins_anew_where_an_item_fits_worst() -> None:
    clusters = begun()
    clusters.put_parameters({**clusters.export_parameters(), "counts": np.array([1000, 1000, 1, 1000], np.float32)})
    stranger = -np.ones((1, D), np.float32)
    few, _ = planted(3, 30, 0.01)
    away = few[clusters.of(few) != 2]
    compare(clusters, np.concatenate((away, stranger)))
    assert clusters.of(stranger).tolist() == [2]


def test_planted_clusters_are_found_and_stay_what_they_are() -> None:
    clusters = begun()
    vectors, mine = planted(7, 400)
    first = clusters.of(vectors).tolist()
    assert len(set(zip(mine, first, strict=True))) == K == len(set(first))
    for seed in range(20):
        clusters.learn(planted(seed, 50)[0])
    assert clusters.of(vectors).tolist() == first


def test_they_follow_vectors_that_wander() -> None:
    clusters, vectors = begun(), planted(7, 400)[0]
    first = clusters.of(vectors)
    angle = math.pi / 60
    turn = np.eye(D, dtype=np.float32)
    turn[np.ix_((0, 7), (0, 7))] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    for _ in range(30):  # the first of the directions goes to where none was
        vectors = (vectors @ turn).astype(np.float32)
        clusters.learn(vectors)
    np.testing.assert_array_equal(clusters.of(vectors), first)


def test_there_are_none_before_there_are_items_enough() -> None:
    clusters = Clusters(D, K)
    vectors, _ = planted(1, 4 * K - 1)
    clusters.learn(vectors)
    assert not clusters.begun
    assert clusters.of(vectors).tolist() == [-1] * len(vectors)
    clusters.learn(planted(1, 4 * K)[0])
    assert clusters.begun


def test_vectors_that_say_nothing_say_nothing() -> None:
    clusters = begun()
    nothing = np.zeros((3, D), np.float32)
    broken = np.full((2, D), np.nan, np.float32)
    before = clusters.export_parameters()
    clusters.learn(np.concatenate((nothing, broken, np.full((1, D), np.inf, np.float32))))
    clusters.learn(np.empty((0, D), np.float32))
    for name, array in clusters.export_parameters().items():
        np.testing.assert_array_equal(array, before[name])
    assert clusters.of(nothing).tolist() == [-1, -1, -1]


def test_one_vector_many_times() -> None:
    clusters = Clusters(D, K)
    for _ in range(5):
        clusters.learn(np.ones((50, D), np.float32))
    arrays = clusters.export_parameters()
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert len(set(clusters.of(np.ones((9, D), np.float32)).tolist())) == 1


def test_parameters_go_round() -> None:
    one, other = begun(), Clusters(D, K)
    other.put_parameters(one.export_parameters())
    batch, _ = planted(9, 60, 1.0)
    np.testing.assert_array_equal(one.of(batch), other.of(batch))
    one.learn(batch)
    other.learn(batch)
    np.testing.assert_array_equal(one.export_parameters()["means"], other.export_parameters()["means"])


DRAMA, CRIME, KIDS, RARE = 11, 22, 33, 44


def test_what_is_typical_is_common_here_and_rare_elsewhere() -> None:
    pairs = [DRAMA, CRIME], [DRAMA, CRIME], [DRAMA, RARE], [DRAMA, KIDS], [DRAMA, KIDS], [KIDS, 0], [RARE, RARE]
    marks = np.repeat(np.array(pairs, np.uint64), 20, axis=0)
    cluster = np.repeat(np.array([0, 0, 0, 1, 1, 1, -1]), 20)
    # In 0: drama 3/3 of 5/6 overall, crime 2/3 of 1/3, rare 1/3 of 1/6; in 1: kids 3/3 of 1/2, drama less than overall.
    assert typical(cluster, marks, 3) == [[CRIME, RARE], [KIDS], []]
    assert typical(cluster, marks, 2, most=3) == [[CRIME, RARE, DRAMA], [KIDS]]


def test_a_word_that_one_of_few_bears_or_that_fits_nearly_everything_is_no_name() -> None:
    """Of five items one bears a word that a twentieth of all bear; of 60 a few more are of crime than elsewhere."""
    marks = np.zeros((265, 1), np.uint64)
    cluster = np.repeat([0, 1, 2], [5, 60, 200])
    marks[0] = marks[65:77] = RARE
    marks[5:35] = marks[77:157] = CRIME
    assert typical(cluster, marks, 3) == [[], [], []]
    marks[5:55] = CRIME
    assert typical(cluster, marks, 3) == [[], [CRIME], []]


@pytest.mark.parametrize("n", [0, 3])
def test_without_marks_nothing_is_typical(n: int) -> None:
    assert typical(np.zeros(n, np.int64), np.zeros((n, 8), np.uint64), 2) == [[], []]
