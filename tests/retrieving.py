"""Small catalogues, models and users to ask feeds of, made from a seed through the public doors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.blob import States
from pipeline.catalog import Catalog, Entry
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.model.trends import HALF_LIVES_MS
from pipeline.queries import NO_ATTRIBUTES, Attributes, Queries, queries_from
from pipeline.types import CONTENT, F32, I64, RING, U32, ItemLists, ItemVectors, Rings, hash_id, hash_of

K = 8
NOW = 1_790_000_000_000
DAY = 86_400_000


def entry(item: str, offset: int = 0, **fields: object) -> Entry:
    """A published item, available and harmless but for `fields`."""
    given = {
        "title": item.upper(), "categories": (), "tags": (), "creator_id": "", "available": True, "unsafe": (),
        "sponsored": None, "published_at": 0, "expires_at": 0, **fields,
    }  # fmt: skip
    return Entry(item_id=item, hash=hash_id(item), offset=offset, **given)  # type: ignore[arg-type]


def vectors(item: str, rng: np.random.Generator | None = None, **fields: object) -> ItemVectors:
    """A `v:` record: random where `rng` is given, else without any knowledge, but for `fields`."""
    spread = 0.5 if rng else 0.0

    def normal(n: int) -> F32:
        return (rng or np.random.default_rng(0)).normal(0, spread, n).astype(np.float32)

    count = float(rng.integers(0, 50)) if rng else 0.0
    given = {
        "e_in": normal(K), "e_out": normal(K), "bias": float(normal(1)[0]), "accumulators": np.ones(3, np.float32),
        "decayed": np.array([count / 2**at for at in range(len(HALF_LIVES_MS), 0, -1)], np.float32),
        "reference": NOW - int(rng.integers(0, 40 * DAY)) if rng else NOW,
        "count": count, "entry": rng.integers(0, 3, 3).astype(np.float32) if rng else np.zeros(3, np.float32),
        "first_seen": NOW - 50 * DAY, "last_seen": NOW, **fields,
    }  # fmt: skip
    return ItemVectors(item_id=item, hash=hash_id(item), **given)  # type: ignore[arg-type]


def lists(item: str, *kinds: dict[str, float]) -> ItemLists:
    """An `l:` record from item -> weight, for A, B, F, F1; missing ones are empty."""
    full = [*kinds, {}, {}, {}, {}][:4]
    a, b, f, f1 = (np.array([hash_id(name) for name in kind], np.uint64) for kind in full)
    wa, wb, wf, wf1 = (np.array(list(kind.values()), np.float32) for kind in full)
    return ItemLists(item, hash_id(item), NOW, (a, b, f, f1), (wa, wb, wf, wf1))


@dataclass(frozen=True)
class User:
    """Whom a query is for: items newest first."""

    ring: Sequence[str] = ()
    consumed: Sequence[str] = ()
    blocked: Sequence[str] = ()
    attributes: Attributes = NO_ATTRIBUTES
    now: int = NOW
    id: str = ""  # "" = nobody's neighbour knows them
    blocked_days: Sequence[float] = ()  # how long ago each was blocked; 0 = nobody knows


def queries(model: Model, users: Sequence[User], commons: dict[Hashable, object] | None = None) -> Queries:
    """Their queries."""
    now = np.array([user.now for user in users], np.int64)
    hashes = np.array([hash_of(user.id) if user.id else 0 for user in users], np.uint64)
    return queries_from(_states(users), now, model, attributes(users), commons, hashes)


def attributes(users: Sequence[User]) -> list[Attributes]:
    """One a user."""
    return [user.attributes for user in users]


@dataclass(frozen=True)
class World:
    """What feeds are made from."""

    catalog: Catalog
    model: Model
    users: list[User]

    def ask(self, which: Sequence[int] | None = None) -> Queries:
        """Queries of all users, or of some."""
        return queries(self.model, self.users if which is None else [self.users[at] for at in which])


def world(seed: int, items: int, users: int, unlisted: bool = True, one_time: bool = True) -> World:
    """Items of every kind: published and not, known to the model and not, hidden, deleted, expired, unsafe, unnamed,
    of a market."""
    rng = np.random.default_rng(seed)
    rows = ItemRows(16)
    model, catalog, names = Model(rows, K), Catalog(rows, unlisted), [f"i{at}" for at in range(items)]
    for at, name in enumerate(names):
        if rng.random() < 0.8:
            catalog.put(_random_entry(rng, name, at))
        if rng.random() < 0.8:
            model.put_vectors(vectors(name, rng))
        if rng.random() < 0.6:
            model.put_lists(lists(name, *(_random_list(rng, names, n) for n in (40, 40, 20, 20))))
        if rng.random() < 0.05:
            catalog.remove(hash_id(name), NOW)
    known = np.flatnonzero(model.sequence.known[: len(rows)])
    model.clusters.learn(model.sequence.e_out[known])
    some = [_random_user(rng, names, one_time, f"u{at}") for at in range(users)]
    for who in (*some, *(_random_user(rng, names, one_time, f"v{at}") for at in range(4 * users))):
        took = rows.rows(np.array([hash_id(item) for item in reversed(who.ring)], np.uint64))
        model.neighbourhood.add(np.full(len(took), hash_of(who.id), np.uint64), took)
    return World(catalog, model, some)


def _random_entry(rng: np.random.Generator, name: str, at: int) -> Entry:
    return entry(
        name,
        at,
        categories=tuple(f"c{some}" for some in rng.integers(0, 6, rng.integers(0, 4))),
        creator_id=str(rng.choice(["", "ann", "bob", "cid"])),
        available=bool(rng.random() < 0.9),
        unsafe=("nsfw",) if rng.random() < 0.1 else (),
        markets=(("de", "at"), ("fr",))[at % 2] if at % 5 == 0 else (),
        published_at=int(NOW - rng.integers(0, 90) * DAY) if rng.random() < 0.7 else 0,
        expires_at=int(NOW + rng.integers(-5, 20) * DAY) if rng.random() < 0.3 else 0,
        content=_random_content(at) if at % 4 else np.empty(0, np.float32),
    )


def _random_content(seed: int) -> F32:
    content = np.random.default_rng(seed).standard_normal(CONTENT)
    return (content / np.linalg.norm(content)).astype(np.float32)


def _random_list(rng: np.random.Generator, names: list[str], n: int) -> dict[str, float]:
    some = rng.choice([*names, *(f"unnamed{at}" for at in range(10))], n)
    return {str(name): float(weight) for name, weight in zip(some, rng.exponential(size=n), strict=True)}


def _random_user(rng: np.random.Generator, names: list[str], one_time: bool, id: str) -> User:
    known = [*names, "never seen", "nor this"]
    some = [str(name) for name in rng.choice(known, rng.integers(0, 40))] if rng.random() < 0.8 else []
    muted = Attributes(
        audience=str(rng.choice(["", "adult"])),
        market=("", "de", "fr", "es")[hash_of(id) % 4],
        muted_creators=("bob",) if rng.random() < 0.3 else (),
        muted_categories=("c1", "c2") if rng.random() < 0.3 else (),
    )
    now = NOW if one_time else NOW + int(rng.integers(-10, 10)) * DAY
    blocked = [str(name) for name in rng.choice(known, rng.integers(0, 5))]
    days = tuple(0.3 * at**2 for at in range(1, 1 + hash_of(id) % 5))  # steps of all kinds, and times nobody knows
    return User(some, some[::2], blocked, muted, now, id, days)


def _states(users: Sequence[User]) -> States:
    n = len(users)
    items, length = np.zeros((n, RING), np.uint64), np.zeros(n, np.int64)
    for at, user in enumerate(users):
        length[at] = min(len(user.ring), RING)
        items[at, : length[at]] = [hash_id(name) for name in user.ring[:RING]]
    consumed, blocked = ([user.consumed for user in users], [user.blocked for user in users])
    history = np.array([len(user.ring) for user in users], np.int64)
    rings = Rings(items, np.full((n, RING), NOW // 1000, np.uint32), np.ones((n, RING), np.uint8), length)
    return States(
        history, history, history - 1, np.full(n, NOW), rings,
        *_packed(consumed), *_packed(blocked), [b""] * n, _times(users),
    )  # fmt: skip


def _times(users: Sequence[User]) -> U32:
    """Of the blocked, in seconds."""
    days = [ago for user in users for ago in (*user.blocked_days, *[0.0] * len(user.blocked))[: len(user.blocked)]]
    return np.array([(NOW - int(ago * DAY)) // 1000 if ago else 0 for ago in days], np.uint32)


def _packed(names: Sequence[Sequence[str]]) -> tuple[I64, U32]:
    start = np.cumsum([0, *map(len, names)], dtype=np.int64)
    return start, np.array([hash_id(name) & 0xFFFFFFFF for some in names for name in some], np.uint32)
