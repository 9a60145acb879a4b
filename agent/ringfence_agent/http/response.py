"""One HTTP response, and the signature of an application.

A head (status, reason phrase, headers) is rendered once and shared by every response that uses it: the server adds
only Date, Connection and Content-Length. Header names keep the case they are given, and the reason phrase is the
caller's: old Hadoop clients look `Set-Cookie` up case-sensitively, and newer ones decide by the reason phrase of a
403 whether to drop their token (`KMSClientProvider.call`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

from ringfence_agent.http.request import Request

# RFC 9110 5.6.2 `token`, and 5.5 `field-value` as latin-1.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_NOT_IN_REASON = re.compile(r"[^\t\x20-\x7e\xa0-\xff]+")
# The server's own: an application that sets one would contradict the framing on the wire.
_SERVER_HEADERS = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding"})
_NO_CONTENT = (204, 304)


class ResponseHead:
    """Status line and headers, checked and rendered once. Immutable.

    `reason` is the reason phrase; None takes the registered one. Line breaks and other control characters in it
    become blanks, because it often quotes what a client sent. Header names and values that are not clean raise
    ValueError: quoting a client there is a bug of the caller.
    """

    __slots__ = ("has_content", "headers", "reason", "rendered", "status")

    def __init__(self, status: int, reason: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"{status} is not the status of a final response")
        self.status = status
        self.reason = _NOT_IN_REASON.sub(" ", _registered_reason(status) if reason is None else reason)
        self.headers = tuple(headers)
        # 204 and 304 carry neither a body nor a Content-Length.
        self.has_content = status not in _NO_CONTENT
        lines = [f"HTTP/1.1 {status} {self.reason}"]
        lines += [_header_line(name, value) for name, value in self.headers]
        self.rendered = ("\r\n".join(lines) + "\r\n").encode("latin-1")

    def with_headers(self, *headers: tuple[str, str]) -> ResponseHead:
        """A copy with these headers appended; several Set-Cookie headers stay several."""
        return ResponseHead(self.status, self.reason, (*self.headers, *headers))

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status}>"


class Response:
    """What the application answers. `close` asks for the connection to be closed after it.

    `on_written` is called once the answer was handed to the connection; never when the client had gone before, nor when
    something else was answered in its place.

    The body of an answer to HEAD is not sent; its length is. With a status that has no content (204, 304) the body
    must be empty.
    """

    __slots__ = ("body", "close", "head", "on_written")

    def __init__(
        self,
        head: ResponseHead,
        body: bytes = b"",
        *,
        close: bool = False,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        self.head = head
        self.body = body
        self.close = close
        self.on_written = on_written

    def with_head(self, head: ResponseHead) -> Response:
        """The same answer under another head."""
        return Response(head, self.body, close=self.close, on_written=self.on_written)

    def __repr__(self) -> str:
        return f"<Response {self.head.status} {len(self.body)} bytes>"


# Called on the event loop once a request is complete. A plain Response is written at once: nothing on this path may
# block. An awaitable answers later, in order: requests pipelined behind it on the same connection wait. It always runs
# to its end, even when the client has gone, so what must happen after a commit does happen. A `Promise` is one that
# takes no task.
Application = Callable[[Request], "Response | Awaitable[Response]"]

# Renders what the server itself has to answer: (status, sentence) for 400, 408, 413, 417, 431, 500, 501, 503.
ErrorRenderer = Callable[[int, str], Response]


def plain_error(status: int, sentence: str) -> Response:
    """The sentence as plain text."""
    return Response(ResponseHead(status, headers=[("Content-Type", "text/plain; charset=utf-8")]), sentence.encode())


def _registered_reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _header_line(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name) or name.lower() in _SERVER_HEADERS:
        raise ValueError(f"{name!r} is not a header that an application may set")
    if not _FIELD_VALUE.fullmatch(value):
        # The value itself may be a cookie or a token: it is not quoted.
        raise ValueError(f"the value of header {name} holds a character that a header cannot carry")
    return f"{name}: {value}"
