"""The tables of README.md say what the code says; decisions are found by their number; tests that docs name exist."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path

import msgspec

from workers.secret import Secret
from workers.settings import ACTIONS, Settings, flat_names
from workers.topics import TOPICS, Topic

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first column is `first`; code marks are dropped."""
    found = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert found is not None, f"README.md has no table of {first}s"
    return [[cell.strip() for cell in line.strip("|").replace("`", "").split("|")] for line in found[1].splitlines()]


def test_topics() -> None:
    assert table("topic") == [
        [t.dataset, t.key, str(t.partitions or "kafka.partitions"), t.cleanup, kept(t), t.encoding, t.writer]
        for t in TOPICS
    ]


def kept(topic: Topic) -> str:
    if topic.dataset == "states":
        return "users.ttl_days"
    return "as long as its key" if topic.keep_days is None else f"{topic.keep_days:g} d"


def test_settings_and_their_defaults() -> None:
    defaults = {
        ".".join(path): str(default) if isinstance(default, str | Secret) else msgspec.json.encode(default).decode()
        for _, path in flat_names()
        for default in [reduce(getattr, path, Settings())]
    }
    assert {row[0]: row[1] for row in table("setting")} == defaults


def test_actions() -> None:
    assert table("action") == [
        [name, ", ".join(a.aliases), str(a.code), f"{a.weight:g}", *map(yes, (a.consumes, a.blocks, a.refreshes))]
        for name, a in ACTIONS.items()
    ]


def yes(value: bool) -> str:
    return "yes" if value else ""


def test_the_feed_is_one_that_subscribers_read() -> None:
    found = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    golden = json.loads((ROOT / "tests/golden/v1/feed.json").read_text())["value"]
    assert found is not None
    assert json.loads(found[1]) == json.loads(golden)


def test_every_test_that_security_md_names_is_in_the_file_before_it() -> None:
    security = (ROOT / "docs" / "security.md").read_text()
    beside = re.findall(r"`(?:tests/)?([\w/]+/test_\w+\.py)`((?:[:,]? `test_\w+`)*)", security)
    found = [(file, name) for file, names in beside for name in re.findall(r"`(test_\w+)`", names)]
    assert len(found) == len(re.findall(r"`test_\w+`", security)) > 25
    absent = [(file, name) for file, name in found if f"def {name}(" not in (ROOT / "tests" / file).read_text()]
    assert absent == []


def test_decisions_are_numbered_without_gaps_and_say_their_number() -> None:
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        assert file.read_text().startswith(f"# {int(file.name[:4])}. "), file.name
