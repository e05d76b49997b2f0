"""A worker process whose broker or store is not there: it says so, waits, and ends when it is told to or in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("missing", ["kafka_bootstrap", "store_url"])
def test_it_gives_up_in_time(missing: str, store_url: str, prefix: str, root: Path, tmp_path: Path) -> None:
    where = {"kafka_bootstrap": NOWHERE, "store_url": store_url}
    where[missing] = NOWHERE if missing == "kafka_bootstrap" else f"redis://{NOWHERE}/0"
    patience = {"kafka_connect_timeout_s": "0.5", "store_connect_timeout_s": "0.5"}
    log = tmp_path / "log"
    _install(store_url, prefix, root)
    with worker(root, log, prefix=prefix, **where, **patience) as process:
        assert process.wait(60) == 1
    assert f"{NOWHERE} did not answer within 0.5 s" in log.read_text().splitlines()[-1]


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
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - begun < 15


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
