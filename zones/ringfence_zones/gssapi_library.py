"""The C interface of MIT Kerberos's GSSAPI, as far as `ringfence_zones.gssapi` uses it. Linux only.

Why not a Python binding: none has a wheel for Linux, and they build against headers that servers do not have; the
library itself is on every machine with Kerberos. Sources: RFC 2744, and `gssapi/gssapi.h`, `gssapi/gssapi_ext.h`
(`gss_acquire_cred_from`, `gss_set_neg_mechs`) of MIT krb5 1.20.

Every C object has one owner here, which releases it: a context manager, or a class with `close`. Nothing is loaded
before the first call, and loading is refused with the package's name when the library is not there.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p

from ringfence_zones.errors import AuthenticationError, ConfigError

_LIBRARY = "libgssapi_krb5.so.2"

INITIATE, ACCEPT = 1, 2
COMPLETE, CONTINUE_NEEDED = 0, 1
INDEFINITE = 0xFFFFFFFF
MUTUAL_FLAG, REPLAY_FLAG, ANONYMOUS_FLAG, CHANNEL_BOUND_FLAG = 2, 4, 64, 2048

_GSS_CODE, _MECH_CODE = 1, 2
_MAX_STATUS_LINES = 8


class Buffer(ctypes.Structure):
    """`gss_buffer_desc`."""

    _fields_ = (("length", c_size_t), ("value", c_void_p))


class Oid(ctypes.Structure):
    """`gss_OID_desc`."""

    _fields_ = (("length", c_uint32), ("elements", c_char_p))


class _OidSet(ctypes.Structure):
    _fields_ = (("count", c_size_t), ("elements", POINTER(Oid)))


class _KeyValue(ctypes.Structure):
    _fields_ = (("key", c_char_p), ("value", c_char_p))


class _KeyValueSet(ctypes.Structure):
    _fields_ = (("count", c_uint32), ("elements", POINTER(_KeyValue)))


class ChannelBindings(ctypes.Structure):
    """`gss_channel_bindings_struct`; addresses stay unspecified (RFC 5929, RFC 4121 4.1.1.2)."""

    _fields_ = (
        ("initiator_addrtype", c_uint32),
        ("initiator_address", Buffer),
        ("acceptor_addrtype", c_uint32),
        ("acceptor_address", Buffer),
        ("application_data", Buffer),
    )


def _oid(encoded: bytes) -> Oid:
    return Oid(len(encoded), encoded)


# 1.3.6.1.5.5.2 and 1.2.840.113554.1.2.2, with the latter's principal names.
SPNEGO_ELEMENTS = b"\x2b\x06\x01\x05\x05\x02"
KRB5_ELEMENTS = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
_PRINCIPAL_NAME_ELEMENTS = KRB5_ELEMENTS + b"\x01"
# 1.2.840.113554.1.2.1.4
_HOST_SERVICE_ELEMENTS = b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x01\x04"


@functools.cache
def spnego() -> Oid:
    """The mechanism SPNEGO."""
    return _oid(SPNEGO_ELEMENTS)


@functools.cache
def krb5() -> Oid:
    """The mechanism Kerberos 5."""
    return _oid(KRB5_ELEMENTS)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library. Raises ConfigError with the package to install when it is not there."""
    try:
        loaded = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise ConfigError(
            f"Kerberos needs {_LIBRARY}, which is not on this machine",
            hint="install libgssapi-krb5-2 (Debian, Ubuntu) or krb5-libs (Amazon Linux, Red Hat)",
        ) from error
    _declare(loaded)
    return loaded


def _declare(loaded: ctypes.CDLL) -> None:
    minor, buffer, oid, name = POINTER(c_uint32), POINTER(Buffer), POINTER(Oid), c_void_p
    bindings, oids, out = POINTER(ChannelBindings), POINTER(_OidSet), POINTER(c_void_p)
    signatures: dict[str, list[object]] = {
        "gss_acquire_cred_from": [
            *(minor, name, c_uint32, oids, c_int, POINTER(_KeyValueSet), out, POINTER(c_void_p), POINTER(c_uint32))
        ],
        "gss_set_neg_mechs": [minor, c_void_p, oids],
        "gss_accept_sec_context": [
            *(minor, out, c_void_p, buffer, bindings, out, POINTER(POINTER(Oid)), buffer),
            *(POINTER(c_uint32), POINTER(c_uint32), out),
        ],
        "gss_init_sec_context": [
            *(minor, c_void_p, out, name, oid, c_uint32, c_uint32, bindings, buffer),
            *(POINTER(POINTER(Oid)), buffer, POINTER(c_uint32), POINTER(c_uint32)),
        ],
        "gss_inquire_context": [
            *(minor, c_void_p, out, out, POINTER(c_uint32), POINTER(POINTER(Oid))),
            *(POINTER(c_uint32), POINTER(c_int), POINTER(c_int)),
        ],
        "gss_import_name": [minor, buffer, oid, out],
        "gss_canonicalize_name": [minor, name, oid, out],
        "gss_display_name": [minor, name, buffer, POINTER(POINTER(Oid))],
        "gss_display_status": [minor, c_uint32, c_int, oid, POINTER(c_uint32), buffer],
        "gss_release_buffer": [minor, buffer],
        "gss_release_name": [minor, out],
        "gss_release_cred": [minor, out],
        "gss_delete_sec_context": [minor, out, buffer],
    }
    for function, arguments in signatures.items():
        entry = getattr(loaded, function)
        entry.argtypes = arguments
        entry.restype = c_uint32


def is_error(major: int) -> bool:
    """Whether a major status is more than a hint (`GSS_ERROR`)."""
    return bool(major & 0xFFFF0000)


def failure(doing: str, major: int, minor: int) -> AuthenticationError:
    """The library's own words for a status, after what was being done."""
    texts = [*_status_texts(_GSS_CODE, major), *(_status_texts(_MECH_CODE, minor) if minor else ())]
    return AuthenticationError(f"{doing}: {'; '.join(texts) or f'status {major:#x}'}")


def _status_texts(kind: int, code: int) -> list[str]:
    texts: list[str] = []
    more = c_uint32(0)
    for _ in range(_MAX_STATUS_LINES):
        text, minor = Buffer(), c_uint32()
        mechanism = krb5() if kind == _MECH_CODE else None
        if is_error(library().gss_display_status(byref(minor), code, kind, mechanism, byref(more), byref(text))):
            break
        texts.append(taken(text).decode("utf-8", "replace"))
        if not more.value:
            break
    return texts


def given(data: bytes) -> Buffer:
    """A buffer over bytes that the caller keeps alive."""
    return Buffer(len(data), ctypes.cast(c_char_p(data), c_void_p))


def taken(buffer: Buffer) -> bytes:
    """The bytes of a buffer that the library filled, which is released."""
    data = ctypes.string_at(buffer.value, buffer.length) if buffer.value else b""
    library().gss_release_buffer(byref(c_uint32()), byref(buffer))
    return data


def bindings_of(application_data: bytes | None) -> ChannelBindings | None:
    """Channel bindings with this application data, whose bytes the caller keeps alive; None without."""
    if application_data is None:
        return None
    bindings = ChannelBindings()
    bindings.application_data = given(application_data)
    return bindings


def display(name: c_void_p) -> tuple[str, bytes]:
    """A name as text, and the elements of its type's OID. Raises AuthenticationError."""
    text, kind, minor = Buffer(), POINTER(Oid)(), c_uint32()
    major = library().gss_display_name(byref(minor), name, byref(text), byref(kind))
    if is_error(major):
        raise failure("a Kerberos name cannot be shown", major, minor.value)
    return taken(text).decode("utf-8", "backslashreplace"), elements(kind)


def elements(oid: ctypes._Pointer[Oid]) -> bytes:
    """The encoded OID behind a pointer of the library's; b"" behind NULL."""
    if not ctypes.cast(oid, c_void_p).value or not oid.contents.length:
        return b""
    # Through the address: a char pointer's value would end at the first zero byte.
    address = ctypes.cast(ctypes.addressof(oid.contents) + Oid.elements.offset, POINTER(c_void_p)).contents
    return ctypes.string_at(address, oid.contents.length)


def is_principal(kind: bytes) -> bool:
    """Whether a name's type is that of Kerberos principals."""
    return kind == _PRINCIPAL_NAME_ELEMENTS


def released(name: c_void_p) -> None:
    """Releases a name; nothing happens to one that is not there."""
    if name.value:
        library().gss_release_name(byref(c_uint32()), byref(name))


@contextmanager
def service_name(service: str, host: str) -> Iterator[c_void_p]:
    """The name of a service on a host (`GSS_C_NT_HOSTBASED_SERVICE`): krb5.conf decides the realm."""
    with _imported(f"{service}@{host}", _HOST_SERVICE_ELEMENTS) as name:
        yield name


@contextmanager
def principal_name(principal: str) -> Iterator[c_void_p]:
    """The name of a principal; without `@REALM` it is in the default realm."""
    with _imported(principal, _PRINCIPAL_NAME_ELEMENTS) as name:
        yield name


@contextmanager
def _imported(text: str, kind: bytes) -> Iterator[c_void_p]:
    encoded = text.encode("utf-8")
    name, minor = c_void_p(), c_uint32()
    major = library().gss_import_name(byref(minor), byref(given(encoded)), byref(_oid(kind)), byref(name))
    if is_error(major):
        raise failure(f"{text} is no Kerberos name", major, minor.value)
    try:
        yield name
    finally:
        released(name)


def full_name(principal: str) -> str:
    """A principal with its realm: the default realm when none is given. Raises AuthenticationError without one."""
    with principal_name(principal) as name:
        canonical, minor = c_void_p(), c_uint32()
        major = library().gss_canonicalize_name(byref(minor), name, byref(krb5()), byref(canonical))
        if is_error(major):
            raise failure(f"the realm of {principal} is not known", major, minor.value)
        try:
            return display(canonical)[0]
        finally:
            released(canonical)


class Credential:
    """A credential of both mechanisms, of which SPNEGO may negotiate Kerberos alone (no NTLM, whatever is installed).

    `store` names where it comes from: `keytab` for the accepting side, `ccache` and `client_keytab` for the
    initiating one. Raises AuthenticationError with the library's reason.
    """

    def __init__(self, usage: int, store: Mapping[str, str], principal: str | None = None) -> None:
        self.handle = c_void_p()
        if principal is None:
            self._acquire(usage, store, None)
        else:
            with principal_name(principal) as name:
                self._acquire(usage, store, name)

    def _acquire(self, usage: int, store: Mapping[str, str], name: c_void_p | None) -> None:
        pairs = (_KeyValue * max(len(store), 1))(*(_KeyValue(k.encode(), v.encode()) for k, v in store.items()))
        found_in = _KeyValueSet(len(store), pairs) if store else None
        mechanisms = _OidSet(2, (Oid * 2)(spnego(), krb5()))
        minor = c_uint32()
        major = library().gss_acquire_cred_from(
            byref(minor), name, INDEFINITE, byref(mechanisms), usage, found_in, byref(self.handle), None, None
        )
        if is_error(major):
            raise failure("no Kerberos credentials", major, minor.value)
        negotiable = _OidSet(1, (Oid * 1)(krb5()))
        major = library().gss_set_neg_mechs(byref(minor), self.handle, byref(negotiable))
        if is_error(major):
            self.close()
            raise failure("SPNEGO cannot be kept to Kerberos", major, minor.value)

    def close(self) -> None:
        """Releases it; idempotent."""
        if self.handle.value:
            library().gss_release_cred(byref(c_uint32()), byref(self.handle))


def delete_context(context: c_void_p) -> None:
    """Deletes a security context; nothing happens to one that is not there."""
    if context.value:
        library().gss_delete_sec_context(byref(c_uint32()), byref(context), None)
