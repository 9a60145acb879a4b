"""What this server proves itself with over TLS, whom it asks for proof in return, and how both change while it serves.

Rules:

1. TLS 1.2 is the oldest version spoken, renegotiation and compression are off, and OpenSSL's security level is never
   lowered: a key it finds too small is refused with a sentence.
2. The context is made before the fork. Session tickets are sealed with keys in it, so a client resumes its session at
   whichever worker it meets; that is what makes a connection per request, as Hadoop's client opens them, bearable.
3. A changed file takes effect without dropping a connection. It is loaded into a scratch context first: one that cannot
   be used is logged, and what was there goes on serving. New certificates of the same kind go into the living context,
   which keeps the ticket keys; a change of whom to trust makes a new context, so that no old ticket outlives it.
4. Private keys reach OpenSSL through memory files and are never written anywhere.

Where certificates come from is the source's business (`TlsSource`); nothing here knows a file format but PEM.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ringfence_agent.http.protocol import HttpProtocol
from ringfence_agent.http.service import HttpService
from ringfence_agent.http.tls_connection import TlsConnection
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

ClientAuth = Literal["none", "optional", "required"]

# RFC 5929 4.1: these are replaced by SHA-256; whatever else signed the certificate hashes it too.
_WEAK_HASHES = ("md5", "sha1")
_REASONS = {
    "KEY_VALUES_MISMATCH": "the private key does not belong to the certificate",
    "NO_CERTIFICATE_ASSIGNED": "the private key is of another kind than the certificate's",
    "EE_KEY_TOO_SMALL": "its key is too small to be safe (RSA needs 2048 bits)",
    "CA_KEY_TOO_SMALL": "a key of its chain is too small to be safe (RSA needs 2048 bits)",
    "CA_MD_TOO_WEAK": "its chain is signed with a broken hash (MD5 or SHA-1)",
}


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A certificate chain (PEM, the server's own first) and its private key (PEM); `label` names both in messages."""

    label: str
    chain: bytes
    key: Secret


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """All that a context is made of: at most one identity of each kind of key, and whose clients are trusted (PEM)."""

    identities: tuple[TlsIdentity, ...]
    client_ca: bytes | None = None

    def digest(self) -> bytes:
        """Equal for equal contents."""
        parts = [part for identity in self.identities for part in (identity.chain, identity.key.reveal())]
        return hashlib.sha256(b"\0".join([*parts, self.client_ca or b""])).digest()


class TlsSource(Protocol):
    """Where the material comes from; read again when a file changes."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files to watch."""

    def read(self) -> TlsMaterial:
        """Reads all of it. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class TlsChange:
    """Material that was found changed and proved usable: `scratch` is a whole context made of it."""

    material: TlsMaterial
    scratch: ssl.SSLContext
    kinds: frozenset[str]


class ServerTls:
    """The server's end of TLS. Made before the fork; each process then refreshes its own.

    context          what new connections are made with; replaced or changed by `apply`, so take it afresh each time
    not_after_s      when the certificate that ends first ends, seconds since the epoch
    channel_binding  `tls-server-end-point` of RFC 5929 for GSSAPI; None with two identities, when a connection does
                     not tell which one it used
    """

    def __init__(self, source: TlsSource, client_auth: ClientAuth = "none") -> None:
        """Raises ConfigError when the source cannot be used."""
        self._source = source
        self._client_auth = client_auth
        self._stamps = self._look()
        change = self._prove(source.read())
        self._adopt(change, change.scratch)

    def connection(self, service: HttpService, protocol: HttpProtocol) -> TlsConnection:
        """The TLS of one new connection, with `protocol` above it."""
        return TlsConnection(service, self.context, self.channel_binding, protocol)

    def find_change(self) -> TlsChange | None:
        """Reads changed files and proves what is in them; None when nothing is new or it cannot be used.

        May be called in any thread, but not in two at once. Logs what cannot be used, once for each state of the files.
        """
        stamps = self._look()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        try:
            material = self._source.read()
            if material.digest() == self._digest:
                return None
            return self._prove(material)
        except ConfigError as error:
            _log.error("the new TLS certificate is not used, the old one stays: %s", error.message)
            return None

    def apply(self, change: TlsChange) -> None:
        """Uses what `find_change` found for every connection from now on. On the event loop's thread."""
        same_trust = (change.material.client_ca, change.kinds) == (self._client_ca, self._kinds)
        if same_trust:
            for identity in change.material.identities:
                _load(self.context, identity)
        self._adopt(change, self.context if same_trust else change.scratch)
        _log.warning("serving with a new TLS certificate: %s", ", ".join(i.label for i in change.material.identities))

    def refresh(self) -> None:
        """`find_change` and `apply`. Where there is no event loop to be held up."""
        change = self.find_change()
        if change is not None:
            self.apply(change)

    def renew(self) -> None:
        """A new context for the workers of a reload, and with it new ticket keys. Keeps the old one, and logs, if none
        can be made."""
        self._stamps = self._look()
        try:
            change = self._prove(self._source.read())
        except ConfigError as error:
            _log.error("the TLS certificate is not read again, the old one stays: %s", error.message)
            return
        self._adopt(change, change.scratch)

    def _adopt(self, change: TlsChange, context: ssl.SSLContext) -> None:
        self.context = context
        self.channel_binding = _channel_binding(change.material)
        leaves = [_leaf(identity) for identity in change.material.identities]
        self.not_after_s = min(leaf.not_valid_after_utc.timestamp() for leaf in leaves)
        self._digest = change.material.digest()
        self._client_ca = change.material.client_ca
        self._kinds = change.kinds

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(path) for path in self._source.paths)

    def _prove(self, material: TlsMaterial) -> TlsChange:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        kinds = [_kind(identity) for identity in material.identities]
        if not kinds or len(set(kinds)) != len(kinds):
            raise ConfigError(
                f"the TLS certificates are of the kinds {', '.join(kinds) or 'none'}",
                hint="name one certificate, or one RSA and one ECDSA",
            )
        for identity in material.identities:
            _load(context, identity)
        if self._client_auth != "none":
            _trust_clients(context, material, required=self._client_auth == "required")
        return TlsChange(material, context, frozenset(kinds))


def _trust_clients(context: ssl.SSLContext, material: TlsMaterial, *, required: bool) -> None:
    if material.client_ca is None:
        raise ConfigError(
            "client certificates are asked for, but no authority is named that could have issued them",
            hint="name its certificate, or ask for none",
        )
    try:
        context.load_verify_locations(cadata=material.client_ca.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError("the authority of the client certificates is not a PEM certificate") from error
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL


def _load(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """Raises ConfigError when OpenSSL does not take it."""
    with _memory_file(identity.chain) as chain, _memory_file(identity.key.reveal()) as key:
        try:
            context.load_cert_chain(chain, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "it is not a PEM certificate with its private key"
            raise ConfigError(
                f"the TLS certificate {identity.label} cannot be used: {_REASONS.get(reason, reason)}"
            ) from (None)


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal.
    raise ValueError("the key is encrypted")


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """A path under which OpenSSL, which loads from nothing else, finds these bytes; they exist in memory only."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _leaf(identity: TlsIdentity) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(identity.chain)[0]
    except ValueError as error:
        raise ConfigError(f"the TLS certificate {identity.label} is not a PEM certificate") from error


def _kind(identity: TlsIdentity) -> str:
    leaf = _leaf(identity)
    public_key = leaf.public_key()
    if leaf.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        _log.warning(
            "the TLS certificate %s has expired on %s: no client will accept it",
            identity.label,
            leaf.not_valid_after_utc,
        )
    kind = "RSA" if isinstance(public_key, rsa.RSAPublicKey) else "ECDSA"
    if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ConfigError(
            f"the TLS certificate {identity.label} has a key that Java clients cannot use",
            hint="use ECDSA P-256 or RSA",
        )
    return kind


def _channel_binding(material: TlsMaterial) -> bytes | None:
    if len(material.identities) != 1:
        return None
    leaf = _leaf(material.identities[0])
    algorithm = leaf.signature_hash_algorithm
    if algorithm is None:
        return None
    chosen = hashes.SHA256() if algorithm.name in _WEAK_HASHES else algorithm
    return b"tls-server-end-point:" + leaf.fingerprint(chosen)


def _stamp(path: Path) -> object:
    try:
        there = path.stat()
    except OSError as error:
        return error.errno
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns
