"""A worker of all roles, fed garbage: it goes on, listens nowhere, and its log holds nothing of what came in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSettings
from tests.listening import listening
from tests.waiting import eventually, run
from workers import kafka
from workers.replica import log_reader
from workers.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(280)]

TOKEN = "hunter2-4111111111111111"  # stands for whatever must not be in a log
FOLLOWED = ("model record", "catalogue record", "recent record", "example")
WORKERS_OWN = ("states", "model", "catalog", "recent", "examples")


def garbage() -> list[tuple[bytes, bytes]]:
    """Records that break a rule each, with the token in the place that breaks it, or beside it."""
    whole = {"user_id": "ada", "item_id": "i-1", "action": "click"}
    broken: list[Any] = [
        TOKEN, [TOKEN], {TOKEN: TOKEN}, {**whole, "user_id": f"{{{TOKEN}"}, {**whole, "item_id": f"{TOKEN} "},
        {**whole, "time": TOKEN}, {**whole, "value": TOKEN}, {**whole, "event_id": TOKEN * 40},
        {**whole, "action": f"{TOKEN}\n"}, {**whole, "attributes": {"market": TOKEN * 20}, "action": "profile"},
        {**whole, "text": TOKEN, "time": 1}, {**whole, "feed_id": f"{TOKEN}\x1b[31m"},
    ]  # fmt: skip
    values = [json.dumps(body).encode() for body in broken]
    values += [TOKEN.encode(), b"\xff" + TOKEN.encode(), b"[" * 5000 + TOKEN.encode(), b"\x93" + TOKEN.encode()]
    keys = [b"ada", f"{TOKEN}\n".encode(), b"v:" + TOKEN.encode() + b"\xff", b"l:i-1", b"#checkpoint", b"0"]
    return [(key, value) for key in keys for value in values]


def test_a_log_holds_nothing_of_what_came_in(make_settings: MakeSettings, tmp_path: Path, root: Path) -> None:
    settings = make_settings(kafka_partitions=2)
    log = tmp_path / "log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "workers.cli", "worker", "all"],
            cwd=root, env={**os.environ, **_environ(settings)}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        sent = run(_fed(settings, log, worker), within_s=250)
        assert worker.poll() is None, log.read_text()[-3000:]
        if Path("/proc/net/tcp").exists():
            assert listening(worker.pid) == []
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
    text = log.read_text(errors="replace")
    assert sent > 200
    assert "Traceback" not in text
    assert "hunter2" not in text, [line[:300] for line in text.splitlines() if "hunter2" in line][:5]
    assert "\x1b" not in text


def _environ(settings: Settings) -> dict[str, str]:
    given = {
        "PREFIX": settings.prefix,
        "KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
        "KAFKA_PARTITIONS": settings.kafka.partitions,
        "KAFKA_FETCH_WAIT_MS": settings.kafka.fetch_wait_ms,
        "STORE_URL": settings.store.url,
    }
    return {f"HEADRACE_{name}": str(value) for name, value in given.items()}


async def _fed(settings: Settings, log: Path, worker: subprocess.Popen[bytes]) -> int:
    """Write garbage to every topic that a worker reads; returns how much, when it has been met."""

    def alive() -> str:
        """What it has logged so far."""
        text = log.read_text()
        assert worker.poll() is None, text[-3000:]
        return text

    async def runs() -> bool:
        return '"running"' in alive()

    await eventually(runs, within_s=170)  # kernels may have to be compiled
    records = garbage()
    producer = await kafka.start_producer(settings)
    try:
        for dataset in ("events", "items", *WORKERS_OWN):
            for key, value in records:
                await producer.send(settings.topic(dataset), value, key=key, partition=0)
        await producer.flush()
    finally:
        await producer.stop()

    async def met() -> bool:
        """What only followers read is told in the log, that of lanes becomes dead letters: of events and items every
        one, for some are valid, but none is of both topics."""
        text = alive()
        if not all(f"{what} unreadable" in text for what in FOLLOWED):
            return False
        async with log_reader(settings) as reader:
            (span,) = (await reader.spans(settings.topic("dead-letters"))).values()
        return span.end >= 1.5 * len(records)

    await eventually(met, within_s=90)
    return 7 * len(records)
