"""One connection to Redis that repeats its calls until they are answered. The only file that imports redis-py.

redis-py's own retries are off: they would send a call again that this file also sends again. Every call that goes
through here must be safe to repeat, for a call that timed out may still be carried out later.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any

import structlog
from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import AuthenticationError, AuthorizationError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from workers import security
from workers.settings import Store

log = structlog.get_logger()

_PING = b"*1\r\n$4\r\nPING\r\n"
_FIRST_WAIT_S = 0.01
_LONGEST_WAIT_S = 1.0
# The server or its cluster is not ready for the call, or not now: it did nothing, and will later. (LOADING is not here:
# redis-py raises it as a failure of the connection.)
_PASSING = frozenset(("READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "OOM", "NOREPLICAS", "BUSY", "MISCONF"))
_NO_FUNCTION = "Function not found"
_UNANSWERED = object()


def pack(*parts: bytes | str | int) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = pack_command(parts)  # type: ignore[arg-type]  # its stub says a tuple of one
    return packed


class StoreError(RuntimeError):
    """The store refused a call for good: the same call would fail again."""


class StoreRefused(StoreError):
    """The store must not be used as it is; the message says what was expected, what was found, what to do."""


class StoreUnavailable(StoreError):
    """The store did not answer within the time given at start."""


class Link:
    """A connection of its own; `run` returns only when every command is answered."""

    def __init__(self, store: Store) -> None:
        """Parse `store.url` (redis://, rediss:// or unix://) without connecting. Raises StoreRefused for another one,
        Insecure for one that is beyond loopback without TLS and password."""
        options: dict[str, Any] = security.store_options(store)
        try:
            options |= parse_url(store.url)
            kind: type[AbstractConnection] = options.pop("connection_class", Connection)
            options |= {"socket_timeout": None, "socket_connect_timeout": store.call_timeout_s}
            self._connection = kind(**options, protocol=2)
        except (ValueError, TypeError) as error:
            raise StoreRefused(f"store: cannot use store.url: {error}") from None
        self._timeout_s, self._tls = store.call_timeout_s, store.tls
        self._lock = asyncio.Lock()
        self._opening = False  # nothing was ever answered: what only a person can mend is said, not waited for
        self._repeating = 0  # `run`s that are at it again
        self.trouble: Exception | None = None  # why calls were repeated the last time
        self.retries = 0  # attempts that left a call unanswered
        self.missing = 0  # of these, for want of the functions

    @property
    def where(self) -> str:
        """The server's address, without its password."""
        at = dict(self._connection.repr_pieces())  # type: ignore[no-untyped-call]
        return str(at["path"]) if "path" in at else f"{at['host']}:{at['port']}"

    @property
    def repeating(self) -> bool:
        """Whether a call is being repeated at this moment."""
        return self._repeating > 0

    async def open(self, timeout_s: float) -> None:
        """Wait until the server answers. Raises StoreUnavailable after `timeout_s`, StoreRefused for a wrong user or a
        certificate that is not trusted."""
        self._opening = True
        try:
            await asyncio.wait_for(self.run([_PING]), timeout_s)
        except TimeoutError:
            await self.close()
            raise StoreUnavailable(
                f"store: {self.where} did not answer within {timeout_s:g} s ({_line(self.trouble)}); "
                "start it, or set store.url"
            ) from None
        except StoreError:
            await self.close()
            raise
        finally:
            self._opening = False

    async def close(self) -> None:
        """Close the connection; the next call would open it again.

        TLS ends with a word from both sides: a loop that ends before it leaves a socket behind.
        """
        with contextlib.suppress(RedisTimeoutError):  # it hangs: the socket is closed all the same
            await self._connection.disconnect(nowait=not self._tls)

    async def _drop(self) -> None:
        """Close the connection to a server that is in trouble, without its word."""
        await self._connection.disconnect(nowait=True)

    async def reachable(self) -> bool:
        """Whether the server answers, and carries out what it is asked: False while a call is being repeated."""
        if self._repeating:
            return False
        try:
            await asyncio.wait_for(self.run([_PING]), self._timeout_s)
        except (TimeoutError, StoreError):
            return False
        return True

    async def run(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands in one write and return their answers, in order; repeat the unanswered ones for ever.

        Raises StoreError when the server refuses one for good; the others may have been carried out.
        """
        answers: list[Any] = [_UNANSWERED] * len(commands)
        attempt = 0
        try:
            while waiting := [i for i, answer in enumerate(answers) if answer is _UNANSWERED]:
                async with self._lock:
                    trouble = await self._attempt(commands, waiting, answers)
                if trouble is None:
                    break
                attempt += 1
                self._note(trouble, first=attempt == 1)
                longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempt, 16))
                await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        finally:
            if attempt:
                self._repeating -= 1
        if attempt and not self._repeating:
            log.info("store ready again", store=self.where, retries=self.retries)
        return answers

    async def _attempt(self, commands: Sequence[bytes], waiting: list[int], answers: list[Any]) -> Exception | None:
        """Send once. Fills in `answers`; returns why some are still missing."""
        connection, loop = self._connection, asyncio.get_running_loop()
        trouble = refusal = None
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                await connection.send_packed_command([commands[i] for i in waiting], check_health=False)
                for i in waiting:
                    try:
                        answers[i] = await connection.read_response(disable_decoding=True)
                    except ResponseError as error:
                        if _passes(error):
                            trouble = error
                        else:
                            answers[i] = refusal = error
                    limit.reschedule(loop.time() + self._timeout_s)  # a slow server that answers is not a dead one
        except (AuthenticationError, AuthorizationError) as error:
            await self.close()
            raise StoreRefused(
                f"store: {self.where} refused user or password ({error}); set store.user and store.password_file"
            ) from None
        except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
            await self._drop()
            if self._opening:
                self._refuse_untrusted(error)
            return error
        except RedisError as error:  # to a command of the handshake, or no Redis at all
            await self._drop()
            if not _passes(error):
                raise StoreError(f"store: {self.where} does not talk to us as a Redis does: {_line(error)}") from error
            return error
        if refusal is not None:
            raise StoreError(f"store: {self.where} refused a call: {refusal}") from refusal
        if isinstance(trouble, ReadOnlyError):
            await self._drop()  # after a failover the address leads to another server, this connection does not
        return trouble

    def _refuse_untrusted(self, error: Exception) -> None:
        """Raise StoreRefused if `error` comes of TLS. Later it would be waited for: a server may be changed over."""
        refusal = security.tls_refusal(error)
        if refusal is not None:
            raise StoreRefused(
                f"store: {self.where}: no TLS that both sides accept ({_line(refusal)}); check store.url, "
                "store.ca_file, store.cert_file"
            )

    def _note(self, trouble: Exception, *, first: bool) -> None:
        self.trouble = trouble
        self.retries += 1
        missing = _NO_FUNCTION in str(trouble)
        self.missing += missing
        self._repeating += first
        if first and self._repeating == 1:
            if missing:
                log.error("store functions missing: run `headrace store apply`; waiting for them", store=self.where)
            else:
                log.warning("store not ready: the same calls again", store=self.where, error=_line(trouble))


def _passes(error: RedisError) -> bool:
    code = getattr(error, "status_code", None) or str(error).split(" ", 1)[0]
    return code in _PASSING or _NO_FUNCTION in str(error)


def _line(error: Exception | None) -> str:
    return str(error).splitlines()[0] if str(error or "") else type(error or TimeoutError()).__name__
