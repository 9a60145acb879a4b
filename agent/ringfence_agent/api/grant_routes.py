"""Routes by which a job asks for leave to bring data to another zone, and an administrator gives it.

Rules:

1. Asking takes the right to ask for grants, and gives nothing: the wish waits for a day (`wishes`).
2. Saying yes takes the right to administer, and is not for whoever asked, or would get it, nor by a token that one
   of them made. The KMS then has the grant, under the wish's
   own number, so that a second yes makes no second one.
3. An operator sees and ends its own; an administrator everybody's.
4. The flow rules are the KMS's: an agent that does not reach it gives no leave.

A grant of a delegation token ends with that token, one that names a YARN application with that (`applications`), each
by its time, and any when it is ended here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from ringfence_agent.api import documents
from ringfence_agent.api.applications import BoundGrants
from ringfence_agent.api.caller import Caller, Verb, require
from ringfence_agent.api.view import ClusterView
from ringfence_agent.api.wishes import KEPT_S, Wish, WishBook
from ringfence_zones.errors import (
    AccessDeniedError,
    AuthenticationError,
    GrantNotFoundError,
    InputError,
    KmsError,
)
from ringfence_zones.grants import Grant, GrantRequest
from ringfence_zones.paths import HdfsPath

_log = logging.getLogger(__name__)

T = TypeVar("T")


class GrantDesk(Protocol):
    """What is needed of `ringfence_zones.kms_admin.AdminClient`."""

    def create_grant(self, request: GrantRequest) -> Grant:
        """Raises the KmsError family."""

    def end_grant(self, grant_id: str) -> Grant:
        """Raises the KmsError family, and GrantNotFoundError."""

    def list_grants(self) -> Any:
        """Raises the KmsError family."""


def router(wishes: WishBook, bound: BoundGrants, view: ClusterView, open_desk: Callable[[], GrantDesk]) -> APIRouter:
    """`open_desk` opens the KMS's admin endpoint; it may read files, and is called in a thread."""
    routes = APIRouter(tags=["grants"])

    @routes.get("/v1/grants", response_model=documents.Grants, summary="Grants, and who waits for one")
    async def list_grants(caller: Annotated[Caller, Depends(require(Verb.GRANT))]) -> Response:
        """An operator's own; all of them for an administrator."""
        granted = await _ask(open_desk, lambda desk: desk.list_grants())
        given = [_of_grant(grant, bound.find(grant.id)) for grant in granted]
        all_of_them = [*map(_of_wish, wishes.list_alive()), *given]
        mine = [
            each
            for each in all_of_them
            if _is_for(caller, each["user"], each["requested_by"]) and _in_scope(caller, each["from"], each["to"])
        ]
        return JSONResponse({"grants": mine})

    @routes.post("/v1/grants", status_code=202, response_model=documents.GrantDocument, summary="Ask for a grant")
    async def request_grant(
        question: documents.GrantWish, caller: Annotated[Caller, Depends(require(Verb.GRANT))]
    ) -> Response:
        """It waits until an administrator approves it; nothing is admitted before."""
        wish = await asyncio.to_thread(wishes.add, **_fields(question, caller, view))
        _log.info("%s asks for grant %s", caller.label, wish.id)
        return JSONResponse(_of_wish(wish), status_code=202)

    @routes.post("/v1/grants/{grant_id}/approve", response_model=documents.GrantDocument, summary="Give a grant")
    async def approve(grant_id: str, caller: Annotated[Caller, Depends(require(Verb.ADMINISTER))]) -> Response:
        """The KMS has it when this answers. Not for whoever asked for it."""
        wish = wishes.get(grant_id)
        _require_scope(caller, wish.source, wish.target)
        own = caller.people & {wish.requester, wish.user}
        if own:
            raise AccessDeniedError(
                f"{min(own)} asked for this grant, or gets it, so somebody else has to approve it",
                hint="let another administrator approve it",
            )
        # First: a grant that nobody watches must not come to be. And after, in case a look in between found none.
        await _bind(bound, wish)
        grant = await _ask(open_desk, lambda desk: desk.create_grant(_request(wish, caller)))
        await _bind(bound, wish)
        _log.warning("%s approved grant %s of %s", caller.label, grant.id, wish.requested_by)
        await asyncio.to_thread(wishes.remove, wish.id)
        return JSONResponse(_of_grant(grant, wish.application))

    @routes.delete("/v1/grants/{grant_id}", response_model=documents.Ended, summary="End a grant")
    async def end(grant_id: str, caller: Annotated[Caller, Depends(require(Verb.GRANT))]) -> Response:
        """A wish is forgotten, a grant ends at once. One's own, or anybody's for an administrator."""
        waiting = next((wish for wish in wishes.list_alive() if wish.id == grant_id), None)
        if waiting is not None:
            _require_own(caller, waiting.user, waiting.requester, grant_id)
            _require_scope(caller, waiting.source, waiting.target)
            await asyncio.to_thread(wishes.remove, grant_id)
        else:
            await _end_granted(open_desk, caller, grant_id)
            await asyncio.to_thread(bound.forget, grant_id)
        _log.warning("%s ended grant %s", caller.label, grant_id)
        return JSONResponse({"ended": grant_id})

    return routes


async def _bind(bound: BoundGrants, wish: Wish) -> None:
    if wish.application is not None:
        await asyncio.to_thread(bound.bind, wish.id, wish.application)


async def _end_granted(open_desk: Callable[[], GrantDesk], caller: Caller, grant_id: str) -> None:
    granted = await _ask(open_desk, lambda desk: desk.list_grants())
    found = next((grant for grant in granted if grant.id == grant_id), None)
    if found is None:
        raise GrantNotFoundError(grant_id)
    _require_own(caller, found.user, None, grant_id)
    _require_scope(caller, found.source, found.target)
    await _ask(open_desk, lambda desk: desk.end_grant(grant_id))


async def _ask(open_desk: Callable[[], GrantDesk], ask: Callable[[GrantDesk], T]) -> T:
    """Asks the KMS in a thread. That it refuses the agent says nothing of the caller: a KmsError."""
    try:
        return await asyncio.to_thread(lambda: ask(open_desk()))
    except (AccessDeniedError, AuthenticationError) as error:
        raise KmsError(f"the KMS refuses the agent: {error.message}", hint=error.hint) from error


def _fields(question: documents.GrantWish, caller: Caller, view: ClusterView) -> dict[str, object]:
    whose = caller.on_behalf_of(question.user, view.accounts)
    if (question.token is None) == (question.address is None):
        raise InputError("a grant is for one session: name its delegation token's number, or its address")
    if "\n" in question.purpose or "\r" in question.purpose:
        raise InputError("a purpose is one line")
    source, target = view.path(caller, question.from_), view.path(caller, question.to)
    zones = view.zone_map()
    for end in (source, target):
        if not zones.is_root(end):
            raise InputError(f"{end} is not the root of an encryption zone", hint="name the zones, not paths in them")
    return {
        "user": whose.user,
        "source": str(source),
        "target": str(target),
        "life_s": question.life_s,
        "purpose": question.purpose,
        "token": question.token,
        "address": question.address,
        "real_user": question.real_user,
        "application": question.application,
        "requester": caller.user,
        "requested_by": caller.label,
    }


def _request(wish: Wish, approver: Caller) -> GrantRequest:
    return GrantRequest(
        user=wish.user,
        source=wish.source,
        target=wish.target,
        lifetime_s=wish.life_s,
        purpose=wish.purpose,
        approver=approver.real_user or approver.user,
        token=wish.token,
        address=wish.address,
        real_user=wish.real_user,
        id=wish.id,
    )


def _is_for(caller: Caller, user: str, requested_by: str | None) -> bool:
    return Verb.ADMINISTER in caller.verbs or caller.user == user or caller.label == requested_by


def _in_scope(caller: Caller, *paths: str) -> bool:
    return all(caller.reaches(HdfsPath.from_namenode(path)) for path in paths)


def _require_scope(caller: Caller, *paths: str) -> None:
    for path in paths:
        caller.require_path(HdfsPath.from_namenode(path))


def _require_own(caller: Caller, user: str, requester: str | None, grant_id: str) -> None:
    if Verb.ADMINISTER not in caller.verbs and caller.user not in (user, requester):
        # What is not theirs is not there, so that numbers cannot be tried.
        raise GrantNotFoundError(grant_id)


def _of_wish(wish: Wish) -> dict[str, Any]:
    return {
        "id": wish.id,
        "state": "requested",
        "user": wish.user,
        "from": wish.source,
        "to": wish.target,
        "token": wish.token,
        "address": wish.address,
        "real_user": wish.real_user,
        "purpose": wish.purpose,
        "life_s": wish.life_s,
        "requested_by": wish.requested_by,
        "approver": None,
        "created_s": wish.created_s,
        "not_after_s": wish.created_s + KEPT_S,
        "ended_s": None,
        "ended_by": None,
        "application": wish.application,
    }


def _of_grant(grant: Grant, application: str | None) -> dict[str, Any]:
    return {
        "id": grant.id,
        "state": "active" if grant.ended_ms is None else "ended",
        "user": grant.user,
        "from": grant.source,
        "to": grant.target,
        "token": grant.token,
        "address": grant.address,
        "real_user": grant.real_user,
        "purpose": grant.purpose,
        "life_s": (grant.not_after_ms - grant.created_ms) / 1000,
        "requested_by": None,
        "approver": grant.approver,
        "created_s": grant.created_ms / 1000,
        "not_after_s": grant.not_after_ms / 1000,
        "ended_s": None if grant.ended_ms is None else grant.ended_ms / 1000,
        "ended_by": grant.ended_by,
        "application": application,
    }
