"""Plain twins of the learning kernels: the same mathematics, one event at a time, no kernel and no cleverness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.types import F32, F64

L = 30
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
T = 30 * 86_400_000


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def draw(seed: int, at: int) -> int:
    return mix((seed + (at + 1) * GOLDEN) & MASK)


def normals(seed: int, k: int) -> F64:
    """N(0, .1) by Box and Muller."""
    out = np.empty(k)
    for at in range(k):
        bits = draw(seed, at)
        radius, angle = ((bits >> 32) + 1) / 2**32, (bits & 0xFFFFFFFF) / 2**32
        out[at] = 0.1 * math.sqrt(-2 * math.log(radius)) * math.cos(2 * math.pi * angle)
    return out


@dataclass
class Vectors:
    """What a twin keeps of an item."""

    e_in: F64
    e_out: F64
    bias: float = 0.0
    g_in: float = 1e-6
    g_out: float = 1e-6
    g_bias: float = 1e-6


@dataclass
class SequenceTwin:
    """Items by hash, in the order of becoming known. float64."""

    k: int
    items: dict[int, Vectors] = field(default_factory=dict)

    def embedding(self, history: Sequence[int]) -> tuple[F64, float]:
        known = [(0.9**d, self.items[item].e_in) for d, item in enumerate(history) if item in self.items]
        if not known:
            return np.zeros(self.k), 0.0
        s = sum(w for w, _ in known) ** -0.5
        return s * np.sum([w * e for w, e in known], axis=0), s

    def negatives(self, target: int, seed: int, n: int, consumed: set[int]) -> list[int]:
        pool = list(self.items)
        drawn = [pool[((draw(seed, at) >> 32) * len(pool)) >> 32] for at in range(n if pool else 0)]
        return [item for item in drawn if item != target and item & 0xFFFFFFFF not in consumed]

    def learn(self, target: int, history: Sequence[int], weight: float, seed: int, n: int, consumed: set[int]) -> None:
        negatives = self.negatives(target, seed, n, consumed)
        fresh = Vectors(normals(target, self.k), normals(mix(target), self.k))
        mine = self.items.get(target, fresh)
        chosen = [mine] + [self.items[item] for item in negatives]
        h, s = self.embedding(history)
        z = np.array([h @ item.e_out + item.bias for item in chosen])
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        c = weight * ((np.arange(len(chosen)) == 0) - p)
        gh = np.sum([pull * item.e_out for pull, item in zip(c, chosen, strict=True)], axis=0)
        for pull, item in zip(c, chosen, strict=True):
            item.g_out += pull**2 * (h @ h) / self.k
            item.e_out = item.e_out + 0.1 / math.sqrt(item.g_out) * pull * h
            item.g_bias += pull**2
            item.bias += 0.1 / math.sqrt(item.g_bias) * pull
        for d, name in enumerate(history):
            if name in self.items:
                item, share = self.items[name], s * 0.9**d
                item.g_in += share**2 * (gh @ gh) / self.k
                item.e_in = item.e_in + 0.1 / math.sqrt(item.g_in) * share * gh
        self.items.setdefault(target, mine)


A, B, F, F1 = range(4)
KEPT, ROOM = (128, 128, 64, 64), (192, 192, 96, 96)


class CovisitationTwin:
    """Lists as dicts, in the order of insertion. Rounds to float32 where the kernel does, so as to prune the same."""

    def __init__(self) -> None:
        self.lists: dict[tuple[int, int], dict[int, np.float32]] = {}
        self.reference = 0

    def learn(self, target: int, history: Sequence[int], time: int, weight: float) -> None:
        self.reference = self.reference or max(time, 1)
        share = np.float32(weight * 2 ** ((time - self.reference) / T))
        for d, item in enumerate(history):
            q = np.float32(0.9**d)
            self.add(item, A, target, share * q)
            if item != target:
                self.add(target, B, item, share * q)
            if d < 5:
                self.add(item, F, target, share * np.float32(0.6**d))
            if d == 0:
                self.add(item, F1, target, share)

    def add(self, owner: int, kind: int, item: int, weight: np.float32) -> None:
        entries = self.lists.setdefault((owner, kind), {})
        entries[item] = entries.get(item, np.float32(0)) + weight
        if len(entries) == ROOM[kind]:
            *others, newest = entries
            heaviest = set(sorted(others, key=lambda key: -entries[key])[: KEPT[kind]])  # stable: of equals the older
            self.lists[owner, kind] = {key: value for key, value in entries.items() if key in heaviest | {newest}}

    def evidence(self, history: Sequence[int], now: int, count: dict[int, float]) -> dict[int, F32]:
        """cov, bwd, forward, last by item."""
        out: dict[int, F32] = {}
        decay = 2 ** (min(self.reference - now, 0) / T)

        def put(item: int, column: int, value: float) -> None:
            out.setdefault(item, np.zeros(4, np.float32))[column] += value

        for d, item in enumerate(history):
            norm = decay / math.sqrt(max(count.get(item, 0), 1))
            for kind, column, factor in ((A, 0, 0.9**d), (B, 0, 0.3 * 0.9**d), (B, 1, 0.9**d), (F, 2, 0.6**d)):
                if kind != F or d < 5:
                    for other, weight in self.lists.get((item, kind), {}).items():
                        put(other, column, norm * factor * float(weight))
            if d == 0 and (item, F1) in self.lists:
                last = self.lists[item, F1]
                for other, weight in last.items():
                    put(other, 3, float(weight / sum(last.values())))
        return out
