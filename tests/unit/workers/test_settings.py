"""Settings: what wins over what, and that a mistake is one clear line."""

from __future__ import annotations

import math
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from workers.settings import ACTIONS, RANGES, Settings, SettingsError, flat_names, load

DEFAULTS: dict[str, Any] = {".".join(path): reduce(getattr, path, Settings()) for _, path in flat_names()}
NUMBERS = [name for name, default in DEFAULTS.items() if type(default) in {int, float}]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_need_neither_file_nor_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}) == Settings()


def test_the_file_in_the_working_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "headrace.toml", 'prefix = "shop"\n[feed]\nsize = 20\n')
    monkeypatch.chdir(tmp_path)
    settings = load(environ={})
    assert (settings.prefix, settings.feed.size, settings.feed.recipe) == ("shop", 20, "home")


def test_environment_wins_over_file_and_flags_over_environment(tmp_path: Path) -> None:
    file = write(
        tmp_path / "s.toml", 'prefix = "file"\nclock = "stream"\n[kafka]\nbootstrap = "file:1"\npartitions = 3\n'
    )
    environ = {"HEADRACE_PREFIX": "env", "HEADRACE_KAFKA_BOOTSTRAP": "env:1", "PATH": "/bin"}
    settings = load(file, environ, {"prefix": "flag", "store_url": None})
    assert settings.prefix == "flag"
    assert settings.kafka.bootstrap == "env:1"
    assert (settings.clock, settings.kafka.partitions) == ("stream", 3)
    assert settings.store.url == Settings().store.url  # a flag that was not given changes nothing


def test_a_clock_that_is_named_wins_over_a_command_s_own(tmp_path: Path) -> None:
    file = write(tmp_path / "s.toml", 'clock = "wall"\n')
    assert load(environ={}, clock="stream").clock == "stream"
    assert load(file, environ={}, clock="stream").clock == "wall"
    assert load(environ={"HEADRACE_CLOCK": "wall"}, clock="stream").clock == "wall"
    assert load(environ={}, flags={"clock": "wall"}, clock="stream").clock == "wall"
    assert load(environ={}, flags={"clock": None}, clock="stream").clock == "stream"


def test_text_of_the_environment_becomes_the_type_of_the_setting() -> None:
    environ = {
        "HEADRACE_KAFKA_PARTITIONS": "4",
        "HEADRACE_KAFKA_SESSION_TIMEOUT_S": "2.5",
        "HEADRACE_FEED_REPEATS": "true",
        "HEADRACE_FEED_UNLISTED": "0",
        "HEADRACE_DATA": "/data",
    }
    settings = load(environ=environ)
    assert settings.kafka.partitions == 4
    assert settings.kafka.session_timeout_s == 2.5
    assert (settings.feed.repeats, settings.feed.unlisted) == (True, False)
    assert settings.data == "/data"


def test_fail_points_are_no_settings() -> None:
    assert load(environ={"HEADRACE_FAILPOINT_AFTER_APPLY": "exit"}) == load(environ={})


def test_every_flat_name_reaches_its_setting() -> None:
    names = dict(flat_names())
    assert names["feed_size"] == ("feed", "size")
    assert names["model_flush_bytes"] == ("model", "flush_bytes")
    assert names["prefix"] == ("prefix",)
    assert "actions" not in names
    defaults = Settings()
    for name, path in names.items():
        value = defaults
        for part in path:
            value = getattr(value, part)
        assert load(environ={f"HEADRACE_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)})


@pytest.mark.parametrize(
    ("toml", "environ", "said"),
    [
        ("prefix = ", {}, "is not TOML"),
        ('prefixx = "a"', {}, "prefixx"),
        ("[kafka]\nbootstrp = 'a'", {}, "bootstrp"),
        ("[kafka]\npartitions = 'many'", {}, "kafka.partitions"),
        ("[kafka]\npartitions = 0", {}, "kafka.partitions must be 1..1024, found 0"),
        ("[users]\nttl_days = 0", {}, "users.ttl_days must be 1..36500, found 0.0"),
        ("[model]\nflush_s = 0", {}, "model.flush_s must be 0.05..3600, found 0.0"),
        ("[feed]\ndefault_every_s = -1", {}, "feed.default_every_s must be 0.1..3600, found -1.0"),
        ("", {"HEADRACE_STORE_CALL_TIMEOUT_S": "inf"}, "store.call_timeout_s must be 0.1..600, found inf"),
        (
            "[kafka]\nheartbeat_s = 5",
            {},
            "kafka.heartbeat_s must be less than half of kafka.session_timeout_s = 10.0, found 5.0",
        ),
        ("[model]\ncheckpoint_s = 0.5", {}, "model.checkpoint_s must be at least model.flush_s = 1.0, found 0.5"),
        ("kafka = 3", {"HEADRACE_KAFKA_PARTITIONS": "3"}, "kafka"),
        ("kafka = 3", {}, "kafka"),
        ('clock = "sundial"', {}, "clock"),
        ('prefix = "a.b"', {}, "prefix"),
        ('prefix = ""', {}, "prefix"),
        ('prefix = "é"', {}, "prefix"),
        ("[feed]\nsize = 0", {}, "feed.size"),
        ("[model]\ndimension = 3", {}, "model.dimension"),
        ("", {"HEADRACE_KAFKA": "x"}, "HEADRACE_KAFKA is not a setting"),
        ("", {"HEADRACE_FEED_SIZE": "ten"}, "feed.size"),
        ("", {"HEADRACE_ACTIONS": "x"}, "HEADRACE_ACTIONS is not a setting"),
        ("[actions.star2]\ncode = 4", {}, "distinct codes"),
        ("[actions.wave]\ncode = 20", {}, "32..255, found wave 20"),
        ("[actions.wave]\ncode = 32\nweight = nan", {}, "actions.wave.weight must be -1000..1000, found nan"),
        ("[actions.wave]\ncode = 256", {}, "32..255"),
        ("[actions.wave]\nweight = 1", {}, "code"),
        ("[actions.click]\ncode = 33", {}, "click"),
        ("[actions.wave]\ncode = 32\naliases = ['view_item']", {}, "view_item"),
        ("[actions.wave]\ncode = 32\naliases = ['like']", {}, "like"),
    ],
)
def test_a_mistake_is_one_clear_line(toml: str, environ: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        load(write(tmp_path / "s.toml", toml), environ)
    message = str(error.value)
    assert said in message
    assert message.startswith("settings: ")
    assert "\n" not in message


def test_every_number_has_a_range() -> None:
    assert set(RANGES) == set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_its_range_is_refused(name: str) -> None:
    least, greatest = RANGES[name]
    expected = re.escape(f"settings: {name} must be {least}..{greatest}, found ")
    for found in (least - 1, greatest + 1, *([math.nan] if isinstance(DEFAULTS[name], float) else [])):
        with pytest.raises(SettingsError, match=expected):
            load(environ={}, flags={name.replace(".", "_"): found})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*absent\.toml"):
        load(tmp_path / "absent.toml", {})


def test_a_flag_that_is_no_setting_says_the_flag() -> None:
    with pytest.raises(SettingsError, match="--feed-sise is not a setting"):
        load(environ={}, flags={"feed_sise": 3})


def test_own_actions_join_the_built_in_ones_and_may_replace_their_meaning(tmp_path: Path) -> None:
    text = "[actions.listen]\ncode = 32\nweight = 0.5\n[actions.view]\ncode = 2\nweight = 0.1\n"
    settings = load(write(tmp_path / "s.toml", text), {})
    actions = settings.all_actions()
    assert actions["listen"].weight == 0.5
    assert actions["view"].weight == 0.1
    assert set(actions) == {*ACTIONS, "listen"}


def test_topics_carry_prefix_and_version() -> None:
    assert load(environ={"HEADRACE_PREFIX": "shop"}).topic("dead-letters") == "shop.dead-letters.v1"
