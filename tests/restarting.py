"""Evaluation with a trainer that is killed in mid-stream, and how much the next one loses. Of the recipe `home`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.candidates import Candidates
from pipeline.evaluation.metrics import figures
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.prequential import Prequential, Setup
from pipeline.evaluation.stream import Stream
from pipeline.lessons import Told, lessons_from
from pipeline.model.ranker import Choice
from pipeline.queries import Queries
from pipeline.recipe import RANKER
from pipeline.state import Advanced
from pipeline.types import POSITIVE
from tests.records import Consumed
from workers.settings import Model as ModelSettings
from workers.settings import Settings
from workers.trainer import TrainerCore
from workers.wire.rules import Rules

SEEDS = range(1, 6)


class Killed(Prequential):
    """Evaluation whose trainer writes a checkpoint before event `saved` and is killed before event `killed`.

    The next trainer follows the records of `model`, byte for byte, and learns again, from `states` and `examples`, what
    came after the checkpoint. States and neighbourhoods are not the trainer's: they go on.
    """

    def __init__(self, stream: Stream, setup: Setup, saved: int, killed: int) -> None:
        super().__init__(stream, setup)
        self.records: list[Consumed] = []  # of `model`
        self._saved, self._killed = saved, killed
        self._since: list[Told] = []  # what `states` tells since the checkpoint
        self._choices: list[Choice] = []  # and `examples`

    def _publish(self, at: int) -> None:
        if at == self._saved:
            self._save()
        if at == self._killed:
            self._start_again(at)
        super()._publish(at)

    def _told(self, at: int, advanced: Advanced) -> Told:
        told = super()._told(at, advanced)
        self._since.append(told)
        return told

    def _learn_to_rank(self, queries: Queries, found: Candidates, chosen: int) -> None:
        (served,) = RANKER.served(queries, self.catalog, self.model, range(1))
        choice = served.chosen(chosen)
        if choice is not None:
            self._choices.append(choice)
        super()._learn_to_rank(queries, found, chosen)

    def _save(self) -> None:
        trainer = self._trainer()
        trainer.model, trainer.learner = self.model, self.learner
        self.records = [
            Consumed(out.key, out.value, [], out.topic, 0, at) for at, out in enumerate(trainer.checkpoint())
        ]
        self._since.clear()
        self._choices.clear()

    def _start_again(self, at: int) -> None:
        trainer = self._trainer()
        trainer.on_model(self.records)
        self.model, self.catalog, self.learner = trainer.model, trainer.catalog, trainer.learner
        self._shown = self.model.rows.column((), np.int64, 0)
        self._arrived = 0
        super()._publish(at)  # the trainer follows `catalog` before it learns
        for told in self._since:
            self.learner.learn(lessons_from(told, self._stream.weights))
        for choice in self._choices:
            RANKER.take_in(self.model, choice)
        taken = np.flatnonzero((self._stream.effect[:at] & POSITIVE != 0) & (self._stream.item[:at] != 0))
        users = self._stream.user_hash[self._stream.user[taken]]
        self.model.neighbourhood.add(users, self.model.rows.rows(self._stream.item[taken]))

    def _trainer(self) -> TrainerCore:
        model = ModelSettings(dimension=self._setup.dimension, negatives=self._setup.negatives, seed=self._setup.seed)
        settings = Settings(model=model)
        return TrainerCore(settings, Rules.of(settings))


@dataclass(frozen=True, slots=True)
class Loss:
    """Recall@10 and NDCG@10 of known users after the kill: of five runs that went on, and of the one that did not."""

    whole: tuple[tuple[float, float], ...]  # a run a seed
    killed: tuple[float, float]

    def bearable(self) -> bool:
        """Does the killed one lose no more than the spread of the others, from their mean, by either metric?"""
        whole = np.array(self.whole)
        return bool((whole.mean(axis=0) - self.killed <= np.ptp(whole, axis=0)).all())


def unharmed(stream: Stream, setup: Setup, killed: int) -> tuple[tuple[float, float], ...]:
    """What five runs that go on reach, a seed each."""
    return tuple(after(Prequential(stream, replace(setup, seed=seed)).run(), killed) for seed in SEEDS)


def after(outcomes: Outcomes, killed: int) -> tuple[float, float]:
    """Recall@10 and NDCG@10 of the known users' queries from event `killed` on."""
    found = figures(outcomes.rank[(outcomes.event >= killed) & (outcomes.history >= 1)])
    return float(found["recall@10"] or 0), float(found["ndcg@10"] or 0)
