"""The agent's HTTP API, version 1: what a step job or a command asks before it acts.

Everything is answered from the loop's last snapshot: no request reaches the NameNode or the KMS, so none can be slow
or be used to load them. A snapshot that is too old is no answer (503). Nothing here changes anything.

The same pure function decides here, in `ringfence mv` and in `ringfence policy decide-move`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ringfence_agent.api import documents
from ringfence_agent.api.access import AccessRules, Accounts, Caller
from ringfence_agent.api.asgi import AsgiApplication
from ringfence_agent.api.gate import CALLER, Gate
from ringfence_agent.api.problems import INTERNAL, Problem, document, problem_response
from ringfence_agent.snapshot import Board
from ringfence_zones.errors import RingfenceError
from ringfence_zones.findings import findings_json
from ringfence_zones.moves import ZoneMap, decide_move
from ringfence_zones.paths import MAX_PATH_BYTES, HdfsPath

_PROBLEM: dict[str, Any] = {"model": documents.ProblemDocument, "description": "A problem document (RFC 9457)"}
_RESPONSES: dict[int | str, dict[str, Any]] = {"default": _PROBLEM}


def create_app(
    board: Board,
    rules: AccessRules,
    *,
    version: str,
    accounts: Accounts,
    default_fs: str | None = None,
) -> AsgiApplication:
    """The API behind its gate. `default_fs` is the cluster's `fs.defaultFS`, so that URIs of it are understood."""
    app = FastAPI(
        title="Ringfence agent",
        version=version,
        description=__doc__.partition("\n")[0],
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
    routes = _Routes(board, version, default_fs, accounts)
    app.get("/v1/health", response_model=documents.Health, summary="Live and ready")(routes.health)
    app.get("/v1/zones", response_model=documents.Zones, summary="Every encryption zone")(routes.zones)
    app.get("/v1/zones/of", response_model=documents.ZoneOf, summary="The zone of a path")(routes.zone_of)
    app.post("/v1/moves/check", response_model=documents.MoveAnswer, summary="May this be moved?")(routes.check_move)
    app.get("/v1/findings", response_model=documents.Findings, summary="What is not as it should be")(routes.findings)
    return Gate(app, rules)


def _caller(request: Request) -> Caller:
    caller = request.scope["state"][CALLER]
    assert isinstance(caller, Caller)
    return caller


class _Routes:
    """One method per resource. All are coroutines without a wait: each is a moment on the event loop."""

    def __init__(self, board: Board, version: str, default_fs: str | None, accounts: Accounts) -> None:
        self._board = board
        self._version = version
        self._default_fs = default_fs
        self._accounts = accounts
        self._mapped: tuple[object, ZoneMap] | None = None

    async def health(self) -> Response:
        """200 while the loop runs, 503 when it does not; `ready` says whether questions are answered."""
        board, snapshot = self._board, self._board.snapshot
        live = board.is_live()
        body = {
            "live": live,
            "ready": board.is_ready(),
            "version": self._version,
            "mode": snapshot.policy.agent.mode if snapshot.policy else None,
            "cycle": snapshot.cycle,
            "cycle_age_s": round(board.cycle_age_s(), 3),
            "sentence": snapshot.sentence,
            "findings": len(snapshot.findings),
        }
        return JSONResponse(body, status_code=200 if live else 503)

    async def zones(self) -> Response:
        """Every encryption zone of the cluster, by path."""
        state = self._board.fresh_state()
        return JSONResponse({"zones": [self._zone(zone.path, zone.key_name) for zone in state.zones]})

    async def zone_of(self, path: Annotated[str, Query(max_length=MAX_PATH_BYTES)]) -> Response:
        """The innermost zone that holds a path. The path need not exist; a zone's root is in its zone."""
        state = self._board.fresh_state()
        parsed = HdfsPath.parse(path, default_fs=self._default_fs)
        root = self._map(state.zones).find_zone_of(parsed.live)
        zone = state.zone_at(str(root)) if root is not None else None
        return JSONResponse(
            {"path": str(parsed), "zone": self._zone(zone.path, zone.key_name) if zone is not None else None}
        )

    async def check_move(
        self, question: documents.MoveQuestion, caller: Annotated[Caller, Depends(_caller)]
    ) -> Response:
        """Whether the caller (or `user`, for those who may ask for others) may move `src` to `dst`."""
        user = caller.user_or_delegate(question.user)
        state = self._board.fresh_state()
        decision = decide_move(
            self._board.snapshot.policy,
            self._map(state.zones),
            user=user,
            groups=self._accounts.groups_of(user),
            src=HdfsPath.parse(question.src, default_fs=self._default_fs),
            dst=HdfsPath.parse(question.dst, default_fs=self._default_fs),
        )
        return JSONResponse(decision.to_json())

    async def findings(self) -> Response:
        """The findings of the last cycle, most severe first. Never refused for age: a stale one says so itself."""
        return JSONResponse(findings_json(self._board.snapshot.findings))

    def _map(self, zones: Any) -> ZoneMap:
        # One map per look at the cluster, not per request.
        if self._mapped is None or self._mapped[0] is not zones:
            self._mapped = (zones, ZoneMap(zones))
        return self._mapped[1]

    def _zone(self, path: str, key: str) -> dict[str, Any]:
        snapshot = self._board.snapshot
        protected = snapshot.state.protected_directories if snapshot.state is not None else None
        return {
            "path": path,
            "key": key,
            "in_policy": snapshot.policy.find_zone(path) is not None if snapshot.policy else None,
            "pinned": path in protected if protected is not None else None,
        }


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
