"""Routes of transfers: ask for one, follow it, approve or cancel it, take its receipt.

A transfer belongs to the user it was asked for. That user sees, follows and cancels it; an administrator does so with
everybody's, and nobody else is told that it exists. Approving takes an administrator who did not ask for it, also not
by a token that whoever asked has made. A token's paths bind all of this: it sees and acts on what lies in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ringfence_agent.api.caller import Caller, Verb, require
from ringfence_agent.api.documents import Document, UserName
from ringfence_agent.api.view import ClusterView
from ringfence_agent.transfer.service import Asked, Going, TransferService
from ringfence_zones.errors import TransferNotFoundError
from ringfence_zones.paths import MAX_PATH_BYTES, HdfsPath

_STATES = Literal[
    "waiting_for_approval", "queued", "copying", "placing", "removing", "cleaning", "done", "failed"
]  # a test holds it against `State`
_ONE = "/v1/transfers/{transfer_id}"
_Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


class TransferRequest(Document):
    """Bring `src` to `dst`, or into it when that is a directory, for `user` (default: the caller)."""

    src: str = Field(max_length=MAX_PATH_BYTES)
    dst: str = Field(max_length=MAX_PATH_BYTES)
    user: UserName | None = None
    purpose: str | None = Field(default=None, min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")
    remove_source: bool = Field(default=False, description="Remove the source after everything was verified.")
    ask_for_approval: bool = Field(
        default=False, description="Wait for an administrator's approval where the policy has no flow. Needs a purpose."
    )


class TransferZone(Document):
    """An encryption zone."""

    path: str
    key: str


class TransferGrant(Document):
    """The approval that let a transfer go on."""

    id: str
    approver: str
    purpose: str


class TransferProblem(Document):
    """Why a transfer failed, or its source stayed; `kind` is the error's name."""

    kind: str
    message: str
    hint: str | None
    command: str | None
    rule: str | None


class TransferDocument(Document):
    """A transfer and how it goes. Times are epoch milliseconds; `rate` is in bytes per second, copied and verified."""

    id: str
    state: _STATES
    user: str
    copied_as: str
    src: str
    dst: str
    source_zones: list[TransferZone]
    target_zone: TransferZone | None
    purpose: str | None
    remove_source: bool
    source_removed: bool
    policy_revision: int | None
    grant: TransferGrant | None
    submitted_ms: int
    finished_ms: int | None
    files: int
    bytes: int
    files_verified: int
    bytes_verified: int
    rate: float | None
    time_left_s: float | None = Field(description="Null when nobody can tell.")
    waits_for: str | None = Field(description="What it is waiting for at the moment.")
    problem: TransferProblem | None = Field(description="Why it failed, or why the source stayed.")


class Transfers(Document):
    """The newest two hundred, newest first: the caller's own, an administrator's view of all."""

    transfers: list[TransferDocument]


def router(service: TransferService, view: ClusterView) -> APIRouter:
    """The routes. What blocks (the ledger, a look at HDFS) runs in a thread."""
    routes = APIRouter(tags=["transfers"])
    handlers = _Handlers(service, view)

    def add(method: str, path: str, endpoint: Callable[..., Any], summary: str, model: Any, status: int = 200) -> None:
        routes.add_api_route(
            path, endpoint, methods=[method], summary=summary, response_model=model, status_code=status
        )

    add("POST", "/v1/transfers", handlers.submit, "Ask for a transfer", TransferDocument, 202)
    add("GET", "/v1/transfers", handlers.list_all, "How transfers go", Transfers)
    add("GET", _ONE, handlers.get, "How a transfer goes", TransferDocument)
    add("DELETE", _ONE, handlers.cancel, "Cancel a transfer", TransferDocument)
    add("POST", f"{_ONE}/approve", handlers.approve, "Approve a transfer", TransferDocument)
    add("GET", f"{_ONE}/receipt", handlers.receipt, "The signed receipt", None)
    add("GET", "/v1/receipts/key", handlers.key, "The public key of receipts, as PEM", None)
    return routes


_Transferring = Annotated[Caller, Depends(require(Verb.TRANSFER))]
_Looking = Annotated[Caller, Depends(require(Verb.LOOK))]
_Administering = Annotated[Caller, Depends(require(Verb.ADMINISTER))]


class _Handlers:
    def __init__(self, service: TransferService, view: ClusterView) -> None:
        self._service = service
        self._view = view

    async def submit(self, question: TransferRequest, caller: _Transferring, request: Request) -> Response:
        """Takes a transfer; it is on disk when this is answered. Refused by the same rules as `/v1/moves/check`."""
        whose = caller.on_behalf_of(question.user, self._view.accounts)
        asked = Asked(
            user=whose.user,
            asked_by=whose.label,
            real_user=whose.real_user,
            source=self._view.path(caller, question.src),
            target=self._view.path(caller, question.dst),
            purpose=question.purpose,
            remove_source=question.remove_source,
            ask_for_approval=question.ask_for_approval,
            idempotency_key=getattr(request.state, "idempotency_key", None),
        )
        transfer = await asyncio.to_thread(self._service.submit, asked)
        going = await asyncio.to_thread(self._service.get, transfer.id)
        return JSONResponse(transfer_json(going), status_code=202, headers={"Location": f"/v1/transfers/{transfer.id}"})

    async def list_all(self, caller: _Looking) -> Response:
        """The caller's transfers, newest first; everybody's for an administrator."""
        owner = None if Verb.ADMINISTER in caller.verbs else caller.user
        listed = await asyncio.to_thread(self._service.list_transfers, owner)
        return JSONResponse({"transfers": [transfer_json(going) for going in listed if _is_in_scope(going, caller)]})

    async def get(self, transfer_id: _Id, caller: _Looking) -> Response:
        """State, counts, rate and time left."""
        return JSONResponse(transfer_json(await self._own(transfer_id, caller)))

    async def cancel(self, transfer_id: _Id, caller: _Transferring) -> Response:
        """Ends a transfer that is not placed yet; what was staged is removed, the source is as it was."""
        await self._own(transfer_id, caller)
        await asyncio.to_thread(self._service.cancel, transfer_id, caller.label)
        return JSONResponse(transfer_json(await self._own(transfer_id, caller)))

    async def approve(self, transfer_id: _Id, caller: _Administering) -> Response:
        """Lets a transfer that waits for it go on."""
        await self._own(transfer_id, caller)
        approver = caller.real_user or caller.user
        await asyncio.to_thread(self._service.approve, transfer_id, approver, caller.people)
        return JSONResponse(transfer_json(await self._own(transfer_id, caller)))

    async def receipt(self, transfer_id: _Id, caller: _Looking) -> Response:
        """The receipt, byte for byte as it was signed."""
        await self._own(transfer_id, caller)
        receipt = await asyncio.to_thread(self._service.get_receipt, transfer_id)
        return Response(receipt, media_type="application/json")

    async def key(self, _caller: _Looking) -> Response:
        """What `ringfence receipt verify --key` takes. Compare it with `receipt-key.pub` on the agent's machine."""
        return Response(self._service.public_key, media_type="application/x-pem-file")

    async def _own(self, transfer_id: str, caller: Caller) -> Going:
        going = await asyncio.to_thread(self._service.get, transfer_id)
        is_own = Verb.ADMINISTER in caller.verbs or going.transfer.request.user == caller.user
        if not (is_own and _is_in_scope(going, caller)):
            raise TransferNotFoundError(f"there is no transfer {transfer_id}")
        return going


def _is_in_scope(going: Going, caller: Caller) -> bool:
    request = going.transfer.request
    return all(caller.reaches(HdfsPath.from_namenode(path)) for path in (request.source, request.target))


def transfer_json(going: Going) -> dict[str, Any]:
    """The document of a transfer."""
    transfer = going.transfer
    request = transfer.request
    return {
        "id": transfer.id,
        "state": transfer.state.value,
        "user": request.user,
        "copied_as": request.copy_as,
        "src": request.source,
        "dst": request.target,
        "source_zones": [zone.model_dump() for zone in request.source_zones],
        "target_zone": None if request.target_zone is None else request.target_zone.model_dump(),
        "purpose": request.purpose,
        "remove_source": request.remove_source,
        "source_removed": transfer.source_removed,
        "policy_revision": transfer.allowed.revision,
        "grant": None if transfer.grant is None else transfer.grant.model_dump(),
        "submitted_ms": transfer.submitted_ms,
        "finished_ms": transfer.finished_ms,
        "files": transfer.files,
        "bytes": transfer.bytes,
        "files_verified": transfer.files_verified,
        "bytes_verified": transfer.bytes_verified,
        "rate": going.rate,
        "time_left_s": going.time_left_s,
        "waits_for": going.waits_for,
        "problem": None if transfer.problem is None else transfer.problem.model_dump(),
    }
