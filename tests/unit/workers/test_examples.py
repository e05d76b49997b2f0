"""From a served list to a lesson of the ranker: what waits, what is published, what the trainer makes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.candidates import Candidates
from pipeline.evaluation.prequential import Prequential, Setup
from pipeline.model.ranker import EARNED, WARM
from pipeline.model.trends import LADDER
from pipeline.queries import Queries
from pipeline.ranking import Learned, Served
from pipeline.recipe import RANKER, home
from pipeline.state import advance
from pipeline.types import Rows, hash_id
from tests.evaluating import Did, stream
from tests.records import Consumed
from tests.retrieving import NOW
from tests.streams import Ev, after, batch, nobody
from tests.unit.workers.test_retrieval import Deed, Shop, record
from workers.examples import EXAMPLES_A_SECOND, SEEN, Sampler, WaitingLists
from workers.feeds import Asked, FeedMaker
from workers.items import ItemReplica
from workers.settings import Settings, load
from workers.trainer import TrainerCore
from workers.wire.errors import UnreadableError
from workers.wire.example import Seeing, encode_example, read_example
from workers.wire.output import Output
from workers.wire.rules import Rules
from workers.wire.state import Cause, Fresh, StateRecord, encode_state

DIMENSION = 8


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "headrace.toml"
    file.write_text(f"[model]\ndimension = {DIMENSION}\n[feed]\nsize = 5\n")
    return load(file, environ={})


def served(m: int = 6, strangers: int = 2, f: int = 3, seed: int = 0) -> Served:
    rng = np.random.default_rng(seed)
    rows = np.concatenate((100 + np.arange(m), [101, 999][:strangers]))
    features = rng.normal(size=(f, m + strangers)).astype(np.float32)
    return Served(rows, features, -np.arange(m, dtype=np.float32), (0, 1, 2, 2), np.ones(7, np.float32), 2)


class TestServed:
    def test_a_choice_has_its_places_and_no_stranger_that_is_the_chosen(self) -> None:
        one = served()
        choice = one.chosen(101)
        assert choice is not None
        assert (choice.chosen, choice.logged, choice.total, choice.features.shape) == (1, 6, 6, (3, 7))
        np.testing.assert_array_equal(choice.features[:, 6], one.features[:, 7])  # 999 is left, 101 is not
        trends = [1 + int((one.features[line, :6] > one.features[line, 1]).sum()) for line in (0, 1, 2, 2)]
        assert choice.places.tolist() == [2, *trends]
        assert one.chosen(999) is None  # a stranger was not a candidate
        assert one.chosen(-1) is None
        assert served(m=0, strangers=0).chosen(5) is None

    def test_what_was_passed_over_is_told_of_a_choice_among_what_was_seen(self) -> None:
        seen = [104, 100, 7, 101, 999]  # 7 is no candidate, 999 was not shown but drawn
        for row, passed in ((101, [0, 4]), (100, [1, 4]), (103, [])):
            choice = served().chosen(row, seen)
            assert choice is not None
            assert choice.seen.tolist() == passed

    def test_packed_holds_the_same_in_half_the_bytes(self) -> None:
        one = served()
        one.features[0, 0] = 1e30  # more than it can hold
        half = one.packed()
        assert half.features.dtype == np.float16
        assert np.isfinite(half.features).all()
        np.testing.assert_allclose(half.features[:, 1:], one.features[:, 1:], rtol=1e-3)
        assert half.nbytes < one.nbytes


class TestWaitingLists:
    def test_the_least_recently_served_goes_when_there_is_no_room(self) -> None:
        size = served().nbytes
        lists = WaitingLists(users=3, nbytes=10 * size)
        for user in ("a", "b", "c", "a", "d"):
            lists.serve(user, 0, 5, f"feed-{user}", served())
        assert [user for user in "abcd" if lists.expects(user) == 5] == ["a", "c", "d"]
        assert (len(lists), lists.nbytes, lists.counts["lists_without_room"]) == (3, 3 * size, 1)
        few = WaitingLists(users=100, nbytes=2 * size)
        for at in range(9):
            few.serve(f"u{at}", 0, at, "f", served())
        assert (len(few), few.nbytes, few.expects("u8")) == (2, 2 * size, 8)

    def test_a_list_that_is_not_in_the_sample_takes_the_one_before_away(self) -> None:
        lists = WaitingLists()
        lists.serve("a", 0, 5, "f", served())
        lists.serve("a", 0, 7, "g", None)
        assert (lists.expects("a"), lists.nbytes) == (-1, 0)

    def test_a_list_is_learned_from_once(self) -> None:
        lists = WaitingLists()
        lists.serve("a", 0, 5, "f", served())
        feed_id, choice = lists.choose("a", 103)
        assert (feed_id, choice is not None, lists.expects("a"), lists.nbytes) == ("f", True, -1, 0)
        lists.serve("a", 0, 6, "g", served())
        assert lists.choose("a", 5) == ("g", None)
        assert (lists.counts["chosen"], lists.counts["chosen_elsewhere"]) == (1, 1)

    def test_what_was_seen_of_the_list_that_waits_is_remembered_within_bounds(self) -> None:
        lists = WaitingLists()
        lists.saw("a", "f", [100])
        lists.serve("a", 0, 5, "f", served(m=3 * SEEN))
        lists.saw("a", "e", [100, 101])  # of a feed before
        lists.saw("a", "f", [103, 7, 100])
        lists.saw("a", "f", [103, *range(104, 100 + 3 * SEEN)])
        _, choice = lists.choose("a", 103)
        assert choice is not None
        assert choice.seen.tolist() == [0, *range(4, 2 + SEEN)]
        assert lists.counts["impressions"] == 2

    def test_lists_of_a_partition_that_is_gone_and_of_the_forgotten_are_lost(self) -> None:
        lists = WaitingLists()
        for at, user in enumerate("abcd"):
            lists.serve(user, at % 2, 5, "f", served())
        lists.lose(1)
        lists.forget("a")
        lists.forget("nobody")
        assert [lists.expects(user) for user in "abcd"] == [-1, -1, 5, -1]
        assert lists.counts["lists_lost"] == 2
        assert lists.nbytes == served().nbytes


class TestSampler:
    def test_takes_all_of_a_little_and_a_uniform_part_of_a_lot(self) -> None:
        sampler = Sampler(50)
        assert all(sampler.take(second + at / 40) for second in range(5) for at in range(40))
        taken = [[sampler.take(second + at / 1000) for at in range(1000)] for second in range(5, 65)]
        assert all(sum(line) <= 50 for line in taken)
        assert sum(map(sum, taken[1:])) > 0.85 * 59 * 50  # the first second did not know what would come
        early = sum(sum(line[:500]) for line in taken[1:])
        late = sum(sum(line[500:]) for line in taken[1:])
        assert 0.8 * early < late  # hardly the early ones more than the late

    def test_is_open_again_after_a_pause(self) -> None:
        sampler = Sampler(10)
        for at in range(1000):
            sampler.take(at / 1000)
        assert sampler.take(30.0)


def examples(shop: Shop, *records: Consumed) -> list[Output]:
    """What goes to `examples`."""
    outputs = [output for result in shop.results(*records) for output in result.outputs]
    return [output for output in outputs if output.topic == "headrace.examples.v1"]


def impression(user: str, offset: int, data: bytes) -> Consumed:
    """The record that tells of a list shown."""
    blob = after(advance(nobody(1), batch([Ev(offset, 0, 0, NOW)]), DIMENSION)).blobs[0]
    value = encode_state(StateRecord(blob, b"", [Fresh(offset, NOW, 0, data)], False, None))
    return Consumed(user.encode(), value, [], "headrace.states.v1", 3, offset)


class TestHandler:
    def test_a_choice_from_the_list_becomes_an_example_that_names_no_user(self, settings: Settings) -> None:
        shop = Shop(settings)
        assert examples(shop, record("ann", Deed(1, "i0"))) == []
        feed_id = shop.handler.lists._lists["ann"].feed_id
        (output,) = examples(shop, record("ann", Deed(1, "i0"), Deed(2, "i4")))
        assert output.key == feed_id.encode()
        assert b"ann" not in (output.value or b"")
        layout = RANKER.layout
        example = read_example(output.value or b"")
        choice = example.choice(len(layout.columns), len(layout.contexts))
        assert (example.feed_id, example.layout) == (feed_id, layout.key)
        assert (choice.logged, choice.total, choice.bucket) == (9, 9, 1)  # ten items, one consumed
        assert choice.places[0] == 4  # i1, i2, i3 stood before it
        assert shop.handler.counts["examples"] == 1

    def test_what_the_user_saw_and_passed_over_goes_with_the_example(self, settings: Settings) -> None:
        shop = Shop(settings)
        (feed,) = shop.feeds(record("ann", Deed(1, "i0")))
        assert [item.item_id for item in feed.items] == ["i1", "i2", "i3", "i4", "i5"]
        seen = b'{"user_id":"ann","action":"view_item_list","feed_id":"%s","items":["i1","i2","new","i4"]}'
        seen %= feed.feed_id.encode()
        assert examples(shop, impression("ann", 2, seen)) == []
        (output,) = examples(shop, record("ann", Deed(1, "i0"), Deed(3, "i4")))
        layout, served = RANKER.layout, [f"i{at}" for at in range(10) if at != 0]
        choice = read_example(output.value or b"").choice(len(layout.columns), len(layout.contexts))
        assert len(choice.seen) == 2
        column = layout.columns.tolist().index(hash_id("popularity"))
        counts = np.exp(choice.features[column, choice.seen]) - 0.5
        np.testing.assert_allclose(sorted(counts), [18, 19], rtol=0.01)  # i2 and i1
        assert len(served) == choice.logged
        assert shop.handler.stats()["impressions"] == 1

    def test_what_was_not_on_the_list_is_no_example(self, settings: Settings) -> None:
        shop = Shop(settings)
        shop.results(record("ann", Deed(1, "i0")))
        assert examples(shop, record("ann", Deed(1, "i0"), Deed(2, "never seen"))) == []
        assert shop.handler.stats()["chosen_elsewhere"] == 1

    def test_lists_are_lost_with_their_partition(self, settings: Settings) -> None:
        shop = Shop(settings)
        shop.results(record("ann", Deed(1, "i0")))
        shop.handler.drop(3)
        assert examples(shop, record("ann", Deed(1, "i0"), Deed(2, "i4"))) == []
        assert shop.handler.stats()["lists_lost"] == 1

    def test_no_more_than_the_rate_are_published(self, settings: Settings) -> None:
        shop, users = Shop(settings), [f"u{at}" for at in range(3 * EXAMPLES_A_SECOND)]
        shop.results(*(record(user, Deed(at, "i0")) for at, user in enumerate(users)))
        some = examples(shop, *(record(user, Deed(at, "i0"), Deed(at + 500, "i4")) for at, user in enumerate(users)))
        assert 0 < len(some) <= 2 * EXAMPLES_A_SECOND  # a second may turn in between
        assert shop.handler.counts["examples"] == len(some)

    def test_figures(self, settings: Settings) -> None:
        shop = Shop(settings)
        shop.results(record("ann", Deed(1, "i0")))
        stats = shop.handler.stats()
        assert stats["lists_waiting"] == 1
        assert 0 < stats["lists_bytes"] < 10_000
        assert set(stats["trend_check"]) == {"ranked", "trending", "share"}


class TestTrainer:
    def served_to_many(self, settings: Settings, n: int) -> list[Output]:
        """Users who all choose the fourth of their list."""
        shop, found = Shop(settings), []
        for at in range(n):
            user = f"u{at}"
            shop.results(record(user, Deed(1, "i0")))
            shop.handler._sampler = Sampler(EXAMPLES_A_SECOND)  # a second has passed
            found += examples(shop, record(user, Deed(1, "i0"), Deed(2, "i4")))
        assert len(found) == n
        return found

    def consumed(self, outputs: list[Output]) -> list[Consumed]:
        return [Consumed(one.key, one.value, [], one.topic, 0, at) for at, one in enumerate(outputs)]

    def test_learns_publishes_and_goes_on_after_a_restart(self, settings: Settings) -> None:
        few = self.served_to_many(settings, 10)
        records = self.consumed(few * ((WARM + EARNED) // 10 + 1))
        trainer = TrainerCore(settings, Rules.of(settings))
        trainer.on_model(
            [Consumed(out.key, out.value, [], out.topic, 0, 0) for out in [trainer.begin_writing("me", 1)]]
        )
        trainer.on_examples(records)
        assert trainer.counts["examples"] == len(records)
        assert trainer.model.ranker.earned
        published = [
            Consumed(out.key, out.value, [], out.topic, 0, at) for at, out in enumerate(trainer.checkpoint(), 1)
        ]
        assert b"#ranker" in {one.key for one in published}
        heir, replica = TrainerCore(settings, Rules.of(settings)), ItemReplica(settings, catalog=False)
        heir.on_model(published)
        replica.on_model(published)
        assert heir.examples == trainer.examples == len(records)
        for model in (heir.model, replica.model):
            for name, array in trainer.model.ranker.export_parameters().items():
                np.testing.assert_array_equal(model.ranker.export_parameters()[name], array, err_msg=name)

    def test_what_cannot_be_learned_from_is_counted(self, settings: Settings) -> None:
        (good,) = self.served_to_many(settings, 1)
        example = read_example(good.value or b"")
        other = msgspec.structs.replace(example, layout=example.layout ^ 1)
        torn = msgspec.structs.replace(example, features=example.features[:-2])
        values = [b"\xc1", None, *map(msgspec.msgpack.encode, (other, torn, example))]
        trainer = TrainerCore(settings, Rules.of(settings))
        trainer.on_examples([Consumed(b"f", value, [], good.topic, 0, at) for at, value in enumerate(values)])
        assert dict(trainer.counts) == {"examples_unreadable": 3, "examples_of_another_ranker": 1, "examples": 1}
        assert trainer.examples == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": b"\0" * 7}, {"features": b""}, {"chosen": 3}, {"chosen": -1}, {"bucket": 6}, {"bucket": -1},
        {"places": b"\0" * 8}, {"places": b"\0" * 3}, {"context": b"\0" * 4}, {"logged": 9}, {"logged": 0},
        {"seen": b"\0"}, {"seen": b"\3\0"}, {"seen": b"\1\0"}, {"seen": b"\2\0\0\0"}, {"seen": b"\0\0\0\0"},
    ],
    ids=repr,
)  # fmt: skip
def test_an_example_whose_sizes_do_not_fit_is_unreadable(wrong: dict[str, bytes | int]) -> None:
    places = np.ones(1 + LADDER, np.float32).tobytes()
    context, features = np.ones(2, np.float32).tobytes(), np.ones(8, np.float16).tobytes()
    good = Seeing("f", 2, context, 1, 3, features, b"", 3, places, seen=np.array((0, 2), "<u2").tobytes())
    assert good.choice(2, 2).features.shape == (2, 4)
    assert good.choice(2, 2).seen.tolist() == [0, 2]
    with pytest.raises(UnreadableError, match="example: expected"):
        msgspec.structs.replace(good, **wrong).choice(2, 2)


@pytest.mark.parametrize("seen", [(), (100, 103, 105)])
def test_an_example_says_what_was_chosen(seen: tuple[int, ...]) -> None:
    choice = served().packed().chosen(103, seen)
    assert choice is not None
    read = read_example(encode_example("f", choice, 77))
    again = read.choice(3, 7)
    np.testing.assert_array_equal(again.features, choice.features)
    np.testing.assert_array_equal(again.places, choice.places)
    np.testing.assert_array_equal(again.context, choice.context)
    assert again.seen.tolist() == choice.seen.tolist() == ([0, 5] if seen else [])
    for name in ("logged", "total", "chosen", "bucket"):
        assert getattr(again, name) == getattr(choice, name)
    assert (read.layout, read.feed_id) == (77, "f")


# ---------------------------------------------------------------- parity of evaluation and live
class Watched(Prequential):
    """An evaluation that lets a live worker answer the same users, from the same model, at the same time."""

    def __init__(self, settings: Settings) -> None:
        rng = np.random.default_rng(3)
        users, items = rng.integers(0, 12, 400), (rng.pareto(0.7, 400) * 3).astype(np.int64) % 60
        events = [Did(f"u{user}", f"i{item}") for user, item in zip(users.tolist(), items.tolist(), strict=True)]
        super().__init__(stream(events), Setup(home(), dimension=DIMENSION, baselines=False))
        self.settings, self.compared, self.chosen_of = settings, 0, 0

    def _test(self, at: int, user: int, before: bytes, item: int) -> None:
        self.now = int(self._stream.time[at])
        self.asked = Asked(self.name(user), 0, before, Cause("e", 0))
        super()._test(at, user, before, item)

    def name(self, user: int) -> str:
        names = list(dict.fromkeys(f"u{one}" for one in np.random.default_rng(3).integers(0, 12, 400).tolist()))
        return names[user]

    def _learn_to_rank(self, queries: Queries, found: Candidates, chosen: Rows | int) -> None:
        ranker = self._setup.recipe.ranker
        assert isinstance(ranker, Learned)
        (mine,) = ranker.served(queries, self.catalog, self.model, [0])
        (made,) = FeedMaker(self.settings, self.model, self.catalog).make([self.asked], self.now)
        assert made.served is not None
        for field in ("rows", "scores", "context"):
            np.testing.assert_array_equal(getattr(made.served, field), getattr(mine, field), err_msg=field)
        np.testing.assert_array_equal(made.served.features, mine.packed().features)
        assert (made.served.bucket, made.served.trends) == (mine.bucket, mine.trends)
        self.compared += 1
        super()._learn_to_rank(queries, found, chosen)  # type: ignore[arg-type]


def test_evaluation_and_the_live_worker_compute_the_same_features(settings: Settings) -> None:
    watched = Watched(settings)
    watched.run()
    assert watched.compared == 400
    assert watched.model.ranker.examples > 100
