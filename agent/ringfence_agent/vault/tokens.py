"""Logins, and the token that comes of one. Tokens, secret ids and JWTs are `Secret` from the first moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ringfence_agent.vault import refusal
from ringfence_agent.vault.caller import Caller, data_of, number, texts
from ringfence_agent.vault.exchange import VaultRequest
from ringfence_agent.vault.refusal import VaultRefusedError
from ringfence_zones.errors import ProtectorRefusedError
from ringfence_zones.secret import Secret

ROOT_POLICY = "root"
DEFAULT_POLICY = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A new token. `lease_s` is how long it lives without being renewed, 0 for ever."""

    token: Secret
    accessor: str
    policies: tuple[str, ...]
    lease_s: int
    renewable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenState:
    """What Vault says of a token, without the token. Times are seconds; `ttl_s` 0 with `expires` False is for ever.

    `period_s` is 0 unless each renewal starts it anew without end; `explicit_max_ttl_s` is 0 for none.
    """

    accessor: str
    display_name: str
    policies: tuple[str, ...]
    type: str
    ttl_s: int
    creation_ttl_s: int
    expires: bool
    period_s: int
    explicit_max_ttl_s: int
    renewable: bool
    num_uses: int
    orphan: bool


@dataclass(frozen=True, slots=True)
class Wrapped:
    """Where a wrapping token was made, without opening it."""

    creation_path: str
    creation_ttl_s: int


class Tokens:
    """Calls under `auth/` and `sys/wrapping/`."""

    def __init__(self, caller: Caller, auth: Any) -> None:
        """`auth` is hvac's."""
        self._caller = caller
        self._auth = auth

    # Logins: none of them takes a token, and none is kept by hvac.

    def login_approle(self, mount: str, role_id: str, secret_id: Secret) -> Login:
        """Raises VaultRefusedError with status 400 for a wrong or spent secret id, 403 while the role is locked out."""
        return _login(
            self._auth.approle.login(role_id, secret_id.reveal().decode(), use_token=False, mount_point=mount)
        )

    def login_jwt(self, mount: str, role: str, jwt: Secret) -> Login:
        """Raises VaultRefusedError with status 400 for one that Vault does not take."""
        return _login(self._auth.jwt.jwt_login(role, jwt.reveal().decode(), use_token=False, path=mount))

    def login_aws_iam(self, mount: str, role: str, signed: Mapping[str, str]) -> Login:
        """`signed` are the fields `iam_*`. Not hvac's, which signs for the global STS only."""
        return _login(self._caller.call("POST", f"auth/{mount}/login", {"role": role, **signed}))

    # The caller's own token

    def find_self(self) -> TokenState | None:
        """None when Vault does not take it: it is dead, or may not even look at itself."""
        try:
            return _state(data_of(self._auth.token.lookup_self()))
        except VaultRefusedError as error:
            if error.status == HTTPStatus.FORBIDDEN:
                return None
            raise

    def renew_self(self) -> Login:
        """The same token for longer. Raises VaultRefusedError when it cannot be renewed."""
        return _login(self._auth.token.renew_self())

    def revoke_self(self) -> None:
        """The token is dead from now on."""
        self._auth.token.revoke_self()

    # Response wrapping

    def look_at_wrapped(self, wrapping: Secret) -> Wrapped:
        """What a wrapping token holds by its origin; it stays unopened. Needs no token of one's own.

        Raises VaultRefusedError with WRAPPING_TOKEN_SPENT when somebody opened it, or it ran out.
        """
        body = {"token": wrapping.reveal().decode()}
        data = data_of(self._caller.call("POST", "sys/wrapping/lookup", body))
        return Wrapped(str(data.get("creation_path")), number(data, "creation_ttl"))

    def unwrap(self, wrapping: Secret) -> Mapping[str, Any]:
        """Opens it, once. Raises as `look_at_wrapped`. The `data` is secret."""
        request = VaultRequest(
            method="POST", path="sys/wrapping/unwrap", token=wrapping, namespace=self._caller.namespace
        )
        answer = self._caller.send(request)
        if answer.status != 200:
            raise refusal.refused(request.what, answer.status, answer.body)
        return data_of(answer.json)


def _login(answer: Mapping[str, Any]) -> Login:
    auth = answer.get("auth")
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str) or not auth["client_token"]:
        raise ProtectorRefusedError("Vault answered the login without a token")
    return Login(
        token=Secret(auth["client_token"].encode()),
        accessor=str(auth.get("accessor") or ""),
        policies=texts(auth, "policies"),
        lease_s=number(auth, "lease_duration"),
        renewable=auth.get("renewable") is True,
    )


def _state(data: Mapping[str, Any]) -> TokenState:
    return TokenState(
        accessor=str(data.get("accessor") or ""),
        display_name=str(data.get("display_name") or ""),
        policies=texts(data, "policies"),
        type=str(data.get("type") or ""),
        ttl_s=number(data, "ttl"),
        creation_ttl_s=number(data, "creation_ttl"),
        expires=data.get("expire_time") is not None,
        period_s=_seconds(data.get("period")),
        explicit_max_ttl_s=_seconds(data.get("explicit_max_ttl")),
        renewable=data.get("renewable") is True,
        num_uses=number(data, "num_uses"),
        orphan=data.get("orphan") is True,
    )


def _seconds(value: object) -> int:
    return value if isinstance(value, int) else 0
