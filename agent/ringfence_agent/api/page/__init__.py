"""The page that people look at: static files of this package, which draw what the API says.

Rules:

1. Read-only: nothing on the page, and no route here, changes anything.
2. Nothing from elsewhere and nothing made at run time: the content security policy admits the package's own script and
   style and the agent's own answers, and forbids inline code, frames, forms and turning text into markup. So the page
   works without internet, and a hostile name that reached the document would still run nothing.
3. No data in the page itself: what it shows comes from `/v1`, for the caller that the gate admitted. No token ever
   stands in an address; how a browser gets in is decision record 0034.

The files are read once, when the router is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import RedirectResponse, Response

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Assigning text to markup throws, whatever the text is.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
PAGE = "/page/"
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked again each time, and answered with 304: an agent of another version brings another page.
    "Cache-Control": "no-cache",
}
_MEDIA_TYPES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "graph.js": "text/javascript; charset=utf-8",
    "text.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str

    def answer(self, known: str | None) -> Response:
        headers = _HEADERS | {"ETag": self.etag}
        if known == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def router() -> APIRouter:
    """`/` leads to `/page/`, which is the page; the files it needs are beside it."""
    routes = APIRouter(include_in_schema=False)
    static = {name: _read(name, media_type) for name, media_type in _MEDIA_TYPES.items()}

    async def root() -> Response:
        return RedirectResponse(PAGE, status_code=307, headers=_HEADERS)

    routes.get("/")(root)
    for name, file in static.items():
        routes.get(PAGE if name == "page.html" else PAGE + name)(_route(file))
    return routes


def _route(file: _File) -> Callable[..., Awaitable[Response]]:
    async def answer(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        return file.answer(if_none_match)

    return answer


def _read(name: str, media_type: str) -> _File:
    content = files(__name__).joinpath(name).read_bytes()
    return _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
