"""The command line: every mistake is one line and exit code 2, what cannot be reached is one line and exit code 1."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from aiokafka.errors import TopicAuthorizationFailedError

from workers import cli
from workers.cli import COMMANDS, application, run
from workers.embedded import free_port


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings but those of the test; logging as it was before."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    level = logging.getLogger("aiokafka").level
    yield
    logging.getLogger("aiokafka").setLevel(level)
    structlog.reset_defaults()


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, (*path, name))


def test_the_commands_are_these() -> None:
    assert [name for name, _ in leaves(typer.main.get_command(application()))] == [
        "worker",
        "feed",
        "forget",
        "verify",
        "evaluate",
        "demo",
        "health",
        "topics apply",
        "topics show",
        "store apply",
        "store show",
        "import movielens",
        "import movietweetings",
        "import yoochoose",
        "import jsonl",
        "users show",
        "users rebuild",
        "offsets show",
        "dead-letters list",
        "dead-letters show",
        "dead-letters redrive",
    ]


def test_every_command_takes_the_shared_flags_and_says_what_it_does() -> None:
    for name, command in leaves(typer.main.get_command(application())):
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert flags >= {"--config", "--prefix", "--broker", "--store", "--clock", "--set", "--json"}, name
        assert command.help.endswith("."), name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "Missing command"),
        ("fly", "No such command 'fly'"),
        ("topics", "Missing command"),
        ("topics fly", "No such command 'fly'"),
        ("topics show --fast", "No such option: --fast"),
        ("worker", "Missing argument"),
        ("worker king", "king"),
        ("feed", "Missing argument"),
        ("feed {u}", "user: expected"),
        ("feed x --config absent.toml", "cannot read absent.toml"),
        ("feed x --set feed_recipe=lunch", "feed.recipe: expected one of home, lean, found 'lunch'"),
        ("worker trainer --set feed_recipe=lunch", "feed.recipe: expected one of home, lean, found 'lunch'"),
        ("worker retrieval --set feed_recipe=lunch", "feed.recipe: expected one of home, lean, found 'lunch'"),
        ("worker all --set feed_recipe=lunch", "feed.recipe: expected one of home, lean, found 'lunch'"),
        ("demo --exit --set feed_recipe=lunch", "feed.recipe: expected one of home, lean, found 'lunch'"),
        ("users show a#b", "user: expected"),
        ("users rebuild --from", "--from"),
        ("forget", "Missing argument"),
        ("forget a#b", "user: expected"),
        ("forget u --time noon", "time: expected RFC 3339"),
        ("offsets", "Missing command"),
        ("dead-letters show", "Missing argument"),
        ("dead-letters redrive", "name letters by their offsets, or --all"),
        ("dead-letters redrive 7 --all", "name letters by their offsets, or --all"),
        ("dead-letters redrive 7 8-x", "expected offsets such as 7 or 20-35, found 8-x"),
        ("import movielens /nowhere", "expected the official MovieLens 100K folder"),
        ("import movielens . --rate 0", "--rate"),
        ("import jsonl absent.jsonl", "absent.jsonl: No such file"),
        ("import jsonl bad.jsonl", "bad.jsonl:2: expected a JSON object"),
        ("import jsonl noitem.jsonl", "noitem.jsonl:1: item_id: expected with action 'like'"),
        ("import jsonl baduser.jsonl", "baduser.jsonl:1: user_id: expected"),
        ("import jsonl badtime.jsonl", "badtime.jsonl:1: time: 12 looks like seconds"),
        ("import jsonl badtype.jsonl", "badtype.jsonl:1: event: Expected `str`, got `int`"),
        ("import jsonl good.jsonl --items baditem.jsonl", "baditem.jsonl:1: item: Expected `bool | null`, got `str`"),
        ("import jsonl good.jsonl --items deletion.jsonl", "deletion.jsonl:1: expected a JSON object"),
        ("demo --rate 0", "--rate"),
        ("demo --events 0", "--events"),
        ("demo --exit --data /nowhere --external", "expected the official MovieLens 100K folder"),
        ("health", "health_file is not set"),
        ("health --set health_file", "expected NAME=VALUE"),
        ("health --set healthfile=x", "--healthfile is not a setting"),
        ("health --clock sundial", "clock"),
        ("health --prefix a.b", "prefix must be"),
        ("topics show --set kafka_partitions=0", "kafka.partitions must be 1..1024"),
        ("store show --store nonsense://x", "store.url"),
        ("topics show --broker 192.0.2.1:9092", "192.0.2.1 is beyond loopback"),
        ("store show --store redis://192.0.2.1/0", "192.0.2.1 is beyond loopback"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = '{"user_id":"u","action":"like","item_id":"i"}\n'
    files = {
        "good.jsonl": good,
        "bad.jsonl": good + "{nonsense\n",
        "noitem.jsonl": '{"user_id":"u","action":"like"}',
        "baduser.jsonl": '{"user_id":"u{1}","action":"like","item_id":"i"}',
        "badtime.jsonl": '{"user_id":"u","action":"like","item_id":"i","time":12}',
        "badtype.jsonl": '{"user_id":7,"action":"like","item_id":"i"}',
        "baditem.jsonl": '{"item_id":"i","available":"maybe"}',
        "deletion.jsonl": "null",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headrace: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("store show --store redis://127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("feed u --store redis://127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("topics show --broker 127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("dead-letters list --broker 127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("dead-letters redrive --all --broker 127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("verify --store redis://127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("users rebuild --store redis://127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("offsets show --store redis://127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("forget u --store redis://127.0.0.1:{port}", "did not answer within 0.3 s"),
        ("import jsonl good.jsonl --broker 127.0.0.1:{port}", "did not answer within 0.3 s"),
    ],
)
def test_what_cannot_be_reached_is_said_and_exit_1(
    arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.jsonl").write_text('{"user_id":"u","action":"like","item_id":"i"}\n')
    times = ["--set", "store_connect_timeout_s=0.3", "--set", "kafka_connect_timeout_s=0.3"]
    assert run([*arguments.format(port=free_port()).split(), *times]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("headrace: ")
    assert said in last
    assert "Traceback" not in err


def test_health_follows_the_sign_of_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "alive"
    arguments = ["health", "--json", "--set", f"health_file={file}"]
    assert run(arguments) == 1
    file.write_text('{"ready":true,"lag":7}')
    assert run(arguments) == 0
    os.utime(file, (time.time() - 3600, time.time() - 3600))
    assert run(arguments) == 1
    file.write_text("half a he")
    assert run(arguments) == 1
    answers = [json.loads(line)["alive"] for line in capsys.readouterr().out.splitlines()]
    assert answers == [False, True, False, False]


@pytest.mark.parametrize(
    ("asked", "ready", "lag", "code"),
    [("", False, 9, 0), ("--ready", False, 0, 1), ("--ready", True, 9, 0), ("--max-lag 9", False, 9, 0),
     ("--max-lag 8", True, 9, 1), ("--ready --max-lag 9", False, 9, 1)],
)  # fmt: skip
def test_health_is_asked_for_more_than_life(asked: str, ready: bool, lag: int, code: int, tmp_path: Path) -> None:
    file = tmp_path / "alive"
    file.write_text(json.dumps({"ready": ready, "lag": lag}))
    assert run(["health", *asked.split(), "--set", f"health_file={file}"]) == code


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"headrace {command}" in capsys.readouterr().out


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr("workers.commands.health.read_health", broken)
    with pytest.raises(ZeroDivisionError):
        run(["health", "--set", "health_file=x"])


def test_a_health_check_loads_neither_numba_nor_kafka(root: Path, tmp_path: Path) -> None:
    code = "import sys; from workers.cli import run; run(['health', '--set', 'health_file=x']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "workers.commands.health" in loaded
    assert not loaded & {"numba", "aiokafka", "redis", "faust", "numpy"}


def test_what_the_broker_does_not_allow_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The client's own error, as it comes out of a worker or a command."""
    assert cli._say(TopicAuthorizationFailedError({"headrace.events.v1"})) == 1
    said = capsys.readouterr().err
    assert said.startswith("headrace: kafka: this user may not: TOPIC_AUTHORIZATION_FAILED")
    assert "headrace.events.v1" in said
    assert said.count("\n") == 1
