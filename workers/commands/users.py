"""`headrace users show|rebuild`: a user's state in Redis, readably; all states written anew."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from pipeline.blob import decode, embedding, model_version
from workers.commands.shell import Shell, command
from workers.outside.names import Names, history, name_hashes, read_names
from workers.outside.rebuild import Rebuilt
from workers.outside.rebuild import rebuild as rebuilding
from workers.settings import Settings
from workers.store import Store, UserRead
from workers.wire.ids import check_id
from workers.wire.marker import read_marker
from workers.wire.partition import partition_of
from workers.wire.times import rfc3339


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="What is kept of users.")
    group.command("show")(show)
    group.command("rebuild")(rebuild)
    app.add_typer(group, name="users")


@command
def show(shell: Shell, user: Annotated[str, typer.Argument(help="The user's id.")]) -> int:
    """Print a user's state as it is in Redis. Exit 1 if there is none."""
    check_id(user, "user")
    state = asyncio.run(_read(shell.settings, user))
    if "count" not in state:
        forgotten = state.get("forgotten")
        shell.answer(state, f"{user} was forgotten at {forgotten}" if forgotten else f"no state of {user}")
        return 1
    table = Table.grid(padding=(0, 2))
    for name, value in state.items():
        if name != "history":
            table.add_row(name.replace("_", " "), str(value))
    deeds = Table.grid(padding=(0, 2))
    for deed in state["history"]:
        deeds.add_row(deed["time"], deed["action"], deed["title"])
    shell.answer(state, table, deeds)
    return 0


@command
def rebuild(
    shell: Shell,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="PREFIX", help="Carry the users of another prefix over to this one.")
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="With --from: go on without events that were never applied there.")
    ] = False,
) -> int:
    """Write all states into the store again, from `states`; embedding workers must be stopped. A worker then reads the
    retained log. Exit 1 if a record of `states` could not be read."""
    done = asyncio.run(_rebuild(shell, from_, accept_loss=accept_loss))
    return 1 if any(one.unreadable for one in done) else 0


async def _rebuild(shell: Shell, source: str | None, *, accept_loss: bool) -> list[Rebuilt]:
    done = []
    async for one in rebuilding(shell.settings, source, accept_loss=accept_loss):
        left_out = f", {one.expired} expired" if one.expired else ""
        deleted = f", {one.surplus} that nothing speaks of deleted" if one.surplus else ""
        line = f"partition {one.partition}: {one.states} states, {one.forgotten} forgotten{left_out}{deleted}"
        shell.answer(one, line, *map(Text, one.unreadable))
        done.append(one)
    shell.note(f"{sum(one.states for one in done)} states written; start the workers: they read the log that is there")
    return done


async def _read(settings: Settings, user: str) -> dict[str, Any]:
    partition = partition_of(user.encode(), settings.kafka.partitions, settings.partitioner)
    store = await Store.connect(settings)
    try:
        await store.check_meta()
        (kept,) = await store.read_users(partition, [user])
    finally:
        await store.close()
    found = {"user_id": user, "partition": partition, "key": store.state_key(partition, user).decode()}
    if kept.marker:
        found["forgotten"] = rfc3339(read_marker(kept.marker).time)
    if not kept.blob:
        return found
    names = await read_names(settings)
    return {**found, **await _described(settings, kept, names)}


async def _described(settings: Settings, kept: UserRead, names: Names) -> dict[str, Any]:
    states = decode([kept.blob])
    await name_hashes(settings, names, states.rings.items[0, : int(states.rings.length[0])].tolist())
    vector = embedding(kept.blob)
    epoch, version = model_version(kept.blob)
    return {
        "count": int(states.count[0]),
        "positives": int(states.positives[0]),
        "version": int(states.last_offset[0]) + 1,
        "last_time": rfc3339(int(states.last_time[0])),
        "bytes": len(kept.blob),
        "consumed": len(states.consumed),
        "blocked": len(states.blocked),
        "attributes": msgspec.json.decode(states.attributes[0] or b"{}"),
        "embedding": f"{len(vector)} numbers, norm {float(np.linalg.norm(vector)):.3f}, model {epoch}.{version}",
        "history": [
            {"time": deed.when, "action": deed.action, "item_id": deed.item, "title": names.of(deed.item)}
            for deed in history(settings, states, names)
        ],
    }
