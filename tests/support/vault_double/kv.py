"""KV version 2: versioned secrets with check-and-set.

Deleting needs no check-and-set, and keeps the counter; deleting the metadata resets it. A deleted or destroyed version
answers 404 with a full envelope, a missing secret 404 with none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vault_double.backend import Backend, Call, route
from vault_double.clock import as_rfc3339
from vault_double.wire import RefusedError, Reply

_PATH = r"(?P<path>.+)"


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """One version; `data` is None once destroyed."""

    data: Mapping[str, Any] | None
    created_at: float
    deleted_at: float | None = None
    destroyed: bool = False

    @property
    def is_gone(self) -> bool:
        return self.destroyed or self.deleted_at is not None


@dataclass(frozen=True, slots=True)
class SecretEntry:
    """A path's metadata and versions."""

    created_at: float
    updated_at: float
    current: int = 0
    versions: Mapping[int, SecretVersion] = field(default_factory=dict)
    cas_required: bool = False
    max_versions: int = 0
    delete_version_after: str = "0s"
    custom_metadata: Mapping[str, str] | None = None


def read_config(call: Call) -> dict[str, Any]:
    return {"cas_required": False, "delete_version_after": "0s", "max_versions": 0} | (call.store.get("config") or {})


def write_config(call: Call) -> None:
    config = read_config(call)
    config["cas_required"] = call.flag("cas_required", default=config["cas_required"])
    config["max_versions"] = call.number("max_versions", config["max_versions"])
    config["delete_version_after"] = call.text("delete_version_after", config["delete_version_after"])
    call.store.put("config", config)


def write_data(call: Call) -> dict[str, Any]:
    if "data" not in call.data:
        raise RefusedError(400, "no data provided")
    if not isinstance(call.data["data"], dict | None):
        raise call.invalid("data", call.data["data"])
    now, entry, config = call.core.clock.now(), _find(call), read_config(call)
    entry = entry or SecretEntry(now, now)
    _check_cas(call, entry, must=entry.cas_required or config["cas_required"])
    number = entry.current + 1
    version = SecretVersion(call.data["data"], now)
    versions = {**entry.versions, number: version}
    most = entry.max_versions or config["max_versions"] or 10
    versions = {kept: versions[kept] for kept in sorted(versions)[-most:]}
    entry = replace(entry, versions=versions, current=number, updated_at=now)
    _keep(call, entry)
    return _version_data(entry, number)


def _check_cas(call: Call, entry: SecretEntry, *, must: bool) -> None:
    options = call.data.get("options") or {}
    if not isinstance(options, dict):
        raise call.invalid("options", options)
    if "cas" not in options:
        if must:
            raise RefusedError(400, "check-and-set parameter required for this call")
        return
    try:
        wanted = int(str(options["cas"] or 0))  # Null is 0; a fraction is refused, though it be whole.
    except ValueError:
        raise RefusedError(400, "error parsing check-and-set parameter") from None
    if wanted != entry.current:
        raise RefusedError(400, "check-and-set parameter did not match the current version")


def read_data(call: Call) -> Reply | None:
    entry = _find(call)
    if entry is None or not entry.versions:
        return None
    number = max(0, call.number("version")) or entry.current
    version = entry.versions.get(number)
    if version is None:
        return None
    data = {"data": None if version.is_gone else version.data, "metadata": _version_data(entry, number)}
    return Reply(data, status=404 if version.is_gone else 200)


def delete_data(call: Call) -> None:
    entry = _find(call)
    if entry is not None and entry.current in entry.versions:
        _change_versions(call, entry, (entry.current,), deleted_at=call.core.clock.now())


def delete_versions(call: Call) -> None:
    _with_versions(call, deleted_at=call.core.clock.now())


def undelete_versions(call: Call) -> None:
    _with_versions(call, deleted_at=None)


def destroy_versions(call: Call) -> None:
    _with_versions(call, destroyed=True, data=None)


def _with_versions(call: Call, **change: Any) -> None:
    numbers = call.data.get("versions")
    if not isinstance(numbers, list) or not numbers:
        raise RefusedError(400, "No version number provided")
    entry = _find(call)
    if entry is not None:
        _change_versions(call, entry, tuple(int(number) for number in numbers), **change)


def _change_versions(call: Call, entry: SecretEntry, numbers: tuple[int, ...], **change: Any) -> None:
    changed = {
        number: replace(version, **change) if number in numbers and not version.destroyed else version
        for number, version in entry.versions.items()
    }
    _keep(call, replace(entry, versions=changed))


def read_metadata(call: Call) -> dict[str, Any] | None:
    entry = _find(call)
    if entry is None:
        return None
    return {
        "cas_required": entry.cas_required,
        "created_time": as_rfc3339(entry.created_at),
        "current_metadata_version": 0,
        "current_version": entry.current,
        "custom_metadata": entry.custom_metadata,
        "delete_version_after": entry.delete_version_after,
        "max_versions": entry.max_versions,
        "metadata_cas_required": False,
        "oldest_version": oldest if (oldest := min(entry.versions, default=0)) > 1 else 0,
        "updated_time": as_rfc3339(entry.updated_at),
        "versions": {
            str(number): {key: value for key, value in _version_data(entry, number).items() if key in _VERSION_FIELDS}
            for number in sorted(entry.versions)
        },
    }


_VERSION_FIELDS = ("created_time", "deletion_time", "destroyed")


def write_metadata(call: Call) -> None:
    now = call.core.clock.now()
    entry = _find(call) or SecretEntry(now, now)
    _keep(
        call,
        replace(
            entry,
            cas_required=call.flag("cas_required", default=entry.cas_required),
            max_versions=call.number("max_versions", entry.max_versions),
            delete_version_after=call.text("delete_version_after", entry.delete_version_after),
            custom_metadata=call.data.get("custom_metadata", entry.custom_metadata),
            updated_at=now,
        ),
    )


def delete_metadata(call: Call) -> None:
    call.store.delete(f"secret/{call.names['path']}")


def list_metadata(call: Call) -> dict[str, Any] | None:
    below = call.names.get("path", "").strip("/")
    names = call.store.names(f"secret/{below}/" if below else "secret/")
    children = sorted({name.split("/")[0] + ("/" if "/" in name else "") for name in names})
    if call.core.flavour.has_pages:
        limit = call.number("limit")
        children = [name for name in children if name > call.text("after")][: limit if limit > 0 else None]
    return {"keys": children} if children else None


def secret_exists(call: Call) -> bool:
    """Tells a create from an update: by the metadata, deleted versions included."""
    entry = _find(call)
    return entry is not None and bool(entry.versions)


def _find(call: Call) -> SecretEntry | None:
    entry: SecretEntry | None = call.store.get(f"secret/{call.names['path'].rstrip('/')}")
    return entry


def _keep(call: Call, entry: SecretEntry) -> None:
    call.store.put(f"secret/{call.names['path']}", entry)


def _version_data(entry: SecretEntry, number: int) -> dict[str, Any]:
    version = entry.versions[number]
    return {
        "created_time": as_rfc3339(version.created_at),
        "custom_metadata": entry.custom_metadata,
        "deletion_time": "" if version.deleted_at is None else as_rfc3339(version.deleted_at),
        "destroyed": version.destroyed,
        "version": number,
    }


KV = Backend(
    (
        route("config", "max_versions cas_required delete_version_after", read=read_config, update=write_config),
        route(
            f"data/{_PATH}",
            "path data options version",
            exists=secret_exists,
            read=read_data,
            update=write_data,
            delete=delete_data,
        ),
        route(f"delete/{_PATH}", "path versions", update=delete_versions),
        route(f"undelete/{_PATH}", "path versions", update=undelete_versions),
        route(f"destroy/{_PATH}", "path versions", update=destroy_versions),
        route("metadata/?", list=list_metadata),
        route(
            f"metadata/{_PATH}",
            None,
            exists=lambda call: _find(call) is not None,
            list=list_metadata,
            read=read_metadata,
            update=write_metadata,
            delete=delete_metadata,
        ),
    )
)
