"""A store that speaks TLS alone and knows its users: each role does its work with the rights of docs/security.md, and
nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

from tests import secured
from tests.stores import DAY_S, OK, batch
from tests.waiting import run
from workers import embedded
from workers.settings import Settings, load
from workers.store import FeedWrite, Store, StoreError, StoreRefused, StoreUnavailable, Write

pytestmark = pytest.mark.redis

USERS = ("deploy", "embedding", "retrieval", "reader", "operator")
Server = tuple[embedded.Server, secured.Certificates]
FOREIGN = ("other:u:{0}:ada", "headrac:meta", "headrace2:o:{0}", "secret")


@pytest.fixture(scope="module")
def secured_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    why = secured.why_no_store()
    if why is not None:
        pytest.skip(why)
    with secured.store(tmp_path_factory.mktemp("store")) as (server, certificates):
        run(_install(settings_of((server, certificates), "deploy")))
        yield server, certificates


def settings_of(server: Server, user: str, **flags: Any) -> Settings:
    running, certificates = server
    login = {
        "store_url": f"rediss://{embedded.HOST}:{running.port}/0",
        "store_ca_file": str(certificates.ca),
        "store_user": user,
        "store_password_file": secured.secret(certificates.folder, user),
        "store_connect_timeout_s": 5.0,
    }
    return load(environ={}, flags={**login, **flags})


async def _install(settings: Settings) -> None:
    store = await Store.connect(settings)
    try:
        await store.install()
    finally:
        await store.close()


@contextmanager
def client(server: Server, user: str) -> Iterator[redis.Redis]:
    running, certificates = server
    with redis.Redis(
        host=embedded.HOST, port=running.port, username=user, password=secured.password(user),
        ssl=True, ssl_ca_certs=str(certificates.ca),
    ) as connected:  # fmt: skip
        yield connected


def call(connected: redis.Redis, *words: str) -> Any:
    return connected.execute_command(*words)  # type: ignore[no-untyped-call]


# ---------------------------------------------------------------- each role's own work


def test_embedding_claims_applies_and_reads(secured_store: Server) -> None:
    async def main() -> None:
        store = await Store.connect(settings_of(secured_store, "embedding"))
        try:
            await store.check()
            claim = (await store.claim([3], "w", [3]))[3]
            state, feed, marker = (make(3, "ada") for make in (store.state_key, store.feed_key, store.marker_key))
            writes = [Write(state, DAY_S, b"blob"), Write(feed, DAY_S, b""), Write(marker, DAY_S, b"m" * 24)]
            assert await store.apply([batch(claim.epoch, 0, 1, writes=writes)]) == [OK]
            assert (await store.read_users(3, ["ada"]))[0].blob == b"blob"
            assert await store.sent(3, claim.epoch, 1) == "OK"
            assert (await store.positions([3]))[3].sent == 1
        finally:
            await store.close()

    run(main())


def test_retrieval_puts_feeds_and_the_default_one(secured_store: Server) -> None:
    async def main() -> None:
        store = await Store.connect(settings_of(secured_store, "retrieval"))
        try:
            await store.check()
            assert await store.put_feeds([FeedWrite(1, "bob", 5, 5, b"{}")]) == [True]
            assert await store.put_default("home", 7, b"{}")
            assert await store.reachable()
        finally:
            await store.close()

    run(main())


def test_a_reader_reads(secured_store: Server) -> None:
    async def main() -> None:
        store = await Store.connect(settings_of(secured_store, "reader"))
        try:
            await store.check_meta()
            assert await store.read_state(1, "nobody") is None
            assert await store.read_feed(1, "nobody") is None
            await store.read_default("home")
        finally:
            await store.close()

    run(main())


def test_an_operator_rebuilds_and_looks_at_users(secured_store: Server) -> None:
    async def main() -> None:
        store = await Store.connect(settings_of(secured_store, "operator"))
        try:
            await store.check()
            rebuilding = store.rebuilding("op-1")
            await rebuilding.begin([0])
            await rebuilding.write(
                0, [Write(store.state_key(0, "cy"), DAY_S, b"x"), Write(store.feed_key(0, "cy"), 1, b"")]
            )
            await rebuilding.end(0, 4)
            found = [user async for users in store.scan_users("u") for user in users]
            assert (0, "cy") in found
            assert await store.read_state(0, "cy") == b"x"
        finally:
            await store.close()

    run(main())


# ---------------------------------------------------------------- and nothing else


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "words",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("KEYS", "*"),
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
        ("EVAL", "return 1", "0"),
        ("FUNCTION", "FLUSH"),
        ("FUNCTION", "DELETE", "headrace"),
        ("ACL", "LIST"),
        ("ACL", "SETUSER", "mallory", "on", "nopass"),
        ("SHUTDOWN", "NOSAVE"),
        ("MONITOR",),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("CLIENT", "LIST"),
        ("SUBSCRIBE", "x"),
        ("RENAME", "headrace:meta", "headrace:u:x"),
    ],
)
def test_no_user_may_do_what_belongs_to_the_server(secured_store: Server, user: str, words: tuple[str, ...]) -> None:
    with client(secured_store, user) as connected, pytest.raises(NoPermissionError):
        call(connected, *words)


@pytest.mark.parametrize("user", ["embedding", "retrieval", "reader"])
def test_no_worker_may_look_at_all_keys(secured_store: Server, user: str) -> None:
    with client(secured_store, user) as connected, pytest.raises(NoPermissionError):
        call(connected, "SCAN", "0")


@pytest.mark.parametrize("key", FOREIGN)
def test_foreign_keys_are_refused(secured_store: Server, key: str) -> None:
    calls: dict[str, list[tuple[str, ...]]] = {
        "embedding": [("MGET", key), ("SET", key, "x"), ("DEL", key), ("HGETALL", key)],
        "retrieval": [("HSET", key, "feed", "x"), ("GETRANGE", key, "0", "1")],
        "reader": [("GET", key), ("HGET", key, "feed"), ("HGETALL", key)],
        "operator": [("GET", key), ("DEL", key)],
        "deploy": [("HSETNX", key, "x", "y")],
    }
    for user, theirs in calls.items():
        with client(secured_store, user) as connected:
            for words in theirs:
                with pytest.raises(NoPermissionError):
                    call(connected, *words)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("embedding", ("HSET", "headrace:meta", "dimension", "7")),
        ("embedding", ("HSET", "headrace:default:home", "feed", "x")),
        ("retrieval", ("MGET", "headrace:u:{0}:ada")),
        ("retrieval", ("HGET", "headrace:o:{0}", "next")),
        ("retrieval", ("DEL", "headrace:x:{0}:00")),
        ("retrieval", ("SET", "headrace:x:{0}:00", "")),
        ("reader", ("SET", "headrace:u:{0}:ada", "x")),
        ("reader", ("HSET", "headrace:f:{0}:ada", "feed", "x")),
        ("reader", ("HSET", "headrace:meta", "dimension", "7")),
        ("reader", ("HGETALL", "headrace:o:{0}")),
        ("reader", ("GET", "headrace:x:{0}:00")),
        ("reader", ("HGET", "headrace:o:{0}", "owner")),
        ("deploy", ("HSETNX", "headrace:o:{0}", "next", "0")),
    ],
)
def test_what_another_role_owns_is_refused(secured_store: Server, user: str, words: tuple[str, ...]) -> None:
    with client(secured_store, user) as connected, pytest.raises(NoPermissionError):
        call(connected, *words)


def test_a_function_has_no_more_rights_than_its_caller(secured_store: Server) -> None:
    with client(secured_store, "retrieval") as connected:
        for words in (
            ("headrace_claim", "1", "headrace:o:{0}", "mallory", "1"),
            ("headrace_put_feed", "1", "other:f:{0}:a", "9", "0" * 16, "x"),
        ):
            with pytest.raises(NoPermissionError):
                call(connected, "FCALL", *words)
    with (
        client(secured_store, "embedding") as connected,
        pytest.raises(ResponseError, match=r"(?i)can't run this command|permission"),
    ):  # a key of its own, a command that it has not
        call(connected, "FCALL", "headrace_rebuild", "1", "headrace:o:{9}", "mallory")


def test_a_refused_call_is_one_line(secured_store: Server) -> None:
    async def main() -> None:
        store = await Store.connect(settings_of(secured_store, "reader"))
        try:
            with pytest.raises(StoreError, match=r"(?i)refused a call: .*permission") as error:
                await store.put_default("home", 8, b"{}")
            assert secured.password("reader") not in str(error.value)
        finally:
            await store.close()

    run(main())


# ---------------------------------------------------------------- who gets in


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"store_user": "mallory"}, "refused user or password"),
        ({"store_user": "retrieval"}, "refused user or password"),  # with the password of another
        ({"store_user": "", "store_password_file": ""}, "refused user or password"),
        ({"store_ca_file": ""}, "no TLS that both sides accept .*CERTIFICATE_VERIFY_FAILED"),
        ({"store_ca_file": "other"}, "no TLS that both sides accept .*CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_strangers_are_refused_with_one_line(
    secured_store: Server, flags: dict[str, Any], said: str, tmp_path: Path
) -> None:
    if flags.get("store_ca_file") == "other":
        flags = {"store_ca_file": str(secured.Certificates(tmp_path).ca)}
    settings = settings_of(secured_store, "embedding", store_connect_timeout_s=50.0, **flags)
    with pytest.raises(StoreRefused, match=said) as error:
        run(Store.connect(settings), within_s=25)  # long before its patience is over
    assert secured.password("embedding") not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("hung_up")
def test_a_name_that_the_certificate_does_not_hold_is_refused(secured_store: Server) -> None:
    url = f"rediss://127.0.0.2:{secured_store[0].port}/0"
    if not sys.platform.startswith("linux"):
        pytest.skip("127.0.0.2 is this machine on Linux alone")
    with pytest.raises((StoreRefused, StoreUnavailable)) as error:
        run(Store.connect(settings_of(secured_store, "embedding", store_url=url, store_connect_timeout_s=1.0)))
    assert "127.0.0.2" in str(error.value)


@pytest.mark.usefixtures("hung_up")
def test_a_client_without_tls_gets_no_answer(secured_store: Server) -> None:
    plain = load(environ={}, flags={"store_url": f"redis://{embedded.HOST}:{secured_store[0].port}/0",
                                    "store_connect_timeout_s": 0.5})  # fmt: skip
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.5 s"):
        run(Store.connect(plain))


def test_the_command_line_logs_in_from_a_file(secured_store: Server, root: Path) -> None:
    settings = settings_of(secured_store, "deploy")
    environ = {
        "HEADRACE_STORE_URL": settings.store.url,
        "HEADRACE_STORE_CA_FILE": settings.store.ca_file,
        "HEADRACE_STORE_USER": "deploy",
        "HEADRACE_STORE_PASSWORD_FILE": settings.store.password_file,
    }
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", "store", "show", "--json"],
        cwd=root, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert secured.password("deploy") not in done.stdout
