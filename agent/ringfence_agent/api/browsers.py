"""What a browser must not be made to do by somebody else's page: refused before anything else is looked at.

A browser that may ask the agent (through a forwarded socket, with a client certificate, a ticket or remembered
credentials) would ask with the same rights for any page that is open in it. Rules:

1. A request that the browser itself says comes from elsewhere (`Sec-Fetch-Site`, `Origin`) is refused; only following
   a link to the page is not, because nobody but the reader sees the answer.
2. Without TLS, which would prove the name, the `Host` must be a loopback name: a name of somebody else's that is made
   to lead to this machine (DNS rebinding) is refused. A forwarded port and the page's own door are `localhost`.

Programs send none of these headers, or a `Host` of their own making, `localhost` in all of ours. That says nothing
about who is asking: admission is the gate's, and comes after.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable

from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Application, ErrorRenderer, Response

_LOOPBACK = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
_LINKED = (b"/", b"/page/")


class BrowserGuard:
    """An `Application` of the HTTP core in front of another. `refuse` renders a status and a sentence."""

    def __init__(self, application: Application, refuse: ErrorRenderer) -> None:
        self._application = application
        self._refuse = refuse

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        problem = find_problem(request)
        return self._application(request) if problem is None else self._refuse(403, problem)


def find_problem(request: Request) -> str | None:
    """Why this must not be answered; None when nothing speaks against it."""
    headers = request.headers
    host = headers.get(b"host", b"")
    is_tls = request.peer.tls is not None
    if not is_tls and host and not _LOOPBACK.fullmatch(host):
        return "without TLS the agent answers to the name localhost alone: ask for http://localhost/..."
    site = headers.get(b"sec-fetch-site")
    if site is not None and site not in (b"same-origin", b"none") and not _is_link(request):
        return "this was asked for by a page from elsewhere"
    origin = headers.get(b"origin")
    if origin is not None and origin != (b"https://" if is_tls else b"http://") + host:
        return "this was asked for by a page from elsewhere"
    return None


def _is_link(request: Request) -> bool:
    headers = request.headers
    return (
        request.method == b"GET"
        and request.raw_path in _LINKED
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
    )
