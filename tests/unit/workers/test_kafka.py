"""Asking a broker again: what is repeated, for how long, and what is not."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaError, NodeNotReadyError, TopicAuthorizationFailedError

from tests.waiting import run
from workers.kafka import BrokerUnavailable, patiently
from workers.settings import Settings, load


class Asked:
    """A question that fails so often before it is answered."""

    def __init__(self, failures: int, error: type[KafkaError]) -> None:
        self.times, self._failures, self._error = 0, failures, error

    async def __call__(self) -> str:
        self.times += 1
        if self.times <= self._failures:
            raise self._error("node 1")
        return "answer"


def patient(seconds: float) -> Settings:
    return load(environ={}, flags={"kafka_connect_timeout_s": seconds})


def test_a_node_that_is_away_is_asked_again() -> None:
    asked = Asked(2, NodeNotReadyError)
    assert run(patiently(patient(60), asked)) == "answer"
    assert asked.times == 3


def test_what_no_repetition_mends_is_raised_at_once() -> None:
    asked = Asked(1, TopicAuthorizationFailedError)
    with pytest.raises(TopicAuthorizationFailedError):
        run(patiently(patient(60), asked))
    assert asked.times == 1


def test_after_the_time_given_at_start_it_ends_with_one_line() -> None:
    with pytest.raises(BrokerUnavailable, match=r"kafka: 127\.0\.0\.1:9092: .*node 1; is a node down\?"):
        run(patiently(patient(0.1), Asked(1000, NodeNotReadyError)))
