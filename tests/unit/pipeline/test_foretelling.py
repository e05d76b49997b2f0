"""New items begin where their content says, once the bridge is built."""

from __future__ import annotations

import numpy as np

from pipeline.catalog import Catalog
from pipeline.learning import Learner
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.types import CONTENT, F32
from tests.retrieving import entry
from tests.unit.pipeline.test_learning import K, deeds, lessons, parameters, part, published, same

_DEEDS = deeds(4, 4000, items=100, users=40)


def content_of(item: str) -> F32:
    vector = np.random.default_rng(int(item.removeprefix("i"))).standard_normal(CONTENT)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def school() -> Learner:
    """Every item says something but for the even ones beyond 1,000."""
    model = Model(ItemRows(16), K)
    catalog = Catalog(model.rows)
    for item in [f"i{at}" for at in range(100)] + ["i1001", "i1003"]:
        catalog.put(entry(item, content=content_of(item)))
    catalog.put(entry("i1002"))
    return Learner(model, 1, 10, catalog)


def test_new_items_begin_where_their_content_says() -> None:
    learner, plain = school(), Learner(Model(ItemRows(16), K), 1, 10)
    for one in (learner, plain):
        one.learn(lessons(_DEEDS))
    assert learner.model.bridge.built
    assert not plain.model.bridge.built
    row = int(learner.model.rows.row(entry("i1001").hash))
    learner._foretell(learner.model.sequence.begin(np.array([row, row])))
    foretold = learner.model.bridge.vectors(content_of("i1001")[None])[0]
    np.testing.assert_allclose(learner.model.sequence.e_out[row], foretold[:-1], atol=1e-6)
    np.testing.assert_allclose(learner.model.sequence.bias[row], foretold[-1], atol=1e-6)
    mute = int(learner.model.rows.row(entry("i1002").hash))
    learner._foretell(learner.model.sequence.begin(np.array([mute])))
    assert learner.model.sequence.bias[mute] == 0
    assert 0 < np.abs(learner.model.sequence.e_out[mute]).max() < 0.5


def test_slices_make_the_same_model_also_where_content_is_known() -> None:
    stream = [*_DEEDS, (1, "i1001"), (2, "i1002"), (3, "i1003"), *deeds(5, 600, items=100, users=40)]
    whole = lessons(stream)
    together = school()
    together.learn(whole)
    records = list(together.sweep())
    want = published(records)
    assert parameters(records)["bridge"].arrays["map"].any()
    for size in (97, 256):
        sliced = school()
        for begin in range(0, len(stream), size):
            sliced.learn(part(whole, begin, begin + size))
        got = published(sliced.sweep())
        assert got.keys() == want.keys()
        assert all(same(got[key], want[key]) for key in want)
