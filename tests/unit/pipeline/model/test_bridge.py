"""The bridge against a plain ridge regression that remembers everything, and what learning makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model import bridge as bridges
from pipeline.model.bridge import ENOUGH, EVERY, FADE, RIDGE, ROWS, SETTLED, Bridge, Builder
from pipeline.model.rows import ItemRows
from pipeline.types import F32
from tests.retrieving import K, entry, vectors

D = 16


class Town:
    """Items with content and vectors, and who learns the bridge between both."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        rows = ItemRows(16)
        self.model, self.catalog = Model(rows, K, D), Catalog(rows, dimension=D)
        self.truth = self.rng.standard_normal((D + 1, K + 1)).astype(np.float32)
        self.builder = Builder(self.model.bridge)

    def item(self, name: str, taken: float = ENOUGH, noise: float = 0.0, described: bool = True) -> int:
        content = self.rng.standard_normal(D)
        content = (content / np.linalg.norm(content)).astype(np.float32)
        none = np.empty(0, np.float32)
        row = self.catalog.put(entry(name, content=content if described else none))
        y = np.append(content, 1) @ self.truth + noise * self.rng.standard_normal(K + 1)
        self.model.put_vectors(vectors(name, count=taken, e_out=y[:-1].astype(np.float32), bias=float(y[-1])))
        return row

    def learn(self, steps: int, slices: int = 1) -> None:
        for _ in range(steps * slices):
            known = self.catalog.content, self.catalog.described
            self.builder.learned(EVERY // slices, *known, self.model.sequence, self.model.trends.count)

    def met(self) -> tuple[F32, F32]:
        """Content with a 1, and vectors, of all items in their order."""
        n = len(self.catalog)
        x: F32 = np.column_stack((self.catalog.content[:n], np.ones(n)))
        return x, np.column_stack((self.model.sequence.e_out[:n], self.model.sequence.bias[:n]))


def twin(batches: list[tuple[F32, F32]]) -> F32:
    """Weighted least squares with a ridge, by stacking everything that was ever met."""
    fade = [FADE ** ((len(batches) - 1 - at) / 2) for at in range(len(batches))]
    x = np.concatenate([weight * x for weight, (x, _) in zip(fade, batches, strict=True)])
    y = np.concatenate([weight * y for weight, (_, y) in zip(fade, batches, strict=True)])
    ridge = np.sqrt(RIDGE) * np.eye(x.shape[1])
    found: F32 = np.linalg.lstsq(np.vstack((x, ridge)), np.vstack((y, 0 * ridge[:, : y.shape[1]])))[0]
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(5, ROWS), st.integers(1, 12))
def test_the_bridge_is_its_twin(seed: int, items: int, steps: int) -> None:
    town = Town(seed)
    for at in range(items):
        town.item(f"i{at}", noise=1.0)
    batches = []
    for _ in range(steps):
        town.learn(1)
        batches.append(town.met())
        town.model.sequence.e_out[:items] += town.rng.standard_normal((items, K))  # vectors go on moving
    found = town.model.bridge.export_parameters()["map"]
    if steps * items < SETTLED:
        assert not found.any()
    else:
        np.testing.assert_allclose(found, twin(batches), rtol=1e-3, atol=1e-3)


def test_new_items_are_foretold() -> None:
    town = Town()
    for at in range(400):
        town.item(f"i{at}", noise=0.1)
    assert not town.model.bridge.built
    town.learn(30)
    content = town.rng.standard_normal((50, D))
    content = (content / np.linalg.norm(content, axis=1, keepdims=True)).astype(np.float32)
    truth = np.column_stack((content, np.ones(50))) @ town.truth
    foretold = town.model.bridge.vectors(content)
    assert np.square(foretold - truth).mean() < 0.02 * np.square(truth).mean()


def test_items_are_met_in_turn() -> None:
    town = Town()
    for at in range(ROWS + ROWS // 2):
        town.item(f"i{at}", noise=1.0)
    known = np.arange(ROWS + ROWS // 2)
    times = np.zeros(len(known), np.int64)
    for _ in range(3):
        times[town.builder._in_turn(known)] += 1
    assert times.tolist() == [2] * len(known)
    assert town.builder._in_turn(known[:7]).tolist() == known[:7].tolist()
    assert town.builder._in_turn(known[:0]).tolist() == []


def test_only_items_that_say_something_and_were_taken_are_learned_from() -> None:
    town = Town()
    for at in range(40):
        town.item(f"i{at}")
        town.item(f"rare{at}", taken=ENOUGH - 1, noise=100)
        town.item(f"mute{at}", described=False, noise=100)
        town.catalog.put(entry(f"unknown{at}", content=np.ones(D, np.float32) / 4))
    town.learn(20)
    alone = Town()
    for at in range(40):
        row = town.catalog.rows.row(entry(f"i{at}").hash)
        alone.catalog.put(entry(f"i{at}", content=town.catalog.content[row]))
        alone.model.put_vectors(town.model.vectors(row))
    alone.learn(20)
    assert town.model.bridge.built
    for key, array in town.model.bridge.export_parameters().items():
        np.testing.assert_array_equal(array, alone.model.bridge.export_parameters()[key])


def test_what_is_not_finite_is_passed_over() -> None:
    town = Town()
    rows = [town.item(f"i{at}") for at in range(60)]
    town.model.sequence.e_out[rows[3]] = np.nan
    town.model.sequence.bias[rows[4]] = np.inf
    town.model.sequence.e_out[rows[5]] = 1e30
    town.learn(20)
    assert town.model.bridge.built
    assert np.isfinite(town.model.bridge.export_parameters()["map"]).all()


@pytest.mark.parametrize("slices", [2, 64, EVERY])
def test_slices_make_the_same_bridge(slices: int) -> None:
    whole, sliced = Town(3), Town(3)
    for town in (whole, sliced):
        for at in range(200):
            town.item(f"i{at}", noise=0.5)
    whole.learn(6)
    sliced.learn(6, slices)
    np.testing.assert_array_equal(
        whole.model.bridge.export_parameters()["map"], sliced.model.bridge.export_parameters()["map"]
    )
    assert whole.builder.left() == sliced.builder.left() == EVERY


def test_parameters_are_copies() -> None:
    bridge = Bridge(K, D)
    given = {"map": np.ones((D + 1, K + 1), np.float32)}
    bridge.put_parameters(given)
    given["map"][:] = 7
    bridge.export_parameters()["map"][:] = 7
    assert bridge.built
    assert (bridge.vectors(np.zeros((1, D), np.float32)) == 1).all()


def test_nothing_to_learn_from_is_no_bridge() -> None:
    town = Town()
    town.learn(3)
    assert not town.model.bridge.built
    assert bridges.SETTLED > 0
