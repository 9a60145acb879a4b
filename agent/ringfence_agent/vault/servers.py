"""The servers of one Vault: which of them is asked, for how long, and how often.

Rules:

1. Any node does: standbys encrypt, decrypt and rewrap themselves. The one with the fewest requests under way is asked.
2. The next one is asked when a connection fails, when an answer is late or unusable, and for the statuses of a node
   that cannot serve (3xx, 412, 472, 474, 501 to 504, 530): within one attempt, without a pause. There are three
   attempts with pauses of random length in between, all within the caller's deadline.
3. A node that failed is asked by callers only while no other is well, and after five failures in a row not at all. In
   the background it is asked every two seconds whether the token is good (`lookup-self`): of all that costs nothing,
   only a call that Vault authenticates and audits shows that it works; its health is 200 while every call fails.
4. 429 says nothing against a node: the pause is the longer one of `Retry-After` and our own.
5. Only requests that change nothing go through here, for any may reach Vault twice.

Bodies are for the caller's `read` alone; what is said and logged here is status, address and our own words.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ringfence_agent.vault.connection import Answer, ConnectionPool, Endpoint, NoAnswerError, make_tls_context
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.token_file import TokenFile
from ringfence_zones.errors import ConfigError, ProtectorUnavailableError, RingfenceError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

T = TypeVar("T")

# What a node that cannot serve says, and how we say it.
_UNUSABLE: Mapping[int, str] = {
    412: "is not up to date yet",
    472: "is a disaster recovery secondary",
    474: "is a standby that does not reach its active node",
    501: "is not initialised",
    502: "is not reached by the gateway in front of it",
    503: "is sealed, or not ready",
    504: "is not reached by the gateway in front of it",
    530: "was removed from its cluster",
}
_THROTTLED = "asks for fewer requests"
_REDIRECTED = "answers with a redirect, which is never followed"
# What to do about what a node or a connection to it says, by a part of its reason.
_REMEDIES: Mapping[str, str] = {
    "is sealed": "unseal it: what waits then goes on by itself",
    "is not initialised": "initialise and unseal it",
    _REDIRECTED: "name the address of each node itself in vault.addresses",
    _THROTTLED: "raise its rate limit quota for the Transit mount",
    "not trusted": "name the PEM file of Vault's authority as vault.ca_file, and hosts as its certificate has them",
    "audit log": "look whether an audit device is full or blocked: its health is 200 all the same",
}
# The stable words of an outage that all nodes share, by a part of the reason.
_WORDS: Mapping[str, str] = {"sealed": "is sealed", "throttled": _THROTTLED, "unreachable": "cannot be reached"}
_OPEN_AFTER = 5


class Tokens(Protocol):
    """Where the token comes from (`TokenFile`)."""

    def current(self) -> Secret:
        """The token of now. Raises ProtectorUnavailableError, ProtectorRefusedError."""

    def read_again(self) -> Secret:
        """The token, not from memory. Raises like `current`."""

    def written_s_ago(self) -> float:
        """How long the token of `current` has been there, in seconds."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited: for a connection, for an answer, for that to a batch; between attempts; between probes."""

    connect_s: float = 1.0
    answer_s: float = 5.0
    batch_s: float = 10.0
    attempts: int = 3
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0
    probe_every_s: float = 2.0


@dataclass(frozen=True, slots=True)
class PureRequest:
    """A request that changes nothing in Vault. `path` is what follows `/v1/`, `body` JSON; a batch may take longer."""

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)
    is_batch: bool = False


LOOKUP_SELF = PureRequest("GET", "auth/token/lookup-self")
"""Whether the token is good. The answer contains the token: its status alone is looked at."""


class _Server:
    """One node, and what is known of it: `failures` in a row, and the reason of the last."""

    def __init__(self, endpoint: Endpoint, connect_s: float) -> None:
        self.pool = ConnectionPool(endpoint, connect_s)
        self.failures = 0
        self.reason = ""
        self.probing: asyncio.Task[None] | None = None
        self.label = endpoint.label
        self.host_header = endpoint.host_header

    @property
    def is_open(self) -> bool:
        return self.failures >= _OPEN_AFTER

    def rank(self) -> tuple[bool, int]:
        return self.failures > 0, self.pool.in_flight


class VaultServers:
    """Asks one Vault. On one event loop; `close` it there.

    `tokens` is None where an Agent adds the token. `namespace` is of OpenBao or Vault Enterprise.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        tokens: Tokens | None,
        namespace: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.tokens = tokens
        self._patience = patience or Patience()
        self._servers = [_Server(endpoint, self._patience.connect_s) for endpoint in endpoints]
        if not self._servers:
            raise ConfigError("Vault has no address", hint="name one in vault.addresses")
        if namespace is not None and not (namespace.isascii() and namespace.isprintable()):
            raise ConfigError("vault.namespace holds what a header cannot")
        # Vault Agents and strict listeners want the first: no browser or confused server adds it.
        self._headers = b"X-Vault-Request: true\r\n" + (
            b"X-Vault-Namespace: %b\r\n" % namespace.encode() if namespace else b""
        )

    @classmethod
    def of(cls, settings: VaultSettings) -> VaultServers:
        """Those of the configuration, with the token that whoever logs in hands over. Connects to nothing yet."""
        if settings.agent_socket is not None:
            return cls([Endpoint.at_socket(settings.agent_socket)], None, settings.namespace)
        needs_tls = any(address.startswith("https:") for address in settings.addresses)
        tls = make_tls_context(settings.ca_file) if needs_tls else None
        endpoints = [Endpoint.at_url(address, tls) for address in settings.addresses]
        return cls(endpoints, TokenFile(settings.token_file), settings.namespace)

    @property
    def left_alone(self) -> int:
        """How many nodes are not asked at present, for they failed too often in a row."""
        return sum(server.is_open for server in self._servers)

    async def ask(self, request: PureRequest, token: Secret | None, deadline: float, read: Callable[[Answer], T]) -> T:
        """What `read` makes of the first usable answer, by `deadline` (the loop's time).

        `read` raises NoAnswerError for an answer that another node may better. Raises ProtectorUnavailableError.
        """
        loop, attempts = asyncio.get_running_loop(), self._patience.attempts
        problems: dict[str, str] = {}
        for attempt in range(attempts):
            asked_to_wait_s = 0.0
            servers = self._candidates()
            for index, server in enumerate(servers):
                # One that hangs must not take the time that the others need.
                share = len(servers) - index
                try:
                    answer = await self._exchange(server, request, token, deadline, share)
                    if answer.status != 429:
                        result = read(answer)
                        self._note_success(server)
                        return result
                    problems[server.label] = _THROTTLED
                    asked_to_wait_s = max(asked_to_wait_s, answer.retry_after_s or 0.0)
                except NoAnswerError as error:
                    problems[server.label] = error.reason
                    if not error.hasty:
                        self._note_failure(server, error.reason)
                if loop.time() >= deadline:
                    raise _unavailable(problems)
            last = attempt + 1 == attempts or not self._candidates()
            if last or not await self._pause(attempt, asked_to_wait_s, deadline):
                break
        raise _unavailable(problems or {server.label: server.reason for server in self._servers})

    def _candidates(self) -> list[_Server]:
        able = [server for server in self._servers if not server.is_open]
        return able if len(able) < 2 else sorted(able, key=_Server.rank)

    async def _exchange(
        self, server: _Server, request: PureRequest, token: Secret | None, deadline: float, share: int = 1
    ) -> Answer:
        """Raises NoAnswerError, `hasty` when the caller left the server less time than any may take.

        The server has one of `share` equal parts of the time until `deadline`.
        """
        loop, patience = asyncio.get_running_loop(), self._patience
        head = b"%b /v1/%b HTTP/1.1\r\nHost: %b\r\n%b" % (
            request.method.encode(),
            request.path.encode(),
            server.host_header,
            self._headers,
        )
        proof = b"X-Vault-Token: %b\r\n" % token.reveal() if token else b""
        content = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(request.body), request.body)
        began = loop.time()
        allowed_s = patience.batch_s if request.is_batch else patience.answer_s
        left_s = (deadline - began) / share
        try:
            answer = await server.pool.exchange(head + proof + content, began + min(allowed_s, left_s))
        except NoAnswerError as error:
            error.hasty = left_s < min(allowed_s, patience.connect_s) and loop.time() >= began + left_s
            raise
        if answer.status in _UNUSABLE or 300 <= answer.status < 400:
            raise NoAnswerError(_UNUSABLE.get(answer.status, _REDIRECTED))
        return answer

    async def _pause(self, attempt: int, asked_to_wait_s: float, deadline: float) -> bool:
        """Waits before the next attempt. False, at once, when that would be too late."""
        longest_s = min(self._patience.longest_pause_s, self._patience.first_pause_s * 2**attempt)
        pause_s = max(asked_to_wait_s, random.uniform(0, longest_s))  # noqa: S311 - jitter, not a secret
        if asyncio.get_running_loop().time() + pause_s >= deadline:
            return False
        await asyncio.sleep(pause_s)
        return True

    # -- the circuit breaker

    def _note_failure(self, server: _Server, reason: str) -> None:
        server.failures += 1
        server.reason = reason
        if server.failures == _OPEN_AFTER:
            _log.warning("Vault at %s is not asked any more until it answers a probe: it %s", server.label, reason)
        if server.probing is None:
            server.probing = asyncio.get_running_loop().create_task(self._probe(server))

    def _note_success(self, server: _Server) -> None:
        if server.is_open:
            _log.warning("Vault at %s answers again", server.label)
        server.failures = 0

    async def _probe(self, server: _Server) -> None:
        """Asks until the server answers; a caller's success ends it too."""
        loop, patience = asyncio.get_running_loop(), self._patience
        try:
            while True:
                await asyncio.sleep(patience.probe_every_s)
                if not server.failures:
                    return
                try:
                    answer = await self._exchange(
                        server, LOOKUP_SELF, self._find_token(), loop.time() + patience.answer_s
                    )
                except NoAnswerError as error:
                    self._note_failure(server, error.reason)
                    continue
                if answer.status >= 500:
                    self._note_failure(server, f"answers {answer.status} to every call")
                else:
                    self._note_success(server)
        finally:
            server.probing = None

    def _find_token(self) -> Secret | None:
        try:
            return self.tokens.current() if self.tokens is not None else None
        except RingfenceError:
            return None  # 403 is an answer too

    async def close(self) -> None:
        """Ends the probes and closes the connections."""
        probes = [server.probing for server in self._servers if server.probing is not None]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for server in self._servers:
            await server.pool.close()


def _unavailable(problems: Mapping[str, str]) -> ProtectorUnavailableError:
    told = "; ".join(f"Vault at {label} {reason}" for label, reason in problems.items())
    remedies = [remedy for phrase, remedy in _REMEDIES.items() if phrase in told]
    alike = {_word(reason) for reason in problems.values()}
    return ProtectorUnavailableError(
        told or "Vault was not asked: there was no time left",
        hint="; ".join(remedies) or None,
        reason=alike.pop() if len(alike) == 1 else None,
    )


def _word(reason: str) -> str | None:
    return next((word for word, phrase in _WORDS.items() if phrase in reason), None)
