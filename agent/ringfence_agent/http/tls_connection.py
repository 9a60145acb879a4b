"""TLS on one connection: between the socket's transport and the HTTP protocol, over OpenSSL in memory.

It is the protocol of the one and the transport of the other. The event loop has TLS of its own, and this does without
it for what a key server needs and that does not offer:

1. A connection counts against the limits from its first byte on, not only after the handshake, and has a deadline.
2. A half-closed client gets its answers, and an early refusal (413) reaches a client that is still sending: after our
   own close_notify the connection lingers like a plain one.
3. A client that speaks plain HTTP to this port is told so instead of being cut off.
4. An idle connection costs what OpenSSL needs, and no buffers of 256 KiB.

It refuses to renegotiate, and to close without close_notify unless it is told to abort.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import Any, cast

from cryptography import x509
from cryptography.x509.oid import NameOID

from ringfence_agent.http.protocol import HttpProtocol
from ringfence_agent.http.request import TLS_PEER, TlsPeer
from ringfence_agent.http.service import HttpService

_log = logging.getLogger(__name__)

# More than a record holds: each read gives one record's bytes, at most 16 KiB.
_READ_BYTES = 32 * 1024
_HANDSHAKE_RECORD = 0x16
_PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\nContent-Length: 46\r\n\r\n"
    b"this port speaks HTTPS: use an https address\r\n"
)


class TlsConnection(asyncio.Protocol, asyncio.Transport):
    """One connection. `protocol` is told of it when the handshake is done, and never when it fails.

    `context` is the server's; `binding` is what the client's view of its certificate is compared with (`TlsPeer`).
    """

    __slots__ = (
        "_binding",
        "_connected",
        "_eof",
        "_incoming",
        "_outgoing",
        "_protocol",
        "_service",
        "_since",
        "_spoke",
        "_tls",
        "_wire",
        "_write_ended",
    )

    def __init__(
        self, service: HttpService, context: ssl.SSLContext, binding: bytes | None, protocol: HttpProtocol
    ) -> None:
        super().__init__()
        self._service = service
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._binding = binding
        self._protocol = protocol
        self._wire: asyncio.Transport | None = None
        self._since = 0.0
        # The client has sent its first byte; then: the handshake is done and the protocol has been told.
        self._spoke = False
        self._connected = False
        # The client has said or shown that it sends nothing more.
        self._eof = False
        # Our close_notify is out: nothing can be written any more, and what comes in is dropped.
        self._write_ended = False

    # -- the protocol of the socket's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        self._since = self._service.now
        self._service.connections[self] = None
        if not self._service.make_room():
            # Saying 503 would cost a handshake, which is what a flood of connections is after.
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.connections.pop(self, None)
        self._wire = None
        if self._connected:
            self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._write_ended or self._wire is None:
            return
        if self._connected:
            self._incoming.write(data)
            self._read()
        elif not self._spoke and data[0] != _HANDSHAKE_RECORD:
            self._turn_away(data)
        else:
            self._spoke = True
            self._incoming.write(data)
            self._shake_hands()

    def eof_received(self) -> bool:
        return self._connected and self._end_reading()

    def pause_writing(self) -> None:
        if self._connected:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._connected:
            self._protocol.resume_writing()

    # -- in between

    def _turn_away(self, data: bytes) -> None:
        """What came is no TLS. A client that speaks HTTP is told; the connection ends."""
        if self._wire is not None:
            if data[:1].isalpha():
                self._wire.write(_PLAIN_HTTP_ANSWER)
            self._wire.close()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail("handshake", error)
            return
        self._flush()
        if self._wire is None:
            return
        self._connected = True
        self._service.connections.pop(self, None)
        self._protocol.connection_made(self)
        if self._incoming.pending:
            self._read()

    def _read(self) -> None:
        """Hands on what can be decrypted. One call of OpenSSL and no exception for a request that came whole."""
        tls, incoming = self._tls, self._incoming
        while not self._write_ended and self._wire is not None:
            try:
                data = tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                self._fail("connection", error)
                return
            if not data:
                if not self._eof:
                    self._end_reading()
                break
            self._protocol.data_received(data)
            if not incoming.pending:
                break  # nor does OpenSSL keep any: a read takes all of a record
        if self._outgoing.pending:
            self._flush()  # the answer to a change of keys

    def _end_reading(self) -> bool:
        """The client sends nothing more. Returns whether answers to it are still on their way; closes otherwise."""
        if not self._eof:
            self._eof = True
            if not self._protocol.eof_received():
                self.close()
        return not self._write_ended

    def _fail(self, what: str, error: ssl.SSLError) -> None:
        _log.info("TLS %s with %s failed: %s", what, self._address(), error.reason or type(error).__name__)
        self._write_ended = True
        self._flush()  # the alert that tells the client why
        if self._wire is not None:
            self._wire.close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._wire is not None:
            self._wire.write(self._outgoing.read())

    def _address(self) -> str:
        name = self._wire.get_extra_info("peername") if self._wire is not None else None
        return str(name[0]) if name else "a client that left"

    # -- the transport of HttpProtocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts and sends. Nothing more is sent once the writing side was ended."""
        if self._write_ended or self._wire is None:
            return
        try:
            written = self._tls.write(data)
            while written < len(data):  # one record at a time
                written += self._tls.write(memoryview(data)[written:])
        except ssl.SSLError as error:
            self._fail("connection", error)
            return
        self._wire.write(self._outgoing.read())

    def write_eof(self) -> None:
        """Says close_notify and half-closes; what still comes in is dropped."""
        self._end_writing()
        if self._wire is not None:
            self._wire.write_eof()

    def can_write_eof(self) -> bool:
        return self._wire is not None and self._wire.can_write_eof()

    def close(self) -> None:
        """Says close_notify, sends what was written, closes; waits for no answer to it (RFC 8446 6.1)."""
        self._end_writing()
        if self._wire is not None:
            self._wire.close()

    def _end_writing(self) -> None:
        if self._connected and not self._write_ended:
            self._write_ended = True
            with suppress(ssl.SSLError):  # that the client's close_notify is not here yet
                self._tls.unwrap()
            self._flush()

    def abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def is_closing(self) -> bool:
        return self._wire is None or self._wire.is_closing()

    def pause_reading(self) -> None:
        if self._wire is not None:
            self._wire.pause_reading()

    def resume_reading(self) -> None:
        if self._wire is not None:
            self._wire.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._wire is not None:
            self._wire.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._wire.get_write_buffer_size() if self._wire is not None else 0

    def get_extra_info(self, name: str, default: object = None) -> Any:
        if name == TLS_PEER:
            return self._find_tls_peer()
        return self._wire.get_extra_info(name, default) if self._wire is not None else default

    def _find_tls_peer(self) -> TlsPeer:
        version = self._tls.version() or ""
        # With verification off a client is not asked for one, and nothing it might send is believed.
        verified = self._tls.context.verify_mode != ssl.CERT_NONE
        certificate = self._tls.getpeercert(binary_form=True) if verified else None
        if certificate is None:
            return TlsPeer(version, self._binding)
        subject = x509.load_der_x509_certificate(certificate).subject
        names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        only = names[0] if len(names) == 1 and names[0].isprintable() else None
        return TlsPeer(version, self._binding, subject.rfc4514_string(), only)

    # -- the server's books, until the handshake is done

    def expire(self, now: float) -> None:
        """Called by the server's sweep: a handshake has the time that the head of a request has."""
        if now - self._since > self._service.limits.head_timeout_s:
            self.abort()

    def retire(self, now: float, quiet_s: float) -> None:
        """While draining: a client that has not even shaken hands is let go soon."""
        if now - self._since > quiet_s:
            self.abort()

    def waiting_since(self) -> tuple[bool, float] | None:
        return None if self.is_closing() else (False, self._since)

    def let_go(self) -> None:
        self.abort()
