"""Kerberos for HTTP (SPNEGO, RFC 4559), both sides: accepting a client's token, and making one.

Rules of the accepting side (`Acceptor`):

1. One token, one answer: a token that needs another round is refused, so nothing is kept between requests.
2. SPNEGO-wrapped and bare Kerberos tokens are taken; NTLM, empty and over-long ones are not. A context counts only
   when the mechanism that made it is Kerberos and its initiator a principal that is not anonymous.
3. The ticket must be for `HTTP/...`, case-sensitively, and for one of the configured principals when they are named.
4. Delegated credentials are never asked for. The replay cache of the library stays on.
5. The keytab is read afresh by the library at each acceptance, so a rotated one needs no restart.

Why an error occurred is in its message, for logs and audit: a server must not send it to whoever failed.

Calls block (a file for the replay cache, a KDC for the initiating side): a server runs them in a thread.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from ctypes import POINTER, byref, c_int, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones import gssapi_library as gss
from ringfence_zones.errors import AuthenticationError, ConfigError

# Tickets that carry a directory's group list reach 48 KiB.
MAX_TOKEN_BYTES = 64 * 1024
SERVICE = "HTTP"
# The identifier of a first token, RFC 2743 3.1: [APPLICATION 0], constructed.
_FIRST_TOKEN = 0x60


class ChannelBinding(enum.Enum):
    """What is made of a client's channel binding (RFC 5929, `tls-server-end-point`).

    Opportunistic refuses a wrong one and takes a missing one: curl and Java's clients send none.
    """

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted client.

    principal      its full name, `client@REALM`
    service        the principal its ticket is for, `HTTP/host@REALM`
    token          the answer that proves this server to the client; it goes out with the response
    channel_bound  whether the client vouched for this TLS connection
    """

    principal: str
    service: str
    token: bytes
    channel_bound: bool


class Acceptor:
    """The accepting side for the principals of one keytab. May be used by several threads."""

    def __init__(
        self,
        keytab: Path,
        principals: Collection[str] | None = None,
        channel_binding: ChannelBinding = ChannelBinding.OPPORTUNISTIC,
    ) -> None:
        """`principals` are full names, None for every `HTTP/...` of the keytab.

        Raises ConfigError when the keytab or the library cannot be used.
        """
        self._principals = frozenset(principals) if principals is not None else None
        self._channel_binding = channel_binding
        try:
            self._credential = gss.Credential(gss.ACCEPT, {"keytab": f"FILE:{keytab}"})
        except AuthenticationError as error:
            raise ConfigError(
                f"the keytab {keytab} cannot be used: {error.message}",
                hint="give this service's user a keytab with the principal HTTP/<host of the KMS's URL>",
                command=f"klist -k {keytab}",
            ) from error

    def accept(self, token: bytes, binding: bytes | None = None) -> Accepted:
        """The client that sent this token.

        `binding` is the channel binding of its connection (`tls-server-end-point:` and the hash of this server's
        certificate), None without TLS. Raises AuthenticationError, whose message is for the log alone.
        """
        if not token or token[0] != _FIRST_TOKEN:
            raise AuthenticationError("this is no first token of SPNEGO or Kerberos")
        if len(token) > MAX_TOKEN_BYTES:
            raise AuthenticationError(f"a token of {len(token)} bytes is longer than any ticket")
        if self._channel_binding is ChannelBinding.OFF:
            binding = None
        context, source = c_void_p(), c_void_p()
        try:
            accepted = self._accept(token, binding, context, source)
        finally:
            gss.released(source)
            gss.delete_context(context)
        self._require_service(accepted.service)
        if self._channel_binding is ChannelBinding.REQUIRED and not accepted.channel_bound:
            raise AuthenticationError(f"{accepted.principal} sent no channel binding, which is required here")
        return accepted

    def _accept(self, token: bytes, binding: bytes | None, context: c_void_p, source: c_void_p) -> Accepted:
        minor, flags, mechanism, answer = c_uint32(), c_uint32(), POINTER(gss.Oid)(), gss.Buffer()
        bindings = gss.bindings_of(binding)
        major = gss.library().gss_accept_sec_context(
            *(byref(minor), byref(context), self._credential.handle, byref(gss.given(token))),
            *(bindings, byref(source), byref(mechanism), byref(answer), byref(flags), None, None),
        )
        answer_token = gss.taken(answer)
        if gss.is_error(major):
            raise gss.failure("the token is refused", major, minor.value)
        if major != gss.COMPLETE:
            raise AuthenticationError("the token asks for another round, which a single request cannot give")
        if gss.elements(mechanism) != gss.KRB5_ELEMENTS:
            raise AuthenticationError("the client was not proven by Kerberos")
        principal, kind = gss.display(source)
        if not gss.is_principal(kind) or flags.value & gss.ANONYMOUS_FLAG:
            raise AuthenticationError("the client is no Kerberos principal, or an anonymous one")
        channel_bound = bindings is not None and bool(flags.value & gss.CHANNEL_BOUND_FLAG)
        return Accepted(principal, _service_of(context), answer_token, channel_bound)

    def _require_service(self, service: str) -> None:
        name, slash, _ = service.partition("/")
        if not slash or name != SERVICE:
            raise AuthenticationError(f"the ticket is for {service}, not for an {SERVICE} service")
        if self._principals is not None and service not in self._principals:
            raise AuthenticationError(f"the ticket is for {service}, which this server does not answer for")

    def close(self) -> None:
        """Releases the credential; idempotent."""
        self._credential.close()


def _service_of(context: c_void_p) -> str:
    target, minor = c_void_p(), c_uint32()
    major = gss.library().gss_inquire_context(
        byref(minor), context, None, byref(target), None, None, None, None, byref(c_int())
    )
    if gss.is_error(major):
        raise gss.failure("the ticket's service is not known", major, minor.value)
    try:
        return gss.display(target)[0]
    finally:
        gss.released(target)


def require_key(keytab: Path, principal: str) -> None:
    """Raises ConfigError when the keytab holds no key of a principal that tickets are to be accepted for."""
    try:
        gss.Credential(gss.ACCEPT, {"keytab": f"FILE:{keytab}"}, principal).close()
    except AuthenticationError as error:
        raise ConfigError(
            f"the keytab {keytab} holds no key of {principal}: {error.message}",
            hint="name a principal that it lists, or add this one to it",
            command=f"klist -k {keytab}",
        ) from error


class Initiator:
    """The client's side of one exchange with a service on a host, with mutual authentication.

    `cache` is a ticket cache in the library's notation (`FILE:...`); without it the environment decides. With
    `client_keytab` tickets are got and renewed as needed, for `principal` or for the keytab's first entry.
    `binding` is the channel binding to send (`tls-server-end-point:` and the hash of the server's certificate).

    Raises AuthenticationError with the library's reason, which for a user's own tickets is the user's to read.
    """

    def __init__(
        self,
        service: str,
        host: str,
        *,
        cache: str | None = None,
        client_keytab: Path | None = None,
        principal: str | None = None,
        binding: bytes | None = None,
    ) -> None:
        store = {"ccache": cache} if cache is not None else {}
        if client_keytab is not None:
            store["client_keytab"] = f"FILE:{client_keytab}"
        self._service = service
        self._host = host
        self._binding = binding
        self._context = c_void_p()
        self._complete = False
        self._credential = gss.Credential(gss.INITIATE, store, principal)

    def first_token(self) -> bytes:
        """The token for `Authorization: Negotiate`."""
        return self._step(b"")

    def verify(self, answer: bytes) -> None:
        """Checks the server's answering token: without it the server is not proven. Raises AuthenticationError."""
        # An exchange that the library has begun is never continued with nothing: it crashes on that.
        if answer and self._context.value and not self._complete:
            self._step(answer)
        if not self._complete:
            raise AuthenticationError(f"{self._service} on {self._host} did not prove itself")

    def _step(self, received: bytes) -> bytes:
        minor, flags, token = c_uint32(), c_uint32(), gss.Buffer()
        with gss.service_name(self._service, self._host) as target:
            major = gss.library().gss_init_sec_context(
                *(byref(minor), self._credential.handle, byref(self._context), target, byref(gss.spnego())),
                *(gss.MUTUAL_FLAG | gss.REPLAY_FLAG, gss.INDEFINITE, gss.bindings_of(self._binding)),
                *(byref(gss.given(received)) if received else None, None, byref(token), byref(flags), None),
            )
        made = gss.taken(token)
        if gss.is_error(major):
            raise gss.failure(f"no Kerberos session with {self._service} on {self._host}", major, minor.value)
        self._complete = major == gss.COMPLETE and bool(flags.value & gss.MUTUAL_FLAG)
        return made

    def close(self) -> None:
        """Releases context and credential; idempotent."""
        gss.delete_context(self._context)
        self._credential.close()

    def __enter__(self) -> Initiator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def full_name(principal: str) -> str:
    """A principal with its realm, the default realm of krb5.conf when none is given. Raises ConfigError."""
    try:
        return gss.full_name(principal)
    except AuthenticationError as error:
        raise ConfigError(
            f"{principal} has no realm and there is no default one: {error.message}",
            hint="write the principal with its realm, or set default_realm in krb5.conf",
        ) from error


def default_realm() -> str:
    """`default_realm` of krb5.conf. Raises ConfigError when there is none."""
    return full_name("x").rpartition("@")[2]
