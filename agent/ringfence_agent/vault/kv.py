"""Records in a KV version 2 engine, written by check-and-set alone.

Rules:

1. Every write names the version that it replaces (0: there was none). Of several writers exactly one wins.
2. Nothing here deletes: `DELETE` needs no check-and-set even where that is required, and deleting a record's metadata
   starts its versions anew, so that a lost race would be won. A record is given up by writing that it is.
3. All of it goes to the active node: a standby most often answers a read with what was there before the last write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ringfence_agent.vault import refusal
from ringfence_agent.vault.caller import Caller, data_of, is_missing, number, texts
from ringfence_agent.vault.exchange import VaultRequest
from ringfence_agent.vault.refusal import Reason, VaultRefusedError
from ringfence_zones.errors import ProtectorRefusedError

MAX_VERSIONS = 20
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class KvRecord:
    """One version of a record. `data` is None when somebody deleted or destroyed it behind our back."""

    version: int
    data: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class KvMetadata:
    """What KV knows of a record: its newest version and the oldest it still has."""

    current_version: int
    oldest_version: int
    cas_required: bool


@dataclass(frozen=True, slots=True)
class KvConfig:
    """What holds for every record of the engine. `max_versions` 0 is Vault's default, which is 10."""

    cas_required: bool
    max_versions: int


class KvSecrets:
    """The records of one mount. Paths follow the mount, without a leading slash."""

    def __init__(self, caller: Caller, kv: Any, mount: str) -> None:
        """`kv` is hvac's."""
        self._caller = caller
        self._kv = kv
        self.mount = mount

    def find(self, path: str, version: int | None = None) -> KvRecord | None:
        """The newest version, or the given one; None when there never was a record of that name.

        Not hvac's: a deleted version is a 404 with a body that says so, and must not be taken for no record.
        """
        request = VaultRequest(
            method="GET",
            path=f"{self.mount}/data/{quote(path)}",
            params={"version": str(version)} if version is not None else {},
            namespace=self._caller.namespace,
        )
        answer = self._caller.send(request)
        found = data_of(answer.json)
        metadata = found.get("metadata")
        if answer.status in (200, 404) and isinstance(metadata, dict) and isinstance(metadata.get("version"), int):
            data = found.get("data")
            return KvRecord(metadata["version"], data if isinstance(data, dict) else None)
        error = refusal.refused(request.what, answer.status, answer.body)
        if is_missing(error):
            return None
        raise error

    def write(self, path: str, data: Mapping[str, Any], replaces: int) -> int | None:
        """The new version's number; None when the newest is not `replaces`: somebody else was first.

        ProtectorUnavailableError with `may_have_changed`: read it again to know.
        """
        try:
            answer = self._kv.create_or_update_secret(
                path=path, secret=dict(data), cas=replaces, mount_point=self.mount
            )
        except VaultRefusedError as error:
            if error.reason is Reason.CAS_LOST:
                return None
            raise
        version = data_of(answer).get("version")
        if not isinstance(version, int):
            raise ProtectorRefusedError(f"Vault took the record {self.mount}/{path} without saying as which version")
        return version

    def list_names(self, path: str) -> list[str]:
        """The records and folders (with a trailing slash) in a folder, sorted."""
        try:
            answer = self._kv.list_secrets(path=path, mount_point=self.mount)
        except VaultRefusedError as error:
            if is_missing(error):
                return []
            raise
        return sorted(texts(data_of(answer), "keys"))

    def list_pages(self, path: str) -> Iterator[str]:
        """As `list_names`, in the server's order and a page at a time; a server without pages gives all at once.

        What is written meanwhile may be among them or not.
        """
        after = ""
        while True:
            names = self._list_page(path, after)
            # A server that knows no pages answers with all names each time.
            fresh = [name for name in names if name > after]
            yield from fresh
            if len(names) != _PAGE or not fresh:
                return
            after = fresh[-1]

    def _list_page(self, path: str, after: str) -> list[str]:
        request = VaultRequest(
            method="GET",
            path=f"{self.mount}/metadata/{quote(path)}/",
            params={"list": "true", "after": after, "limit": str(_PAGE)},
            namespace=self._caller.namespace,
        )
        try:
            answer = self._caller.succeed(request)
        except VaultRefusedError as error:
            if is_missing(error):
                return []
            raise
        return list(texts(data_of(answer), "keys"))

    def find_metadata(self, path: str) -> KvMetadata | None:
        """What KV knows of a record; None when there is none."""
        try:
            data = data_of(self._kv.read_secret_metadata(path=path, mount_point=self.mount))
        except VaultRefusedError as error:
            if is_missing(error):
                return None
            raise
        return KvMetadata(
            number(data, "current_version"), number(data, "oldest_version"), data.get("cas_required") is True
        )

    def read_config(self) -> KvConfig:
        """The engine's configuration."""
        data = data_of(self._kv.read_configuration(mount_point=self.mount))
        return KvConfig(data.get("cas_required") is True, number(data, "max_versions"))

    def require_cas(self, max_versions: int = MAX_VERSIONS) -> None:
        """From now on nobody writes to this engine without check-and-set; so many versions are kept, for forensics."""
        self._kv.configure(max_versions=max_versions, cas_required=True, mount_point=self.mount)
