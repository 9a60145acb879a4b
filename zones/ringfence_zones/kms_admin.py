"""The admin endpoint of Ringfence's KMS: the published policy, read and replaced by compare-and-set.

Over the KMS's Unix socket the caller is proven by the kernel (root, or the service's user); elsewhere by a bearer
token from a file nobody else may read, and then only over TLS or loopback. A user name is never a proof here, so
this client sends none.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import stat
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ringfence_zones import kms_wire
from ringfence_zones.client_config import ADMIN_SOCKET_VARIABLE, TOKEN_FILE_VARIABLE, ClientConfig
from ringfence_zones.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConfigError,
    KmsError,
    KmsRemoteError,
    KmsUnavailableError,
    RevisionConflictError,
)
from ringfence_zones.kms_uri import KmsUri
from ringfence_zones.unix_http import UnixHTTPConnection

_PATH = "/ringfence/v1/policy"
_TIMEOUT_S = 60.0
_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Publication:
    """A published revision: its number and the SHA-256 (hex) of its canonical JSON."""

    revision: int
    digest: str | None


class AdminClient:
    """Made by `open_admin_client`. One connection per call: publications are rare."""

    def __init__(self, label: str, connect: _Connector, headers: dict[str, str]) -> None:
        self._label = label
        self._connect = connect
        self._headers = headers

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
        return _publication(self._send("PUT", body, expected_revision))

    def _send(self, method: str, body: bytes | None, expected_revision: int = 0) -> Any:
        connection = self._connect()
        try:
            headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
            connection.request(method, _PATH, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise KmsUnavailableError(
                f"the KMS's admin endpoint at {self._label} does not answer: {_why(error)}",
                hint="is the KMS running on this machine, and may this user open the socket?",
            ) from error
        finally:
            connection.close()
        if answer.status == HTTPStatus.CONFLICT:
            raise RevisionConflictError(expected_revision, self.get_publication().revision)
        if answer.status != HTTPStatus.OK:
            raise self._error(answer.status, data)
        try:
            return json.loads(data)
        except ValueError as error:
            raise KmsError(f"{self._label} sent no JSON: is this Ringfence's KMS?") from error

    def _error(self, status: int, data: bytes) -> AuthenticationError | AccessDeniedError | KmsRemoteError:
        remote = kms_wire.decode_remote_exception(data)
        why = (remote.message if remote else None) or f"HTTP status {status}"
        if status == HTTPStatus.UNAUTHORIZED:
            return AuthenticationError(f"the KMS's admin endpoint at {self._label} does not know the caller: {why}")
        if status == HTTPStatus.FORBIDDEN:
            return AccessDeniedError(
                f"the KMS's admin endpoint at {self._label} refused this user: {why}",
                hint="publish as root, as the KMS's own user, or with the token file of an administrator",
            )
        return KmsRemoteError(
            f"the KMS's admin endpoint at {self._label} refused: {why}",
            status=status,
            java_class=remote.java_class_name if remote else None,
        )


def open_admin_client(config: ClientConfig, uri: KmsUri, *, timeout_s: float = _TIMEOUT_S) -> AdminClient:
    """The way to the admin endpoint that this machine is configured for; the socket when both are.

    `timeout_s` bounds each wait for an answer.
    Raises ConfigError when there is none, or when a token would travel in clear or lies open.
    """
    if config.kms_admin_socket is not None:
        path = config.kms_admin_socket
        return AdminClient(str(path), _Connector(timeout_s, unix_socket=path), {"Host": "localhost"})
    if config.kms_token_file is not None:
        if uri.is_plain_http and not uri.is_loopback:
            raise ConfigError(
                f"{uri.text} is plain HTTP: the admin token would cross the network in clear",
                hint="serve the KMS with TLS, or publish on its own machine through its admin socket",
            )
        token = _read_token(config.kms_token_file)
        return AdminClient(uri.origins[0], _Connector(timeout_s, uri=uri), {"Authorization": f"Bearer {token}"})
    raise ConfigError(
        "this machine knows no way to the KMS's admin endpoint, which publishing a policy needs",
        hint=f"set kms_admin_socket in client.yaml or {ADMIN_SOCKET_VARIABLE} to the KMS's admin socket"
        f" (on its own machine), or {TOKEN_FILE_VARIABLE} to a file with an administrator's token",
    )


class _Connector:
    def __init__(self, timeout_s: float, *, unix_socket: Path | None = None, uri: KmsUri | None = None) -> None:
        self._timeout_s = timeout_s
        self._unix_socket = unix_socket
        self._uri = uri

    def __call__(self) -> http.client.HTTPConnection:
        if self._unix_socket is not None:
            return UnixHTTPConnection(self._unix_socket, self._timeout_s)
        assert self._uri is not None
        host, port = self._uri.hosts[0], self._uri.port
        if self._uri.is_plain_http:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=ssl.create_default_context())


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
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the connection broke off"
