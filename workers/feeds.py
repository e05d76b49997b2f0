"""From states to feeds as bytes: queries in chunks, their feeds with ids, versions, causes and reasons."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np

from pipeline.blob import States, decode
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.provenance import Feed as Answer
from pipeline.queries import NO_ATTRIBUTES, Attributes, Queries, queries_from
from pipeline.ranking import Learned, Served
from pipeline.retrieval import build_feeds
from pipeline.types import hash_of
from workers.examples import LISTS_A_SECOND, Sampler
from workers.recipes import recipe_of
from workers.rehearsal import rehearse
from workers.settings import Settings
from workers.wire import errors
from workers.wire.event_data import Attributes as Profile
from workers.wire.feed import Feed, FeedCause, FeedItem, FeedModel, FeedStages, encode_feed, feed_headers
from workers.wire.output import Headers
from workers.wire.state import Cause
from workers.wire.times import rfc3339

CHUNK = 64  # queries that share a matrix product

_HOUR_MS = 3_600_000
_COMMONS_S = 0.1  # how old the lists may be that are the same for everyone; filters look at the catalogue as it is
_VARIANT = "89ab"

_profile = msgspec.json.Decoder(Profile)


@dataclass(frozen=True, slots=True)
class Asked:
    """A user whose feed is due."""

    user: str
    partition: int
    blob: bytes  # the newest state
    cause: Cause


@dataclass(frozen=True, slots=True)
class Made:
    """A feed, ready to be stored and sent."""

    asked: Asked
    version: int
    revision: int
    items: tuple[str, ...]  # item ids, best first
    sources: tuple[tuple[str, ...], ...]  # that proposed each of them
    value: bytes
    headers: Headers
    skipped: tuple[str, ...]  # sources that failed
    feed_id: str
    served: Served | None  # with the features it was ranked by, should its user choose; None = not in the sample


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What the feeds of a chunk have in common."""

    revision: int  # ms, wall
    generated_at: str
    expires_at: str
    model: FeedModel
    took_us: int


class FeedMaker:
    """Answers users from the replicas of model and catalogue, as they are at the time."""

    def __init__(self, settings: Settings, model: Model, catalog: Catalog) -> None:
        self._recipe = recipe_of(settings)
        self._most = settings.feed.sources  # of an item that are told
        self._ttl_ms = int(settings.feed.ttl_hours * _HOUR_MS)
        self._model, self._catalog = model, catalog
        self._commons: dict[Hashable, object] = {}  # what many chunks share
        self._commons_since = 0.0
        self._sampler = Sampler(LISTS_A_SECOND)

    @property
    def layout(self) -> int:
        """What tells the ranker's features from those of another; 0 for one that does not learn."""
        ranker = self._recipe.ranker
        return ranker.layout.key if isinstance(ranker, Learned) else 0

    def make(self, asked: Sequence[Asked], now: int) -> list[Made]:
        """The feeds of at most CHUNK users as of `now` (ms, in the clock of the events).

        Raises BlobError for a state that is none; whatever else it raises, it would raise again.
        """
        begun = time.perf_counter()
        states, queries = self._ask([one.blob for one in asked], [hash_of(one.user) for one in asked], now)
        answers = build_feeds(queries, self._catalog, self._model, self._recipe)
        stamp = self._stamp(int((time.perf_counter() - begun) * 1e6))
        served = self._logged(queries)
        facts = zip(asked, answers, (states.last_offset + 1).tolist(), states.count.tolist(), strict=True)
        return [self._made(stamp, *fact, served.get(at)) for at, fact in enumerate(facts)]

    def warm_up(self) -> None:
        """Load every kernel."""
        rehearse(self._recipe, self._model.dimension)

    def default(self, now: int) -> tuple[int, bytes]:
        """The feed of users that nobody knows, and its revision."""
        begun = time.perf_counter()
        _, queries = self._ask([b""], [0], now)
        (answer,) = build_feeds(queries, self._catalog, self._model, self._recipe)
        stamp = self._stamp(int((time.perf_counter() - begun) * 1e6))
        return stamp.revision, encode_feed(self._feed(stamp, "", None, answer, 0, 0))

    def _ask(self, blobs: Sequence[bytes], users: Sequence[int], now: int) -> tuple[States, Queries]:
        states = decode(blobs)
        attributes = [attributes_of(raw) for raw in states.attributes]
        if time.perf_counter() - self._commons_since > _COMMONS_S:
            self._commons, self._commons_since = {}, time.perf_counter()
        times = np.full(len(blobs), now, np.int64)
        hashes = np.array(users, np.uint64)
        return states, queries_from(states, times, self._model, attributes, self._commons, hashes)

    def _logged(self, queries: Queries) -> dict[int, Served]:
        """A sample of the lists just ranked, by query."""
        ranker, now = self._recipe.ranker, time.monotonic()
        which = [at for at in range(len(queries)) if self._sampler.take(now)]
        if not which or not isinstance(ranker, Learned):
            return {}
        served = ranker.served(queries, self._catalog, self._model, which)
        return {at: one.packed() for at, one in zip(which, served, strict=True)}

    def _stamp(self, took_us: int) -> _Stamp:
        revision = int(time.time() * 1000)  # feeds expire by the wall clock, whatever the events' clock
        model = FeedModel(self._model.epoch, self._model.version)
        return _Stamp(revision, rfc3339(revision), rfc3339(revision + self._ttl_ms), model, took_us)

    def _made(
        self, stamp: _Stamp, asked: Asked, answer: Answer, version: int, count: int, served: Served | None
    ) -> Made:
        cause = asked.cause
        told = FeedCause(cause.event_id, rfc3339(cause.time_ms), f"events/{asked.partition}/{cause.offset}")
        feed = self._feed(stamp, asked.user, told, answer, version, count)
        return Made(
            asked,
            version,
            stamp.revision,
            tuple([item.item_id for item in feed.items]),
            tuple([tuple(sources) for sources in answer.sources]),
            encode_feed(feed),
            feed_headers(feed, cause.traceparent, cause.tracestate),
            answer.skipped,
            feed.feed_id,
            served,
        )

    def _feed(
        self, stamp: _Stamp, user: str, cause: FeedCause | None, answer: Answer, version: int, count: int
    ) -> Feed:
        return Feed(
            feed_id=_feed_id(stamp.revision),
            user_id=user,
            version=version,
            revision=stamp.revision,
            count=count,
            generated_at=stamp.generated_at,
            expires_at=stamp.expires_at,
            cause=cause,
            model=stamp.model,
            recipe=self._recipe.name,
            items=self._items(answer),
            stages=FeedStages(answer.gathered, answer.dropped, answer.ranked, stamp.took_us),
        )

    def _items(self, answer: Answer) -> list[FeedItem]:
        ids, most = self._model.rows.ids, self._most
        scores = np.round(answer.scores.astype(np.float64), 3).tolist()
        columns = zip(
            answer.rows.tolist(), scores, answer.sources, answer.because, answer.parts, answer.propensity, strict=True
        )
        return [
            FeedItem(
                ids[row],
                rank,
                score,
                _best(sources, most),
                [ids[reason] for reason in because],
                parts,
                propensity,
            )
            for rank, (row, score, sources, because, parts, propensity) in enumerate(columns, 1)
        ]


def _best(sources: dict[str, int], most: int) -> dict[str, int]:
    """At most `most` of `sources`, those with the best ranks, in their order; of equal ranks the first."""
    if len(sources) <= most:
        return sources
    told = sorted(sources, key=sources.__getitem__)[:most]
    return {name: rank for name, rank in sources.items() if name in told}


def in_chunks(asked: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
    """`asked` in runs of at most CHUNK."""
    for begin in range(0, len(asked), CHUNK):
        yield asked[begin : begin + CHUNK]


@lru_cache(maxsize=1 << 14)
def attributes_of(raw: bytes) -> Attributes:
    """What a state keeps of a `profile` event. Raises WireError for what none of ours wrote."""
    if not raw:
        return NO_ATTRIBUTES
    profile = errors.decode(_profile, raw, "attributes")
    return Attributes(
        profile.audience or "",
        profile.market or "",
        profile.locale or "",
        tuple(profile.muted_creators or ()),
        tuple(profile.muted_categories or ()),
    )


def _feed_id(time_ms: int) -> str:
    """A UUID of version 7 (RFC 9562): the time, then 74 random bits."""
    at, dice = f"{time_ms:012x}", os.urandom(10).hex()
    return f"{at[:8]}-{at[8:]}-7{dice[:3]}-{_VARIANT[int(dice[3], 16) & 3]}{dice[4:7]}-{dice[7:19]}"
