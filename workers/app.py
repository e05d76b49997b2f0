"""The only file that knows Faust: it hosts the parts of the roles as services of one Faust app.

A part is a coroutine that runs until it is stopped. One that ends with an error ends the host: nothing was
acknowledged that was not done, so the next process goes on where this one stood. Faust consumes nothing here but the
`items` topic (an agent costs 65 us a record; the hot lanes are services around their own consumer).
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import faust
import mode
import structlog
from faust.transport.drivers import aiokafka as driver

from workers import security
from workers.decoding import read_any_header
from workers.settings import Settings

log = structlog.get_logger()

STOP_WITHIN_S = 20.0

_LOOK_EVERY_S = 1.0


class GroupRefused(RuntimeError):
    """The group of the agent does not take this process: the message says why."""


class Part(Protocol):
    """Something that runs as long as its process."""

    async def run(self) -> None: ...
    def stop(self) -> None:
        """Ask `run` to end soon, with what it has in flight finished."""


# Takes records of one topic; when it returns, they are acknowledged.
OnRecords = Callable[[Sequence[Any]], Awaitable[None]]


class Host:
    """A Faust app around parts (and, with `agent`, around one agent on a topic, which consumes as `group`)."""

    def __init__(self, settings: Settings, group: str, parts: Sequence[Part]) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._datadir = tempfile.TemporaryDirectory(prefix="headrace-")
        self._app = _faust_app(settings, group, self._datadir.name)
        self._app.producer_only = True  # without topics of its own, Faust would die subscribing to none
        self._watching: asyncio.Task[None] | None = None
        self._services = [_PartService(part, self.failed) for part in parts]
        for service in self._services:
            self._app.add_dependency(service)

    def agent(self, topic: str, on_records: OnRecords, most: int, within_s: float) -> None:
        """Consume `topic` by an agent: up to `most` records at once, acknowledged when `on_records` has returned.

        An exception in an agent acknowledges its event (the event would be lost), so none leaves the loop: it fails
        the host.
        """
        self._app.producer_only = False
        channel = self._app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

        async def consume(stream: Any) -> None:
            async for events in stream.noack().noack_take(most, within=within_s):
                try:
                    await on_records([event.message for event in events])
                except Exception as error:
                    _fail(self.failed, error)
                    await asyncio.Event().wait()  # acknowledge nothing; the host is being stopped
                for event in events:
                    event.ack()

        self._app.agent(channel, name=f"{topic}-agent", concurrency=1)(consume)

    async def start(self) -> None:
        """Start every part. Raises GroupRefused, for Faust would wait for ever for its consumer."""
        if self._app.producer_only:
            await self._app.start()
            return
        self._watching = asyncio.create_task(self._watch_agent())
        starting: asyncio.Future[None] = asyncio.ensure_future(self._app.start())
        try:
            await asyncio.wait([starting, self._watching], return_when=asyncio.FIRST_COMPLETED)
            (starting if starting.done() else self.failed).result()
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    async def _watch_agent(self) -> None:
        """One answer that the client does not repeat parks its coordination for good, and Faust never looks."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            coordinator = getattr(self._client(), "_coordinator", None)  # there is none before it has started
            error = _refusal(coordinator) if coordinator is not None else None
            if error is not None:
                _fail(self.failed, GroupRefused(f"group {self._app.conf.id}: {type(error).__name__}: {error}"))
                return

    def lag(self) -> int:
        """Records of the agent's topic that are not acknowledged; 0 before it has partitions.

        Of the records polled last (1000 at most) those are left out for which the agent has no room yet.
        """
        client = self._client()
        # It lives in another thread, which may put another assignment in the place of this one meanwhile.
        assignment = getattr(client._subscription.subscription, "assignment", None) if client is not None else None
        if assignment is None:
            return 0
        in_hand = sum(not message.acked for message in self._app._consumer.unacked)
        return in_hand + sum(_behind(assignment.state_value(tp)) for tp in assignment.tps)

    def _client(self) -> Any:
        """The client under Faust's consumer; None while there is none."""
        return getattr(getattr(self._app._consumer, "_thread", None), "_consumer", None)

    async def stop(self) -> None:
        """Stop every part; whatever is not done after 20 s is abandoned (nothing of it was acknowledged)."""
        if self._watching is not None:
            self._watching.cancel()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                for service in self._services:
                    service.part.stop()
                await self._app.stop()
        except TimeoutError:
            log.error("not stopped in time; abandoned", seconds=STOP_WITHIN_S)
        finally:
            self._close_consumer_loop()
            self._datadir.cleanup()

    def _close_consumer_loop(self) -> None:
        """Faust makes a thread with a loop for a consumer, also for an app without one, and leaves it open."""
        thread = getattr(self._app._consumer, "_thread", None)
        if thread is not None and not thread.thread_loop.is_running():
            thread.thread_loop.close()


@contextlib.asynccontextmanager
async def hosting(host: Host) -> AsyncIterator[Host]:
    """Start the host, stop it at the end."""
    try:
        await host.start()
        yield host
    finally:
        await host.stop()


class _PartService(mode.Service):
    """A part as a service of the app."""

    def __init__(self, part: Part, failed: asyncio.Future[None]) -> None:
        super().__init__()
        self.part = part
        self._failed = failed
        self._task: asyncio.Task[None] | None = None

    async def on_start(self) -> None:
        self._task = asyncio.create_task(self.part.run(), name=type(self.part).__name__)
        self._task.add_done_callback(self._ended)

    async def on_stop(self) -> None:
        self.part.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not task.cancelled():
            _fail(self._failed, error)


class _Consumer(driver.Consumer):
    """Reads only what is committed, and commits all up to the last record that the agent, which goes in order, has
    acknowledged.

    Faust keeps an account of a log's holes instead, but not of one behind offset 0: for what compaction or an aborted
    transaction took there it would wait for ever, and commit nothing more.
    """

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: Any) -> int | None:
        done = max(self._acked.pop(tp, ()), default=None)
        self._acked_index.pop(tp, None)
        return None if done is None else done + 1

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Nobody asks."""


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        client = super()._create_worker_consumer(transport)
        client._isolation_level = "read_committed"  # Faust asks for it only within transactions of its own
        return client


def _behind(state: Any) -> int:
    """How many offsets may be read of a partition behind a client's position, as far as its last fetch told."""
    high, stable, position = state.highwater, state.lso, state._position
    if high is None or position is None:
        return 0
    return int(max(0, (high if stable is None or stable < 0 else min(high, stable)) - position))


def _refusal(coordinator: Any) -> BaseException | None:
    """What ended the coordination of a client; None while it goes on."""
    pending: BaseException | None = coordinator._pending_exception
    task = coordinator._coordination_task
    if pending is None and task.done() and not task.cancelled():
        return task.exception()  # type: ignore[no-any-return]
    return pending


def _fail(failed: asyncio.Future[None], error: BaseException) -> None:
    if not failed.done():
        failed.set_exception(error)
        failed.exception()  # it is read by whoever awaits the host; without one it must not warn at exit


def _faust_app(settings: Settings, group: str, datadir: str) -> Any:
    """Settings of a hosted app; each line's reason is in docs/decisions."""
    read_any_header()  # Faust makes its consumer itself
    app = faust.App(
        group,
        broker=[f"kafka://{address}" for address in settings.kafka.bootstrap.split(",")],
        broker_credentials=_credentials(security.broker_options(settings)),
        datadir=datadir,
        processing_guarantee="at_least_once",
        store="memory://",
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        reply_create_topic=False,
        key_serializer="raw",
        value_serializer="raw",
        broker_max_poll_interval=1e6,
        broker_session_timeout=settings.kafka.session_timeout_s,
        broker_heartbeat_interval=settings.kafka.heartbeat_s,
        broker_rebalance_timeout=40,
        broker_request_timeout=40,
        broker_commit_interval=1.0,
        broker_max_poll_records=1000,
        stream_buffer_maxsize=2048,
        stream_wait_empty=True,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_request_timeout=60,
    )
    transport: Any = app.transport
    transport.Consumer = _Consumer
    return app


def _credentials(options: dict[str, Any]) -> Any:
    """The broker's options as Faust takes them; None = PLAINTEXT. Without a context Faust's SASL is without TLS."""
    context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
