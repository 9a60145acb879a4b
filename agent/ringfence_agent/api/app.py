"""The agent's HTTP API, version 1: what a step job or a command asks before it acts.

This is the one place where routes come together. Each router is made elsewhere, by a function that is given what it
answers from; here they get the description, the translation of errors and the gate in front.

The same pure function decides about moves here, in `ringfence mv` and in `ringfence policy decide-move`.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ringfence_agent.api import cluster, documents, moves, policy_routes
from ringfence_agent.api.asgi import AsgiApplication
from ringfence_agent.api.gate import Gate, Rates
from ringfence_agent.api.identify import Identifier
from ringfence_agent.api.problems import INTERNAL, Problem, document, problem_response
from ringfence_agent.api.view import ClusterView
from ringfence_zones.errors import RingfenceError

_PROBLEM: dict[str, Any] = {"model": documents.ProblemDocument, "description": "A problem document (RFC 9457)"}
_RESPONSES: dict[int | str, dict[str, Any]] = {"default": _PROBLEM}


def create_app(
    view: ClusterView,
    identifier: Identifier,
    *,
    routers: Iterable[APIRouter] = (),
    rates: Rates | None = None,
) -> AsgiApplication:
    """The API behind its gate: the routes that answer from `view` alone, and those of `routers`."""
    app = FastAPI(
        title="Ringfence agent",
        version=view.version,
        description=(__doc__ or "").partition("\n")[0],
        openapi_url="/v1/openapi.json",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        responses=_RESPONSES,
    )
    app.add_exception_handler(RingfenceError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    # Starlette raises it again afterwards, and the gate logs it.
    app.add_exception_handler(Exception, _on_bug)
    for router in (cluster.router(view), moves.router(view), policy_routes.router(view), *routers):
        app.include_router(router)
    return Gate(app, identifier, rates)


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RingfenceError)
    return problem_response(error)


async def _on_bug(_request: Request, _error: Exception) -> Response:
    return document(INTERNAL)


async def _on_bad_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Where and why, never the input itself: it comes back in logs of callers.
    problems = [{"where": ".".join(map(str, each["loc"])), "why": each["msg"]} for each in error.errors()]
    detail = "; ".join(f"{each['where']}: {each['why']}" for each in problems)
    return document(Problem(400, "bad-input", "The request cannot be used"), detail, errors=problems)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = document(Problem(error.status_code, "http", HTTPStatus(error.status_code).phrase), str(error.detail))
    answer.headers.update(error.headers or {})
    return answer
