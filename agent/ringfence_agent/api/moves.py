"""Routes that a step asks before it writes: may this be moved, and where to put what is not finished yet."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response

from ringfence_agent.api import documents
from ringfence_agent.api.caller import Caller, Verb, require
from ringfence_agent.api.view import ClusterView
from ringfence_zones.paths import MAX_PATH_BYTES
from ringfence_zones.places import find_places


def router(view: ClusterView) -> APIRouter:
    """All of them take the right to check, and change nothing."""
    routes = APIRouter(tags=["moves"])

    @routes.post("/v1/moves/check", response_model=documents.MoveAnswer, summary="May this be moved?")
    async def check_move(
        question: documents.MoveQuestion, caller: Annotated[Caller, Depends(require(Verb.CHECK))]
    ) -> Response:
        """Whether the caller (or `user`, for those who may ask for others) may move `src` to `dst`."""
        whose = caller.on_behalf_of(question.user, view.accounts)
        src, dst = view.path(caller, question.src), view.path(caller, question.dst)
        decision = view.decide(whose, src, dst)
        view.moves.add(whose.user, question.src, question.dst, decision)
        return JSONResponse(decision.to_json())

    @routes.get("/v1/places", response_model=documents.PlacesAnswer, summary="Where to put what is not finished?")
    async def places(
        path: Annotated[str, Query(min_length=1, max_length=MAX_PATH_BYTES)],
        caller: Annotated[Caller, Depends(require(Verb.CHECK))],
        job: Annotated[str | None, Query(pattern=documents.JOB_NAME)] = None,
    ) -> Response:
        """Staging and scratch directories for `path`, in its zone, so that the last rename works. Nothing is made."""
        target = view.path(caller, path)
        return JSONResponse(find_places(view.zone_map(), target, user=caller.user, job=job).to_json())

    return routes
