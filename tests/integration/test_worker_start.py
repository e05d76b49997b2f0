"""A worker process whose broker or store is not there: it says so, waits, and ends when it is told to or in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import MakeSettings
from tests.waiting import eventually, run

pytestmark = [pytest.mark.redis]

NOWHERE = "127.0.0.1:1"


@contextmanager
def worker(root: Path, log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A retrieval worker; killed at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.cli", "worker", "retrieval"],
            cwd=root,
            env={**os.environ, **{f"HEADRACE_{name.upper()}": value for name, value in environ.items()}},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("missing", "nowhere"),
    [("kafka", {"kafka_bootstrap": NOWHERE}), ("store", {"store_url": f"redis://{NOWHERE}/0"})],
)
def test_it_gives_up_in_time(
    missing: str, nowhere: dict[str, str], make_settings: MakeSettings, root: Path, tmp_path: Path
) -> None:
    settings, log = make_settings(), tmp_path / "log"
    there = {"kafka_bootstrap": settings.kafka.bootstrap, "store_url": settings.store.url, "kafka_partitions": "4"}
    patience = {f"{missing}_connect_timeout_s": "0.5"}
    with worker(root, log, prefix=settings.prefix, **{**there, **nowhere, **patience}) as process:
        assert process.wait(60) == 1
    assert f"headrace: {missing}: {NOWHERE} did not answer within 0.5 s" in log.read_text().splitlines()[-1]


@pytest.mark.parametrize("missing", ["broker", "functions"])
def test_it_ends_when_told_to_while_it_waits(
    missing: str, store_url: str, prefix: str, root: Path, tmp_path: Path
) -> None:
    """With exit status 0, and long before its patience is over: it has nothing to lose."""
    log = tmp_path / "log"
    if missing == "broker":
        _install(store_url, prefix, root)
    with worker(root, log, prefix=prefix, kafka_bootstrap=NOWHERE, store_url=store_url) as process:

        async def waits() -> bool:
            text = log.read_text()
            return "broker not ready" in text or "waiting for the store's functions" in text

        run(eventually(waits, 60))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0  # whose patience is over ends with 1


@pytest.mark.kafka
def test_it_ends_when_told_to_while_it_compiles(
    make_settings: MakeSettings, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stands still then, for half a minute and more."""
    settings, log = make_settings(), tmp_path / "log"
    where = {"kafka_bootstrap": settings.kafka.bootstrap, "store_url": settings.store.url}
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with worker(root, log, prefix=settings.prefix, kafka_partitions="4", **where) as process:

        async def compiles() -> bool:
            return "compiling kernels" in log.read_text()

        run(eventually(compiles, 60))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert "running" not in log.read_text()


def _install(store_url: str, prefix: str, root: Path) -> None:
    command = ["store", "apply", "--prefix", prefix, "--store", store_url]
    subprocess.run([sys.executable, "-m", "workers.cli", *command], cwd=root, check=True, capture_output=True)
