"""The admin endpoint of Ringfence's KMS: the published policy, read and replaced by compare-and-set; deleted keys;
leases and grants.

Over the KMS's Unix socket the caller is proven by the kernel (root, or the service's user); elsewhere by a bearer
token from a file nobody else may read, and then only over TLS or loopback, or by Kerberos on a cluster that uses it.
A user name is never a proof here, so this client sends none.
"""

from __future__ import annotations

import http.client
import json
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from ringfence_zones import kms_wire
from ringfence_zones.client_config import ADMIN_SOCKET_VARIABLE, TOKEN_FILE_VARIABLE, ClientConfig
from ringfence_zones.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConfigError,
    GrantNotFoundError,
    KmsError,
    KmsRemoteError,
    KmsUnavailableError,
    LeaseHeldError,
    RevisionConflictError,
    RingfenceError,
)
from ringfence_zones.grants import Grant, GrantRequest
from ringfence_zones.http_session import PLAIN_ACCESS, DaemonSession, HttpAccess, HttpAnswer
from ringfence_zones.kms_uri import KmsUri
from ringfence_zones.leases import Lease, LeaseStatus, check_ttl, clock_s
from ringfence_zones.unix_http import UnixHTTPConnection

_PATH = "/ringfence/v1/policy"
_DELETED_PATH = "/ringfence/v1/keys/deleted"
_UNDELETE_PATH = "/ringfence/v1/key/{}/_undelete"
_LEASE_PATH = "/ringfence/v1/leases/{}"
_GRANTS_PATH = "/ringfence/v1/grants"
_TIMEOUT_S = 60.0
_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Publication:
    """A published revision: its number and the SHA-256 (hex) of its canonical JSON."""

    revision: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class DeletedKey:
    """A key that was deleted and is not gone. Times are epoch milliseconds; `until_ms` is None once it is too late to
    bring it back."""

    name: str
    versions: int
    deleted_ms: int
    until_ms: int | None


class AdminClient:
    """Made by `open_admin_client`. One connection per call: publications are rare."""

    def __init__(self, label: str, ways: Sequence[_Way]) -> None:
        """`ways` lead to instances of one KMS. What can be said twice is said to the next one when one does not answer
        or cannot now.
        """
        self._label = label
        self._ways = ways

    def get_publication(self) -> Publication:
        """The newest published revision; revision 0 and no digest before the first."""
        return _publication(self._send("GET", None))

    def find_published(self) -> tuple[Publication, Any] | None:
        """The newest revision with its document as decoded JSON (`policy.policy_from_json` reads it); None before
        the first."""
        answer = self._send("GET", None)
        publication = _publication(answer)
        document = answer.get("policy")
        return None if publication.revision == 0 or document is None else (publication, document)

    def publish(self, expected_revision: int, document: bytes) -> Publication:
        """Publishes `document` (the policy's canonical JSON) as the revision after `expected_revision`.

        Raises RevisionConflictError when another revision is the newest.
        """
        body = b'{"expected_revision":%d,"policy":%b}' % (expected_revision, document)

        def conflict(_body: bytes) -> RevisionConflictError:
            return RevisionConflictError(expected_revision, self.get_publication().revision)

        return _publication(self._send("PUT", body, conflict=conflict))

    def list_deleted_keys(self) -> Sequence[DeletedKey]:
        """Every deleted key, by name."""
        answer = self._send("GET", None, path=_DELETED_PATH)
        try:
            return [
                DeletedKey(key["name"], int(key["versions"]), int(key["deleted"]), key["until"])
                for key in answer["keys"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise KmsError(f"{self._label} sent no list of deleted keys: is it an older release?") from error

    def undelete_key(self, name: str) -> int:
        """Brings a deleted key back with all its versions, and says how many it has.

        Raises KmsRemoteError when there is no such key, it is too late, or a key of that name was made since.
        """
        answer = self._send("POST", b"{}", path=_UNDELETE_PATH.format(quote(name, safe="")))
        try:
            return int(answer["versions"])
        except (KeyError, TypeError, ValueError) as error:
            raise KmsError(f"{self._label} sent no metadata: is it an older release?") from error

    def take_lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Takes the lease, or renews it when `holder` has it; `ttl_s` is 1 to 300.

        `holder` has to be another for each process that may hold it, and for each start of one. Raises LeaseHeldError
        when somebody else has it, and KmsUnavailableError when nobody knows: then an earlier one ends when it ends.
        KmsRemoteError with status 501: the KMS's key store, one in Vault, keeps none.
        """
        body = kms_wire.encode({"holder": holder, "ttl_s": check_ttl(ttl_s)})
        asked_s = clock_s()
        answer = self._send("PUT", body, path=_LEASE_PATH.format(quote(name, safe="")), conflict=_lease_held)
        try:
            return Lease(name, holder, int(answer["epoch"]), ttl_s, asked_s + ttl_s)
        except (KeyError, TypeError, ValueError) as error:
            raise KmsError(f"{self._label} sent no lease: is it an older release?") from error

    def release_lease(self, name: str, holder: str) -> None:
        """Gives the lease back; nothing when `holder` does not have it any more. Raises LeaseHeldError when somebody
        else has it.
        """
        path = f"{_LEASE_PATH.format(quote(name, safe=''))}?holder={quote(holder, safe='')}"
        self._send("DELETE", None, path=path, conflict=_lease_held)

    def get_lease(self, name: str) -> LeaseStatus:
        """Who has the lease; one that nobody ever took has no holder and epoch 0."""
        answer = self._send("GET", None, path=_LEASE_PATH.format(quote(name, safe="")))
        try:
            return LeaseStatus(name, answer["holder"], int(answer["epoch"]), float(answer["left_s"]))
        except (KeyError, TypeError, ValueError) as error:
            raise KmsError(f"{self._label} sent no lease: is it an older release?") from error

    def create_grant(self, request: GrantRequest) -> Grant:
        """Admits one job's session past the flow rules. Sent again, the same request gives the same grant.

        Raises KmsRemoteError when it is refused: a zone that the policy does not have, a lifetime that is too long, an
        id that was used for something else.
        """
        body = kms_wire.encode(
            {
                "user": request.user,
                "from": request.source,
                "to": request.target,
                "lifetime_s": request.lifetime_s,
                "purpose": request.purpose,
                "approver": request.approver,
                "token": request.token,
                "address": request.address,
                "real_user": request.real_user,
            }
        )
        return self._grant(self._send("PUT", body, path=f"{_GRANTS_PATH}/{quote(request.id, safe='')}"))

    def end_grant(self, grant_id: str) -> Grant:
        """Ends a grant, or leaves one that has ended as it is. Raises GrantNotFoundError."""

        def missing(_body: bytes) -> GrantNotFoundError:
            return GrantNotFoundError(grant_id)

        path = f"{_GRANTS_PATH}/{quote(grant_id, safe='')}"
        return self._grant(self._send("DELETE", None, path=path, missing=missing))

    def list_grants(self) -> Sequence[Grant]:
        """Every grant that is in force or ended within the last day, the newest first."""
        answer = self._send("GET", None, path=_GRANTS_PATH)
        try:
            grants = answer["grants"]
        except (KeyError, TypeError) as error:
            raise KmsError(f"{self._label} sent no list of grants: is it an older release?") from error
        return [self._grant(grant) for grant in grants]

    def _grant(self, answer: Any) -> Grant:
        try:
            return Grant(
                id=answer["id"],
                user=answer["user"],
                source=answer["from"],
                target=answer["to"],
                token=answer["token"],
                address=answer["address"],
                real_user=answer["real_user"],
                purpose=answer["purpose"],
                approver=answer["approver"],
                granted_by=answer["granted_by"],
                created_ms=int(answer["created"]),
                not_after_ms=int(answer["not_after"]),
                ended_ms=answer["ended"],
                ended_by=answer["ended_by"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise KmsError(f"{self._label} sent no grant: is it an older release?") from error

    def _send(
        self,
        method: str,
        body: bytes | None,
        path: str = _PATH,
        conflict: _Refused | None = None,
        missing: _Refused | None = None,
    ) -> Any:
        answer = self._exchange(method, path, body, repeatable=path != _PATH or method == "GET")
        if answer.status == HTTPStatus.CONFLICT and conflict is not None:
            raise conflict(answer.body)
        if answer.status == HTTPStatus.NOT_FOUND and missing is not None:
            raise missing(answer.body)
        if answer.status != HTTPStatus.OK:
            raise self._error(answer.status, answer.body)
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise KmsError(f"{self._label} sent no JSON: is this Ringfence's KMS?") from error

    def _exchange(self, method: str, path: str, body: bytes | None, *, repeatable: bool) -> HttpAnswer:
        ways = self._ways if repeatable else self._ways[:1]
        for number, way in enumerate(ways, 1):
            try:
                answer = way(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                if number < len(ways):
                    continue
                raise KmsUnavailableError(
                    f"the KMS's admin endpoint at {self._label} does not answer: {_why(error)}",
                    hint="is the KMS running, and if this is its Unix socket, may this user open it?",
                ) from error
            if answer.status != HTTPStatus.SERVICE_UNAVAILABLE or number == len(ways):
                return answer
        raise AssertionError("there is a way")

    def _error(self, status: int, data: bytes) -> RingfenceError:
        remote = kms_wire.decode_remote_exception(data)
        why = (remote.message if remote else None) or f"HTTP status {status}"
        if status == HTTPStatus.UNAUTHORIZED:
            return AuthenticationError(f"the KMS's admin endpoint at {self._label} does not know the caller: {why}")
        if status == HTTPStatus.FORBIDDEN:
            return AccessDeniedError(
                f"the KMS's admin endpoint at {self._label} refused this user: {why}",
                hint="ask as root or the KMS's own user on its machine, with an administrator's token file, or with"
                " Kerberos as one of the published policy's kms.admins",
            )
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return KmsUnavailableError(f"the KMS's admin endpoint at {self._label} cannot answer now: {why}")
        return KmsRemoteError(
            f"the KMS's admin endpoint at {self._label} refused: {why}",
            status=status,
            java_class=remote.java_class_name if remote else None,
        )


def open_admin_client(
    config: ClientConfig,
    uri: KmsUri,
    *,
    access: HttpAccess = PLAIN_ACCESS,
    timeout_s: float = _TIMEOUT_S,
) -> AdminClient:
    """The way to the admin endpoint that this machine is configured for: socket, token file, Kerberos, in this order.

    `timeout_s` bounds each wait for an answer.
    Raises ConfigError when there is none, or when a token would travel in clear or lies open.
    """
    if config.kms_admin_socket is not None:
        return AdminClient(str(config.kms_admin_socket), [_SocketWay(config.kms_admin_socket, timeout_s)])
    if config.kms_token_file is not None:
        if uri.is_plain_http and not uri.is_loopback:
            raise ConfigError(
                f"{uri.text} is plain HTTP: the admin token would cross the network in clear",
                hint="serve the KMS with TLS, or publish on its own machine through its admin socket",
            )
        header = {"Authorization": f"Bearer {_read_token(config.kms_token_file)}"}
        return AdminClient(uri.origins[0], _http_ways(uri, HttpAccess(None, access.trust), header, timeout_s))
    if access.kerberos is not None:
        return AdminClient(uri.origins[0], _http_ways(uri, access, {}, timeout_s))
    raise ConfigError(
        "this machine knows no way to the KMS's admin endpoint, which publishing a policy needs",
        hint=f"set kms_admin_socket in client.yaml or {ADMIN_SOCKET_VARIABLE} to the KMS's admin socket"
        f" (on its own machine), or {TOKEN_FILE_VARIABLE} to a file with an administrator's token; with Kerberos in"
        " core-site.xml a ticket of an administrator does",
    )


_Refused = Callable[[bytes], RingfenceError]
_Way = Callable[[str, str, bytes | None], HttpAnswer]
_JSON = {"Content-Type": "application/json"}


class _SocketWay:
    """The KMS's own machine: the kernel tells it who is asking."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def __call__(self, method: str, path: str, body: bytes | None) -> HttpAnswer:
        with closing(UnixHTTPConnection(self._path, self._timeout_s)) as connection:
            connection.request(method, path, body=body, headers={"Host": "localhost", **(_JSON if body else {})})
            answer = connection.getresponse()
            return HttpAnswer(answer.status, answer.read(_MAX_ANSWER_BYTES + 1))


class _HttpWay:
    """Over the network: a token in the headers, or Kerberos."""

    def __init__(self, origin: str, access: HttpAccess, headers: dict[str, str], timeout_s: float) -> None:
        self._origin = origin
        self._access = access
        self._headers = headers
        self._timeout_s = timeout_s

    def __call__(self, method: str, path: str, body: bytes | None) -> HttpAnswer:
        with closing(DaemonSession(self._access)) as session:
            return session.exchange(
                method,
                self._origin + path,
                body=body,
                headers={**self._headers, **(_JSON if body else {})},
                timeout=(self._timeout_s, self._timeout_s),
                max_bytes=_MAX_ANSWER_BYTES,
            )


def _http_ways(uri: KmsUri, access: HttpAccess, headers: dict[str, str], timeout_s: float) -> Sequence[_Way]:
    return [_HttpWay(origin, access, headers, timeout_s) for origin in uri.origins]


def _lease_held(body: bytes) -> RingfenceError:
    try:
        lease = json.loads(body)["lease"]
        return LeaseHeldError(str(lease["name"]), str(lease["holder"]), float(lease["left_s"]))
    except (KeyError, TypeError, ValueError):
        return KmsError("the KMS's admin endpoint refused a lease without saying who has it")


def _publication(answer: Any) -> Publication:
    try:
        return Publication(int(answer["revision"]), answer.get("digest"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise KmsError("the KMS's admin endpoint sent an answer without a revision") from error


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            data = stream.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the token file {path}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(
            f"the token file {path} is open to others (mode {mode:04o})",
            hint="let nobody but its owner read it, and replace the token",
            command=f"chmod 600 {path}",
        )
    token = data.strip()
    if not token or len(data) > _MAX_TOKEN_BYTES or not token.isascii() or b"\n" in token:
        raise ConfigError(f"the token file {path} does not hold one token on one line")
    return token.decode("ascii")


def _why(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not trusted, or it speaks no TLS"
    if isinstance(error, TimeoutError | requests.Timeout):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the connection broke off"
