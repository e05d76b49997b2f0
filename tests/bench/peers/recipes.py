"""What of each library is tried: on each data set the settings with the best recall are kept.

Grids are around what the libraries' documentation and papers use. A best setting at the edge of its grid means that the
grid is too narrow: widen it before the figure is quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import Any

from tests.bench.peers.loop import Peer

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer in the contest."""

    library: str
    name: str
    settings: tuple[Settings, ...]
    maker: str  # module of this folder : function

    @property
    def installed(self) -> bool:
        """Can it be made here?"""
        return find_spec(self.library) is not None

    def make(self, settings: Settings, seed: int) -> Peer:
        """A new one. Imports the library."""
        module, _, function = self.maker.partition(":")
        peer: Peer = getattr(import_module(f"{__package__}.{module}"), function)(**settings, seed=seed)
        return peer


def grid(**values: tuple[Any, ...]) -> tuple[Settings, ...]:
    """Every combination."""
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


ENTRIES = (
    Entry(
        "implicit",
        "ALS, refits and fold-in",
        grid(factors=(32, 64), regularization=(10.0, 30.0, 100.0), alpha=(3.0, 10.0, 40.0), decay=(0.9, 0.7, 0.5))
        + grid(factors=(64,), regularization=(3.0, 10.0, 30.0), alpha=(100.0, 300.0), decay=(0.7, 0.5, 0.3))
        + grid(factors=(64, 128), regularization=(10.0, 30.0), alpha=(1000.0,), decay=(0.3, 0.2)),
        "with_implicit:als",
    ),
    Entry(
        "implicit",
        "item neighbours, refits",
        grid(kind=("cosine", "tfidf", "bm25"), k=(50, 100, 300, 1000), decay=(1.0, 0.9, 0.7, 0.5))
        + grid(kind=("cosine", "tfidf", "bm25"), k=(50, 100), decay=(0.3,)),
        "with_implicit:neighbours",
    ),
    Entry("river", "Baseline", grid(rate=(0.01, 0.05, 0.2), negatives=(1, 5), loss=("log",)), "with_river:baseline"),
    Entry(
        "river",
        "FunkMF",
        grid(factors=(64,), rate=(0.05, 0.1, 0.2, 0.4), l2=(0.0, 0.01), negatives=(1, 3, 10, 20)),
        "with_river:funk",
    ),
    Entry(
        "river",
        "BiasedMF",
        grid(factors=(64,), rate=(0.1, 0.2, 0.4), l2=(0.0, 0.01), negatives=(5, 10, 20, 40), loss=("log",)),
        "with_river:biased",
    ),
    Entry("flurs", "MF", grid(k=(40, 100), rate=(0.03, 0.1, 0.2), l2=(0.01, 0.1, 0.2)), "with_flurs:mf"),
    Entry("flurs", "BPR-MF", grid(k=(40,), rate=(0.03, 0.1), l2=(0.0, 0.01), updates=(10, 20)), "with_flurs:bpr"),
    Entry("flurs", "FM", grid(k=(40,), rate=(0.004, 0.02), l2_w=(0.01, 8.0), l2_v=(0.01, 16.0)), "with_flurs:fm"),
)
