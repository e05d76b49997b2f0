"""How other libraries are asked: what the adapters say is what the libraries themselves say, on tiny streams.

They are not in the lock of the tests: `./dev test-peers` runs these where they are.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from tests.bench.peers.deeds import Deeds, deeds_of
from tests.bench.peers.loop import run
from tests.bench.peers.recipes import ENTRIES, Entry
from tests.evaluating import Did, stream

ENTRY_IDS = [f"{entry.library} {entry.name}" for entry in ENTRIES]


def tastes(events: int = 1200, seed: int = 4) -> Deeds:
    """Forty users, each of whom takes of their own eight of thirty-two items."""
    rng = np.random.default_rng(seed)
    users = rng.integers(40, size=events)
    items = (users % 4) * 8 + rng.integers(8, size=events)
    return deeds_of(stream([Did(f"u{user}", f"i{item}") for user, item in zip(users, items, strict=True)]))


def taught(peer: Any, deeds: Deeds) -> Any:
    for user, item in zip(deeds.user.tolist(), deeds.item.tolist(), strict=True):
        peer.learn(user, item)
    return peer


def adapter(library: str) -> Any:
    """The module that asks a library; skips where that is not installed."""
    pytest.importorskip(library, reason=f"{library} is not installed: ./dev test-peers runs this where it is")
    return import_module(f"tests.bench.peers.with_{library}")


@pytest.fixture(params=ENTRIES, ids=ENTRY_IDS)
def entry(request: pytest.FixtureRequest) -> Entry:
    found: Entry = request.param
    adapter(found.library)
    return found


def test_every_setting_can_be_asked(entry: Entry) -> None:
    deeds = tastes(events=130)
    for settings in entry.settings:
        found = run(entry.make(settings, 1), deeds, lambda: 0.0, repeats=True)
        assert len(found.rank) == (deeds.history > 0).sum()
        assert not np.isnan(found.rank).any()


def test_the_same_seed_gives_the_same_ranks(entry: Entry) -> None:
    deeds = tastes(events=400)
    once, again = (run(entry.make(entry.settings[0], 3), deeds, lambda: 0.0).rank for _ in range(2))
    assert once.tolist() == again.tolist()


LEARNS = [entry for entry in ENTRIES if entry.name not in {"Baseline"}]


@pytest.mark.parametrize("entry", LEARNS, ids=[f"{entry.library} {entry.name}" for entry in LEARNS])
def test_tastes_are_learned(entry: Entry) -> None:
    """With some settings the chosen item is among the first eight of 32 more often than by chance."""
    adapter(entry.library)
    deeds = tastes()
    some = entry.settings[:: -(-len(entry.settings) // 4)]
    found = [run(entry.make(settings, 1), deeds, lambda: 0.0, repeats=True) for settings in some]
    late = found[0].event > 600
    assert max(float((one.rank[late] <= 8).mean()) for one in found) > 0.35


def test_als_says_what_the_library_recommends() -> None:
    library = adapter("implicit")
    peer = taught(library.Als(8, 1.0, 10.0, 0.9, 300, 50, 1), tastes())
    model, row = peer._model, peer._taken.row(3, 32)
    ids, scores = model.recommend(0, row, N=32, filter_already_liked_items=False, recalculate_user=True)
    assert peer.scores(3, 32)[ids] == pytest.approx(scores, rel=1e-4)
    assert row.toarray()[0][int(peer._taken.of_user[3][-1])] >= 1  # the newest weighs 1


def test_als_scores_items_that_came_after_the_fit() -> None:
    library = adapter("implicit")
    peer = taught(library.Als(8, 1.0, 10.0, 1.0, 10**6, 50, 1), tastes(events=200))
    n = peer._taken.n_items
    peer.learn(3, n)
    assert np.isnan(peer.scores(3, n + 1)[n])
    for _ in range(50):
        peer.learn(3, n)
    scores = peer.scores(3, n + 1)
    assert np.isfinite(scores).all()
    assert scores[n] > 0.9  # who took it fifty times likes it


@pytest.mark.parametrize("kind", ["cosine", "tfidf", "bm25"])
def test_neighbours_say_what_the_library_recommends(kind: str) -> None:
    library = adapter("implicit")
    peer = taught(library.Neighbours(kind, 10, 0.9, 300), tastes())
    row = peer._taken.row(3, 32)
    ids, scores = peer._model.recommend(0, row, N=32, filter_already_liked_items=False)
    mine = peer.scores(3, 32)
    assert mine[ids] == pytest.approx(scores, rel=1e-6)
    assert np.isnan(np.delete(mine, ids)).all()


@pytest.mark.parametrize("kind", ["baseline", "funk", "biased"])
def test_river_says_what_it_predicts(kind: str) -> None:
    library = adapter("river")
    peer = taught(library.River(kind, 0 if kind == "baseline" else 4, 0.1, 0.01, 3, 1), tastes())
    predicted = np.array([peer._model.predict_one(3, item) for item in range(32)])
    scores = peer.scores(3, 32)
    assert scores - scores[0] == pytest.approx(predicted - predicted[0])  # but for what is the same for all items


def test_flurs_says_what_it_recommends() -> None:
    library = adapter("flurs")
    entity = import_module("flurs.data.entity")
    for peer in (library.mf(k=4, rate=0.1, l2=0.01, seed=1), library.bpr(k=4, rate=0.1, l2=0.01, updates=2, seed=1)):
        taught(peer, tastes())
        ordered, _ = peer._recommender.recommend(entity.User(3), np.arange(32))
        scores = peer.scores(3, 32)
        assert scores is not None
        assert np.diff(scores[ordered]).max() <= 0


def test_the_machine_scores_by_its_equation() -> None:
    library = adapter("flurs")
    entity = import_module("flurs.data.entity")
    peer = taught(library.fm(k=4, rate=0.05, l2_w=0.01, l2_v=0.01, seed=1), tastes(events=300))
    one = peer._recommender
    scores = peer.scores(3, one.n_item)
    assert scores is not None
    for item in range(one.n_item):
        x = entity.Event(entity.User(3), entity.Item(item)).encode(index=True, n_user=one.n_user, n_item=one.n_item)
        pairs = ((one.V.T @ x) ** 2 - (one.V.T**2) @ x**2).sum() / 2  # Rendle 2010, equation 5
        assert scores[item] == pytest.approx(-abs(1 - (one.w0 + one.w @ x + pairs)))
