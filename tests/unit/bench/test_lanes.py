"""The benchmark of the lanes, as far as it needs no servers: steps that are there and are timed, rows, conditions."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

import pytest

from tests.bench.costs import School, Size
from tests.bench.lanes import Row, environment, readable
from tests.bench.steps import STEPS, Steps
from workers.feeds import Asked, FeedMaker
from workers.settings import load
from workers.trainer import TrainerCore
from workers.wire.rules import Rules
from workers.wire.state import Cause

NOW = int(time.time() * 1000)


def holder_of(where: str) -> Any:
    module, _, owner = where.partition(":")
    found = import_module(module)
    return getattr(found, owner) if owner else found


@pytest.fixture
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The steps of a role, whose functions are themselves again after the test."""
    for functions in STEPS[request.param].values():
        for where, name in functions:
            monkeypatch.setattr(holder_of(where), name, getattr(holder_of(where), name))
    return Steps(request.param)


@pytest.mark.parametrize("role", STEPS)
def test_steps_name_functions_that_are_there(role: str) -> None:
    for functions in STEPS[role].values():
        for where, name in functions:
            assert callable(getattr(holder_of(where), name))


@pytest.mark.parametrize("steps", ["retrieval"], indirect=True)
def test_the_steps_of_a_feed_make_up_most_of_it(steps: Steps) -> None:
    school = School(Size(items=200, history=2))
    school.attend()
    maker = FeedMaker(load(environ={}), school.model, school.catalog)
    maker.warm_up()
    asked = [Asked(f"u{user}", 0, school.blobs[user], Cause("e", NOW, None, None, 1)) for user in school.guests()[:64]]
    steps.seconds.clear()
    begun = time.process_time()
    assert len(maker.make(asked, NOW)) == 64
    spent = time.process_time() - begun
    made = ("make queries", "gather", "sift", "rank", "arrange", "explain", "log lists", "encode")
    assert set(steps.seconds) == set(made)
    assert min(steps.seconds.values()) > 0
    assert 0.5 * spent < sum(steps.seconds.values()) <= spent


@pytest.mark.parametrize("steps", ["trainer"], indirect=True)
def test_the_steps_of_a_trainer_are_timed_and_change_nothing(steps: Steps) -> None:
    settings = load(environ={})
    trainer = TrainerCore(settings, Rules.of(settings))
    trainer.on_states([])
    records = list(trainer.checkpoint())
    assert records[-1].key == b"#checkpoint"
    assert set(steps.seconds) == set(STEPS["trainer"])
    assert min(steps.seconds.values()) > 0


def test_a_row_of_feeds_says_how_many_states_they_answer() -> None:
    figures = {"per_core_s": 4620, "taken_per_core_s": 9300, "us_each": 216.0, "steps_us": {"rank": 90.1}}
    said = "| retrieval | 10,000 items | 12 | 4,620 feeds/s and core of 9,300 states, 216.0 us each (rank 90.1) |"
    assert readable(Row("retrieval", "10,000 items", 12, figures)) == said


def test_a_process_gets_the_settings_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that the benchmark's own environment has."""
    monkeypatch.setenv("HEADRACE_DATA", "elsewhere")
    monkeypatch.setenv("HEADRACE_FEED_SIZE", "50")
    flags = {"prefix": "p", "kafka_fetch_wait_ms": 20, "model_flush_bytes": 131_072, "feed_recipe": "lean"}
    settings = load(environ={}, flags=flags)
    assert load(environ=environment(settings)) == settings
