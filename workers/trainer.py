"""The trainer: learns the item model from `states`, publishes it on `model`. One writes; the others follow and wait.

A life:  on_model() until caught up -> begin_writing() when elected; on_model() reads the record back: `writing`
         -> on_states() from `positions` on; flush() once a second; checkpoint() once a minute and at the end.
A writer with a higher epoch ends it: on_model() raises Deposed. Nothing here does I/O: what is to be sent is returned.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import structlog

from pipeline.catalog import Catalog
from pipeline.learning import Changed, Learner, Tombstone, rehearse
from pipeline.lessons import lessons_from
from pipeline.model import Model
from pipeline.model.parameters import UnfitError
from pipeline.model.rows import ItemRows
from pipeline.ranking import Learned
from pipeline.recipe import ENCODING
from pipeline.seen import WINDOW
from pipeline.types import ItemVectors, Parameters, hash_id
from workers.lessons import action_weights, told_by
from workers.recipes import recipe_of
from workers.rehearsal import rehearse_learning
from workers.settings import Settings
from workers.wire.catalog import Gravestone, read_catalog
from workers.wire.errors import UnreadableError, WireError, expectation
from workers.wire.example import Seeing, read_example
from workers.wire.ids import id_from_key
from workers.wire.model import (
    CHECKPOINT,
    EXAMPLES,
    WRITER,
    CheckpointRecord,
    ListsRecord,
    ParametersRecord,
    Stamp,
    VectorsRecord,
    WriterRecord,
    encode_checkpoint,
    encode_lists,
    encode_parameters,
    encode_vectors,
    encode_writer,
    item_of_key,
    lists_key,
    parameters_key,
    part_of_key,
    read_model,
    vectors_key,
)
from workers.wire.output import Output, Record, place
from workers.wire.rules import Rules

log = structlog.get_logger()


class Deposed(Exception):
    """Another trainer writes the model now: this process must not any more."""


class TrainerCore:
    """The model of one trainer, as follower and as writer. `counts` tells what it met and did."""

    def __init__(self, settings: Settings, rules: Rules) -> None:
        self.model = Model(ItemRows(), settings.model.dimension, ENCODING.dimension)
        self.catalog = Catalog(self.model.rows, dimension=ENCODING.dimension)
        self.learner = Learner(self.model, settings.model.seed, settings.model.negatives, self.catalog)
        self.counts: Counter[str] = Counter()
        self.positions: dict[int, int] = {}  # partition of `states` -> next offset to learn from; missing = from 0
        self.examples = 0  # next offset of `examples`
        self.writing = False
        self._writer: WriterRecord | None = None  # ours, from begin_writing on
        self._writer_lost = False  # a deposed writer wrote over it
        self._rules, self._weights = rules, action_weights(settings)
        self._topic, self._budget = settings.topic("model"), settings.model.flush_bytes
        self._ranker = recipe_of(settings).ranker

    def warm_up(self) -> None:
        """Load the kernels, before there is a heartbeat to miss."""
        lessons_from(told_by([], self._rules, Counter()), self._weights)
        rehearse(self.model.dimension)
        if isinstance(self._ranker, Learned):
            rehearse_learning(self._ranker, Model(ItemRows(), self.model.dimension))

    # ---------------------------------------------------------------- following
    def on_model(self, records: Sequence[Record]) -> None:
        """Take records of `model` in; from begin_writing on, watch for other writers. Raises Deposed."""
        for record in records:
            try:
                self._on_model(record)
            except (WireError, UnfitError) as error:
                self.counts["model_unreadable"] += 1
                log.error("model record unreadable", at=place(record), expected=expectation(error))

    def on_catalog(self, records: Sequence[Record]) -> None:
        """Take records of `catalog` in: the content of items, from which new ones begin.

        A gravestone ends learning of its item until the item is published again.
        """
        for record in records:
            try:
                entry = read_catalog(record.value) if record.value is not None else None
                item = hash_id(id_from_key(record.key, "item id")) if entry is None else entry.hash
            except WireError as error:
                self.counts["catalog_unreadable"] += 1
                log.error("catalogue record unreadable", at=place(record), expected=expectation(error))
                continue
            if isinstance(entry, Gravestone):
                self.learner.delete(item)
                self.catalog.remove(item, entry.deleted_at, entry.offset)
            elif entry is not None:
                self.learner.restore(item)
                self.catalog.put(entry.entry(ENCODING.code))
            else:  # a gravestone that has stood long enough
                self.learner.restore(item)
                self.catalog.drop(item)

    def begin_writing(self, owner: str, now: int, log_begin: int = 0) -> Output:
        """The record that takes the pen, to be sent when caught up and elected. `owner` is a name never used before.

        `log_begin`: the first offset that `model` holds. Each writer wrote its epoch there, so those that are gone with
        the records before it were not greater; replicas remember them, and drop what is of a lower one.
        """
        self._writer = WriterRecord(max(self.model.epoch, log_begin) + 1, self.model.version, owner, now)
        return self._output(WRITER, encode_writer(self._writer))

    # ---------------------------------------------------------------- writing
    def on_states(self, records: Sequence[Record]) -> None:
        """Learn from records of `states`, in log order within a partition."""
        told = told_by(records, self._rules, self.counts)
        learned = self.learner.learn(lessons_from(told, self._weights))
        self.counts["learned"] += learned.learned
        self.counts["learned_before"] += learned.seen
        self.counts["of_deleted_items"] += learned.deleted
        for record in records:
            self.positions[record.partition] = record.offset + 1

    def on_examples(self, records: Sequence[Record]) -> None:
        """Let the ranker learn from records of `examples`."""
        for record in records:
            self.examples = record.offset + 1
            try:
                self._on_example(read_example(record.value or b""))
            except WireError as error:
                self.counts["examples_unreadable"] += 1
                log.error("example unreadable", at=place(record), expected=expectation(error))

    def _on_example(self, example: Seeing) -> None:
        ranker = self._ranker
        if not isinstance(ranker, Learned) or example.layout != ranker.layout.key:
            self.counts["examples_of_another_ranker"] += 1
            return
        ranker.take_in(self.model, example.choice(len(ranker.layout.columns), len(ranker.layout.contexts)))
        self.counts["examples"] += 1

    def publish_again(self) -> None:
        """`model` was cut: what is in memory is all there is, so the next flushes write the whole of it."""
        self._writer_lost = True
        self.learner.publish_all_again()
        self.counts["published_again"] += 1

    def flush(self) -> Iterator[Output]:
        """Changed records within the budget. Lazy: each is made as it is taken, and learning may go on in between."""
        self.model.version += 1
        if self._writer_lost and self._writer is not None:
            self._writer_lost = False
            yield self._output(WRITER, encode_writer(self._writer))
        yield from self._outputs(self.learner.flush(self._budget))

    def checkpoint(self) -> Iterator[Output]:
        """All changed records, then up to where they were learned from. Lazy as `flush` is.

        Where it is not sent to its end the checkpoint before stands, and what came after that is learned again.
        """
        self.model.version += 1
        positions, seen = {**self.positions, EXAMPLES: self.examples}, self.learner.seen.export()
        yield from self._outputs(self.learner.sweep())
        packed = {partition: zlib.compress(bits, 1) for partition, bits in seen.items()}
        record = CheckpointRecord(self.model.epoch, self.model.version, positions, packed)
        yield self._output(CHECKPOINT, encode_checkpoint(record))

    # ---------------------------------------------------------------- records of `model`
    def _on_model(self, record: Record) -> None:
        if record.key is None:
            return
        if record.value is None:
            self._on_null(record.key)
            return
        read = read_model(record.key, record.value)
        if self._writer is not None and read.epoch >= self._writer.epoch:
            self._on_rival(record, read)
        elif read.epoch < self.model.epoch:
            self.counts["model_deposed"] += 1
            self._write_over(record.key)
        else:
            self._follow(read, record.key)

    def _on_null(self, key: bytes) -> None:
        item_id = item_of_key(key)
        if item_id is None:
            return
        if not self.writing:
            self.learner.drop(hash_id(item_id))
        elif self.learner.knows(hash_id(item_id)):  # else it is an echo of our own
            self.learner.publish_again(item_id)

    def _on_rival(self, record: Record, read: Stamp) -> None:
        """A record of our epoch or a higher one: ours, or of someone who writes instead of us."""
        if read == self._writer:
            self.writing = True
            self.model.epoch = read.epoch
        elif not self.writing or read.epoch > self.model.epoch:
            raise Deposed(f"{place(record)}: another trainer writes with epoch {read.epoch}; stop this one")
        elif isinstance(read, WriterRecord):
            self._writer_lost = True  # of a rival that was too late: it will read ours first, and give up

    def _write_over(self, key: bytes) -> None:
        """A deposed writer wrote `key` after we began: compaction must not keep that."""
        if not self.writing:
            return
        item_id, part = item_of_key(key), part_of_key(key)
        if item_id is not None:
            self.learner.publish_again(item_id)
        elif part is not None:
            self.learner.publish_parameters_again(part)
        self._writer_lost |= key == WRITER

    def _follow(self, read: Stamp, key: bytes) -> None:
        if isinstance(read, VectorsRecord):
            self.learner.follow(read.vectors())
        elif isinstance(read, ListsRecord):
            self.learner.follow(read.lists())
        elif isinstance(read, ParametersRecord):
            self.learner.follow(read.parameters(part_of_key(key) or ""))
        elif isinstance(read, CheckpointRecord):
            self._go_on_from(read)
        self.model.epoch, self.model.version = read.epoch, max(self.model.version, read.version)

    def _go_on_from(self, checkpoint: CheckpointRecord) -> None:
        try:
            self.learner.seen.load({p: _unpacked(packed) for p, packed in checkpoint.seen.items()})
        except (ValueError, zlib.error) as error:
            raise UnreadableError(f"model #checkpoint: {error}") from None
        self.positions = dict(checkpoint.offsets)
        self.examples = self.positions.pop(EXAMPLES, 0)

    # ---------------------------------------------------------------- outputs
    def _outputs(self, changed: Iterable[Changed]) -> Iterator[Output]:
        epoch, version = self.model.epoch, self.model.version
        for record in changed:
            self.counts["published"] += 1
            if isinstance(record, Tombstone):
                yield self._output(vectors_key(record.item_id), None)
                yield self._output(lists_key(record.item_id), None)
            elif isinstance(record, ItemVectors):
                yield self._output(vectors_key(record.item_id), encode_vectors(record, epoch, version))
            elif isinstance(record, Parameters):
                yield self._output(parameters_key(record.name), encode_parameters(record, epoch, version))
            else:
                yield self._output(lists_key(record.item_id), encode_lists(record, epoch, version))

    def _output(self, key: bytes, value: bytes | None) -> Output:
        return Output(self._topic, key, value, [], 0)


def _unpacked(packed: bytes) -> bytes:
    """At most what a partition's bitmap can be, whatever `packed` says."""
    return zlib.decompressobj().decompress(packed, WINDOW // 8 + 16)
