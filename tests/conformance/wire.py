"""Raw HTTP against one server, each answer recorded under the name of its step."""

from __future__ import annotations

import http.client
import inspect
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import normal_form
from key_servers import KeyServer
from normal_form import Record

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Reply:
    """One answer, for cases that need something of it in their next step."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def session(self) -> dict[str, str]:
        """The Cookie header for the session that this answer began."""
        return {"Cookie": next(v for k, v in self.headers.items() if k.lower() == "set-cookie").partition(";")[0]}


@dataclass
class Wire:
    """What a raw case is given: a server, and the record it leaves."""

    server: KeyServer
    tls: ssl.SSLContext | None = None
    steps: dict[str, Record] = field(default_factory=dict)

    def call(
        self,
        step: str,
        method: str,
        target: str,
        body: object = None,
        *,
        user: str | None = "alice",
        headers: Mapping[str, str] | None = None,
        exact: bool = False,
        record: bool = True,
    ) -> Reply:
        """One request on a connection of its own.

        `target` follows `/kms/v1/` unless it begins with a slash, and goes out as it is; `user.name` is added to it.
        A body of bytes goes out as it is, anything else as JSON.
        """
        reply, reason = self._send(method, self._target(target, user), body, headers or {})
        if record:
            assert step not in self.steps, f"two steps are called {step}"
            self.steps[step] = normal_form.of_answer(
                self.server, reply.status, reason, reply.headers, reply.body, exact=exact
            )
        return reply

    def create(self, name: str, **more: object) -> None:
        """A key that the case needs; not part of its record."""
        self.call("", "POST", "keys", {"name": name, "length": 128, **more}, record=False)

    def note(self, step: str, record: Record) -> None:
        """Records what a case found out by other means than one answer."""
        self.steps[step] = record

    def _target(self, target: str, user: str | None) -> str:
        path = target if target.startswith("/") else f"/kms/v1/{target}"
        if user is None:
            return path
        return f"{path}{'&' if '?' in path else '?'}user.name={quote(user, safe='')}"

    def _send(self, method: str, target: str, body: object, headers: Mapping[str, str]) -> tuple[Reply, str]:
        connection = (
            http.client.HTTPConnection("localhost", self.server.port, timeout=_TIMEOUT_S)
            if self.tls is None
            else http.client.HTTPSConnection("localhost", self.server.port, timeout=_TIMEOUT_S, context=self.tls)
        )
        payload = body if isinstance(body, bytes) else None if body is None else json.dumps(body, indent=2).encode()
        sent = {"Content-Type": "application/json"} if payload is not None else {}
        sent = {name: value for name, value in {**sent, **headers}.items() if value}
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            if payload is not None:
                connection.putheader("Content-Length", str(len(payload)))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(payload)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read()), answer.reason
        finally:
            connection.close()


Case = Callable[[Wire], None]


def cases_of(module: Any) -> dict[str, Case]:
    """The public functions that a module defines itself, by the name they go under in the table."""
    return {
        f"{module.__name__.removesuffix('_cases').replace('_', '-')}.{name.replace('_', '-')}": value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == module.__name__
    }
