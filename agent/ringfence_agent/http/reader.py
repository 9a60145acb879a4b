"""Bytes of one connection to whole requests, with every bound on the way: the callbacks of llhttp (httptools).

Framing that two parsers could read differently is refused, because a proxy in front might have read it the other
way: a repeated Content-Length, Content-Length with Transfer-Encoding, bare line feeds, folded headers, a body behind
`Upgrade`. Trailers are read and dropped: they must not add headers after the head was judged.

A head that came before is recognised by its bytes and not parsed again (`known_heads`). That must be
indistinguishable: a property test feeds the same bytes whole and one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httptools

from ringfence_agent.http.known_heads import HEAD_END
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.service import HttpService

IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2

# The parser cannot be stopped inside a call, so its owner feeds it slices of at most this, with the bounds checked in
# between.
SLICE_BYTES = 16 * 1024
# A chunk of one byte costs six on the wire. More overhead than this per body byte is an attack, not a client.
_FRAMING_BYTES_PER_BODY_BYTE = 8
_HEAD_END_BYTES = len(HEAD_END)
# Repeating one of these is never a list: it is two opinions about where or who.
_SINGLE = frozenset({b"authorization", b"content-length", b"content-type", b"host", b"transfer-encoding"})


class RefusedRequestError(Exception):
    """The server itself answers this, and the connection ends. Never leaves the HTTP core."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class RequestReader:
    """Feeds one connection's bytes to the parser and calls `on_request`, which must not raise, for each request.

    phase         IDLE, HEAD or BODY: where in a message the input stands
    began         when the present message began, by the service's coarse clock
    continue_due  the client waits for `100 Continue` before it sends the body; whoever sends that clears it
    """

    __slots__ = (
        "_body",
        "_head_bytes",
        "_headers",
        "_is_over",
        "_latest",
        "_on_request",
        "_parser",
        "_parts",
        "_parts_bytes",
        "_peer",
        "_repeated",
        "_service",
        "_url",
        "_wire_bytes",
        "began",
        "continue_due",
        "phase",
    )

    def __init__(self, service: HttpService, peer: Peer, on_request: Callable[[Request], None]) -> None:
        self._service = service
        self._peer = peer
        self._on_request = on_request
        self.phase = IDLE
        self.began = 0.0
        self.continue_due = False
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated = 0
        self._head_bytes = 0
        # What arrived of the present body, framing included.
        self._wire_bytes = 0
        self._body = b""
        # Only for a body that comes in several pieces, the first included.
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._latest: Request | None = None
        # The parser takes no further request; neither may the short cut.
        self._is_over = False
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Parses at most SLICE_BYTES. Raises RefusedRequestError; after that, feed nothing more."""
        parser = self._parser
        if parser is None:
            return
        between_messages = self.phase == IDLE and not self._is_over
        if between_messages:
            # Without the blank line this is the first bytes of a head, which are no head that is known.
            head_bytes = data.find(HEAD_END) + _HEAD_END_BYTES
            known = self._service.known_heads.get(data[:head_bytes])
            if known is not None and head_bytes + known.body_bytes == len(data):
                method, path, query, headers, _ = known
                self._on_request(Request(method, path, query, headers, data[head_bytes:], self._peer, True))
                return
        # One left over from an earlier call would be remembered for bytes that are not its head.
        self._latest = None
        rest = b""
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The offer is declined by ignoring it (RFC 9110 7.8); what follows is HTTP/1.1 as before.
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise _cause(error) from None
        if rest:
            # Not inside the handler above: the exception it handles would take the place of a callback's own.
            self.feed(rest)
            return
        if self.phase != IDLE:
            self._check_unfinished(len(data))
        elif between_messages:
            self._keep_head(data)
        self._latest = None

    def close(self) -> None:
        """Drops what was read of an unfinished request. Idempotent."""
        # Breaks the cycle with the parser: connections are freed when they end, not when the collector comes.
        self._parser = None
        self._drop_parts()
        self._body = b""

    def _keep_head(self, data: bytes) -> None:
        if self._latest is not None and not self._is_over:
            self._service.known_heads.keep(data, self._latest)

    def _check_unfinished(self, fed_bytes: int) -> None:
        """Bounds for a message that has not ended with the bytes just fed."""
        limits = self._service.limits
        if self.phase == HEAD:
            self._head_bytes += fed_bytes
            if self._head_bytes > limits.head_bytes + SLICE_BYTES or len(self._headers) > limits.header_count:
                raise RefusedRequestError(431, f"the request's headers exceed {limits.head_bytes} bytes")
            return
        self._wire_bytes += fed_bytes
        body_bytes = len(self._body) + self._parts_bytes
        if self._wire_bytes > limits.head_bytes + SLICE_BYTES + _FRAMING_BYTES_PER_BODY_BYTE * body_bytes:
            raise RefusedRequestError(400, "the request's body is nearly all framing")

    # -- callbacks of the parser, in the order of a message

    def on_message_begin(self) -> None:
        self.phase = HEAD
        self._headers = {}
        self.began = self._service.now

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        name = name.lower()
        if name in headers:
            self._add_repeated(name, value)
        elif self.phase == HEAD:
            headers[name] = value.rstrip()

    def _add_repeated(self, name: bytes, value: bytes) -> None:
        if self.phase != HEAD:
            return  # a trailer
        if name in _SINGLE:
            raise RefusedRequestError(400, f"header {name.decode('ascii')} is given more than once")
        self._repeated += 1
        if self._repeated > self._service.limits.header_count:
            raise RefusedRequestError(431, "the request has too many headers")
        separator = b"; " if name == b"cookie" else b", "
        self._headers[name] += separator + value.rstrip()

    def on_headers_complete(self) -> None:
        headers = self._headers
        self.phase = BODY
        self._head_bytes = self._wire_bytes = self._repeated = 0
        if b"host" not in headers and self._version() != "1.0":
            raise RefusedRequestError(400, "an HTTP/1.1 request needs a Host header")
        if len(headers) > self._service.limits.header_count:
            raise RefusedRequestError(431, "the request has too many headers")
        length = headers.get(b"content-length")
        # Only spares an upload that on_body would stop anyway; hence no int() for a usual, small one.
        if length is not None and len(length) > 4 and int(length) > self._service.limits.body_bytes:
            raise self._too_large()
        if b"transfer-encoding" in headers or b"upgrade" in headers or b"expect" in headers or self._url[:1] != b"/":
            self._check_rare(headers)

    def _check_rare(self, headers: dict[bytes, bytes]) -> None:
        parser = self._parser
        coding = headers.get(b"transfer-encoding")
        version = self._version()
        if coding is not None:
            if version == "1.0" or b"content-length" in headers:
                raise RefusedRequestError(400, "Transfer-Encoding cannot be combined with this request")
            if coding.lower() != b"chunked":
                raise RefusedRequestError(501, "the only transfer coding is chunked")
        has_body = coding is not None or headers.get(b"content-length", b"").strip(b"0") != b""
        if parser is not None and parser.should_upgrade() and (has_body or parser.get_method() == b"CONNECT"):
            raise RefusedRequestError(501, "this server does not switch protocols")
        expect = headers.get(b"expect")
        if expect is not None and version != "1.0":
            if expect.lower() != b"100-continue":
                raise RefusedRequestError(417, "the only expectation is 100-continue")
            self.continue_due = has_body

    def on_body(self, body: bytes) -> None:
        if self._body:
            self._add_body_part(body)
        else:
            self._body = body
        if len(self._body) + self._parts_bytes > self._service.limits.body_bytes:
            raise self._too_large()

    def _add_body_part(self, part: bytes) -> None:
        service = self._service
        self._parts.append(part)
        self._parts_bytes += len(part)
        service.held_body_bytes += len(part)
        if service.held_body_bytes > service.limits.held_body_bytes:
            raise RefusedRequestError(503, "too many large requests are under way; try again")

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None:
            return
        keep_alive = parser.should_keep_alive()
        if not keep_alive:
            self._is_over = True
            if self._version() not in ("1.1", "1.0"):
                raise RefusedRequestError(505, "this server speaks HTTP/1.1")
        body = self._body
        if self._parts:
            body += b"".join(self._parts)
            self._drop_parts()
        path, _, query = self._url.partition(b"?")
        if path[:1] != b"/":
            path = _origin_path(path)
        self._url = self._body = b""
        self.phase = IDLE
        self.continue_due = False
        request = Request(parser.get_method(), path, query, self._headers, body, self._peer, keep_alive)
        self._latest = request
        self._on_request(request)

    def _drop_parts(self) -> None:
        self._service.held_body_bytes -= self._parts_bytes
        self._parts_bytes = 0
        self._parts = []

    def _version(self) -> str:
        return self._parser.get_http_version() if self._parser is not None else ""

    def _too_large(self) -> RefusedRequestError:
        return RefusedRequestError(413, f"the request's body exceeds {self._service.limits.body_bytes} bytes")


def _cause(error: httptools.HttpParserError) -> BaseException:
    """What a callback raised, which the parser hands on as its own error's context; else a refusal of the bytes."""
    if isinstance(error, httptools.HttpParserCallbackError) and error.__context__ is not None:
        return error.__context__
    return RefusedRequestError(400, "this is not a well-formed HTTP/1.1 request")


def _origin_path(path: bytes) -> bytes:
    """The path of an absolute-form target (RFC 9112 3.2.2); `*` stays as it is."""
    _, scheme_mark, rest = path.partition(b"://")
    if not scheme_mark:
        return path
    _, slash, tail = rest.partition(b"/")
    return slash + tail if slash else b"/"
