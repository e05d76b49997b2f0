"""A data set as the stream that evaluation reads: checked as the workers check events, in the order of their times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from pipeline.catalog import Entry
from pipeline.content.corpus import Corpus
from pipeline.evaluation.stream import Stream
from pipeline.recipe import ENCODING
from pipeline.types import ATTRIBUTES, PROFILE, hash_id, hash_of
from workers.importers.dataset import Check, Dataset, Moment
from workers.lessons import action_weights
from workers.settings import Settings
from workers.wire.catalog import CatalogItem, catalog_of
from workers.wire.errors import InvalidError, convert, shown
from workers.wire.event_data import EventData, check_data, write_attributes
from workers.wire.ids import user_key
from workers.wire.item import ItemData, check_item
from workers.wire.rules import RATE, UNKNOWN, Rules
from workers.wire.times import END_MS, parse_time


def checker(settings: Settings) -> Check:
    """A check of what evaluation asks of a moment: the rules of its topic, and that an event names its time."""
    rules = Rules.of(settings)

    def check(moment: Moment) -> None:
        kind, data = moment
        if kind == "item":
            check_item(convert(data, ItemData, "item"))
        else:
            _check_event(convert(data, EventData, "event"), rules)

    return check


def _check_event(event: EventData, rules: Rules) -> None:
    user_key(event.user_id)
    if not check_data(event) and rules.meaning(event.action, event.value).names_item:
        raise InvalidError(f"item_id: expected with action {shown(event.action)}, found none")
    size = len(write_attributes(event.attributes))
    if size > ATTRIBUTES:
        raise InvalidError(f"attributes: expected at most {ATTRIBUTES} bytes as compact JSON, found {size}")
    if event.time is None:
        raise InvalidError("time: expected the time of the event, found none; evaluation goes by it")
    if not 0 <= parse_time(event.time) < END_MS:
        raise InvalidError(f"time: expected a time of the years 1970 to 2106, found {shown(event.time)}")


class Reading(NamedTuple):
    """A data set, read."""

    stream: Stream
    late: int  # events that stood behind a later one
    unknown: Counter[str]  # events by the name of their action, where it means nothing; ratings below a like aside


def stream_of(dataset: Dataset, settings: Settings) -> Reading:
    """The events of `dataset`, which was read with `checker`.

    Events of unknown actions are among them, as they are live. Raises DatasetError for what cannot be read.
    """
    columns = _Columns(Rules.of(settings))
    for moments in (dataset.catalog, dataset.stream):
        for moment in moments:
            columns.add(moment)
    if dataset.by_date:
        times = np.sort(columns.time)
        columns.arrivals = [(int(np.searchsorted(times, item.published_at)), item) for _, item in columns.arrivals]
        columns.arrivals.sort(key=lambda arrival: arrival[0])
        stream, late = columns.stream(settings, ()).ordered()
        stream = replace(stream, arrivals=list(_encoded(columns.arrivals)))
    else:
        stream, late = columns.stream(settings, _encoded(columns.arrivals)).ordered()
    return Reading(stream, late, columns.unknown)


@dataclass(slots=True)
class _Columns:
    """Columns of Stream, while they grow."""

    rules: Rules
    users: dict[str, int] = field(default_factory=dict)
    user: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    item: list[int] = field(default_factory=list)
    item_ids: list[str] = field(default_factory=list)
    id: list[int] = field(default_factory=list)
    action: list[int] = field(default_factory=list)
    effect: list[int] = field(default_factory=list)
    attributes: dict[int, bytes] = field(default_factory=dict)
    arrivals: list[tuple[int, CatalogItem]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, moment: Moment) -> None:
        kind, data = moment
        if kind == "item":
            item = convert(data, ItemData, "item")
            self.arrivals.append((len(self.user), catalog_of(item, len(self.arrivals))))
        else:
            self._event(convert(data, EventData, "event"))

    def _event(self, data: EventData) -> None:
        meaning = self.rules.meaning(data.action, data.value)
        if meaning.effect & PROFILE:
            self.attributes[len(self.user)] = write_attributes(data.attributes)
        if meaning is UNKNOWN and data.action != RATE:
            self.unknown[data.action] += 1
        self.user.append(self.users.setdefault(data.user_id, len(self.users)))
        self.time.append(parse_time(data.time or 0))
        self.item.append(check_data(data))
        self.item_ids.append(data.item_id or "")
        self.id.append(hash_id(data.event_id) if data.event_id is not None else 0)
        self.action.append(meaning.code)
        self.effect.append(meaning.effect)

    def stream(self, settings: Settings, arrivals: Iterable[tuple[int, Entry]]) -> Stream:
        return Stream(
            user=np.array(self.user, np.int64),
            user_hash=np.array([hash_of(user) for user in self.users], np.uint64),
            time=np.array(self.time, np.int64),
            item=np.array(self.item, np.uint64),
            item_ids=self.item_ids,
            id=np.array(self.id, np.uint64),
            action=np.array(self.action, np.uint8),
            effect=np.array(self.effect, np.uint8),
            attributes=self.attributes,
            weights=action_weights(settings),
            arrivals=list(arrivals),
        )


def _encoded(arrivals: list[tuple[int, CatalogItem]]) -> Iterator[tuple[int, Entry]]:
    """With content vectors, as the catalog worker makes them: by what all items say that are there by then."""
    corpus, code = Corpus(), ENCODING.code
    for at, together in groupby(arrivals, lambda arrival: arrival[0]):
        items = [item for _, item in together]
        for item, vector in zip(items, ENCODING.all([item.says() for item in items], corpus), strict=True):
            yield at, item.encoded(vector, code).entry(code)
