"""`headrace forget USER`: erase a user, and with `--wait` see it done."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from workers.commands.shell import Shell, command
from workers.outside.forget import Forgetting
from workers.wire.ids import check_id
from workers.wire.marker import receipt
from workers.wire.times import parse_time


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("forget")(forget)


@command
def forget(
    shell: Shell,
    user: Annotated[str, typer.Argument(help="The user's id.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done, and print the receipt.")] = False,
    within: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Wait so long.")] = 60.0,
    time: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it happened; events not later are ignored. Default: now.")
    ] = None,
) -> int:
    """Erase a user: state, cached feed and what topics say of them. Exit 1 if --wait did not see it done in time."""
    check_id(user, "user")
    return asyncio.run(_forget(shell, user, within if wait else None, None if time is None else parse_time(time)))


async def _forget(shell: Shell, user: str, within_s: float | None, time_ms: int | None) -> int:
    async with Forgetting.of(shell.settings, user, look=within_s is not None) as forgetting:
        await forgetting.write(time_ms)
        if within_s is None:
            said = f"written; `headrace forget {user} --wait` writes it again and sees it done"
            shell.answer({"written": True, "event_id": forgetting.event_id}, said)
            return 0
        missing = await forgetting.done(within_s)
        marker = forgetting.marker
        if missing or marker is None:
            shell.answer({"forgotten": False, "missing": missing}, f"not done in {within_s:g} s: {'; '.join(missing)}")
            return 1
        told = receipt(marker)
        shell.answer(msgspec.json.decode(told), told.decode())
        return 0
