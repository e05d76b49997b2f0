"""The demo from outside: a process that plays, and one JSON object that says that nothing was lost or left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines import read
from tests.waiting import run
from workers import cli, embedded
from workers.importers import movielens
from workers.settings import Settings, load
from workers.store import Store
from workers.wire.event import Rules, read_event
from workers.wire.times import parse_time
from workers.world.world import World

OFFICIAL = Path(Settings().data) / "ml-100k"
KEYS = [
    "events", "feeds", "users", "items", "dead_letters", "lag", "stale_users", "unannounced", "event_to_feed_ms",
    "broker", "store", "live",
]  # fmt: skip


def demo(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, without settings from here."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return subprocess.run(
        [sys.executable, "-m", "workers.cli", "demo", "--exit", *arguments],
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


def times_played(**flags: Any) -> list[int]:
    """When each event on the topic happened, ms, in order; the prefix is one of this very clock."""
    settings = load(environ={}, flags=flags)

    async def main() -> list[int]:
        store = await Store.connect(settings)
        try:
            await store.check()
        finally:
            await store.close()
        rules, now = Rules.of(settings), round(time.time() * 1000)
        return sorted(read_event(record, rules, now).time_ms for record in await read(settings, "events"))

    return run(main())


def prefix_of(done: subprocess.CompletedProcess[str]) -> str:
    """The prefix that it took for itself."""
    named = re.search(r"^prefix (demo-\S+)$", done.stderr, re.MULTILINE)
    assert named is not None, done.stderr
    return named[1]


def test_the_synthetic_world_on_the_embedded_pair(root: Path) -> None:
    report = report_of(demo(root, "--events", "1500", "--rate", "500", "--json"))
    assert_whole(report, 1500)
    assert report["broker"].startswith("embedded 127.0.0.1:")
    assert report["store"].startswith("Valkey ")


@pytest.mark.redis
@pytest.mark.usefixtures("quiet_again")
def test_events_keep_the_times_of_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unless a clock is named; the embedded pair outlives the command, so that it can be read."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    with embedded.pair() as pair:
        monkeypatch.setattr(embedded, "pair", lambda: nullcontext(pair))
        assert cli.run(["demo", "--exit", "--events", "60", "--rate", "60", "--json"]) == 0
        played = times_played(**pair.flags(), clock="stream")
    assert played == [event["time"] for event in World().events(60)]


@pytest.mark.kafka
@pytest.mark.redis
@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"MovieLens 100K is not at {OFFICIAL}")
def test_real_ratings_on_a_real_broker_and_store(root: Path, broker: str, store_url: str) -> None:
    where = ["--broker", broker, "--store", store_url]
    done = demo(root, "--events", "1500", "--rate", "500", "--json", "--data", str(OFFICIAL), *where)
    report = report_of(done)
    assert_whole(report, 1500)
    assert report["items"] == 1682
    assert report["broker"] == broker
    played = times_played(kafka_bootstrap=broker, store_url=store_url, prefix=prefix_of(done), clock="stream")
    assert played == [parse_time(rating["time"]) for _, rating in movielens.read(OFFICIAL).first(1500).stream]


@pytest.mark.kafka
@pytest.mark.redis
def test_events_happen_now_under_clock_wall(root: Path, broker: str, store_url: str) -> None:
    begun = round(time.time() * 1000)
    where = ["--broker", broker, "--store", store_url, "--clock", "wall", "--set", "kafka_partitions=3"]
    done = demo(root, "--events", "300", "--rate", "100", "--json", *where)
    assert_whole(report_of(done), 300)
    of = {"kafka_bootstrap": broker, "store_url": store_url, "prefix": prefix_of(done), "kafka_partitions": 3}
    played = times_played(**of, clock="wall")
    assert len(played) == 300
    assert played[0] >= begun


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
