"""A town whose users' true tastes are known: they are fed by a recipe, act on what they see, and the model learns it.

What user u wants of item i at a time is affinity(u, i) + appeal(i, t), as the synthetic world tells, less DISTASTE on
shelves that u is not in the mood for just now. A user looks at the first few places of the feed and takes the best of
them, or, if that is not much beside all that there is, finds something elsewhere; so a feed's order decides what it is
judged by. Some hide the worst they saw. Draws depend on the seed and the step alone: arms meet the same users, moods
and dice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.blob import decode
from pipeline.catalog import Catalog
from pipeline.learning import Learner
from pipeline.lessons import Told, lessons_from
from pipeline.model import Model
from pipeline.model.ranker import RankerModel, Training
from pipeline.model.rows import ItemRows
from pipeline.queries import NO_ATTRIBUTES, queries_from
from pipeline.ranking import Learned, Served
from pipeline.recipe import ENCODING
from pipeline.retrieval import Recipe, arrange, cut, shortlist
from pipeline.state import Users, advance
from pipeline.types import BLOCKS, CONSUMES, F64, I64, POSITIVE, Events, Mask, Rows, hash_id, hash_of
from workers.importers.dataset import Dataset
from workers.importers.stream import stream_of
from workers.settings import ACTIONS, Settings
from workers.world import World

USERS, ITEMS = 150, 600
STEP_MS = 60_000  # from one user's visit to the next one's
DISTASTE, RARELY = 4.0, 0.3  # log-odds, and the share of shelves that a user is not in the mood for
ATTENTION = 0.85  # chance to look at one more place
EFFORT = 3.0  # log-odds by which what is fed is ahead of what must be found
BAD = 0.5  # what is wanted less than this share of all items is bad
NOISE = 0.12  # of how much an action tells of the taste
REGROUP, TIDES = 250, 100  # steps after which clusters move, and what items are to everybody

Hides = Literal["never", "ignored", "taken", "blocked"]


@dataclass(frozen=True, slots=True)
class Arm:
    """How a town's feedback is read."""

    recipe: Recipe
    weights: tuple[float, float, float, float] = (0.3, 1.0, 2.0, 4.0)  # of view, click, like, purchase
    graded: bool = False  # do users view, click, like and buy by how much they like it; else they click
    hides: Hides = "never"  # what becomes of it when a user hides something


@dataclass(frozen=True, slots=True)
class Visit:
    """What a user's visit came to."""

    user: int
    liked: float  # mean affinity of what was fed
    wanted: float  # the same, by the mood of the moment
    taken: float  # the chance that they take something of it


class Rival:
    """A ranker beside the town's own: the same lists, but what users passed over has a weight of its own."""

    def __init__(self, passed_over: float) -> None:
        self._model, self._how = RankerModel(), Training(passed_over=passed_over)
        self.best: list[tuple[int, F64]] = []  # user, worth (3,) of the ten that it puts first, on average

    def meet(self, user: int, ranker: Learned, served: Served, worth: F64, rows: Rows, chosen: int, seen: I64) -> None:
        """A list of candidates that are worth (3, m + e): what stands first of it, then what there is to learn from the
        item chosen and those seen."""
        m = len(served.scores)
        lists = np.ascontiguousarray(served.features[:, :m], np.float32), np.array((0, m))
        scores = self._model.score(ranker.layout, *lists, served.context[None], np.array([served.bucket]))
        self.best.append((user, worth[:, np.argsort(-scores, kind="stable")[:10]].mean(axis=1)))
        choice = served.chosen(int(rows[chosen]), rows[seen].tolist())
        if choice is not None:
            self._model.learn(ranker.layout, choice, self._how)


class Town:
    """Users 0.. and items 0.. of the synthetic world of `seed`; everything that serves them, from nothing."""

    def __init__(self, seed: int, arm: Arm, users: int = USERS, items: int = ITEMS) -> None:
        self.arm, self._seed = arm, seed
        self._world = World(seed=seed, users=users, items=items)
        catalog = list(self._world.items())
        self.ids = [str(data["item_id"]) for data in catalog]
        self.affinity: F64 = np.array([[self._world.affinity(u, i) for i in self.ids] for u in self._world.users])
        shelves = [data["categories"][1] for data in catalog]
        self.shelf = np.unique(shelves, return_inverse=True)[1]
        self.model = Model(ItemRows(), Settings().model.dimension, ENCODING.dimension)
        self.catalog = Catalog(self.model.rows, dimension=ENCODING.dimension)
        self._learner = Learner(self.model, seed, catalog=self.catalog)
        everything = stream_of(Dataset("town", [("item", data) for data in catalog], [], ""), Settings()).stream
        for _, entry in everything.arrivals:
            self.catalog.put(entry)
        self._hashes = np.array([hash_id(one) for one in self.ids], np.uint64)
        self._rows = self.model.rows.find(self._hashes)
        self._item = np.argsort(self._rows)  # by row
        self._user_hash = np.array([hash_of(user) for user in self._world.users], np.uint64)
        self._weights = np.zeros(256, np.float32)
        for name, weight in zip(("view", "click", "like", "purchase"), arm.weights, strict=True):
            self._weights[ACTIONS[name].code] = weight
        self.rivals: dict[str, Rival] = {}
        self.blobs = [b""] * users
        self.now = self._world.start
        self._done = np.zeros((users, items), np.bool_)  # consumed or blocked
        self._moods = self._draw(-1).random((users, self.shelf.max() + 1)) < RARELY
        self._appeal: F64 = np.zeros(items)
        self._offset = 0

    def run(self, steps: int) -> list[Visit]:
        """So many visits, one after the other."""
        return [self._step(step) for step in range(steps)]

    def look(self, user: int, blob: bytes, now: int, recipe: Recipe) -> I64:
        """The items of a feed."""
        queries = queries_from(decode([blob]), np.array([now]), self.model, [NO_ATTRIBUTES])
        found = shortlist(queries, self.catalog, self.model, recipe)
        items: I64 = self._item[arrange(queries, self.catalog, self.model, found, recipe.arrangers).rows[: recipe.size]]
        return items

    def moods(self, step: int) -> Mask:
        """(users, shelves) which each is not in the mood for."""
        moods: Mask = self._draw(step).random(self._moods.shape) < RARELY
        return moods

    def wants(self, user: int, moods: Mask) -> F64:
        """(items,) how much a user wants each, as log-odds, in those moods (users, shelves)."""
        wants: F64 = self.affinity[user] - DISTASTE * moods[user, self.shelf]
        return wants

    def act(self, blob: bytes, action: str, effect: int, item: int, now: int) -> tuple[bytes, Told]:
        """The state after one more event, and what a record of `states` would tell of it."""
        self._offset += 1
        offset, time, hashes = np.array([self._offset]), np.array([now]), self._hashes[item : item + 1]
        code, one = np.array([ACTIONS[action].code], np.uint8), np.zeros(1, np.int64)
        event = Events(one, offset, time, hashes, np.zeros(1, np.uint64), code, np.array([effect], np.uint8), [])
        after = advance(Users([blob], one - 1, one), event, self.model.dimension)
        state = after.buffer.tobytes()
        return state, Told(
            one, decode([state]),
            after.evicted_start, after.evicted_items, after.evicted_times, after.evicted_actions,
            np.array((0, 1)), offset, time, hashes, code, [self.ids[item]],
        )  # fmt: skip

    # ---------------------------------------------------------------- a visit
    def _step(self, step: int) -> Visit:
        dice = self._draw(step)
        self.now += STEP_MS
        user = int(dice.integers(len(self.blobs)))
        if dice.random() < RARELY:
            self._moods[user] = self.moods(step)[user]
        if step % TIDES == 0:
            self._appeal = np.array([self._world.appeal(one, self.now) for one in self.ids])
        wants = self.wants(user, self._moods)
        luck, looks = dice.gumbel(size=len(self.ids)), int(np.log(dice.random()) / np.log(ATTENTION))
        queries = queries_from(
            decode([self.blobs[user]]), np.array([self.now]), self.model, [NO_ATTRIBUTES],
            users=self._user_hash[user : user + 1],
        )  # fmt: skip
        recipe = self.arm.recipe
        found = shortlist(queries, self.catalog, self.model, recipe)
        shown = cut(queries, arrange(queries, self.catalog, self.model, found, recipe.arrangers), recipe.size)
        fed = self._item[shown.rows]
        seen = fed[: 1 + looks]
        chance, item = self._choose(user, seen, wants + self._appeal, luck, dice.random())
        if isinstance(recipe.ranker, Learned):
            (served,) = recipe.ranker.served(queries, self.catalog, self.model, [0])
            worth = np.stack((self.affinity[user], self.affinity[user] + self._appeal, wants + self._appeal))
            for rival in self.rivals.values():
                rival.meet(user, recipe.ranker, served, worth[:, self._item[served.rows]], self._rows, item, seen)
            recipe.ranker.learn(queries, self.catalog, self.model, found, self._rows[item : item + 1])
        self._take(user, self._deed(user, item, dice), item)
        self._hide(user, seen[seen != item], wants, dice)
        if step % REGROUP == REGROUP - 1:
            self._learner.regroup()
        return Visit(user, float(self.affinity[user, fed].mean()), float(wants[fed].mean()), chance)

    def _choose(self, user: int, seen: I64, worth: F64, luck: F64, dice: float) -> tuple[float, int]:
        """The chance that they take something of what they saw, and what they take, there or elsewhere."""
        lucky = np.where(self._done[user], -np.inf, worth + luck)
        everything, here = _log_sum(worth[~self._done[user]]), _log_sum(worth[seen])
        chance = float(1 / (1 + np.exp(everything - EFFORT - here))) if len(seen) else 0.0
        if dice < chance:
            return chance, int(seen[np.argmax((worth + luck)[seen])])
        lucky[seen] = -np.inf
        return chance, int(np.argmax(lucky))

    def _deed(self, user: int, item: int, dice: np.random.Generator) -> str:
        """What they do with it: the more, the better they like it."""
        grade = (self.affinity[user] < self.affinity[user, item]).mean() + NOISE * dice.gumbel()
        if not self.arm.graded:
            return "click"
        return "view" if grade < 0.75 else "click" if grade < 0.9 else "like" if grade < 1.0 else "purchase"

    def _hide(self, user: int, seen: I64, wants: F64, dice: np.random.Generator) -> None:
        """Half of the time, the worst that they saw, if it is bad."""
        if dice.random() < 0.5 or not len(seen) or self.arm.hides == "never":
            return
        worst = int(seen[np.argmin(wants[seen])])
        if wants[worst] >= np.quantile(self.affinity[user], BAD):
            return
        if self.arm.hides == "taken":
            self._take(user, "click", worst)
        elif self.arm.hides == "blocked":
            self.blobs[user], _ = self.act(self.blobs[user], "hide", BLOCKS | CONSUMES, worst, self.now)
            self._done[user, worst] = True

    def _take(self, user: int, action: str, item: int) -> None:
        """A positive event, and what is learned from it."""
        effect = POSITIVE * int(self._weights[ACTIONS[action].code] > 0) | CONSUMES * ACTIONS[action].consumes
        self.blobs[user], told = self.act(self.blobs[user], action, effect, item, self.now)
        self._done[user, item] |= ACTIONS[action].consumes
        if effect & POSITIVE:
            self._learner.learn(lessons_from(told, self._weights))
            self.model.neighbourhood.add(self._user_hash[user : user + 1], self._rows[item : item + 1])

    def _draw(self, step: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, 1 + step])


def _log_sum(values: F64) -> float:
    return float(np.logaddexp.reduce(values)) if len(values) else -np.inf
