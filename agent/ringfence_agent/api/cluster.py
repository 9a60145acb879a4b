"""Routes that tell how the agent and the cluster are: health, zones, findings."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from ringfence_agent.api import documents
from ringfence_agent.api.caller import CurrentCaller
from ringfence_agent.api.view import ClusterView
from ringfence_zones.findings import findings_json
from ringfence_zones.paths import MAX_PATH_BYTES


def router(view: ClusterView) -> APIRouter:
    """All of them take no more than the right to look."""
    routes = APIRouter(tags=["cluster"])

    @routes.get("/v1/health", response_model=documents.Health, summary="Live and ready")
    async def health() -> Response:
        """200 while the loop runs, 503 when it does not; `ready` says whether questions are answered."""
        board, snapshot = view.board, view.board.snapshot
        live = board.is_live()
        body = {
            "live": live,
            "ready": board.is_ready(),
            "version": view.version,
            "mode": snapshot.policy.agent.mode if snapshot.policy else None,
            "cycle": snapshot.cycle,
            "cycle_age_s": round(board.cycle_age_s(), 3),
            "sentence": snapshot.sentence,
            "findings": len(snapshot.findings),
            **board.status_json(),
        }
        return JSONResponse(body, status_code=200 if live else 503)

    @routes.get("/v1/zones", response_model=documents.Zones, summary="Every encryption zone")
    async def zones() -> Response:
        """Every encryption zone of the cluster, by path."""
        return JSONResponse({"zones": [view.describe(zone) for zone in view.board.fresh_state().zones]})

    @routes.get("/v1/zones/of", response_model=documents.ZoneOf, summary="The zone of a path")
    async def zone_of(path: Annotated[str, Query(max_length=MAX_PATH_BYTES)], caller: CurrentCaller) -> Response:
        """The innermost zone that holds a path. The path need not exist; a zone's root is in its zone."""
        parsed = view.path(caller, path)
        return JSONResponse({"path": str(parsed), "zone": view.find_zone(parsed)})

    @routes.get("/v1/findings", response_model=documents.Findings, summary="What is not as it should be")
    async def findings() -> Response:
        """The findings of the last cycle, most severe first. Never refused for age: a stale one says so itself."""
        return JSONResponse(findings_json(view.board.snapshot.findings))

    return routes
