"""What a step job imports to ask the Ringfence agent of its node. One file, standard library only, Python 3.7.

    from ringfence_agent.client import AgentClient

    agent = AgentClient()
    answer = agent.check_move("/data/pii/export", "/data/masked/export")
    if not answer.rename:
        raise SystemExit("{}; instead: {}".format(answer.reason, answer.command))

The file may be copied or shipped alone (`--py-files`). It speaks HTTP over the agent's Unix socket, where the kernel
tells the agent who is asking: there is no password or token to give. Every failure is an `AgentError`; no answer is
ever made up when the agent is away.

It imports nothing else of Ringfence, starts no thread, keeps no connection, and reads at most 16 MiB of an answer.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any, Dict, List, NamedTuple, Optional
from urllib.parse import urlencode

DEFAULT_SOCKET = "/run/ringfence/agent.sock"
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class AgentError(Exception):
    """The agent refused or failed: a sentence, and the way out where there is one.

    `status` is the HTTP status (None when there was no answer), `type` the last part of the problem's type, such as
    `access-denied`; `hint`, `command` and `rule` are None when the agent gave none.
    """

    def __init__(
        self,
        message: str,
        status: Optional[int] = None,
        type: Optional[str] = None,
        hint: Optional[str] = None,
        command: Optional[str] = None,
        rule: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.hint = hint
        self.command = command
        self.rule = rule


class AgentUnavailableError(AgentError):
    """Nobody answers on the socket, or not in time."""


class Zone(NamedTuple):
    """An encryption zone. `in_policy` and `pinned` are None when the agent does not know."""

    path: str
    key: str
    in_policy: Optional[bool]
    pinned: Optional[bool]


class MoveAnswer(NamedTuple):
    """May the user bring SRC to DST? `rename` by `hdfs dfs -mv`, `transfer` by a copy that policy allows.

    `reason`, `rule` and `command` (what works instead) are None when the rename is allowed.
    """

    rename: bool
    transfer: bool
    same_zone: bool
    reason: Optional[str]
    rule: Optional[str]
    command: Optional[str]


class Finding(NamedTuple):
    """Something that is not as policy or good practice wants it; `severity` is error, warn or info."""

    severity: str
    rule: str
    path: str
    message: str
    hint: str
    key: Optional[str]
    command: Optional[str]


class AgentClient:
    """Asks one agent. Safe to share between threads: every question has a connection of its own.

    `socket_path` defaults to RINGFENCE_AGENT_SOCKET, else /run/ringfence/agent.sock. `timeout_s` bounds each
    wait for the agent, in seconds.
    """

    def __init__(self, socket_path: Optional[str] = None, timeout_s: float = 10.0) -> None:
        self.socket_path = socket_path or os.environ.get("RINGFENCE_AGENT_SOCKET") or DEFAULT_SOCKET
        self.timeout_s = timeout_s

    def health(self) -> Dict[str, Any]:
        """Live, ready, and what the last cycle said. An agent that is not live answers too: look at `live`."""
        return self._ask("GET", "/v1/health", accept=(200, 503))

    def zones(self) -> List[Zone]:
        """Every encryption zone of the cluster."""
        return [_zone(each) for each in self._ask("GET", "/v1/zones")["zones"]]

    def zone_of(self, path: str) -> Optional[Zone]:
        """The innermost zone that holds an HDFS path, None outside every zone. The path need not exist."""
        found = self._ask("GET", "/v1/zones/of?" + urlencode({"path": path}))["zone"]
        return None if found is None else _zone(found)

    def check_move(self, src: str, dst: str, user: Optional[str] = None) -> MoveAnswer:
        """Whether `user` (default: the caller) may move `src` to `dst`. Nothing is moved."""
        question = {"src": src, "dst": dst}
        if user is not None:
            question["user"] = user
        answer = self._ask("POST", "/v1/moves/check", question)
        return MoveAnswer(*[answer[name] for name in MoveAnswer._fields])

    def findings(self) -> List[Finding]:
        """Everything the agent found."""
        listed = self._ask("GET", "/v1/findings")["findings"]
        return [Finding(*[each.get(name) for name in Finding._fields]) for each in listed]

    def _ask(self, method: str, target: str, question: Any = None, accept: Any = (200,)) -> Dict[str, Any]:
        body = None if question is None else json.dumps(question).encode("utf-8")
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = _UnixConnection(self.socket_path, self.timeout_s)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            content = response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnavailableError(
                f"the agent at {self.socket_path} does not answer: {_why(error)}",
                hint="see whether it runs, and whether this user may open the socket",
            ) from error
        finally:
            connection.close()
        answer = _decode(content, response.status)
        # A health document that says "not live" is an answer, not a problem.
        if response.status in accept and "title" not in answer:
            return answer
        raise _problem(answer, response.status)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _zone(answer: Dict[str, Any]) -> Zone:
    return Zone(*[answer[name] for name in Zone._fields])


def _decode(content: bytes, status: int) -> Dict[str, Any]:
    if len(content) > _MAX_ANSWER_BYTES:
        raise AgentError(f"the agent's answer is larger than {_MAX_ANSWER_BYTES} bytes", status)
    try:
        answer = json.loads(content.decode("utf-8"))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise AgentError(f"the agent answered {status} with something that is not JSON", status)
    return answer


def _problem(answer: Dict[str, Any], status: int) -> AgentError:
    message = answer.get("detail") or answer.get("title") or f"the agent answered {status}"
    return AgentError(
        message,
        status,
        str(answer.get("type", "")).rpartition(":")[2] or None,
        answer.get("hint"),
        answer.get("command"),
        answer.get("rule"),
    )
