"""What is learned of items. `Model` binds the parts to one set of rows; each part is a file of this folder."""

from __future__ import annotations

from pipeline.model.bridge import Bridge
from pipeline.model.clusters import Clusters
from pipeline.model.covisitation import Covisitation
from pipeline.model.neighbourhood import Neighbourhood
from pipeline.model.parameters import Part, put
from pipeline.model.ranker import RankerModel
from pipeline.model.rows import ItemRows
from pipeline.model.sequence import Sequence
from pipeline.model.trends import Trends
from pipeline.types import CONTENT, ItemLists, ItemVectors, Parameters


class Model:
    """The item model: the trainer writes it, everyone else follows it record by record."""

    def __init__(self, rows: ItemRows, dimension: int, content: int = CONTENT) -> None:
        self.rows = rows
        self.dimension = dimension
        self.sequence = Sequence(rows, dimension)
        self.covisitation = Covisitation(rows)
        self.neighbourhood = Neighbourhood(rows)  # of users, followed from their events: no record tells it
        self.trends = Trends(rows)
        self.ranker = RankerModel()
        self.clusters = Clusters(dimension)
        self.bridge = Bridge(dimension, content)
        self.parts: dict[str, Part] = {  # those that have parameters
            "sequence": self.sequence,
            "ranker": self.ranker,
            "clusters": self.clusters,
            "bridge": self.bridge,
        }
        self.epoch = 0  # the writer's
        self.version = 0  # the writer's count of flushes; never restarts

    def vectors(self, row: int) -> ItemVectors:
        """The record of `row` without its lists."""
        return ItemVectors(
            item_id=self.rows.ids[row],
            hash=int(self.rows.hashes[row]),
            **self.sequence.export(row),
            **self.trends.export(row),
        )

    def put_vectors(self, record: ItemVectors) -> int:
        """Take a `v:` record in; returns its row."""
        row = self.rows.row(record.hash, record.item_id)
        self.sequence.put(row, record)
        self.trends.put(row, record)
        return row

    def lists(self, row: int) -> ItemLists:
        """The lists of `row`."""
        return self.covisitation.export(row, self.rows.ids[row])

    def put_lists(self, record: ItemLists) -> int:
        """Take an `l:` record in; returns its row. Hashes first met here get rows that are not yet eligible."""
        row = self.rows.row(record.hash, record.item_id)
        self.covisitation.put(row, record)
        return row

    def parameters(self, name: str) -> Parameters:
        """The record of part `name`."""
        return Parameters(name, self.parts[name].export_parameters())

    def put_parameters(self, record: Parameters) -> None:
        """Take a `#<name>` record in; that of a part which this version does not have is passed over.

        Raises UnfitError, and changes nothing, if it is not for this model.
        """
        if record.name in self.parts:
            put(record.name, self.parts[record.name], record.arrays)

    def drop(self, item: int) -> None:
        """Forget what was learned of hash `item`: its record became a tombstone."""
        row = int(self.rows.row(item))
        self.sequence.clear(row)
        self.covisitation.clear(row)
        self.trends.clear(row)
