"""One ticket from the KDC with a keytab's key, and how far the KDC's clock is from ours. Through MIT's libkrb5.

Source: `krb5/krb5.h` of MIT krb5 1.20. GSSAPI would do for the ticket, but it does not tell the time. The ticket is
never kept: no cache is written, in memory or elsewhere.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, byref, c_char_p, c_int32, c_void_p
from pathlib import Path

from ringfence_zones.errors import AuthenticationError, ConfigError

_LIBRARY = "libkrb5.so.3"
# sizeof(krb5_creds) is 128 on 64-bit Linux; the library alone looks inside.
_CREDS_BYTES = 1024


def ask_kdc(keytab: Path, principal: str) -> int:
    """Gets a ticket for `principal` (with its realm). Returns the seconds that the KDC's clock is ahead of ours.

    Blocks for as long as the library tries the realm's KDCs. Raises AuthenticationError with the library's reason, and
    ConfigError without the library.
    """
    krb5 = _library()
    with ExitStack() as stack:
        context = stack.enter_context(_context(krb5))
        client, keys = c_void_p(), c_void_p()
        _check(krb5, context, krb5.krb5_parse_name(context, principal.encode(), byref(client)))
        stack.callback(krb5.krb5_free_principal, context, client)
        _check(krb5, context, krb5.krb5_kt_resolve(context, f"FILE:{keytab}".encode(), byref(keys)))
        stack.callback(krb5.krb5_kt_close, context, keys)
        creds = ctypes.create_string_buffer(_CREDS_BYTES)
        _check(krb5, context, krb5.krb5_get_init_creds_keytab(context, creds, client, keys, 0, None, None))
        stack.callback(krb5.krb5_free_cred_contents, context, creds)
        seconds, microseconds = c_int32(), c_int32()
        _check(krb5, context, krb5.krb5_get_time_offsets(context, byref(seconds), byref(microseconds)))
        return seconds.value


@contextmanager
def _context(krb5: ctypes.CDLL) -> Iterator[c_void_p]:
    context = c_void_p()
    if krb5.krb5_init_context(byref(context)):
        raise AuthenticationError("krb5.conf cannot be read")
    try:
        yield context
    finally:
        krb5.krb5_free_context(context)


def _check(krb5: ctypes.CDLL, context: c_void_p, code: int) -> None:
    if code:
        message = krb5.krb5_get_error_message(context, code)
        text = ctypes.string_at(message).decode("utf-8", "replace")
        krb5.krb5_free_error_message(context, message)
        raise AuthenticationError(text)


def _library() -> ctypes.CDLL:
    try:
        krb5 = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise ConfigError(
            f"Kerberos needs {_LIBRARY}, which is not on this machine",
            hint="install libkrb5-3 (Debian, Ubuntu) or krb5-libs (Amazon Linux, Red Hat)",
        ) from error
    out = POINTER(c_void_p)
    for name, arguments in {
        "krb5_init_context": [out],
        "krb5_parse_name": [c_void_p, c_char_p, out],
        "krb5_kt_resolve": [c_void_p, c_char_p, out],
        "krb5_get_init_creds_keytab": [c_void_p, c_void_p, c_void_p, c_void_p, c_int32, c_char_p, c_void_p],
        "krb5_get_time_offsets": [c_void_p, POINTER(c_int32), POINTER(c_int32)],
        "krb5_get_error_message": [c_void_p, c_int32],
        "krb5_free_error_message": [c_void_p, c_void_p],
        "krb5_free_cred_contents": [c_void_p, c_void_p],
        "krb5_free_principal": [c_void_p, c_void_p],
        "krb5_kt_close": [c_void_p, c_void_p],
        "krb5_free_context": [c_void_p],
    }.items():
        getattr(krb5, name).argtypes = arguments
    krb5.krb5_get_error_message.restype = c_void_p
    return krb5
