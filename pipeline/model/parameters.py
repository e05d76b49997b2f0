"""Parameters: what parts of the model have learned beside their rows, a few arrays a part, one `#<name>` record each.

A part with parameters stands in `Model.parts` under its name. `Announced` tells the trainer whose parameters differ
from what followers have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Parameters

SHARE = 0.25  # of a flush's budget may go to parameters; a part that is larger waits until it has saved enough


class UnfitError(ValueError):
    """Parameters that are not for this model: of another dimension, another list of features, or not finite."""


class Part(Protocol):
    """A part of the model that has parameters. Their names and shapes stay the same while it lives."""

    def export_parameters(self) -> dict[str, NDArray[Any]]:
        """Copies of all its parameters by name."""

    def put_parameters(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take all of them over: names, shapes and kinds are those of `export_parameters`."""


def put(name: str, part: Part, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Give `part` those of `arrays` that it has. Raises UnfitError, and changes nothing, if one does not fit.

    Arrays that the part does not have are passed over, those that are missing stay as they are: a record may be of
    another version.
    """
    fitting = part.export_parameters()
    for key in fitting.keys() & arrays.keys():
        mine, given = fitting[key], arrays[key]
        if given.shape != mine.shape or not np.can_cast(given.dtype, mine.dtype):
            expected, found = f"{mine.dtype} {mine.shape}", f"{given.dtype} {given.shape}"
            raise UnfitError(f"parameters of {name}: expected {key} to be {expected}, found {found}")
        if not np.isfinite(given).all():
            raise UnfitError(f"parameters of {name}: expected finite numbers, found others in {key}")
        fitting[key] = given.astype(mine.dtype)
    part.put_parameters(fitting)


class Announced:
    """The parameters of every part as followers have them: those of a fresh model, then what was published."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._last = {name: part.export_parameters() for name, part in parts.items()}
        self._stale = set[str]()  # written over by someone else: due whether they changed or not
        self._saved = dict.fromkeys(parts, 0.0)  # bytes of budgets

    def mend(self) -> int:
        """Parameters that are not finite become again what was published last; returns how many parts had such."""
        broken = [name for name, part in self._parts.items() if not _finite(part.export_parameters())]
        for name in broken:
            last = {key: array.copy() for key, array in self._last[name].items()}
            self._parts[name].put_parameters(last)
        return len(broken)

    def due(self, budget: int) -> Iterator[Parameters]:
        """What differs and the budget allows, each as it stands when it is asked for; from then on it is published."""
        for name, part in self._parts.items():
            arrays = part.export_parameters()
            if name not in self._stale and not _differ(arrays, self._last[name]):
                continue
            size = sum(array.nbytes for array in arrays.values())
            self._saved[name] += SHARE * budget
            if self._saved[name] >= size and budget > 0:
                self._saved[name] = 0
                self._stale.discard(name)
                self._last[name] = arrays
                yield Parameters(name, arrays)

    def follow(self, record: Parameters) -> None:
        """Someone published these, and they were taken over."""
        if record.name in self._parts:
            self._last[record.name] = self._parts[record.name].export_parameters()
            self._stale.discard(record.name)

    def again(self, name: str) -> None:
        """Someone wrote over the record: it is due."""
        if name in self._parts:
            self._stale.add(name)


def _finite(arrays: Mapping[str, NDArray[Any]]) -> bool:
    return all(np.isfinite(array).all() for array in arrays.values())


def _differ(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    return any(not np.array_equal(one[key], other[key]) for key in one)
