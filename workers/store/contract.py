"""What must hold before a store is used: its functions, what its prefix was made with, and that it drops nothing."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from workers.store.link import Link, StoreRefused, pack

_OLDEST = 7  # the first Redis with functions
_POLICY = "noeviction"


class FunctionsMissing(StoreRefused):
    """The function library is not there, or it is another version: `headrace store apply` was not run."""


@dataclass(frozen=True, slots=True)
class Contract:
    """The contract of one prefix with its store."""

    link: Link
    meta_key: bytes
    meta: dict[str, str]  # what the prefix is made with, as the settings say
    library: bytes  # the source of the functions

    async def install(self) -> None:
        """Write the contract and load the functions; both may be there already.

        Raises StoreRefused, with nothing loaded, when the prefix was made with another contract.
        """
        await self._server()
        await self.link.run([pack(b"HSETNX", self.meta_key, name, value) for name, value in self.meta.items()])
        await self.check_meta()
        await self.link.run([pack(b"FUNCTION", b"LOAD", b"REPLACE", self.library)])

    async def show(self) -> dict[str, Any]:
        """What is expected and what is there: server, library (hashes), meta, policy, append-only file."""
        server = await self._server()
        found = await self._found_library()
        return {
            "server": server["name"],
            "library": {"expected": _digest(self.library), "found": _digest(found) if found is not None else None},
            "meta": {"expected": self.meta, "found": await self._found_meta()},
            "policy": server.get("maxmemory_policy", "unknown"),
            "append_only": server.get("aof_enabled") == "1",
        }

    async def check(self) -> None:
        """Raise StoreRefused (FunctionsMissing for the library) unless the store may be used."""
        shown = await self.show()
        self._check_meta(shown["meta"]["found"])
        if shown["policy"] != _POLICY:
            raise StoreRefused(
                f"store: expected maxmemory-policy {_POLICY}, found {shown['policy']}: it would drop users' states; "
                f"run `CONFIG SET maxmemory-policy {_POLICY}` and keep it in the server's configuration"
            )
        expected, found = shown["library"]["expected"], shown["library"]["found"]
        if found != expected:
            raise FunctionsMissing(
                f"store: expected functions headrace {expected}, found {found or 'none'}; run `headrace store apply`"
            )

    async def check_meta(self) -> None:
        """The part that concerns who only reads: raise StoreRefused (FunctionsMissing where there is none) unless the
        prefix was made as the settings say."""
        self._check_meta(await self._found_meta())

    def _check_meta(self, found: dict[str, str]) -> None:
        where = self.meta_key.decode()
        if not found:
            raise FunctionsMissing(f"store: expected the contract in {where}, found none; run `headrace store apply`")
        for name, expected in self.meta.items():
            if found.get(name) != expected:
                raise StoreRefused(
                    f"store: expected {name} = {expected}, found {found.get(name, 'none')} in {where}; "
                    "set it back, or use another prefix"
                )

    async def _found_meta(self) -> dict[str, str]:
        (answer,) = await self.link.run([pack(b"HGETALL", self.meta_key)])
        return {name.decode(): value.decode() for name, value in zip(answer[::2], answer[1::2], strict=True)}

    async def _found_library(self) -> bytes | None:
        command = pack(b"FUNCTION", b"LIST", b"LIBRARYNAME", b"headrace", b"WITHCODE")
        (libraries,) = await self.link.run([command])
        if not libraries:
            return None
        fields = dict(zip(libraries[0][::2], libraries[0][1::2], strict=True))
        return bytes(fields[b"library_code"])

    async def _server(self) -> dict[str, str]:
        """The fields of INFO, and `name`: "Redis 7.0.15" or "Valkey 9.1.2". Raises StoreRefused for an old one."""
        (answer,) = await self.link.run([pack(b"INFO")])
        fields = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
        version = fields["redis_version"]  # Valkey says here which Redis it equals
        if int(version.split(".")[0]) < _OLDEST:
            raise StoreRefused(f"store: expected Redis {_OLDEST}.0 or newer, or Valkey, found Redis {version}")
        valkey = fields.get("valkey_version")
        return {**fields, "name": f"Valkey {valkey}" if valkey else f"Redis {version}"}


def _digest(code: bytes) -> str:
    return sha256(code).hexdigest()[:16]
