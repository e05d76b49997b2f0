"""Who may be met without TLS and a login: this machine alone, unless a switch says otherwise, which is logged."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from structlog.testing import capture_logs

from workers import security
from workers.security import Insecure, broker_options, is_loopback, store_options, tls_refusal
from workers.settings import SettingsError, load

SASL = {"kafka_security_protocol": "SASL_SSL", "kafka_user": "u", "kafka_password": "p"}


@pytest.fixture(autouse=True)
def _said_nothing() -> None:
    security._say_insecure.cache_clear()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "kafka", "localhost.example.com", "127.0.0.1.example.com", "1270.0.0.1"]
)
def test_beyond_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:9092", "localhost:1,[::1]:2", "localhost"])
def test_a_broker_on_this_machine_needs_nothing(bootstrap: str) -> None:
    assert broker_options(load(environ={}, flags={"kafka_bootstrap": bootstrap})) == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize(
    "bootstrap", ["kafka:9092", "127.0.0.1:9092,10.1.2.3:9092", "[2001:db8::1]:9092", "2001:db8::1"]
)
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"kafka_security_protocol": "SSL"},  # encrypted, but without a name
        {**SASL, "kafka_security_protocol": "SASL_PLAINTEXT"},
    ],
)
def test_a_broker_elsewhere_is_refused(bootstrap: str, flags: dict[str, Any]) -> None:
    settings = load(environ={}, flags={"kafka_bootstrap": bootstrap, **flags})
    with pytest.raises(Insecure, match=r"is beyond loopback: expected kafka\.security_protocol SASL_SSL, or SSL with"):
        broker_options(settings)
    allowed = load(environ={}, flags={"kafka_bootstrap": bootstrap, "kafka_insecure": True, **flags})
    with capture_logs() as said:
        assert broker_options(allowed)["security_protocol"] == allowed.kafka.security_protocol
        broker_options(allowed)
    assert [(line["log_level"], line["what"]) for line in said] == [("warning", "kafka")]  # once


def test_a_broker_elsewhere_with_tls_and_a_login() -> None:
    options = broker_options(load(environ={}, flags={"kafka_bootstrap": "kafka:9092", **SASL}))
    context = options.pop("ssl_context")
    assert (context.verify_mode.name, context.check_hostname) == ("CERT_REQUIRED", True)
    assert options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }


def test_a_broker_that_sends_its_clients_elsewhere_is_refused() -> None:
    """It is asked on loopback, and advertises another address."""
    settings = load(environ={})
    security.guard_broker(settings, ["localhost"])
    with pytest.raises(Insecure, match=r"10\.0\.0\.7 is beyond loopback"):
        security.guard_broker(settings, ["localhost", "10.0.0.7"])


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/0", "redis://", "unix:///run/redis.sock", "redis://[::1]:7/1"])
def test_a_store_on_this_machine_needs_nothing(url: str) -> None:
    assert store_options(load(environ={}, flags={"store_url": url}).store) == {}


@pytest.mark.parametrize("url", ["redis://cache/0", "rediss://cache/0", "redis://:secret@cache/0"])
def test_a_store_elsewhere_is_refused_without_tls_and_a_password(url: str) -> None:
    with pytest.raises(Insecure, match=r"store: cache is beyond loopback: expected rediss:// and store\.password_file"):
        store_options(load(environ={}, flags={"store_url": url}).store)
    with capture_logs() as said:
        store_options(load(environ={}, flags={"store_url": url, "store_insecure": True}).store)
    assert [line["what"] for line in said] == ["store"]


def test_a_store_elsewhere_with_tls_and_a_password() -> None:
    assert store_options(load(environ={}, flags={"store_url": "rediss://u:p@cache/0"}).store) == {
        "username": "u",
        "password": "p",
    }


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_file_that_cannot_be_used_is_named(name: str, tmp_path: Any) -> None:
    (tmp_path / "x.pem").write_text("nonsense")
    tls = load(environ={}, flags={"store_url": "rediss://localhost", f"store_{name}": str(tmp_path / "x.pem")})
    with pytest.raises(SettingsError, match=rf"cannot use store\.{name}: .*x\.pem"):
        store_options(tls.store)
    flags = {"kafka_security_protocol": "SSL", f"kafka_{name}": str(tmp_path / "absent.pem")}
    with pytest.raises(SettingsError, match=rf"cannot use kafka\.{name}: .*absent\.pem.*No such file"):
        broker_options(load(environ={}, flags=flags))


def test_a_handshake_that_was_cut_off_is_no_refusal() -> None:
    """A server that is being started anew does that: it is asked again."""
    refusal = ssl.SSLCertVerificationError("certificate verify failed")
    wrapped = ConnectionError("no connection")
    wrapped.__cause__ = refusal
    assert tls_refusal(refusal) is tls_refusal(wrapped) is refusal
    for passing in (ssl.SSLEOFError("EOF"), ssl.SSLZeroReturnError("closed"), ConnectionResetError(), None):
        assert tls_refusal(passing) is None
