"""Routes by which an administrator makes, lists and ends bearer tokens.

They take the right to administer, proven without a token: a token never makes another one, so whoever steals an
administrator's has it until it ends and no longer. The answer that makes a token is the one place where it can be read.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from ringfence_agent.api import documents
from ringfence_agent.api.caller import Caller, Role, Verb, require
from ringfence_agent.api.problems import Problem, document
from ringfence_agent.api.tokens import TokenBook, TokenRecord, TokenWish
from ringfence_agent.api.view import ClusterView
from ringfence_zones.errors import AccessDeniedError

_log = logging.getLogger(__name__)

_NONE = Problem(404, "token-not-found", "No such token")


def router(tokens: TokenBook, view: ClusterView) -> APIRouter:
    """The routes on one book of tokens."""
    routes = APIRouter(tags=["tokens"])

    @routes.post("/v1/tokens", status_code=201, response_model=documents.IssuedToken, summary="Make a token")
    async def issue(
        wish: documents.TokenWish, caller: Annotated[Caller, Depends(require(Verb.ADMINISTER))]
    ) -> Response:
        """The token is in this answer and nowhere else: put it into a file that its user alone can read."""
        _require_no_token(caller)
        wanted = TokenWish(
            user=wish.user,
            role=Role(wish.role),
            life_s=wish.life_s,
            verbs=None if wish.verbs is None else frozenset(Verb(verb) for verb in wish.verbs),
            paths=None if wish.paths is None else [view.path(caller, path) for path in wish.paths],
        )
        record, token = await asyncio.to_thread(tokens.issue, wanted, caller.label, caller.user)
        _log.warning("%s issued token %s for %s (%s)", caller.label, record.name, record.user, record.role.value)
        body = _describe(record) | {"token": token.reveal().decode("ascii")}
        return JSONResponse(body, status_code=201)

    @routes.get("/v1/tokens", response_model=documents.Tokens, summary="The tokens that are good")
    async def list_tokens(_caller: Annotated[Caller, Depends(require(Verb.ADMINISTER))]) -> Response:
        """Those that end first come first. Neither tokens nor their hashes are told."""
        return JSONResponse({"tokens": [_describe(record) for record in tokens.list_alive()]})

    @routes.delete("/v1/tokens/{name}", response_model=documents.RevokedToken, summary="End a token")
    async def revoke(name: str, caller: Annotated[Caller, Depends(require(Verb.ADMINISTER))]) -> Response:
        """It is refused from the next request on. 404 for a name that no living token has."""
        _require_no_token(caller)
        if not await asyncio.to_thread(tokens.revoke, name):
            return document(_NONE, "no token of that name is good")
        _log.warning("%s revoked token %s", caller.label, name)
        return JSONResponse({"revoked": name})

    return routes


def _require_no_token(caller: Caller) -> None:
    if caller.token_id is not None:
        raise AccessDeniedError(
            "a token neither makes nor ends another one",
            hint="ask as root or the agent's own user over its Unix socket, by Kerberos, or with a certificate",
        )


def _describe(record: TokenRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "user": record.user,
        "role": record.role.value,
        "verbs": sorted(verb.value for verb in record.verbs),
        "paths": None if record.paths is None else list(record.paths),
        "issued_s": record.issued_s,
        "expires_s": record.expires_s,
        "issued_by": record.issued_by,
    }
