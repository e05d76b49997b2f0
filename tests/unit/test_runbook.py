"""docs/runbook.md knows every alarm and every last line that the code can say, and no command that does not exist."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import workers
from workers.cli import run

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
QUOTED = set(re.findall(r"`([^`\n]+)`", RUNBOOK))
COMMANDS = sorted(
    {line.split("#")[0].strip() for line in RUNBOOK.splitlines() if line.startswith("headrace ")}
    | {quoted for quoted in QUOTED if quoted.startswith("headrace ")}
)
CODE = [node for file in (ROOT / "workers").rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))]


def alarms() -> Iterator[str]:
    """The first words of everything that is logged as a warning or an error."""
    for node in CODE:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("warning", "error")
            and isinstance(node.args[0] if node.args else None, ast.Constant)
        ):
            yield str(ast.literal_eval(node.args[0]))


def test_every_alarm_has_its_line() -> None:
    """The words before a colon are enough."""
    found = sorted(set(alarms()))
    assert len(found) > 20
    unknown = [words for words in found if not any(words.startswith(quoted) for quoted in QUOTED if len(quoted) > 8)]
    assert unknown == []


def said(text: str) -> str:
    """`text` with a hole for each number and each `...`, without marks of code."""
    return re.sub(r"\d+|\.\.\.", "…", text.replace("`", ""))


def template(node: ast.expr) -> str:
    """The words of a message as the code gives it, with a hole for each value; all hole if it is made elsewhere."""
    match node:
        case ast.Constant(str(text)):
            return said(text)
        case ast.JoinedStr(parts):
            return "".join(map(template, parts))
        case _:
            return "…"


def refusals() -> set[str]:
    """Our exceptions that the command line ends with as one line and status 1: `workers.cli` makes 2 of ValueErrors,
    which name the argument, setting or file themselves."""
    modules = [import_module(module.name) for module in walk_packages(workers.__path__, "workers.")]
    classes = {one for module in modules for _, one in inspect.getmembers(module, inspect.isclass)}
    return {
        one.__name__
        for one in classes
        if one.__module__.startswith("workers.") and issubclass(one, Exception) and not issubclass(one, ValueError)
    }


def last_lines() -> Iterator[str]:
    """The message of every refusal: where one is made, or where its class makes it up."""
    names = refusals()
    for node in CODE:
        match node:
            case ast.Call(func=ast.Name(name) | ast.Attribute(attr=name), args=[message, *_]) if name in names:
                yield template(message)
            case ast.ClassDef(name) if name in names:
                for call in (call for call in ast.walk(node) if isinstance(call, ast.Call)):
                    if ast.unparse(call.func) == "super().__init__":
                        yield template(call.args[0])


def rows(first: str) -> list[list[str]]:
    """What is quoted in the first column of each row of the tables whose first column is `first`."""
    found = re.findall(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", RUNBOOK, re.MULTILINE)
    return [re.findall("`([^`]+)`", row.split(" | ")[0]) for table in found for row in table.splitlines()]


def distinctive(row: list[str]) -> set[str]:
    return {said(quoted) for quoted in row if len(quoted) > 8 and " " in quoted}


def test_every_last_line_has_its_row() -> None:
    found = sorted({message for message in last_lines() if re.search(r"[a-z]{3}", message)})
    assert len(found) > 40
    known = {quoted for row in rows("the line says") + rows("log line") for quoted in distinctive(row)}
    unknown = [message for message in found if not any(quoted in message for quoted in known)]
    assert unknown == []


def test_every_row_is_of_a_line_that_is_said() -> None:
    said_somewhere = {template(node) for node in CODE if isinstance(node, ast.Constant | ast.JoinedStr)}
    found = rows("the line says")
    assert len(found) > 40
    stale = [row for row in found if not any(q in message for q in distinctive(row) for message in said_somewhere)]
    assert stale == []


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_exists_with_its_options(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` is answered only after all that stands before it was understood."""
    assert run([*shlex.split(line)[1:], "--help"]) == 0, capsys.readouterr().err


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert run(["offsets", "show", "--fast", "--help"]) == 2
    assert run(["offsets", "hide", "--help"]) == 2
    assert len(COMMANDS) > 15
