"""A TCP proxy under the test's control, to put between workers and a server: it passes, delays, holds, refuses, cuts.

It runs in a thread of its own, so that a test whose loop is busy (or blocks on a call through the proxy) holds nothing
up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from workers.embedded import HOST, free_port

_CHUNK = 1 << 16
_ANSWER_S = 10.0


@dataclass(slots=True)
class _Way:
    """What happens to bytes now. Belongs to the proxy's loop."""

    upstream: int
    open: asyncio.Event  # not set: bytes are held
    delay_s: float = 0.0  # of each answer
    pairs: set[asyncio.Task[None]] = field(default_factory=set)  # one a connection


class Proxy:
    """Leads connections to `port` on to `upstream`, a port of this host. Every method returns when it is so."""

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        self.delayed = 0  # pieces of answers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self._way = _Way(upstream, asyncio.Event())
        self._server: asyncio.Server | None = None
        self.forward()

    def forward(self, upstream: int | None = None) -> None:
        """Pass everything on at once, to another server if one is named (connections to the old one are cut). What was
        held comes late: to the server too, if its connection is still there."""
        self._do(self._forward(upstream))

    def delay(self, seconds: float) -> None:
        """Let every answer come so much later."""
        self._do(self._set(delay_s=seconds))

    def hold(self) -> None:
        """Take connections and bytes, and pass nothing on in either direction: a server that hangs."""
        self._do(self._hold())

    def refuse(self) -> None:
        """Cut every connection and refuse new ones: a server that is not there."""
        self._do(self._refuse())

    def cut(self) -> None:
        """Cut every connection; new ones are taken."""
        self._do(self._cut())

    def close(self) -> None:
        """Refuse, and end the thread."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_S)
        self._loop.close()

    # ---------------------------------------------------------------- in the proxy's loop
    def _do(self, change: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(change, self._loop).result(_ANSWER_S)

    async def _forward(self, upstream: int | None) -> None:
        if upstream is not None and upstream != self._way.upstream:
            await self._cut()
            self._way.upstream = upstream
        self._way.delay_s = 0.0
        self._way.open.set()
        await self._listen()

    async def _set(self, delay_s: float) -> None:
        self._way.delay_s = delay_s

    async def _hold(self) -> None:
        self._way.open.clear()
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        pairs = list(self._way.pairs)
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = asyncio.ensure_future(self._lead(reader, writer))
        self._way.pairs.add(pair)
        pair.add_done_callback(self._way.pairs.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            await self._way.open.wait()
            answers, upstream = await asyncio.open_connection(HOST, self._way.upstream)
            ends.append(upstream)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, upstream, delayed=False))
                pumps.create_task(self._pump(answers, writer, delayed=True))
        except* OSError:
            pass  # one side is gone: the other one sees its connection end
        finally:
            for end in ends:
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, delayed: bool) -> None:
        while chunk := await source.read(_CHUNK):
            await self._way.open.wait()
            if delayed and self._way.delay_s:  # latency: what comes meanwhile does not wait twice
                self.delayed += 1
                self._loop.call_later(self._way.delay_s, target.write, chunk)
            else:
                target.write(chunk)
                await target.drain()
        await asyncio.sleep(self._way.delay_s)
        target.write_eof()


@contextlib.contextmanager
def proxied(upstream: int) -> Iterator[Proxy]:
    """A proxy to a port of this host, closed at the end."""
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
