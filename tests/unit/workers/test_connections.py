"""Settings of broker and store: logins from files, nothing secret shown, nothing that protects left unused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from workers.secret import Secret
from workers.settings import Settings, SettingsError, load


def test_a_login_comes_from_files(tmp_path: Path) -> None:
    (tmp_path / "user").write_text("embedding\n")
    (tmp_path / "password").write_text("tr33 top\r\n")
    environ = {
        "HEADRACE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "HEADRACE_KAFKA_USER_FILE": str(tmp_path / "user"),
        "HEADRACE_KAFKA_PASSWORD_FILE": str(tmp_path / "password"),
        "HEADRACE_STORE_PASSWORD_FILE": str(tmp_path / "password"),
    }
    settings = load(environ=environ)
    assert (settings.kafka.user, settings.kafka.password.reveal()) == ("embedding", "tr33 top")
    assert (settings.store.user, settings.store.password.reveal()) == ("", "tr33 top")


def test_a_login_in_the_address_of_the_store_is_taken_out_of_it() -> None:
    store = load(environ={"HEADRACE_STORE_URL": "rediss://retrieval:a%2Fb%40c@cache.example:6380/2"}).store
    assert store.url == "rediss://cache.example:6380/2"
    assert (store.user, store.password.reveal()) == ("retrieval", "a/b@c")
    bare = load(environ={"HEADRACE_STORE_URL": "redis://:only@localhost"}).store
    assert (bare.url, bare.user, bare.password.reveal()) == ("redis://localhost", "", "only")


def test_a_secret_is_shown_to_nobody() -> None:
    flags = {"store_url": "redis://u:hunter2@localhost", "kafka_security_protocol": "SASL_SSL", "kafka_user": "u"}
    settings = load(environ={"HEADRACE_KAFKA_PASSWORD": "hunter2"}, flags=flags)
    for text in (repr(settings), str(settings), f"{settings.kafka.password}", "%r" % settings.store.password):  # noqa: UP031
        assert "hunter2" not in text
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)
    assert settings.kafka.password == Secret("hunter2") != Secret("other")
    assert not Secret()
    assert str(Secret()) == ""


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"KAFKA_PASSWORD_FILE": "absent"}, r"kafka\.password_file: cannot read absent: No such file"),
        ({"KAFKA_PASSWORD_FILE": "empty"}, r"kafka\.password_file: empty is empty"),
        ({"STORE_USER_FILE": "bytes"}, r"store\.user_file: cannot read bytes: it is not UTF-8"),
        ({"STORE_PASSWORD_FILE": "given", "STORE_PASSWORD": "x"}, r"store\.password and store\.password_file"),
        ({"STORE_URL": "redis://:x@localhost", "STORE_PASSWORD_FILE": "given"}, r"give one of them"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, r"needs kafka\.user and kafka\.password_file"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, r"kafka\.security_protocol"),
        ({"KAFKA_USER": "a", "KAFKA_PASSWORD": "b"}, r"need SASL_SSL"),
        ({"KAFKA_CA_FILE": "given"}, r"kafka\.ca_file would not be used"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_KEY_FILE": "given"}, r"kafka\.key_file needs kafka\.cert_file"),
        ({"STORE_CA_FILE": "given", "STORE_CERT_FILE": "given"}, r"store\.ca_file, store\.cert_file would not be used"),
        ({"STORE_URL": "rediss://localhost/0?ssl_cert_reqs=none"}, r"ssl_cert_reqs: use"),
        ({"STORE_URL": "redis://localhost/0?password="}, r"password: use"),
        ({"STORE_URL": "http://localhost"}, r"store\.url: expected redis://"),
        ({"STORE_URL": "localhost:6379"}, r"store\.url: expected redis://"),
    ],
)
def test_a_mistake_is_one_clear_line(
    environ: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n")
    Path("given").write_text("given\n")
    Path("bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=said) as error:
        load(environ={f"HEADRACE_{name}": value for name, value in environ.items()})
    assert str(error.value).startswith("settings: ")
    assert "\n" not in str(error.value)


def test_a_wrong_address_does_not_tell_the_password_in_it() -> None:
    for url in ("redis://u:hun/ter2@localhost:6379", "redis://u:hunter2@localhost:x", "redisx://u:hunter2@localhost"):
        with pytest.raises(SettingsError) as error:
            load(environ={"HEADRACE_STORE_URL": url})
        assert "hun" not in str(error.value)


def test_defaults_are_without_tls_on_this_machine() -> None:
    assert (Settings().kafka.tls, Settings().kafka.sasl, Settings().store.tls) == (False, False, False)
