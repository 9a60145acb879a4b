"""HTTP/1.1 to one address of Vault: requests out, whole answers in, over connections that stay open.

Rules:

1. One request at a time on a connection. What comes unasked, or behind an answer, ends the connection: it could only
   be taken for the answer to another request.
2. Everything is bounded: the head of an answer, its body, its framing, and the time of each phase. A request that was
   given up, by deadline or by its caller, ends its connection.
3. Nothing of the environment counts: no proxy, no authority from SSL_CERT_FILE, no SSLKEYLOGFILE.
4. An answer never shows its body: an answer of Transit can hold keys whatever its status is.

It refuses to follow a redirect (to this module that is an answer like any other), to switch protocols, and to take
the end of a connection for the end of an answer. It sends requests a second time only where a connection that had
been idle turns out to be closed.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools

from ringfence_zones.errors import ConfigError

HEAD_BYTES = 32 * 1024
# 240 items, the most that one call can carry, make less than 64 KiB.
BODY_BYTES = 1024 * 1024
# Vault keeps idle connections for minutes, but what stands in between may forget them without a word.
_IDLE_S = 30.0
_CONNECTIONS = 16


class NoAnswerError(Exception):
    """No usable answer came. `reason` continues "Vault at ADDRESS ...". Never leaves this package.

    stale  the connection was closed before anything of an answer came
    hasty  the caller left less time than an answer may take: it says nothing about the server
    """

    def __init__(self, reason: str, *, stale: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stale = stale
        self.hasty = False


class Answer:
    """A whole answer. `retry_after_s` is the header's whole seconds, None without one."""

    __slots__ = ("body", "retry_after_s", "status")

    def __init__(self, status: int, body: bytes, retry_after_s: float | None = None) -> None:
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        return f"<Answer {self.status}, {len(self.body)} bytes>"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one node listens: `host` and `port`, or the Unix `socket` of a Vault Agent. `label` is for messages."""

    label: str
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    socket: Path | None = None

    @classmethod
    def at_url(cls, url: str, tls: ssl.SSLContext | None) -> Endpoint:
        """`url` as `VaultSettings.addresses` has it: scheme, host and port. `tls` is for https."""
        parts = urlsplit(url)
        return cls(url, parts.hostname or "", parts.port or 0, tls if parts.scheme == "https" else None)

    @classmethod
    def at_socket(cls, socket: Path) -> Endpoint:
        """The socket of a Vault Agent: plain HTTP, for the kernel knows both ends."""
        return cls(f"the Vault Agent's socket {socket}", socket=socket)

    @property
    def host_header(self) -> bytes:
        """The Host of a request."""
        if self.socket is not None:
            return b"localhost"
        host = self.host.encode("ascii" if self.host.isascii() else "idna")
        return b"[%b]:%d" % (host, self.port) if b":" in host else b"%b:%d" % (host, self.port)


def make_tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer with certificate and host name checked: by the authority in `ca_file` (PEM) alone, or without
    one by the system's. Raises ConfigError.
    """
    # Not ssl.create_default_context, which writes the session's keys to the file that SSLKEYLOGFILE names.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        places = ssl.get_default_verify_paths()  # the openssl_* ones are built in, the others the environment's
        found = [path if Path(path).exists() else None for path in (places.openssl_cafile, places.openssl_capath)]
        if found == [None, None]:
            raise ConfigError(
                "this system has no certificate authorities to check Vault's certificate by",
                hint="name the PEM file of Vault's authority as vault.ca_file",
            )
        context.load_verify_locations(*found)
        return context
    try:
        context.load_verify_locations(str(ca_file))
    except OSError as error:  # SSLError is one
        why = "it holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"cannot use {ca_file} as vault.ca_file: {why}", hint="name a PEM file of the authority"
        ) from error
    return context


class _Connection(asyncio.Protocol):
    """One connection, and the parser's callbacks. Belongs to a pool."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_complete",
        "_head_done",
        "_keep_alive",
        "_parser",
        "_problem",
        "_retry_after_s",
        "_transport",
        "_waiter",
        "_wire_bytes",
        "idle_since",
    )

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._wire_bytes = self._body_bytes = 0
        self._body: list[bytes] = []
        self._retry_after_s: float | None = None
        self._head_done = self._complete = self._keep_alive = False
        self._problem = ""

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer came whole and another request may follow it."""
        transport = self._transport
        return self._complete and self._keep_alive and transport is not None and not transport.is_closing()

    async def exchange(self, request: bytes, deadline: float) -> Answer:
        """Sends a request and waits for its answer until `deadline` (the loop's time). Raises NoAnswerError."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise NoAnswerError("closed the connection", stale=True)
        loop = asyncio.get_running_loop()
        self._reset()
        waiter: asyncio.Future[Answer] = loop.create_future()
        self._waiter = waiter
        timer = loop.call_at(deadline, self._fail, "did not answer in time")
        transport.write(request)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None
            if not self.is_reusable:
                self.abort()

    def abort(self) -> None:
        """Closes at once."""
        self._parser = None  # breaks the cycle with it
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str, *, stale: bool = False) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(NoAnswerError(reason, stale=stale))
        self.abort()

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        cut = self._wire_bytes > 0
        self._fail("broke off in the middle of an answer" if cut else "closed the connection", stale=not cut)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self._waiter is None:
            self.abort()  # nobody asked
            return
        self._wire_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("offers to speak another protocol")
            return
        except httptools.HttpParserError:
            self._fail("answers with what is not HTTP/1.1")
            return
        # Framing must not outweigh what it frames.
        if self._wire_bytes > HEAD_BYTES + (2 * BODY_BYTES if self._head_done else 0):
            self._problem = self._problem or "answers with more than it may"
        if self._problem:
            self._fail(self._problem)
        elif self._complete and not self._waiter.done():
            body, self._body = b"".join(self._body), []  # it may hold keys, and the connection may stay for long
            self._waiter.set_result(Answer(parser.get_status_code(), body, self._retry_after_s))

    # -- callbacks of the parser, in the order of a message

    def on_message_begin(self) -> None:
        if self._complete:
            self._problem = "sends more than was asked for"

    def on_header(self, name: bytes, value: bytes) -> None:
        # Whole seconds only: Vault sends no dates.
        if len(name) == 11 and name.lower() == b"retry-after" and value.isdigit() and len(value) < 6:
            self._retry_after_s = float(value)

    def on_headers_complete(self) -> None:
        self._head_done = True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES:
            self._problem = "answers with more than it may"
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None:
            return
        if parser.get_status_code() < 200:
            self._head_done = False  # an interim answer: the final one follows
            return
        self._complete = True
        self._keep_alive = parser.should_keep_alive()


class ConnectionPool:
    """The connections to one endpoint: at most 16, the last used first. On one event loop.

    in_flight  how many requests are under way
    """

    def __init__(self, endpoint: Endpoint, connect_s: float) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self._connect_s = connect_s
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(_CONNECTIONS)

    async def exchange(self, request: bytes, deadline: float) -> Answer:
        """One request and its answer until `deadline` (the loop's time). Raises NoAnswerError.

        The request may be sent twice: only for what changes nothing.
        """
        self.in_flight += 1
        try:
            if self._slots.locked():
                await self._wait_for_slot(deadline)
            else:
                await self._slots.acquire()
            try:
                return await self._exchange(request, deadline)
            finally:
                self._slots.release()
        finally:
            self.in_flight -= 1

    async def _wait_for_slot(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise NoAnswerError("did not answer in time") from None

    async def _exchange(self, request: bytes, deadline: float) -> Answer:
        connection = self._take_idle()
        if connection is not None:
            try:
                return await self._exchange_on(connection, request, deadline)
            except NoAnswerError as error:
                if not error.stale:
                    raise
        return await self._exchange_on(await self._connect(deadline), request, deadline)

    async def _exchange_on(self, connection: _Connection, request: bytes, deadline: float) -> Answer:
        answer = await connection.exchange(request, deadline)
        if connection.is_reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        return answer

    def _take_idle(self) -> _Connection | None:
        if not self._idle:
            return None
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.pop(0).abort()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self, deadline: float) -> _Connection:
        endpoint, loop = self.endpoint, asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + self._connect_s)):
                if endpoint.socket is not None:
                    return (await loop.create_unix_connection(_Connection, str(endpoint.socket)))[1]
                name = endpoint.host if endpoint.tls is not None else None
                return (
                    await loop.create_connection(
                        _Connection, endpoint.host, endpoint.port, ssl=endpoint.tls, server_hostname=name
                    )
                )[1]
        except TimeoutError:
            raise NoAnswerError("did not accept a connection in time") from None
        except ssl.SSLCertVerificationError as error:
            raise NoAnswerError(f"has a certificate that is not trusted: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise NoAnswerError(f"does not agree on TLS: {error.reason or 'it broke off'}") from None
        except OSError as error:
            # asyncio writes texts of its own into strerror; a failed look-up of the name has a negative number.
            known = error.errno is not None and error.errno > 0
            why = os.strerror(error.errno or 0) if known else error.strerror
            raise NoAnswerError(f"cannot be reached: {why or 'none of its addresses takes connections'}") from None

    async def close(self) -> None:
        """Closes the idle connections; those in use end with their requests."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)  # the loop closes a socket in its next turn
