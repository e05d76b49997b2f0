"""What comes in is never in a log line, whichever follower meets it; what was expected is."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.records import Consumed
from workers.catalog import Keeper
from workers.items import ItemReplica
from workers.lessons import told_by
from workers.producer import Producer
from workers.recent import RecentReplica
from workers.settings import load
from workers.trainer import TrainerCore
from workers.wire.errors import InvalidError, expectation
from workers.wire.rules import Rules

TOKEN = "hunter2-4111"  # stands for whatever must not be there
SETTINGS = load(environ={}, flags={"clock": "stream", "kafka_partitions": 4, "model_dimension": 4})
VALUES = [
    TOKEN.encode(), b"\xff" + TOKEN.encode(), json.dumps({"item_id": TOKEN}).encode(), b"[" * 5000 + TOKEN.encode(),
    b"\x9c\x01\x01\xac" + TOKEN.encode(), b"\x81\xa4kind\xac" + TOKEN.encode(),
]  # fmt: skip
KEYS = [b"v:i", b"l:i", b"#checkpoint", b"#ranker", b"#" + TOKEN.encode(), b"v:\xff" + TOKEN.encode(), TOKEN.encode()]


@pytest.fixture(scope="module")
def followers() -> list[Any]:
    """Whatever takes records of the topics that workers write."""
    rules = Rules.of(SETTINGS)
    replica, trainer = ItemReplica(SETTINGS, catalog=True), TrainerCore(SETTINGS, rules)
    return [
        replica.on_model,
        replica.on_catalog,
        trainer.on_model,
        trainer.on_catalog,
        trainer.on_examples,
        Keeper(SETTINGS, Producer(SETTINGS)).on_records,
        RecentReplica(SETTINGS, rules, replica.model).on_recent,
        lambda records: told_by(records, rules, Counter()),
    ]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [*VALUES, None])
def test_a_log_line_says_what_was_expected_and_not_what_came(followers: Any, key: bytes, value: bytes | None) -> None:
    for follow in followers:
        with capture_logs() as lines:
            follow([Consumed(key, value)])
        for line in lines:
            told = {name: text for name, text in line.items() if name != "expected" or not key.endswith(TOKEN.encode())}
            assert TOKEN not in str(told)
            assert "unreadable" in line["event"]
            assert 0 < len(line["expected"]) <= 200


def test_what_was_found_is_cut_off() -> None:
    assert expectation(InvalidError(f"key: expected an id, found '{TOKEN}'; send it")) == "key: expected an id"
    tag = InvalidError(f"catalog: Invalid value '{TOKEN} - at {TOKEN}' - at `$.kind`")
    assert expectation(tag) == "catalog: Invalid value - at `$.kind`"
    assert len(expectation(ValueError("x" * 1000))) == 200
