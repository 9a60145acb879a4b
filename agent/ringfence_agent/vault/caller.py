"""What the groups of calls (`transit_keys`, `kv`, `system`, `tokens`) are made with; `control.VaultControl` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ringfence_agent.vault.exchange import VaultAnswer, VaultRequest
from ringfence_agent.vault.refusal import VaultRefusedError
from ringfence_zones.errors import ProtectorRefusedError


class Caller(Protocol):
    """Sends to the active node as one identity."""

    @property
    def namespace(self) -> str | None:
        """What a request's own has to be."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON of a successful answer; empty for 204. Raises VaultRefusedError, ProtectorUnavailableError."""

    def succeed(self, request: VaultRequest) -> dict[str, Any]:
        """As `call`, for a request that says more."""

    def send(self, request: VaultRequest, *, pure: bool = False) -> VaultAnswer:
        """The answer, whatever its status, unless it only says that it cannot now (ProtectorUnavailableError).

        `pure`: it changes nothing though it is a POST, and a standby may do it. A request without a token gets the
        identity's.
        """


def data_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The `data` of an answer; empty without any."""
    data = answer.get("data")
    return data if isinstance(data, dict) else {}


def number(data: Mapping[str, Any], name: str) -> int:
    """A whole number of an answer; 0 for one that is left out. Raises ProtectorRefusedError for anything else."""
    value = data.get(name)
    if value is None:
        return 0
    if not isinstance(value, int):
        raise _not_vaults(name)
    return value


def texts(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts in an answer; empty for one that is left out. Raises ProtectorRefusedError for anything else."""
    value = data.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _not_vaults(name)
    return tuple(value)


def _not_vaults(name: str) -> ProtectorRefusedError:
    return ProtectorRefusedError(
        f"what answers as Vault sends a {name} that Vault would not send",
        hint="see what stands between this machine and Vault; vault.addresses name its nodes themselves",
    )


def is_missing(error: VaultRefusedError) -> bool:
    """Whether there is no such object, rather than no such mount or namespace."""
    return error.status == 404 and error.reason is None
