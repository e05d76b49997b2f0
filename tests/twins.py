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
    """N(0, .12) by Box and Muller."""
    out = np.empty(k)
    for at in range(k):
        bits = draw(seed, at)
        radius, angle = ((bits >> 32) + 1) / 2**32, (bits & 0xFFFFFFFF) / 2**32
        out[at] = 0.12 * math.sqrt(-2 * math.log(radius)) * math.cos(2 * math.pi * angle)
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


EDGES = (1, 10, 60, 300, 1800, 3 * 3600, 86_400, 7 * 86_400, 30 * 86_400)  # of time gaps, seconds


def gap(now: int, then: int) -> int:
    """The bucket of the gap between ms and seconds."""
    return sum(now // 1000 - then >= edge for edge in EDGES)


Ring = list[tuple[int, int, int]]  # d, item, gap bucket


@dataclass
class Head:
    """The attention of a part of the dimensions."""

    dimensions: slice
    alpha: F64
    beta: F64 = field(default_factory=lambda: np.zeros(10))
    alpha_power: F64 = field(default_factory=lambda: np.full(L, 0.01))
    beta_power: F64 = field(default_factory=lambda: np.full(10, 0.01))

    def weights(self, ring: Ring) -> F64:
        """s w_d."""
        w = np.array([math.exp(self.alpha[d] + self.beta[gap]) for d, _, gap in ring])
        return w / math.sqrt(w.sum()) if ring else w

    def attend(self, ring: Ring, g: F64) -> None:
        """Gradients g, one a ring entry."""
        by_gap = dict.fromkeys((bucket for _, _, bucket in ring), 0.0)
        for (d, _, bucket), pull in zip(ring, g, strict=True):
            by_gap[bucket] += pull
            step(self.alpha, self.alpha_power, d, pull)
        for bucket, pull in by_gap.items():
            step(self.beta, self.beta_power, bucket, pull)


@dataclass
class SequenceTwin:
    """Items by hash, in the order of becoming known. float64."""

    k: int
    items: dict[int, Vectors] = field(default_factory=dict)
    context: dict[str, F64] = field(default_factory=dict)  # "gap 3" or "history 2"
    context_power: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        half = self.k // 2
        first, second = (np.array([1.0, *np.arange(1, L) * math.log(decay)]) for decay in (0.7, 0.97))
        self.heads = Head(slice(0, half), first), Head(slice(half, self.k), second)

    def contexts(self, now: int, taken: Sequence[int], before: int) -> list[str]:
        """Which context vectors speak."""
        histories = [f"history {min(5, int(math.log2(1 + before)))}"]
        return [f"gap {gap(now, taken[0])}", *histories] if taken else histories

    def negatives(self, target: int, seed: int, n: int, consumed: set[int]) -> list[int]:
        pool = list(self.items)
        drawn = [pool[((draw(seed, at) >> 32) * len(pool)) >> 32] for at in range(n if pool else 0)]
        return [item for item in drawn if item != target and item & 0xFFFFFFFF not in consumed]

    def learn(
        self, target: int, history: Sequence[int], weight: float, seed: int, n: int, consumed: set[int],
        now: int, taken: Sequence[int], before: int,
    ) -> None:  # fmt: skip
        """`history` newest first, taken at these times (s); now in ms."""
        ring = [(d, item, gap(now, t)) for d, (item, t) in enumerate(zip(history, taken, strict=True))]
        ring = [(d, item, g) for d, item, g in ring if item in self.items]
        negatives = self.negatives(target, seed, n, consumed)
        mine = self.items.get(target, Vectors(np.zeros(self.k), normals(mix(target), self.k)))
        chosen = [mine] + [self.items[item] for item in negatives]
        shares = np.zeros((len(ring), self.k))  # s w_d of the dimension's head
        for head in self.heads:
            shares[:, head.dimensions] = head.weights(ring)[:, None]
        x = np.array([self.items[item].e_in + self.items[item].e_out for _, item, _ in ring]).reshape(-1, self.k)
        h0 = (shares * x).sum(axis=0)
        speak = self.contexts(now, taken, before)
        h = h0 + sum((self.context.get(name, np.zeros(self.k)) for name in speak), np.zeros(self.k))
        z = np.array([h @ item.e_out + item.bias for item in chosen])
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        c = weight * ((np.arange(len(chosen)) == 0) - p)
        gh = np.sum([pull * item.e_out for pull, item in zip(c, chosen, strict=True)], axis=0)
        for pull, item in zip(c, chosen, strict=True):
            item.g_out += pull**2 * (h @ h) / self.k
            item.e_out = item.e_out + 0.1 / math.sqrt(item.g_out) * pull * h
            item.g_bias += pull**2
            item.bias += 0.1 / math.sqrt(item.g_bias) * pull
        self.attend(ring, x, h0, gh)
        for (_, name, _), share in zip(ring, shares, strict=True):
            item, pulled = self.items[name], share * gh
            item.g_in += pulled @ pulled / self.k
            item.g_out += pulled @ pulled / self.k
            item.e_in = item.e_in + 0.05 / math.sqrt(item.g_in) * pulled
            item.e_out = item.e_out + 0.1 / math.sqrt(item.g_out) * pulled
        for spoken in speak:
            self.context_power[spoken] = self.context_power.get(spoken, 1e-6) + gh @ gh / self.k
            nudge = 0.05 / math.sqrt(self.context_power[spoken]) * gh
            self.context[spoken] = self.context.get(spoken, np.zeros(self.k)) + nudge
        self.items.setdefault(target, mine)

    def attend(self, ring: Ring, x: F64, h0: F64, gh: F64) -> None:
        """dh0/dalpha_d = s w_d x_d - s^2 w_d h0 / 2, in each head's dimensions."""
        for head in self.heads:
            part = head.dimensions
            w = np.array([math.exp(head.alpha[d] + head.beta[g]) for d, _, g in ring])
            s = w.sum() ** -0.5 if ring else 0.0
            head.attend(ring, s * w * (x[:, part] @ gh[part]) - 0.5 * s**2 * w * (h0[part] @ gh[part]))


def step(values: F64, powers: F64, at: int, g: float) -> None:
    """Adagrad for one number of the attention."""
    powers[at] += g**2
    values[at] = np.clip(values[at] + 0.03 * g / math.sqrt(powers[at]), -12, 12)


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
