"""Where a shared key store is: a URI of PostgreSQL or MariaDB, and the password that is never part of it.

    postgresql://USER@HOST[:PORT]/DATABASE[?option=value&...]
    mysql://USER@HOST[:PORT]/DATABASE[?option=value&...]          MariaDB

Options: `tls=verify|off`, `tls_ca=FILE`, `socket=PATH` (PostgreSQL's directory, MariaDB's socket file) without a host.

Rules:

1. A password in the URI is refused wherever the URI came from: a process list and a unit file are no place for it. It
   comes from a private file, is read when the store is opened, and is in no message.
2. A server that others could stand in for is spoken to over TLS with its certificate and name verified. Plain text
   needs a loopback address, a Unix socket, or `tls=off` written out.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ringfence_zones.errors import ConfigError, InputError
from ringfence_zones.secret import Secret

DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306}
FORMS = {scheme: f"{scheme}://USER@HOST:{port}/DATABASE" for scheme, port in DEFAULT_PORTS.items()}
_OPTIONS = frozenset({"tls", "tls_ca", "socket"})
_MAX_PASSWORD_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """A parsed URI. `host` is empty exactly when `socket` is there."""

    scheme: str
    user: str
    host: str
    port: int
    database: str
    socket: str | None
    verify_tls: bool
    tls_ca: Path | None

    @property
    def label(self) -> str:
        """The URI without options, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        where = f"{host}:{self.port}" if host else (self.socket or "")
        return f"{self.scheme}://{self.user}@{where}/{self.database}"


def parse_server_uri(uri: str) -> ServerAddress:
    """Raises InputError, which names what is wrong and quotes nothing that may be a secret."""
    parts = _split(uri)
    form = FORMS[parts.scheme]
    if parts.password is not None:
        raise InputError(
            "the key store's URI holds a password, which everybody on this machine can read in the process list",
            hint="take it out of the URI, put it into a file of mode 0600 and name that file:"
            " keystore_password_file in kms.yaml, or --keystore-password-file",
        )
    user, database = unquote(parts.username or ""), unquote(parts.path.removeprefix("/"))
    if not user or not database or "/" in database or parts.fragment:
        raise InputError(
            f"a {parts.scheme}: URI names a user, a host and one database; this one does not", hint=f"write {form}"
        )
    options = _options(parts)
    host, socket = parts.hostname or "", options.get("socket")
    if bool(host) == (socket is not None):
        raise InputError(
            f"a {parts.scheme}: URI names either a host or a socket",
            hint=f"write {form}, or {parts.scheme}://USER@/DATABASE?socket=PATH",
        )
    ca = options.get("tls_ca")
    return ServerAddress(
        scheme=parts.scheme,
        user=user,
        host=host,
        port=_port(parts),
        database=database,
        socket=socket,
        verify_tls=_verify_tls(host, options),
        tls_ca=Path(ca) if ca is not None else None,
    )


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 -- parsed here, so that a bad one is refused here
    except ValueError:
        raise InputError(
            "the key store's URI cannot be read: its host or port is malformed", hint=f"write {FORMS['postgresql']}"
        ) from None
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS[parts.scheme]


def _options(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(pairs) != len(options) or not options.keys() <= _OPTIONS:
        raise InputError(
            f"a {parts.scheme}: URI takes the options {', '.join(sorted(_OPTIONS))}, each once, and no others"
        )
    if options.get("tls", "verify") not in ("verify", "off"):
        raise InputError("the option tls of a key store's URI is 'verify' or 'off'")
    for name in ("tls_ca", "socket"):
        if name in options and not options[name].startswith("/"):
            raise InputError(f"the option {name} of a key store's URI is an absolute path")
    return options


def _verify_tls(host: str, options: dict[str, str]) -> bool:
    if "tls" in options or "tls_ca" in options:
        if options.get("tls") == "off" and "tls_ca" in options:
            raise InputError("a key store's URI that says tls=off has no use for tls_ca", hint="leave one of them out")
        return options.get("tls") != "off"
    return bool(host) and not _is_loopback(host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_password(path: Path) -> Secret:
    """The first and only line of a private file. Raises ConfigError naming the file and the fix."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as exc:
        raise ConfigError(
            f"the key store's password file {path} cannot be opened: {exc.strerror}",
            hint="name a regular file that belongs to the service's user, not a link",
        ) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError(
                f"the key store's password file {path} is not a file of uid {os.geteuid()} with mode 0600",
                hint="make it private; if others could have read it, change the password",
                command=f"chmod 600 {path}",
            )
        content = os.read(descriptor, _MAX_PASSWORD_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"the key store's password file {path} cannot be read: {exc.strerror}") from None
    finally:
        os.close(descriptor)
    password = content.removesuffix(b"\n")
    if not password or len(content) > _MAX_PASSWORD_BYTES or b"\n" in password or b"\0" in password:
        raise ConfigError(f"the key store's password file {path} does not hold one line with the password")
    return Secret(password)
