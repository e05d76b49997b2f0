"""Rankers: from the candidates' features to their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.queries import Queries
from pipeline.types import F32, Owner, Rows


class Feature(Protocol):
    """A finite column; one row's value does not depend on the other rows."""

    @property
    def name(self) -> str:
        """What it is called in a feed's `parts`."""

    @property
    def floor(self) -> float:
        """Its value for an item of which it knows nothing."""

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:
        """(c,) the value of each candidate."""


class Ranker(Protocol):
    """Scores candidates, and says what a score is made of."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the f parts of a score."""

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:
        """(c,) finite scores; greater is better."""

    def parts(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:
        """(f, c) what each part adds to the score, at least 0."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """s_j = sum_f weight_f (x_f(j) - floor_f): 0 for an item of which nothing is known."""

    terms: tuple[tuple[Feature, float], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """(f) of the features, in the order of `parts`."""
        return tuple(feature.name for feature, _ in self.terms)

    def __call__(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:
        """(c,) scores."""
        scores = np.full(len(rows), -sum(weight * feature.floor for feature, weight in self.terms), np.float32)
        for feature, weight in self.terms:
            scores += np.float32(weight) * feature(queries, catalog, model, rows, owner)
        return scores

    def parts(self, queries: Queries, catalog: Catalog, model: Model, rows: Rows, owner: Owner) -> F32:
        """(f, c) what each feature adds to the score, at least 0: above an item without that evidence."""
        return np.array([
            np.maximum(weight * (feature(queries, catalog, model, rows, owner) - feature.floor), 0)
            for feature, weight in self.terms
        ], np.float32).reshape(len(self.terms), len(rows))  # fmt: skip
