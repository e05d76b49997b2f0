"""`headrace dead-letters list|show|redrive`: the records that could not be used, and why; and once more."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from workers.commands.shell import Shell, command
from workers.outside.letters import Letter, read_letters, text
from workers.outside.redrive import Redrive, Verdict, published
from workers.producer import Producer
from workers.replica import log_reader
from workers.settings import Settings, SettingsError

_SHOWN = 200  # bytes of a value in a list


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Records that could not be used.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("redrive")(redrive)
    app.add_typer(group, name="dead-letters")


@command
def list_(
    shell: Shell,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
) -> None:
    """List dead letters, oldest first: where the record was, what was wrong, how it begins."""
    letters: deque[Letter] = deque(maxlen=limit)
    total = 0

    def on_letters(found: Sequence[Letter]) -> None:
        nonlocal total
        total += len(found)
        letters.extend(found)

    asyncio.run(_read(shell.settings, on_letters))
    for letter in letters:
        shell.answer(_summary(letter), Text(_line(letter)))
    shell.note(f"{len(letters)} of {total} dead letters")


@command
def show(
    shell: Shell,
    offset: Annotated[int, typer.Argument(min=0, help="Of the letter, as the list says.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the value alone, its bytes untouched.")] = False,
) -> int:
    """Show all of a dead letter: the reason, and the record as it was. Exit 1 if there is none."""
    found = _selected(shell.settings, {offset})
    if not found:
        shell.note(f"no dead letter at {offset}")
        return 1
    (letter,) = found
    if raw:
        sys.stdout.buffer.write(letter.record.value or b"")
        sys.stdout.buffer.flush()
        return 0
    shell.answer(_whole(letter), _described(letter), Text(text(letter.record.value) or "no value"))
    return 0


@command
def redrive(
    shell: Shell,
    offsets: Annotated[list[str] | None, typer.Argument(help="Of letters, as the list says: 7 12 20-35.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every letter that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written.")] = False,
) -> int:
    """Write the records of dead letters again where they are valid now. Exit 1 if some are not, or are not there."""
    if all_ == bool(offsets):
        raise SettingsError("dead-letters: redrive: name letters by their offsets, or --all")
    wanted = None if all_ else _offsets(offsets or [])
    verdicts = asyncio.run(_redrive(shell.settings, _selected(shell.settings, wanted), dry_run=dry_run))
    for verdict in verdicts:
        shell.answer(_told(verdict), Text(_verdict(verdict)))
    written = sum(verdict.output is not None for verdict in verdicts)
    missing = 0 if wanted is None else len(wanted) - len(verdicts)
    doing = "would be written" if dry_run else "written"
    shell.note(f"{written} {doing}, {len(verdicts) - written} refused" + (f", {missing} not there" if missing else ""))
    return 0 if written == len(verdicts) and not missing else 1


async def _redrive(settings: Settings, letters: Sequence[Letter], *, dry_run: bool) -> list[Verdict]:
    items = settings.topic("items")
    redrive = Redrive(settings, await published(settings) if any(one.origin.topic == items for one in letters) else {})
    verdicts = [redrive.judge(letter) for letter in letters]
    outputs = [verdict.output for verdict in verdicts if verdict.output is not None]
    if outputs and not dry_run:
        producer = await Producer(settings).start()
        try:
            await producer.send(outputs)
        finally:
            await producer.stop()
    return verdicts


def _selected(settings: Settings, wanted: set[int] | None) -> list[Letter]:
    """Letters by offset, all of them for None."""
    found: list[Letter] = []

    def on_letters(letters: Sequence[Letter]) -> None:
        found.extend(letter for letter in letters if wanted is None or letter.offset in wanted)

    asyncio.run(_read(settings, on_letters, begin=min(wanted) if wanted else 0))
    return found


async def _read(settings: Settings, on_letters: Any, begin: int = 0) -> None:
    async with log_reader(settings) as reader:
        await read_letters(reader, settings, on_letters, begin=begin)


def _offsets(given: Sequence[str]) -> set[int]:
    offsets: set[int] = set()
    for word in given:
        first, dash, last = word.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise SettingsError(f"dead-letters: expected offsets such as 7 or 20-35, found {word}")
        offsets |= set(range(int(first), int(last or first) + 1))
    return offsets


def _summary(letter: Letter) -> dict[str, Any]:
    value = letter.record.value
    return {
        "offset": letter.offset,
        "key": text(letter.record.key),
        "value": text(value[:_SHOWN] if value is not None else None),
        "bytes": len(value or b""),
        **letter.errors,
    }


def _whole(letter: Letter) -> dict[str, Any]:
    """As bytes too: text cannot say all of them."""
    record = letter.record
    return {
        **_summary(letter),
        "value": text(record.value),
        "whole": letter.whole,
        "headers": [[name, _base64(value)] for name, value in letter.headers],
        "key_base64": _base64(record.key),
        "value_base64": _base64(record.value),
    }


def _described(letter: Letter) -> Table:
    value = letter.record.value
    rows: list[tuple[str, object]] = [*letter.errors.items(), ("key", text(letter.record.key))]
    rows.append(("bytes", len(value or b"") if letter.whole else f"{len(value or b'')}, cut"))
    rows += [(f"header {text(name.encode())}", text(given)) for name, given in letter.headers]
    table = Table.grid(padding=(0, 2))
    for name, told in rows:
        table.add_row(Text(name), Text(str(told)))
    return table


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else b64encode(raw).decode()


def _line(letter: Letter) -> str:
    said = letter.errors
    return f"{letter.offset:>8}  {said.get('timestamp', '')}  {said.get('stage', '')}  {said.get('message', '')}"


def _told(verdict: Verdict) -> dict[str, Any]:
    output = verdict.output
    to = {} if output is None else {"topic": output.topic, "partition": output.partition}
    return {"offset": verdict.letter.offset, "valid": output is not None, "reason": verdict.reason, **to}


def _verdict(verdict: Verdict) -> str:
    output = verdict.output
    return f"{verdict.letter.offset:>8}  {f'to {output.topic}' if output else f'refused: {verdict.reason}'}"
