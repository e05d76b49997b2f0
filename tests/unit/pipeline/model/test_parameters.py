"""Parameters of parts: what fits is taken over, what changed is due within the budget, what is broken is mended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.model import Model
from pipeline.model.parameters import Announced, UnfitError
from pipeline.model.rows import ItemRows
from pipeline.types import Parameters

PLENTY = 1 << 40


class Toy:
    """A part with two arrays, 24 bytes."""

    def __init__(self) -> None:
        self.weights = np.zeros((2, 2), np.float32)
        self.steps = np.zeros((), np.int64)

    def export_parameters(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights.copy(), "steps": self.steps.copy()}

    def put_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.weights, self.steps = arrays["weights"], arrays["steps"]


def model_with(toy: Toy) -> Model:
    model = Model(ItemRows(16), 4)
    model.parts["toy"] = toy
    return model


def names(announced: Announced, budget: int = PLENTY) -> list[str]:
    return [record.name for record in announced.due(budget)]


def test_what_one_model_has_another_takes_over() -> None:
    here, there = Toy(), Toy()
    here.weights[0, 1], here.steps[...] = 2.5, 7
    model_with(there).put_parameters(model_with(here).parameters("toy"))
    assert there.weights.tolist() == [[0, 2.5], [0, 0]]
    assert there.steps == 7
    there.weights += 1  # a copy of its own
    assert here.weights[0, 1] == 2.5


def test_records_of_other_versions_give_what_they_have() -> None:
    toy = Toy()
    model = model_with(toy)
    model.put_parameters(Parameters("unheard of", {"x": np.ones(3)}))
    model.put_parameters(Parameters("toy", {"steps": np.array(3), "later": np.array([np.nan])}))
    assert not toy.weights.any()
    assert toy.steps == 3
    model.put_parameters(Parameters("toy", {"weights": np.ones((2, 2), np.float16)}))
    assert toy.weights.dtype == np.float32
    assert toy.weights.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.ones(4, np.float32), r"toy: expected weights to be float32 \(2, 2\), found float32 \(4,\)"),
        (np.ones((2, 2), np.float64), "found float64"),
        (np.full((2, 2), np.nan, np.float32), "expected finite numbers, found others in weights"),
        (np.full((2, 2), np.inf, np.float32), "finite"),
    ],
)
def test_what_does_not_fit_changes_nothing(given: NDArray[Any], said: str) -> None:
    toy = Toy()
    with pytest.raises(UnfitError, match=said):
        model_with(toy).put_parameters(Parameters("toy", {"steps": np.array(3), "weights": given}))
    assert toy.steps == 0
    assert not toy.weights.any()


def test_what_changed_is_due_once() -> None:
    toy, other = Toy(), Toy()
    announced = Announced({"toy": toy, "other": other})
    assert names(announced) == []
    toy.weights[0, 0] = 1
    (record,) = announced.due(PLENTY)
    assert (record.name, record.arrays["weights"][0, 0]) == ("toy", 1)
    assert names(announced) == []
    toy.weights[0, 0] = 0
    assert names(announced) == ["toy"]


def test_a_record_is_as_it_was_when_it_was_made() -> None:
    toy = Toy()
    announced = Announced({"toy": toy})
    toy.weights[0, 0] = 1
    (record,) = announced.due(PLENTY)
    toy.weights[0, 0] = 5
    assert record.arrays["weights"][0, 0] == 1


def test_a_large_part_waits_until_it_has_saved_enough() -> None:
    toy = Toy()
    announced = Announced({"toy": toy})
    due = []
    for _ in range(9):
        toy.steps += 1
        due.append(names(announced, 32))  # a quarter of it, 8 bytes, is a third of the part
    assert due == [[], [], ["toy"]] * 3
    assert names(announced, 0) == []


def test_nothing_is_saved_by_what_did_not_change() -> None:
    toy = Toy()
    announced = Announced({"toy": toy})
    assert [names(announced, 32) for _ in range(9)] == [[]] * 9
    toy.steps += 1
    assert names(announced, 32) == []


def test_what_was_followed_is_not_due_and_what_was_written_over_is() -> None:
    toy = Toy()
    model = model_with(toy)
    announced = Announced(model.parts)
    record = Parameters("toy", {"steps": np.array(3)})
    model.put_parameters(record)
    announced.follow(record)
    announced.follow(Parameters("unheard of", {}))
    assert names(announced) == []
    announced.again("toy")
    announced.again("unheard of")
    assert names(announced) == ["toy"]
    assert names(announced) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_becomes_what_was_published_last(bad: float) -> None:
    toy = Toy()
    announced = Announced({"toy": toy, "sound": Toy()})
    toy.weights[0, 0] = 1
    assert names(announced) == ["toy"]
    toy.weights[1, 1], toy.weights[0, 0] = bad, 9
    assert announced.mend() == 1
    assert toy.weights.tolist() == [[1, 0], [0, 0]]
    assert names(announced) == []
    toy.weights[0, 0] = bad  # what it was given back is its own copy
    assert announced.mend() == 1
    assert toy.weights[0, 0] == 1
