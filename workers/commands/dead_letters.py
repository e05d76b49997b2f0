"""`headrace dead-letters list`: the records that could not be used, and why."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from workers.commands.shell import Shell, command
from workers.outside.audit import read_back

_ERRORS = "__dlq.errors."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Records that could not be used.")
    group.command("list")(list_)
    app.add_typer(group, name="dead-letters")


@command
def list_(
    shell: Shell,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
) -> None:
    """List dead letters, oldest first: where the record was, what was wrong, how it begins."""
    letters: deque[dict[str, Any]] = deque(maxlen=limit)
    total = 0

    def on_records(records: Sequence[Any]) -> None:
        nonlocal total
        total += len(records)
        letters.extend(_letter(record) for record in records[-limit:])

    asyncio.run(read_back(shell.settings, "dead-letters", on_records))
    for letter in letters:
        shell.answer(letter, _line(letter))
    shell.note(f"{len(letters)} of {total} dead letters")


def _letter(record: Any) -> dict[str, Any]:
    headers = dict(record.headers)
    errors = {
        name.removeprefix(_ERRORS): (value or b"").decode("utf-8", "replace")
        for name, value in headers.items()
        if name.startswith(_ERRORS)
    }
    return {
        "offset": record.offset,
        "key": _text(record.key),
        "value": _text(record.value[:200] if record.value is not None else None),
        "bytes": len(record.value or b""),
        **errors,
    }


def _text(raw: bytes | None) -> str | None:
    """Foreign bytes, safe to show: whatever is not printable is escaped."""
    return None if raw is None else raw.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()


def _line(letter: dict[str, Any]) -> str:
    return (
        f"{letter['offset']:>8}  {letter.get('timestamp', '')}  {letter.get('stage', '')}  {letter.get('message', '')}"
    )
