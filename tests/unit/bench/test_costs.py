"""What the benchmark of costs measures is what it says: a model that learned, lists to rank, choices to learn from."""

from __future__ import annotations

from pipeline.recipe import home
from tests.bench.costs import School, Size, cost

SMALL = Size(items=100, dimension=8, history=2)


def test_a_school_learns_every_event_of_its_load() -> None:
    school = School(SMALL)
    school.attend()
    events = SMALL.items + SMALL.users * SMALL.history
    assert school.model.trends.count.sum() == events
    assert school.model.sequence.known[: SMALL.items].all()
    assert len(school.model.neighbourhood) > SMALL.users / 2
    assert 0 < school.events <= events - events // 2


def test_costs_are_of_queries_with_candidates_and_of_choices() -> None:
    found = cost(SMALL, home())
    assert found.candidates > 50
    assert min(found.alone, found.chunk, found.learn, found.neighbours, found.choice) > 0
