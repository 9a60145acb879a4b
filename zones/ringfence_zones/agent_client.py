"""What the commands ask the agent on this machine: HTTP over its Unix socket, where the kernel says who is asking.

An agent that answers saves a command the two seconds of a JVM. One that is not there, or not ready, is no failure:
`AgentUnavailableError` tells the caller to look for itself. The API is described in `ringfence_agent.api`; this
client reads only what commands show, and refuses answers of more than 16 MiB.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ringfence_zones.errors import AgentUnavailableError, InputError
from ringfence_zones.unix_http import UnixHTTPConnection

_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_TIMEOUT_S = 5.0


class AgentClient:
    """Asks one agent. Every method raises AgentUnavailableError when there is no usable answer."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def find_health(self) -> dict[str, Any] | None:
        """The agent's own word on how it is; None when nothing answers."""
        try:
            return self._ask("GET", "/v1/health", accept=(200, 503))
        except AgentUnavailableError:
            return None

    def list_zones(self) -> list[dict[str, Any]]:
        """Every zone: `path`, `key`, `in_policy` and `pinned` (each true, false or null)."""
        zones = self._ask("GET", "/v1/zones").get("zones")
        if not isinstance(zones, list) or not all(isinstance(zone, dict) for zone in zones):
            raise self._unusable()
        return zones

    def find_zone_of(self, path: str) -> dict[str, Any] | None:
        """The zone that holds `path`, None outside. Raises InputError for a path it cannot use."""
        zone = self._ask("GET", f"/v1/zones/of?{urlencode({'path': path})}").get("zone")
        if zone is not None and not isinstance(zone, dict):
            raise self._unusable()
        return zone

    def check_move(self, src: str, dst: str, user: str | None) -> dict[str, Any]:
        """The move decision for `user`, by default whoever runs this process. Raises InputError for bad paths."""
        question = {"src": src, "dst": dst, **({"user": user} if user is not None else {})}
        return self._ask("POST", "/v1/moves/check", question)

    def _ask(self, method: str, target: str, question: Any = None, accept: tuple[int, ...] = (200,)) -> dict[str, Any]:
        connection = UnixHTTPConnection(self._path, _TIMEOUT_S)
        try:
            body = None if question is None else json.dumps(question)
            connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            content = response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnavailableError(
                f"the agent at {self._path} does not answer: {str(error) or type(error).__name__}",
                hint="see whether it runs, and whether this user may open the socket",
            ) from error
        finally:
            connection.close()
        answer = self._decode(content)
        if response.status in accept:
            return answer
        message = str(answer.get("detail") or answer.get("title") or f"the agent answered {response.status}")
        if response.status == 400:
            raise InputError(message, hint=answer.get("hint"))
        raise AgentUnavailableError(message, hint=answer.get("hint"))

    def _decode(self, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content) if len(content) <= _MAX_ANSWER_BYTES else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._unusable()
        return answer

    def _unusable(self) -> AgentUnavailableError:
        return AgentUnavailableError(f"what answers at {self._path} is not Ringfence's agent")


def find_agent(socket_path: Path) -> AgentClient | None:
    """A client when a socket is there, None otherwise. Nothing is asked yet."""
    return AgentClient(socket_path) if socket_path.is_socket() else None
