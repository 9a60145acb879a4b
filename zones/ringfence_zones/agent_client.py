"""What the commands ask the agent on this machine: over its Unix socket, where the kernel says who is asking.

An agent that answers saves a command the two seconds of a JVM. One that is not there, or not ready, is no failure:
`AgentUnavailableError` tells the caller to look for itself. The client is the one that step jobs use. It is another
component's, which this one does not import: the entry point `ringfence.agent_client` names it, as `ringfence.commands`
names commands.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ringfence_zones.errors import AgentUnavailableError, InputError

ENTRY_POINT_GROUP = "ringfence.agent_client"
_TIMEOUT_S = 5.0


class AgentClient:
    """Asks one agent. Every method raises AgentUnavailableError when there is no usable answer."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def find_health(self) -> dict[str, Any] | None:
        """The agent's own word on how it is; None when nothing answers."""
        try:
            health: dict[str, Any] = self._ask(lambda agent: agent.health())
        except AgentUnavailableError:
            return None
        return health

    def list_zones(self) -> list[dict[str, Any]]:
        """Every zone: `path`, `key`, `in_policy` and `pinned` (each true, false or null)."""
        return [zone._asdict() for zone in self._ask(lambda agent: agent.zones())]

    def find_zone_of(self, path: str) -> dict[str, Any] | None:
        """The zone that holds `path`, None outside. Raises InputError for a path it cannot use."""
        zone = self._ask(lambda agent: agent.zone_of(path))
        return None if zone is None else zone._asdict()

    def check_move(self, src: str, dst: str, user: str | None) -> dict[str, Any]:
        """The move decision for `user`, by default whoever runs this process. Raises InputError for bad paths."""
        decision: dict[str, Any] = self._ask(lambda agent: agent.check_move(src, dst, user))._asdict()
        return decision

    def _ask(self, ask: Callable[[Any], Any]) -> Any:
        client = _client()
        try:
            return ask(client.AgentClient(str(self._path), timeout_s=_TIMEOUT_S))
        except client.AgentError as error:
            if error.status == 400:
                raise InputError(error.message, hint=error.hint) from error
            raise AgentUnavailableError(error.message, hint=error.hint) from error


def _client() -> Any:
    """The client's module."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        return entry.load()
    raise AgentUnavailableError(
        "this installation has no client of the agent", hint="install Ringfence again: its entry points are out of date"
    )


def find_agent(socket_path: Path) -> AgentClient | None:
    """A client when a socket is there, None otherwise. Nothing is asked yet."""
    return AgentClient(socket_path) if socket_path.is_socket() else None
