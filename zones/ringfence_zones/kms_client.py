"""A client of the Hadoop KMS protocol: keys without their material.

Works against Ringfence's KMS and Hadoop's own. Under simple authentication the caller's name travels with each
request (`user.name`), which both accept without a handshake or a cookie. On a cluster with Kerberos no name does: the
ticket says who is calling, and a KMS that does not take it is never asked under a claimed name instead.

Rules:

1. No key material is kept: the answer to a create is not decoded, and whether GET is open is asked with HEAD.
2. A call that changes something is sent once. It goes to the next instance only when it certainly never left;
   reads are repeated on the next instance.
3. Whether a failed create found the key already there is asked of the KMS, not read out of its message.
4. Neither proxies nor `.netrc` of the environment apply: a key server is spoken to directly.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import requests
import urllib3

from ringfence_zones import kms_wire
from ringfence_zones.custody import DEFAULT_CUSTODY
from ringfence_zones.errors import (
    AuthenticationError,
    KeyExistsError,
    KeyNotFoundError,
    KmsError,
    KmsRemoteError,
    KmsUnavailableError,
    RingfenceError,
)
from ringfence_zones.http_session import PLAIN_ACCESS, DaemonSession, HttpAccess, HttpAnswer
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata
from ringfence_zones.kms_uri import parse_kms_uri

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 60.0  # hadoop.security.kms.client.timeout
_MAX_ANSWER_BYTES = 32 * 1024 * 1024
# Hadoop's client keeps the query of keys/metadata about this long.
_MAX_QUERY_CHARS = 1500
_TRUST_HINT = (
    "name the PEM file of the authority that signed its certificate as kms_ca_file in client.yaml, or the trust store"
    " in ssl-client.xml"
)
_ADDRESS_HINT = "is it running, and is hadoop.security.key.provider.path in core-site.xml right?"
_BUSY_HINT = "it runs, and serves again by itself once that is over: `ringfence kms status` on its node says more"


@dataclass(frozen=True, slots=True)
class RingfenceStatus:
    """What Ringfence's KMS says about itself. `revision` is 0 and `digest` None before the first publication.

    `custodies` are those that keys can be in: `transit` only where the KMS has a Vault.
    """

    version: str
    revision: int
    digest: str | None
    custodies: tuple[str, ...] = (DEFAULT_CUSTODY,)


class KmsClient:
    """One KMS, of one or more instances, as one user. Thread-safe; each thread keeps its own connection alive."""

    def __init__(
        self,
        uri: str,
        user: str,
        *,
        access: HttpAccess = PLAIN_ACCESS,
        read_timeout_s: float = _READ_TIMEOUT_S,
    ) -> None:
        """`user` is the name that is claimed unless `access` has Kerberos.

        Connects to nothing yet. Raises ConfigError for an address that is no KMS address.
        """
        self.uri = parse_kms_uri(uri)
        self.user = user
        self._access = access
        self._claim = [] if access.kerberos is not None else [("user.name", user)]
        self._timeout = (_CONNECT_TIMEOUT_S, read_timeout_s)
        self._sessions = threading.local()
        self._opened: list[DaemonSession] = []
        # The instance that answered last: the next call starts there.
        self._preferred = 0

    # Keys

    def find_key(self, name: str) -> KeyMetadata | None:
        """A key's metadata; None when there is no such key."""
        return _decoded(kms_wire.decode_metadata, self._read(f"key/{_quote(name)}/_metadata").body)

    def find_keys(self, names: Sequence[str]) -> dict[str, KeyMetadata]:
        """Metadata of those of `names` that exist, in few requests."""
        found: dict[str, KeyMetadata] = {}
        for batch in _batches(names):
            body = self._read("keys/metadata", params=[("key", name) for name in batch]).body
            for metadata in _decoded(kms_wire.decode_metadata_list, body):
                if metadata is not None:
                    found[metadata.name] = metadata
        return found

    def list_key_names(self) -> tuple[str, ...]:
        """Every key's name, sorted."""
        return tuple(sorted(_decoded(kms_wire.decode_names, self._read("keys/names").body)))

    def create_key(
        self,
        name: str,
        length_bits: int,
        *,
        cipher: str = DEFAULT_CIPHER,
        description: str | None = None,
        attributes: dict[str, str] | None = None,
    ) -> None:
        """Creates a key with random material. Raises KeyExistsError when the name is taken."""
        body = kms_wire.encode(
            kms_wire.CreateKeyBody(
                name=name, cipher=cipher, length=length_bits, description=description, attributes=attributes
            )
        )
        try:
            self._change("POST", "keys", body)
        except KmsRemoteError:
            if self.find_key(name) is not None:
                raise KeyExistsError(name, self.uri.text) from None
            raise

    def roll_key(self, name: str) -> str:
        """Adds a version with random material; its name. Raises KeyNotFoundError."""
        answer = self._change_existing(name, "POST", f"key/{_quote(name)}", b"{}")
        return _decoded(kms_wire.decode_key_version, answer.body).version_name or ""

    def delete_key(self, name: str) -> None:
        """Deletes a key. Raises KeyNotFoundError."""
        self._change_existing(name, "DELETE", f"key/{_quote(name)}")

    def is_get_open(self, name: str) -> bool:
        """Whether this user may have the material of an existing key. The material itself is not transferred."""
        answer = self._send("HEAD", f"{self.uri.path}/v1/key/{_quote(name)}/_currentversion", idempotent=True)
        if answer.status == HTTPStatus.FORBIDDEN:
            return False
        self._checked(answer)
        return True

    # The server

    def find_ringfence_status(self) -> RingfenceStatus | None:
        """Revision and version when this is Ringfence's KMS; None on any other."""
        answer = self._send("GET", "/ringfence/v1/status", idempotent=True)
        if answer.status != HTTPStatus.OK:
            return None
        try:
            found = json.loads(answer.body)
            if found["product"] != "ringfence":
                return None
            # Releases before custody was a choice do not say.
            custodies = tuple(str(word) for word in found.get("custody", [DEFAULT_CUSTODY]))
            return RingfenceStatus(str(found["version"]), int(found["revision"]), found["digest"], custodies)
        except (ValueError, KeyError, TypeError):
            return None

    def close(self) -> None:
        """Closes the connections of every thread."""
        while self._opened:
            self._opened.pop().close()

    # Inside

    def _read(self, path: str, params: Sequence[tuple[str, str]] = ()) -> HttpAnswer:
        return self._checked(self._send("GET", f"{self.uri.path}/v1/{path}", params=params, idempotent=True))

    def _change(self, method: str, path: str, body: bytes | None = None) -> HttpAnswer:
        return self._checked(self._send(method, f"{self.uri.path}/v1/{path}", body=body, idempotent=False))

    def _change_existing(self, name: str, method: str, path: str, body: bytes | None = None) -> HttpAnswer:
        try:
            return self._change(method, path, body)
        except KmsRemoteError:
            if self.find_key(name) is None:
                raise KeyNotFoundError(name, f"{self.uri.text} has no key {name}") from None
            raise

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        idempotent: bool,
    ) -> HttpAnswer:
        """One exchange with the first instance that answers. Raises KmsUnavailableError when none does."""
        origins = self.uri.origins
        # One more attempt for a read: a kept connection may have been closed by the server in the meantime.
        attempts = len(origins) + (1 if idempotent else 0)
        failure, hint = "does not answer", _ADDRESS_HINT
        for attempt in range(attempts):
            index = (self._preferred + attempt) % len(origins)
            try:
                answer = self._exchange(method, origins[index] + path, params, body)
            except requests.RequestException as error:
                failure = f"does not answer: {_why_no_answer(error)}"
                hint = _TRUST_HINT if isinstance(error, requests.exceptions.SSLError) else _ADDRESS_HINT
                if not idempotent and not _never_left(error):
                    break
                continue
            if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                self._preferred = index
                return answer
            failure, hint = f"cannot do that now: {_message(answer) or 'it is busy'}", _BUSY_HINT
            if not idempotent:
                break
        raise KmsUnavailableError(f"the KMS at {self.uri.text} {failure}", hint=hint)

    def _exchange(self, method: str, url: str, params: Sequence[tuple[str, str]], body: bytes | None) -> HttpAnswer:
        answer = self._session().exchange(
            method,
            url,
            params=[*params, *self._claim],
            body=body,
            headers={"Content-Type": "application/json"} if body is not None else {},
            timeout=self._timeout,
            max_bytes=_MAX_ANSWER_BYTES,
        )
        if len(answer.body) > _MAX_ANSWER_BYTES:
            raise KmsError(f"the KMS at {self.uri.text} sent more than {_MAX_ANSWER_BYTES} bytes")
        return answer

    def _session(self) -> DaemonSession:
        session: DaemonSession | None = getattr(self._sessions, "session", None)
        if session is None:
            session = DaemonSession(self._access)
            self._sessions.session = session
            self._opened.append(session)
        return session

    def _checked(self, answer: HttpAnswer) -> HttpAnswer:
        if answer.status in (HTTPStatus.OK, HTTPStatus.CREATED):
            return answer
        raise self._error(answer)

    def _error(self, answer: HttpAnswer) -> RingfenceError:
        if answer.status == HTTPStatus.UNAUTHORIZED:
            return AuthenticationError(
                f"the KMS at {self.uri.text} does not accept the name {self.user} alone: it uses Kerberos or another"
                " authentication than simple",
                hint="set hadoop.security.authentication to kerberos in core-site.xml if the cluster uses it",
            )
        remote = kms_wire.decode_remote_exception(answer.body)
        if remote is not None:
            message = (remote.message or remote.exception or "no reason given").partition("\n")[0]
            return KmsRemoteError(
                f"the KMS at {self.uri.text} refused: {message}",
                status=answer.status,
                java_class=remote.java_class_name,
            )
        return KmsRemoteError(
            f"{self.uri.text} answered with HTTP status {answer.status}, not as a KMS does",
            status=answer.status,
            java_class=None,
            hint="is hadoop.security.key.provider.path in core-site.xml right, path included?",
        )


def _quote(name: str) -> str:
    return quote(name, safe="")


def _batches(names: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    length = 0
    for name in dict.fromkeys(names):
        if batch and length + len(_quote(name)) + 5 > _MAX_QUERY_CHARS:
            yield batch
            batch, length = [], 0
        batch.append(name)
        length += len(_quote(name)) + 5
    if batch:
        yield batch


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except RingfenceError as error:
        raise KmsError(f"the KMS sent an answer that is not its protocol: {error.message}") from error


def _message(answer: HttpAnswer) -> str | None:
    remote = kms_wire.decode_remote_exception(answer.body)
    return remote.message if remote is not None else None


def _never_left(error: requests.RequestException) -> bool:
    """Whether no byte of the request can have reached a server."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.NameResolutionError))


def _why_no_answer(error: requests.RequestException) -> str:
    """Two or three words: what requests says names its own classes and pools."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not trusted, or it speaks no TLS"
    if isinstance(error, requests.Timeout):
        return "timed out"
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return "unknown host"
    return "connection refused" if _never_left(error) else "the connection broke off"
