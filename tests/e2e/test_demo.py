"""The demo from outside: a process that plays, and one JSON object that says that nothing was lost or left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from workers.settings import Settings

OFFICIAL = Path(Settings().data) / "ml-100k"
KEYS = [
    "events", "feeds", "users", "items", "dead_letters", "lag", "stale_users", "unannounced", "event_to_feed_ms",
    "broker", "store", "live",
]  # fmt: skip


def demo(root: Path, *arguments: str, prefix: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, without settings from here."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    given = ["--prefix", prefix] if prefix else []
    return subprocess.run(
        [sys.executable, "-m", "workers.cli", "demo", "--exit", *given, *arguments],
        env={**environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one object that it printed."""
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-1000:]
    (line,) = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report


def assert_whole(report: dict[str, Any], events: int) -> None:
    """Everything played was taken, announced and answered."""
    assert list(report) == KEYS
    assert report["events"] == events
    assert {name: report[name] for name in ("dead_letters", "lag", "stale_users", "unannounced")} == {
        "dead_letters": 0,
        "lag": 0,
        "stale_users": 0,
        "unannounced": 0,
    }
    assert 0 < report["users"] <= report["feeds"] <= events
    assert report["items"] > 0
    latency = report["event_to_feed_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    live = report["live"]
    assert 0 < live["events"] < events
    assert 0 <= live["ndcg@10"] <= live["recall@10"] <= 1


def test_the_synthetic_world_on_the_embedded_pair(root: Path) -> None:
    report = report_of(demo(root, "--events", "1500", "--rate", "500", "--json"))
    assert_whole(report, 1500)
    assert report["broker"].startswith("embedded 127.0.0.1:")
    assert report["store"].startswith("Valkey ")


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"MovieLens 100K is not at {OFFICIAL}")
def test_real_ratings_on_a_real_broker_and_store(root: Path, broker: str, store_url: str) -> None:
    where = ["--broker", broker, "--store", store_url]
    report = report_of(demo(root, "--events", "1500", "--rate", "500", "--json", "--data", str(OFFICIAL), *where))
    assert_whole(report, 1500)
    assert report["items"] == 1682
    assert report["broker"] == broker


@pytest.mark.kafka
@pytest.mark.redis
def test_events_happen_now_under_clock_wall(root: Path, broker: str, store_url: str, prefix: str) -> None:
    where = ["--broker", broker, "--store", store_url, "--clock", "wall", "--set", "kafka_partitions=3"]
    report = report_of(demo(root, "--events", "300", "--rate", "100", "--json", *where, prefix=prefix))
    assert_whole(report, 300)


def test_without_a_terminal_it_says_lines(root: Path) -> None:
    done = demo(root, "--events", "200", "--rate", "200")
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^events [0-9,]+ \(\d+/s\)  feeds ", done.stdout, re.MULTILINE)
    assert "200 events of " in done.stdout
    assert "dead letters 0, lag 0, stale users 0, unannounced 0" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_interrupt_ends_the_playing_and_still_tells(root: Path) -> None:
    command: Sequence[str] = [
        sys.executable,
        "-m",
        "workers.cli",
        "demo",
        "--rate",
        "50",
        "--set",
        "kafka_partitions=3",
    ]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(root)}, cwd=root, stdout=subprocess.PIPE, text=True
    ) as playing:
        assert playing.stdout is not None
        for line in playing.stdout:
            played = re.match(r"events ([0-9,]+) ", line)
            if played and int(played[1].replace(",", "")) > 20:
                playing.send_signal(signal.SIGINT)
                break
        rest = playing.stdout.read()
        assert playing.wait(60) == 0
    assert "lag 0, stale users 0, unannounced 0" in rest
