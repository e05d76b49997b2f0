"""`headrace store apply|show`: the function library in Redis and the contract of a prefix."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from workers.commands.shell import Shell, command
from workers.store import Store, StoreRefused


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The store: Redis or Valkey.")
    group.command("apply")(apply)
    group.command("show")(show)
    app.add_typer(group, name="store")


@command
def apply(shell: Shell) -> int:
    """Load the function library, and write the contract of the prefix if it is new. Refuses another contract."""
    return _answer(shell, asyncio.run(_look(shell, install=True)))


@command
def show(shell: Shell) -> int:
    """Compare the function library and the contract with what is there. Exit 1 if a worker would refuse to start."""
    return _answer(shell, asyncio.run(_look(shell, install=False)))


async def _look(shell: Shell, *, install: bool) -> dict[str, Any]:
    store = await Store.connect(shell.settings)
    try:
        if install:
            await store.install()
        return {**await store.show(), "refused": await _refusal(store)}
    finally:
        await store.close()


async def _refusal(store: Store) -> str | None:
    try:
        await store.check()
    except StoreRefused as error:
        return str(error)
    return None


def _answer(shell: Shell, found: dict[str, Any]) -> int:
    lines = [f"server       {found['server']}", *_compared("library", found["library"])]
    for name in found["meta"]["expected"]:
        lines += _compared(name, {side: found["meta"][side].get(name) for side in ("expected", "found")})
    lines += [f"policy       {found['policy']}", f"append only  {'yes' if found['append_only'] else 'no'}"]
    lines.append(found["refused"] or "ready")
    shell.answer(found, "\n".join(lines))
    return 1 if found["refused"] else 0


def _compared(name: str, sides: dict[str, Any]) -> list[str]:
    same = sides["expected"] == sides["found"]
    return [f"{name:<12} {sides['found'] or 'none'}" + ("" if same else f", expected {sides['expected']}")]
