"""Worker processes: started, killed, frozen, stopped; and what they logged."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
STOP_WITHIN_S = 30.0
_OF_PROCESS = 2  # of a clock's number in Linux: what clock_getcpuclockid(3) makes of a process id, which Python lacks
COMMAND_LINE: tuple[str, ...] = ("workers.cli",)  # the module that a worker process runs, and its first arguments


@dataclass
class Worker:
    """A worker process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP: the process stands still, its connections stay open."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a crash does; returns when the process is gone."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status. Killed after 30 s."""
        if self.runs:
            self.thaw()
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9

    async def stopped(self) -> int:
        """`stop`, while the driver goes on."""
        return await asyncio.to_thread(self.stop)

    def resident(self) -> int:
        """Bytes of memory that the process holds now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open files and sockets of the process now."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def cpu_s(self) -> float:
        """CPU time that all its threads have taken so far, user and system, to the nanosecond."""
        return time.clock_gettime(~self.pid << 3 | _OF_PROCESS)

    def counted(self, name: str) -> int:
        """A counter that it logged when it stopped."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return int(next(line[name] for line in reversed(lines) if name in line))

    def logged(self, text: str) -> int:
        """How often a line of its log has `text`."""
        return sum(text in line for line in self.log.read_text(errors="replace").splitlines())

    def last_words(self, lines: int = 8) -> str:
        """The end of its log, for whoever reads why a test failed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def start(
    role: str,
    log: Path,
    environ: Mapping[str, str],
    entry: tuple[str, ...] = COMMAND_LINE,
    options: tuple[str, ...] = (),
) -> Worker:
    """A worker process of `role`; its environment is ours and `environ`, `options` are those of its command."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *entry, "worker", role, *options],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    return Worker(process, log)


def end(worker: Worker) -> None:
    """The process is gone, whatever state it is in."""
    if worker.runs:
        worker.thaw()
        worker.kill()


def environ_of(settings: Settings) -> dict[str, str]:
    """The settings as a worker process reads them."""
    return {
        "HEADRACE_PREFIX": settings.prefix,
        "HEADRACE_KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
        "HEADRACE_KAFKA_PARTITIONS": str(settings.kafka.partitions),
        "HEADRACE_KAFKA_SESSION_TIMEOUT_S": str(settings.kafka.session_timeout_s),
        "HEADRACE_KAFKA_HEARTBEAT_S": str(settings.kafka.heartbeat_s),
        "HEADRACE_KAFKA_FETCH_WAIT_MS": str(settings.kafka.fetch_wait_ms),
        "HEADRACE_STORE_URL": settings.store.url,
        "HEADRACE_MODEL_DIMENSION": str(settings.model.dimension),
        "HEADRACE_CLOCK": settings.clock,
    }


class Stopwatch:
    """Seconds since it was made: for the account, never for a verdict."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._began
