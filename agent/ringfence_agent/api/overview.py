"""All that the page shows of the cluster, from one look at it: zones, keys, custody, flows, findings.

One document, so that what is shown together was seen together. It is answered at whatever age, unlike questions that
something is decided by: whoever looks is told how old it is by `/v1/health`. It is rendered once for each look and told
apart by an ETag, so that a page that asks every two seconds costs a comparison.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from pydantic import Field
from starlette.responses import Response

from ringfence_agent.api.documents import Document, FindingDocument
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_zones.model import EncryptionZone, KmsState
from ringfence_zones.policy import Policy


class OverviewZone(Document):
    """A zone with what is known of its key; null where that is not known."""

    path: str
    key: str
    versions: int | None = Field(description="How many versions the key has; the current one is KEY@(versions - 1).")
    length_bits: int | None
    created_ms: int | None = Field(description="When the key was made, milliseconds since the epoch.")
    custody: str | None = Field(description="Null with a stock KMS too, which knows no custody.")
    in_policy: bool | None
    pinned: bool | None


class OverviewKms(Document):
    """The KMS that the cluster uses."""

    uri: str
    is_ringfence: bool
    revision: int | None


class OverviewEdge(Document):
    """Data may be brought from one place to another by these principals (empty: by whoever may read it there)."""

    from_: str = Field(alias="from")
    to: str
    who: list[str]


class OverviewFlows(Document):
    """The policy's edges between zones, and to places in clear text; null where the policy binds nothing."""

    mode: Literal["shadow", "enforce"]
    edges: list[OverviewEdge] | None
    outside: list[OverviewEdge] | None


class Overview(Document):
    """The last look at the cluster, however long ago. `sections` names parts of the API that only some agents have."""

    cluster: str | None
    kms: OverviewKms | None
    zones: list[OverviewZone]
    flows: OverviewFlows | None = Field(description="Null without a policy.")
    findings: list[FindingDocument]
    sections: list[str]


_OPTIONAL = {"transfers": "/v1/transfers"}


@dataclass(frozen=True, slots=True)
class _Rendered:
    snapshot: Snapshot
    body: bytes
    etag: str


class OverviewSource:
    """Renders a snapshot once."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._rendered: _Rendered | None = None

    def current(self, sections: Sequence[str]) -> _Rendered:
        """What is to be answered now; `sections` never change while the agent runs."""
        snapshot = self._board.snapshot
        if self._rendered is None or self._rendered.snapshot is not snapshot:
            # ASCII, so that half of a surrogate pair in a name is an escape and no failure.
            body = json.dumps(overview_of(snapshot, sections), separators=(",", ":")).encode("ascii")
            self._rendered = _Rendered(snapshot, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        return self._rendered


def router(board: Board) -> APIRouter:
    """`/v1/overview`."""
    routes = APIRouter(tags=["cluster"])
    source = OverviewSource(board)

    @routes.get("/v1/overview", response_model=Overview, summary="All that the page shows of the cluster")
    async def overview(request: Request, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """The last look at the cluster, however long ago: `ready` of `/v1/health` says whether it is good."""
        current = source.current(_sections(request.app.openapi()["paths"]))
        headers = {"ETag": current.etag, "Cache-Control": "no-store"}
        if if_none_match == current.etag:
            return Response(status_code=304, headers=headers)
        return Response(current.body, headers=headers, media_type="application/json")

    return routes


def _sections(paths: Container[str]) -> list[str]:
    # What the API describes is there; a page that asked for what is not would show an error for it.
    return [name for name, path in _OPTIONAL.items() if path in paths]


def overview_of(snapshot: Snapshot, sections: Sequence[str]) -> dict[str, Any]:
    """The document, in JSON's types."""
    state, policy = snapshot.state, snapshot.policy
    kms = state.kms if state is not None else None
    pins = state.protected_directories if state is not None else None
    view = _ZoneView(
        kms,
        frozenset(zone.path for zone in policy.zones) if policy is not None else None,
        frozenset(pins) if pins is not None else None,
    )
    return {
        "cluster": policy.cluster if policy is not None else None,
        "kms": _kms(kms),
        "zones": [view.describe(zone) for zone in state.zones] if state is not None else [],
        "flows": _flows(policy),
        "findings": [finding.to_json() for finding in snapshot.findings],
        "sections": list(sections),
    }


def _kms(kms: KmsState | None) -> dict[str, Any] | None:
    if kms is None:
        return None
    return {"uri": kms.uri, "is_ringfence": kms.is_ringfence, "revision": kms.revision}


@dataclass(frozen=True, slots=True)
class _ZoneView:
    """What is said of each zone. A cluster may have thousands: nothing here is looked for in a list."""

    kms: KmsState | None
    policy_roots: frozenset[str] | None
    pins: frozenset[str] | None

    def describe(self, zone: EncryptionZone) -> dict[str, Any]:
        key = self.kms.keys.get(zone.key_name) if self.kms is not None else None
        return {
            "path": zone.path,
            "key": zone.key_name,
            "versions": key.versions if key is not None else None,
            "length_bits": key.length_bits if key is not None else None,
            "created_ms": key.created_ms if key is not None else None,
            "custody": self.kms.find_custody(zone.key_name) if self.kms is not None else None,
            "in_policy": zone.path in self.policy_roots if self.policy_roots is not None else None,
            "pinned": zone.path in self.pins if self.pins is not None else None,
        }


def _flows(policy: Policy | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    return {
        "mode": policy.flow_control.mode,
        "edges": None if policy.flows is None else [_edge(each.source, each.target, each.who) for each in policy.flows],
        "outside": None
        if policy.outside is None
        else [_edge(source, place) for place, sources in policy.outside.items() for source in sources],
    }


def _edge(source: str, target: str, who: Sequence[str] = ()) -> dict[str, Any]:
    return {"from": source, "to": target, "who": list(who)}
