"""`headrace feed USER`: the cached feed of a user, explained, and every new one as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from pipeline.blob import decode
from workers.commands.shell import Shell, command
from workers.outside import screen
from workers.outside.names import Names, history, name_hashes, read_names
from workers.outside.screen import Deed
from workers.outside.watch import following
from workers.recipes import recipe_of
from workers.replica import Follower
from workers.settings import Settings
from workers.store import Store
from workers.wire.feed import Feed, Pair, read_feed, read_pair
from workers.wire.ids import check_id
from workers.wire.partition import partition_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("feed")(feed)


@command
def feed(
    shell: Shell,
    user: Annotated[str, typer.Argument(help="The user's id.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on with each new feed, until Ctrl-C.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="With the history, sources, score parts, filters.")
    ] = False,
) -> int:
    """Print a user's cached feed, or for a user nobody knows the feed of strangers. Exit 1 if there is none."""
    check_id(user, "user")
    recipe_of(shell.settings)  # names the feed of strangers
    return asyncio.run(_feed(shell, user, follow=follow, explain=explain))


async def _feed(shell: Shell, user: str, *, follow: bool, explain: bool) -> int:
    async with _reader(shell.settings, user) as reader:
        last = await reader.cached()
        if last is not None:
            _show(shell, reader, last, await reader.history() if explain else None, before=None)
        elif not follow:
            shell.note(f"no feed of {user} yet, and none for strangers: does a retrieval worker run?")
        if follow:
            async for new in reader.new(last):
                _show(shell, reader, new, await reader.history() if explain else None, before=last)
                last = new
    return 0 if last is not None else 1


@dataclass(slots=True)
class Reader:
    """Reads one user's feeds and history. What the catalogue hides is left out, whenever the feed was made."""

    settings: Settings
    user: str
    store: Store
    names: Names

    @property
    def partition(self) -> int:
        """Where the user belongs."""
        return partition_of(self.user.encode(), self.settings.kafka.partitions, self.settings.partitioner)

    async def cached(self) -> Feed | None:
        """The user's last feed, else the feed of strangers, else nothing."""
        raw = await self.store.read_feed(self.partition, self.user)
        raw = raw or await self.store.read_default(self.settings.feed.recipe)
        return self._shown(read_feed(raw)) if raw else None

    async def history(self) -> list[Deed]:
        """What the user's state remembers, newest first."""
        states = decode([await self.store.read_state(self.partition, self.user) or b""])
        await name_hashes(self.settings, self.names, states.rings.items[0, : int(states.rings.length[0])].tolist())
        return history(self.settings, states, self.names)

    async def new(self, last: Feed | None) -> AsyncIterator[Feed]:
        """Every feed of the user from now on that is newer than the one before; it ends with an interrupt.

        Raises what following them died of, such as TopicMissing.
        """
        queue: asyncio.Queue[Any] = asyncio.Queue()
        key = self.user.encode()

        def on_records(records: Sequence[Any]) -> None:
            for record in records:
                if record.key == key:
                    queue.put_nowait(record)

        newest = Pair(last.version, last.revision) if last is not None and last.user_id == self.user else Pair(0, 0)
        follower = Follower(self.settings, self.settings.topic("feeds"), on_records, at_end=True)
        async with following(follower) as running:
            while (record := await _next(queue, running)) is not None:
                pair = read_pair(record.headers)
                if pair > newest:
                    newest = pair
                    if record.value is not None:
                        yield self._shown(read_feed(record.value))

    def _shown(self, feed: Feed) -> Feed:
        return replace(feed, items=[item for item in feed.items if item.item_id not in self.names.hidden])


async def _next(queue: asyncio.Queue[Any], running: asyncio.Task[None]) -> Any:
    """The next record; None when there will be none."""
    getting = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait([getting, running], return_when=asyncio.FIRST_COMPLETED)
        return getting.result() if getting.done() else None
    finally:
        getting.cancel()


@contextlib.asynccontextmanager
async def _reader(settings: Settings, user: str) -> AsyncIterator[Reader]:
    store = await Store.connect(settings)
    try:
        await store.check_meta()  # with other partitions a user would be looked for where strangers are
        yield Reader(settings, user, store, await read_names(settings))
    finally:
        await store.close()


def _show(shell: Shell, reader: Reader, feed: Feed, deeds: list[Deed] | None, before: Feed | None) -> None:
    names, previous = reader.names.of, [item.item_id for item in before.items] if before is not None else []
    if deeds is None:
        shell.answer(feed, f"{reader.user}: {screen.title(feed)}", screen.listing(feed, names, previous))
        return
    told = [
        {"item_id": deed.item, "title": names(deed.item), "action": deed.action, "time": deed.when} for deed in deeds
    ]
    answer = {"feed": feed, "history": told}
    shell.answer(answer, screen.beside(reader.user, deeds, feed, names, previous, explain=True), screen.stages(feed))
