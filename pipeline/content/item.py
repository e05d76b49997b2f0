"""What an item says of itself, and the features that encoders make of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.types import F32, U64

_YEAR = re.compile(r"\(((?:1[5-9]|20)\d\d)\)")

Fact = str | int | float | bool | tuple[str, ...] | None  # the value of an item's attribute


@dataclass(frozen=True, slots=True)
class Given:
    """A vector that the item's publisher computed."""

    model: str  # what computed it: vectors of different models are never compared
    values: F32  # (d,) finite


@dataclass(frozen=True, slots=True)
class Content:
    """An item as encoders read it; everything may be missing."""

    hash: int  # of the item's id
    title: str = ""
    text: str = ""
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    creator_id: str = ""
    price: float | None = None
    currency: str = ""
    published_at: int = 0  # ms, 0 = not said
    attributes: Mapping[str, Fact] = field(default_factory=dict)
    vectors: Mapping[str, Given] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Its finite numbers by name: price (a currency each), time of publishing, numeric attributes (not booleans),
        and a year that the title names in brackets, as those of films and books do."""
        found = {"published_at": float(self.published_at)} if self.published_at else {}
        year = _YEAR.search(self.title)
        if year is not None:
            found["year"] = float(year[1])
        if self.price is not None:
            found[f"price {self.currency}"] = float(self.price)
        for name, value in self.attributes.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[f"attribute {name}"] = float(value)
        return {name: number for name, number in found.items() if math.isfinite(number)}


@dataclass(frozen=True, slots=True)
class Features:
    """A sparse vector over an unbounded space: distinct keys, ascending, and their values."""

    keys: U64  # (m,)
    values: F32  # (m,)

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def of(keys: U64, values: F32) -> Features:
        """The features of `keys` (m,) in any order; the values of a key that is there several times are summed."""
        distinct, place = np.unique(keys, return_inverse=True)
        return Features(distinct, np.bincount(place, values, len(distinct)).astype(np.float32))


NOTHING = Features(np.empty(0, np.uint64), np.empty(0, np.float32))
