"""The control plane of Vault: hvac's calls, sent our way. The only file that imports hvac.

hvac knows the paths and the parameters of Vault's API; how a request travels is decided here, in the adapter that it
is given (`_Adapter`), because hvac's own follows redirects with the token, reads tokens and addresses from the
environment, and puts whole bodies, plaintexts included, into its exceptions.

Rules:

1. Every call goes to the active node (`nodes`); a pure operation may go to a standby when there is none.
2. What is not done now is tried again within a deadline, on whichever node is active then: reads and pure operations
   always, changes only when it is certain that they were not carried out.
3. The token is asked for at each call. When one is refused and there is another by now, the call is repeated once with
   that; otherwise `lookup-self` tells a dead token from a policy that does not allow the call.
4. An error carries method, path, status and a known reason, never a word of a body.
"""

from __future__ import annotations

import dataclasses
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, Self

from ringfence_agent.vault import refusal
from ringfence_agent.vault.exchange import CALL, NO_TOKEN, SocketWay, TcpWay, VaultAnswer, VaultRequest, Way
from ringfence_agent.vault.kv import KvSecrets
from ringfence_agent.vault.nodes import Nodes
from ringfence_agent.vault.settings import VaultSettings
from ringfence_agent.vault.system import VaultSystem
from ringfence_agent.vault.tokens import Tokens
from ringfence_agent.vault.transit_batches import TransitBatches
from ringfence_agent.vault.transit_keys import TransitKeys
from ringfence_zones.errors import MissingExtraError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

try:
    import hvac
    from hvac import adapters
except ModuleNotFoundError as error:
    raise MissingExtraError("Vault", "vault") from error

_ATTEMPTS = 4
# A protector's call is to return or to fail within about 10 seconds.
_DEADLINE_S = 10.0
_LAST_ATTEMPT_S = 1.0
_BACKOFF_S, _MAX_BACKOFF_S = 0.05, 1.0
_READS = ("GET", "HEAD", "LIST")
_LOOKUP_SELF = "auth/token/lookup-self"


class TokenSource(Protocol):
    """Where the token of each call comes from; `token_file.TokenFile` is one."""

    def current(self) -> Secret:
        """The token; empty for none. Raises ProtectorUnavailableError, ProtectorRefusedError."""

    def read_again(self) -> Secret:
        """The token, not from memory. Raises like `current`."""


class FixedToken:
    """One token that nobody renews: an administrator's, or none at all."""

    def __init__(self, token: Secret = NO_TOKEN) -> None:
        self._token = token

    def current(self) -> Secret:
        """See TokenSource."""
        return self._token

    def read_again(self) -> Secret:
        """See TokenSource."""
        return self._token


class VaultControl:
    """The control plane of one Vault as one identity. Threads may share it.

    `transit`, `batches`, `kv`, `system` and `tokens` hold the calls.
    """

    def __init__(
        self,
        settings: VaultSettings,
        tokens: TokenSource,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects to nothing yet. Raises ConfigError for a ca_file that cannot be used."""
        self.settings = settings
        self._tokens = tokens
        self._token_lock = threading.Lock()
        self._clock = clock
        self._sleep = sleep
        self._ways = _make_ways(settings)
        self.nodes = Nodes(self._ways, clock)
        # Neither is used; left out, hvac would take them from the environment.
        client = hvac.Client(url=settings.label, token="", adapter=lambda **_: _Adapter(self))
        self.transit = TransitKeys(self, client.secrets.transit, settings.transit_mount)
        self.batches = TransitBatches(self, self.transit)
        self.kv = KvSecrets(self, client.secrets.kv.v2, settings.kv_mount)
        self.system = VaultSystem(self, client.sys, client.auth.approle)
        self.tokens = Tokens(self, client.auth)

    @property
    def namespace(self) -> str | None:
        """See Caller."""
        return self.settings.namespace

    def as_identity(self, tokens: TokenSource) -> VaultControl:
        """The same Vault as somebody else."""
        return VaultControl(self.settings, tokens, clock=self._clock, sleep=self._sleep)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON of a successful answer; empty for 204. Raises VaultRefusedError, ProtectorUnavailableError."""
        return self.succeed(self._request(method, path, body))

    def succeed(self, request: VaultRequest) -> dict[str, Any]:
        """As `call`, for a request that says more."""
        answer = self.send(request)
        if not 200 <= answer.status < 300:
            raise refusal.refused(request.what, answer.status, answer.body)
        document = answer.json
        if not document and answer.status != HTTPStatus.NO_CONTENT:
            raise ProtectorUnavailableError(
                f"what answers {request.what} is not Vault",
                hint="are the addresses in vault.addresses those of Vault itself?",
                may_have_changed=request.method not in _READS,
            )
        return document

    def send(self, request: VaultRequest, *, pure: bool = False) -> VaultAnswer:
        """The answer, whatever its status, unless it only says that it cannot now (ProtectorUnavailableError).

        `pure`: it changes nothing though it is a POST, and a standby may do it. A request that has no token gets the
        source's.
        """
        if len(request.token):
            return self._persist(request, pure=pure)
        with self._token_lock:
            token = self._tokens.current()
        answer = self._persist(dataclasses.replace(request, token=token), pure=pure)
        if answer.status != HTTPStatus.FORBIDDEN or not len(token):
            return answer
        with self._token_lock:
            other = self._tokens.read_again()
        if other != token:
            token = other
            answer = self._persist(dataclasses.replace(request, token=token), pure=pure)
        if answer.status == HTTPStatus.FORBIDDEN and request.path != _LOOKUP_SELF and not self._is_alive(token):
            raise dead_token(self.settings)
        return answer

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> VaultRequest:
        encoded = json.dumps(body).encode() if body is not None else None
        return VaultRequest(method=method, path=path, body=encoded, namespace=self.settings.namespace)

    def _is_alive(self, token: Secret) -> bool:
        request = VaultRequest(method="GET", path=_LOOKUP_SELF, namespace=self.settings.namespace, token=token)
        return self._persist(request, pure=True).status != HTTPStatus.FORBIDDEN

    def _persist(self, request: VaultRequest, *, pure: bool) -> VaultAnswer:
        """One answer that is not "not now", in a few attempts."""
        repeatable = pure or request.method in _READS
        give_up_at = self._clock() + _DEADLINE_S
        for attempt in range(_ATTEMPTS):
            wait_s = 0.0
            address = None
            try:
                address = self.nodes.choose(pure=pure)
                left_s = max(give_up_at - self._clock(), _LAST_ATTEMPT_S)
                answer = self._ways[address].send(request, CALL.within(left_s))
                if not refusal.is_unavailable(answer.status, answer.body):
                    return answer
                wait_s = answer.retry_after_s
                failure = refusal.unavailable(address, answer.status, changes=not repeatable)
            except ProtectorUnavailableError as error:
                failure = error
            if address is not None:
                self.nodes.forget(address)
            failure.may_have_changed = failure.may_have_changed and not repeatable
            if failure.may_have_changed:
                break
            wait_s = max(wait_s, random.uniform(0, min(_BACKOFF_S * 2**attempt, _MAX_BACKOFF_S)))  # noqa: S311 - jitter
            if attempt + 1 == _ATTEMPTS or self._clock() + wait_s > give_up_at:
                break
            self._sleep(wait_s)
        raise failure

    def close(self) -> None:
        """Closes the connections."""
        for way in self._ways.values():
            way.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Adapter(adapters.Adapter):  # type: ignore[misc] # hvac has no types
    """What hvac's calls are sent with. Answers JSON, and raises our errors before hvac could make its own."""

    def __init__(self, control: VaultControl) -> None:
        # Not hvac's own constructor: it makes a session, and keeps a token.
        self._control = control
        self.base_uri = control.settings.label
        self.token = ""
        self.namespace = control.settings.namespace

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,
        **options: Any,
    ) -> dict[str, Any]:
        """See hvac.adapters.Adapter."""
        assert not headers, "no call in use has headers of its own"
        assert raise_exception, "an answer other than success is an error here"
        wrap_ttl = options.pop("wrap_ttl", None)
        body, params = options.pop("json", None), options.pop("params", None)
        assert not options, f"unknown options of hvac's: {sorted(options)}"
        return self._control.succeed(
            VaultRequest(
                method=method.upper(),
                path=url.removeprefix("/v1/"),
                params={name: str(value) for name, value in (params or {}).items()},
                body=json.dumps(body).encode() if body is not None else None,
                namespace=self.namespace,
                wrap_ttl_s=int(wrap_ttl) if wrap_ttl is not None else None,
            )
        )

    def get_login_token(self, response: Mapping[str, Any]) -> str:  # noqa: ARG002 - the interface's
        """Never used: tokens are kept by `login`, not by hvac."""
        raise AssertionError("hvac keeps no token")

    def close(self) -> None:
        """See hvac.adapters.Adapter."""
        self._control.close()


def dead_token(settings: VaultSettings) -> ProtectorUnavailableError:
    """Nothing is done with this token any more; a login brings another."""
    return ProtectorUnavailableError(
        f"Vault at {settings.label} does not take the token: it expired, was revoked, or is not of this Vault",
        hint="an administrator gets another one; the key server logs in again by itself unless its secret id is spent:"
        " then give it a new one, and run `ringfence vault login`",
        reason="token_dead",
    )


def _make_ways(settings: VaultSettings) -> dict[str, Way]:
    if settings.agent_socket is not None:
        return {str(settings.agent_socket): SocketWay(settings.agent_socket)}
    return {address: TcpWay(address, settings) for address in settings.addresses}
