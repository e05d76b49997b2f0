"""`headrace verify`: is the store what the log says?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from workers.commands.shell import Shell, command
from workers.outside.verify import Checked
from workers.outside.verify import verify as checks

_NAMED = 5  # users a partition that are named to a person


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


@command
def verify(shell: Shell) -> int:
    """Replay the log; compare every user's durable state with the store and `states`. Workers may run. Exit 1 on any
    difference."""
    found = asyncio.run(_all(shell))
    table = Table("partition", "log", "replayed from", "events", "users", "expected", "found", "differences", box=None)
    for one in found:
        log, digests = f"{one.log.begin}..{one.log.end}", (one.expected, one.found)
        numbers = (str(one.replayed_from), str(one.events), str(one.users))
        table.add_row(str(one.partition), log, *numbers, *digests, str(len(one.differences)))
    equal = all(one.equal for one in found)
    shell.answer({"equal": equal, "partitions": [_row(one) for one in found]}, table, *map(Text, _lines(found)))
    return 0 if equal else 1


async def _all(shell: Shell) -> list[Checked]:
    return [one async for one in checks(shell.settings)]


def _row(one: Checked) -> dict[str, Any]:
    position = one.position._asdict() if one.position else None
    differences = [difference._asdict() for difference in one.differences]
    found = {"log": one.log._asdict(), "position": position, "differences": differences}
    return {**msgspec.to_builtins(one), **found, "equal": one.equal}


def _lines(found: Sequence[Checked]) -> list[str]:
    lines = []
    for one in found:
        where = f"partition {one.partition}"
        lines += [f"{where}: {problem}" for problem in one.problems]
        lines += [f"{where}: {user}: {what}" for user, what in one.differences[:_NAMED]]
        if len(one.differences) > _NAMED:
            lines.append(f"{where}: and {len(one.differences) - _NAMED} more; --json names all")
    wrong = sum(len(one.differences) for one in found)
    users, events = sum(one.users for one in found), sum(one.events for one in found)
    return [*lines, f"{users} users compared, {events} events replayed, {wrong} differences"]
