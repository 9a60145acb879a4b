"""The moves that were asked about and refused, since the agent started: for the page, and counted for the metrics.

Rules:

1. Bounded: the last 500 are kept, paths longer than 1,024 characters cut in the middle. What is older is only counted.
2. In memory alone: a restart forgets. What was refused is evidence of nothing but a question, and logs are elsewhere.
3. Who may administer the agent sees all of them; everybody else sees their own questions, because a path tells what
   somebody works on.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ringfence_agent.api.caller import CurrentCaller, Verb
from ringfence_agent.api.documents import Document
from ringfence_zones.findings import Rule
from ringfence_zones.moves import MoveDecision

# Every rule that a refused rename can name: each is counted from zero, so that the first one shows as a rise.
MOVE_RULES = (
    *(Rule.ZONE_TO_ZONE, Rule.ZONE_TO_CLEAR, Rule.CLEAR_TO_ZONE, Rule.ZONE_ROOT, Rule.ZONE_ROOT_ANCESTOR),
    *(Rule.RAW_PATH, Rule.SNAPSHOT_PATH),
)
_KEPT = 500
_MAX_PATH = 1024


@dataclass(frozen=True, slots=True)
class RefusedMove:
    """One question whose rename was refused. `at_s` is seconds since the epoch; `command` what works instead."""

    at_s: float
    user: str
    src: str
    dst: str
    rule: Rule | None
    command: str | None

    def to_json(self) -> dict[str, Any]:
        """As the API gives it."""
        return {
            "at_s": round(self.at_s, 3),
            "user": self.user,
            "src": self.src,
            "dst": self.dst,
            "rule": self.rule.value if self.rule is not None else None,
            "command": self.command,
        }


class MoveRecord:
    """What became of the questions about moves. Used on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._refused: deque[RefusedMove] = deque(maxlen=_KEPT)
        self.checked = 0
        self.refused_by_rule: Counter[Rule] = Counter(dict.fromkeys(MOVE_RULES, 0))
        self.changes = 0

    def add(self, user: str, src: str, dst: str, decision: MoveDecision) -> None:
        """Counts one answer, and keeps it when the rename was refused."""
        self.checked += 1
        if decision.rename:
            return
        if decision.rule is not None:
            self.refused_by_rule[decision.rule] += 1
        self.changes += 1
        self._refused.appendleft(
            RefusedMove(self._clock(), user, _cut(src), _cut(dst), decision.rule, decision.command)
        )

    def list_refused(self, user: str | None) -> Iterable[RefusedMove]:
        """Newest first; those of one user, or of all for None."""
        return [each for each in self._refused if user is None or each.user == user]


class RefusedMoveDocument(Document):
    """A question about a move whose rename was refused."""

    at_s: float = Field(description="When, seconds since the epoch.")
    user: str
    src: str
    dst: str
    rule: str | None
    command: str | None = Field(description="What works instead; null when the policy allows no way.")


class RefusedMoves(Document):
    """Newest first. `all_callers`: everybody's, not only those of whoever asks."""

    all_callers: bool
    moves: list[RefusedMoveDocument]


def router(record: MoveRecord) -> APIRouter:
    """`/v1/moves/refused`."""
    routes = APIRouter(tags=["moves"])
    began = secrets.token_hex(8)

    @routes.get("/v1/moves/refused", response_model=RefusedMoves, summary="Questions that were answered with no")
    async def refused(caller: CurrentCaller, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """The last of them since the agent started; of all callers for who may administer the agent."""
        sees_all = Verb.ADMINISTER in caller.verbs
        # A count, not a digest: a page asks every two seconds, and mostly nothing was refused since.
        etag = f'"{began}-{record.changes}-{caller.user if not sees_all else ""}"'
        headers = {"ETag": etag, "Cache-Control": "no-store"}
        if if_none_match == etag:
            return Response(status_code=304, headers=headers)
        moves = [each.to_json() for each in record.list_refused(None if sees_all else caller.user)]
        return JSONResponse({"all_callers": sees_all, "moves": moves}, headers=headers)

    return routes


def _cut(path: str) -> str:
    return path if len(path) <= _MAX_PATH else f"{path[: _MAX_PATH // 2]}…{path[-_MAX_PATH // 2 :]}"
