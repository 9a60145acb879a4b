"""Routes about the policy: the one that is in force, and what is wrong with one that is not yet.

Nothing is published here: that is `ringfence apply`'s, through the KMS. A document is parsed in a thread, because a
large one takes longer than a question may wait. It is also the one question that costs seconds and memory, and whoever
may look may ask it: so one is read at a time, one of each caller waits, and it has at most `MOST_VALUES` values.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from ringfence_agent.api import documents
from ringfence_agent.api.caller import Caller, Verb, require
from ringfence_agent.api.problems import Problem, document
from ringfence_agent.api.view import ClusterView
from ringfence_zones.errors import InputError, PolicyError
from ringfence_zones.findings import findings_json
from ringfence_zones.policy import Policy, canonical_json, parse_policy, policy_digest
from ringfence_zones.policy_cases import parse_cases, run_cases

MOST_VALUES = 20_000
"""Of one document: some two thousand zones. `ringfence policy lint` takes more, on the machine of whoever runs it."""
_NAME = "the document"
_TOO_OFTEN = Problem(429, "too-often", "The caller asks too often")


def router(view: ClusterView) -> APIRouter:
    """Looking takes the right to look, validating the right to check."""
    routes = APIRouter(tags=["policy"])
    reading = _Reading()

    @routes.get("/v1/policy", response_model=documents.PolicyNow, summary="The policy that the agent follows")
    async def current() -> Response:
        """Both members are null while the agent has none."""
        policy = view.board.snapshot.policy
        if policy is None:
            return JSONResponse({"digest": None, "document": None})
        return JSONResponse({"digest": policy_digest(policy), "document": json.loads(canonical_json(policy))})

    @routes.post("/v1/policy/validate", response_model=documents.Validated, summary="What is wrong with a document?")
    async def validate(
        question: documents.PolicyText, caller: Annotated[Caller, Depends(require(Verb.CHECK))]
    ) -> Response:
        """What `ringfence policy lint` says of it: 200 with every finding, none for a good one."""
        return await reading.answer(caller, lambda: _validate(question.document))

    @routes.post("/v1/policy/test", response_model=documents.Tested, summary="Does a policy do what is expected?")
    async def test(
        question: documents.PolicyCases, caller: Annotated[Caller, Depends(require(Verb.CHECK))]
    ) -> Response:
        """What `ringfence policy test` says: each case, and a finding for each that is not as expected."""
        policy = view.board.snapshot.policy
        if question.document is None and policy is None:
            raise InputError("the agent has no policy to test", hint="send the document with its cases")
        return await reading.answer(caller, lambda: _test(question, policy))

    return routes


class _Reading:
    """Documents one after the other, so that the thread that reads takes no more than its share of a processor."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting: set[str] = set()

    async def answer(self, caller: Caller, read: Callable[[], dict[str, Any]]) -> Response:
        who = caller.real_user or caller.user
        if who in self._waiting:
            refusal = document(_TOO_OFTEN, "the document that was sent before is still being read")
            refusal.headers["Retry-After"] = "1"
            return refusal
        self._waiting.add(who)
        try:
            async with self._turn:
                return JSONResponse(await asyncio.to_thread(read))
        finally:
            self._waiting.discard(who)


def _test(question: documents.PolicyCases, current: Policy | None) -> dict[str, Any]:
    policy = current if question.document is None else parse_policy(question.document, _NAME, MOST_VALUES)
    assert policy is not None, "one of the two is there"
    results = run_cases(policy, parse_cases(question.cases, "the cases", MOST_VALUES))
    failed = [result.to_finding() for result in results if result.unmet]
    return {"cases": [result.to_json() for result in results], **findings_json(failed)}


def _validate(text: str) -> dict[str, Any]:
    try:
        parse_policy(text, _NAME, MOST_VALUES)
    except PolicyError as error:
        if not error.findings:
            raise
        return {"valid": False, **findings_json(error.findings)}
    return {"valid": True, "findings": []}
