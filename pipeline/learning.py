"""The learner: lessons in, changed records of the item model out.

    learn(lessons)   trends, sequence and co-visitation, event by event
    flush(budget)    changed records, the most changed first, all of them in the end
    sweep()          all changed records

Slicing does not matter: lessons learned in one call or in many give the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.catalog import Catalog
from pipeline.lessons import Lessons
from pipeline.model import Model
from pipeline.model.bridge import Builder
from pipeline.model.changes import Changes
from pipeline.model.parameters import Announced
from pipeline.model.rows import ItemRows
from pipeline.model.sequence import Steps, event_seeds
from pipeline.seen import Seen
from pipeline.types import I64, RING, U64, ItemLists, ItemVectors, Mask, Parameters, Rings, Rows, hash_id

VECTORS = 0.5  # of a budget may go to vectors while lists wait, too
_ALL = 1 << 62
_REGROUPED = 4000  # items that clusters move towards at once, at most: it takes 2 ms
_COUNTED = np.float32(1e-3)  # the change of a row whose counters alone moved


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The records of an item are to be deleted: its catalogue entry was."""

    item_id: str


Changed = ItemVectors | ItemLists | Parameters | Tombstone


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of lessons."""

    learned: int = 0
    seen: int = 0  # learned from before
    deleted: int = 0  # of an item that is deleted


class Learner:
    """Trains one item model. Deterministic: `seed` and an event's place in the log decide its negatives.

    A `catalog` on the model's rows tells the content of items: new ones begin where it says, over the bridge.
    """

    def __init__(self, model: Model, seed: int, negatives: int = 100, catalog: Catalog | None = None) -> None:
        self.model = model
        self.seen = Seen()
        self.reset = 0  # rows and parts' parameters that were not finite and began anew
        self._seed = seed
        self._negatives = negatives
        self._catalog = Catalog(model.rows) if catalog is None else catalog
        self._builder = Builder(model.bridge)
        self._vectors = Changes(model.rows)
        self._lists = Changes(model.rows)
        self._parameters = Announced(model.parts)
        self._deleted: set[int] = set()  # hashes
        self._deleted_hashes: U64 | None = None  # the same as an array, made when it is asked for
        self._tombstones: dict[str, None] = {}  # ids, to be published in this order

    def learn(self, lessons: Lessons) -> Learned:
        """Learn in the order given, skipping what was seen and items that are deleted."""
        new = self.seen.mark(lessons.partition, lessons.offset)
        self.seen.mark(lessons.idle_partition, lessons.idle_offset)
        take = np.flatnonzero(new & ~self._gone(lessons.item))
        begin = 0
        while begin < len(take):
            end = begin + self._builder.left()
            self._learn(lessons, take[begin:end])
            begin = end
        n_new = int(new.sum())
        return Learned(learned=len(take), seen=len(new) - n_new, deleted=n_new - len(take))

    def _learn(self, lessons: Lessons, take: I64) -> None:
        model = self.model
        targets = self._targets(lessons, take)
        rings = self._met(model.rows.find(lessons.rings.items[take]), targets)
        weights, times = lessons.weight[take], lessons.time[take]
        steps = Steps(
            targets=targets,
            times=times,
            rings=rings,
            ring_times=lessons.rings.times[take],
            ring_length=lessons.rings.length[take],
            before=lessons.before[take],
            weights=weights,
            seeds=event_seeds(self._seed, lessons.partition[take], lessons.offset[take]),
            owner=lessons.owner[take],
            consumed_start=lessons.consumed_start,
            consumed=lessons.consumed,
        )
        self._foretell(model.sequence.begin(targets))
        self.reset += model.sequence.learn(steps, self._negatives, self._vectors)
        model.covisitation.learn(targets, rings, times, weights, self._lists)
        model.trends.learn(targets, times, weights, lessons.before[take])
        self._vectors.moved[targets] += _COUNTED
        known = self._catalog.content, self._catalog.described
        self._builder.learned(len(take), *known, model.sequence, model.trends.count)

    def _foretell(self, new: Rows) -> None:
        """Begin new items where their content says, instead of anywhere."""
        some = new[self._catalog.described[new]]
        if len(some) and self.model.bridge.built:
            foretold = self.model.bridge.vectors(self._catalog.content[some])
            self.model.sequence.e_out[some], self.model.sequence.bias[some] = foretold[:, :-1], foretold[:, -1]

    def regroup(self) -> None:
        """Move taste clusters towards items that changed since they were published; every flush does so."""
        changed = self._changed(self._vectors)
        some = changed[:: 1 + len(changed) // _REGROUPED]
        self.model.clusters.learn(self.model.sequence.e_out[some])

    def flush(self, budget: int) -> Iterator[Changed]:
        """Changed records of about `budget` bytes, each made as it stands when it is asked for.

        Tombstones come first, then parameters, of which a query needs all.
        """
        tombstones, self._tombstones = self._tombstones, {}
        yield from map(Tombstone, tombstones)
        self.regroup()
        self.reset += self._parameters.mend()
        for parameters in self._parameters.due(budget):
            yield parameters
            budget -= sum(array.nbytes for array in parameters.arrays.values())
        model = self.model
        lists = self._changed(self._lists)
        list_sizes = model.covisitation.sizes(lists)
        vectors = self._changed(self._vectors)
        vector_sizes = np.full(len(vectors), _vectors_size(model.dimension), np.int64)
        share = max(int(VECTORS * budget), budget - int(list_sizes.sum()))
        vectors = self._vectors.choose(vectors, self._vectors.moved[vectors], vector_sizes, share)
        self.reset += model.sequence.mend(vectors)
        yield from self._export(self._vectors, vectors, model.vectors)
        # What a change does to a query's sums falls with the root of the item's count.
        urgency = (self._lists.moved[lists] / np.sqrt(1 + model.trends.count[lists])).astype(np.float32)
        left = max(0, budget - len(vectors) * _vectors_size(model.dimension))
        lists = self._lists.choose(lists, urgency, list_sizes, left)
        yield from self._export(self._lists, lists, model.lists)

    def sweep(self) -> Iterator[Changed]:
        """All changed records."""
        return self.flush(_ALL)

    def follow(self, record: ItemVectors | ItemLists | Parameters) -> None:
        """Take in what another writer, or we in an earlier life, published; it does not count as changed.

        Raises UnfitError for parameters of another model.
        """
        if isinstance(record, Parameters):
            self.model.put_parameters(record)
            self._parameters.follow(record)
            return
        if record.hash in self._deleted:
            self._tombstones[record.item_id] = None
            return
        if isinstance(record, ItemVectors):
            row = self.model.put_vectors(record)  # may make the columns grow: they are looked up after it
            self._vectors.moved[row] = 0
        else:
            row = self.model.put_lists(record)
            self._lists.moved[row] = 0

    def delete(self, item: int) -> None:
        """The item (hash) is deleted: forget it, publish its tombstones, and learn nothing of it until `restore`."""
        self._deleted.add(item)
        self._deleted_hashes = None
        row = self._row(item)
        if row >= 0 and self.model.rows.named[row]:
            self._tombstones[self.model.rows.ids[row]] = None
        self.drop(item)

    def restore(self, item: int) -> None:
        """The item (hash) is in the catalogue again."""
        self._deleted.discard(item)
        self._deleted_hashes = None

    def knows(self, item: int) -> bool:
        """Has the item (hash) records of its own?"""
        row = self._row(item)
        return row >= 0 and bool(self.model.sequence.known[row])

    def publish_again(self, item_id: str) -> None:
        """Someone wrote over the records of an item: publish them at the next flush, or their tombstones."""
        item = hash_id(item_id)
        if self.knows(item):
            row = self._row(item)
            self._vectors.moved[row] = self._lists.moved[row] = np.inf
        else:
            self._tombstones[item_id] = None

    def publish_parameters_again(self, name: str) -> None:
        """Someone wrote over the parameters of a part: publish them at the next flush."""
        self._parameters.again(name)

    def publish_all_again(self) -> None:
        """What was published is gone: publish every record at the next flushes."""
        known = np.flatnonzero(self.model.sequence.known[: len(self.model.rows)])
        self._vectors.moved[known] = self._lists.moved[known] = np.inf
        for name in self.model.parts:
            self._parameters.again(name)

    def drop(self, item: int) -> None:
        """Forget what was learned of the item (hash)."""
        row = self._row(item)
        if row >= 0:
            self.model.drop(item)
            self._vectors.moved[row] = self._lists.moved[row] = 0

    def _row(self, item: int) -> int:
        return int(self.model.rows.find(np.array([item], np.uint64))[0])

    def _gone(self, items: U64) -> Mask:
        if self._deleted_hashes is None:
            self._deleted_hashes = np.fromiter(self._deleted, np.uint64, len(self._deleted))
        return np.isin(items, self._deleted_hashes)

    def _targets(self, lessons: Lessons, take: I64) -> Rows:
        """Rows of the lessons' items, made and named where that is new."""
        rows = self.model.rows
        targets = rows.find(lessons.item[take])
        for at in np.flatnonzero((targets < 0) | ~rows.named[targets]):
            lesson = int(take[at])
            targets[at] = rows.row(int(lessons.item[lesson]), lessons.item_ids[lesson])
        return targets

    def _met(self, rings: Rows, targets: Rows) -> Rows:
        """Rings (m, L) with -1 for items not known before their lesson: known already, or learned by an earlier one."""
        known = (rings >= 0) & self.model.sequence.known[rings]
        new, first = np.unique(targets[~self.model.sequence.known[targets]], return_index=True)
        if len(new):
            first = np.flatnonzero(~self.model.sequence.known[targets])[first]
            lesson, d = np.nonzero((rings >= 0) & ~known)
            place = np.minimum(np.searchsorted(new, rings[lesson, d]), len(new) - 1)
            known[lesson, d] = (new[place] == rings[lesson, d]) & (first[place] < lesson)
        return np.where(known, rings, -1)

    def _changed(self, changes: Changes) -> Rows:
        n = len(self.model.rows)
        rows: Rows = np.flatnonzero((changes.moved[:n] > 0) & self.model.sequence.known[:n] & self.model.rows.named[:n])
        return rows

    def _export(
        self, changes: Changes, rows: Rows, record: Callable[[int], ItemVectors | ItemLists]
    ) -> Iterator[Changed]:
        for row in rows.tolist():
            if changes.moved[row] > 0:  # not dropped since it was chosen
                changes.moved[row] = 0
                yield record(row)


def rehearse(dimension: int) -> None:
    """Run every kernel once, on a model that is thrown away: loading them takes seconds where nothing is cached."""
    learner = Learner(Model(ItemRows(), dimension), seed=0)
    one, none = np.ones(1, np.int64), np.empty(0, np.int64)
    for offset, item in enumerate(("first", "second")):
        shape = (1, RING)
        rings = Rings(np.zeros(shape, np.uint64), np.zeros(shape, np.uint32), np.zeros(shape, np.uint8), one * offset)
        rings.items[0, 0] = hash_id("first") * offset
        target, weight, start = np.array([hash_id(item)], np.uint64), np.ones(1, np.float32), np.array((0, 0))
        marks = start, np.empty(0, np.uint32), none, none
        learner.learn(Lessons(one, one * offset, target, [item], weight, one, rings, one, 0 * one, *marks))
    for record in learner.sweep():
        if not isinstance(record, Tombstone):
            learner.follow(record)


def _vectors_size(dimension: int) -> int:
    return 8 * dimension + 160  # bytes on the topic, about
