from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.kms.audit.config import AuditSettings
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.waiting import WaitingApplication
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError, StoreTamperedError

AWAY = ProtectorUnavailableError("vault at https://vault:8200 is sealed", hint="unseal it")
STRANGER, ADMINISTRATOR = Peer("10.0.0.7"), Peer(None)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def audit(tmp_path: Path, executor: ThreadPoolExecutor) -> Iterator[AuditLog]:
    log = AuditLog(AuditSettings(directory=tmp_path / "audit"), 0, executor)
    yield log
    log.close()


def ask(recorded: Recorded, path: bytes, method: bytes = b"GET", peer: Peer = STRANGER) -> Response:
    answer = recorded.application(Request(method, path, b"secret=1", {}, b"", peer, keep_alive=True))
    assert isinstance(answer, Response)
    return answer


@asynccontextmanager
async def served(store: OpenStore) -> AsyncIterator[Recorded]:
    """An application that answers 418 and says how often it was asked to commit."""
    asked = []

    def answer(_: Request) -> Response | Awaitable[Response]:
        return Response(ResponseHead(418))

    def commit() -> Response:
        return Response(ResponseHead(200), b"committed")

    try:
        yield Recorded(answer, commit, asked.append)
        assert asked
    finally:
        store.close()


async def until_served(recorded: Recorded) -> None:
    for _ in range(2000):
        if ask(recorded, b"/any").head.status == 418:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never served")


def test_it_tells_strangers_nothing_and_administrators_why(audit: AuditLog, tmp_path: Path) -> None:
    async def run() -> None:
        recorded = WaitingApplication(audit, AWAY).recorded
        refused = ask(recorded, b"/kms/v1/keys/names")
        assert (refused.head.status, refused.close) == (503, True)
        assert b"vault" not in refused.body
        assert AWAY.message.encode() in ask(recorded, b"/ringfence/v1/status", peer=ADMINISTRATOR).body
        assert json.loads(ask(recorded, b"/health/ready").body) == {"ready": False}
        told = json.loads(ask(recorded, b"/health/ready", peer=ADMINISTRATOR).body)
        assert told == {"ready": False, "problems": [AWAY.message]}
        assert ask(recorded, b"/health/live").head.status == 200
        assert recorded.commit() is None

    asyncio.run(run())
    lines = [
        json.loads(line) for file in (tmp_path / "audit").glob("*.jsonl") for line in file.read_text().splitlines()
    ]
    assert [(line["status"], line["outcome"], line["path"]) for line in lines] == [
        (503, "failed", "/kms/v1/keys/names"),
        (503, "failed", "/ringfence/v1/status"),
    ]
    assert "secret=1" not in json.dumps(lines)


@pytest.mark.parametrize(
    "problem",
    [AWAY, ProtectorRefusedError("the token is dead", reason="token"), StoreTamperedError("row 3"), OSError("secret")],
    ids=lambda problem: type(problem).__name__,
)
def test_whatever_it_meets_while_it_waits_it_goes_on_and_then_serves(
    audit: AuditLog, executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture, problem: Exception
) -> None:
    store, tries = MemoryKeyStore(), []
    waiting = WaitingApplication(audit, AWAY, retry_s=(0.001, 0.002))

    def open_store() -> OpenStore:
        tries.append(1)
        if len(tries) < 4:
            raise problem
        return store

    async def run() -> None:
        recorded = waiting.recorded
        assert recorded.on_serving is not None
        recorded.on_serving(lambda: 7)
        task = asyncio.create_task(waiting.run(open_store, served, executor))
        await until_served(recorded)
        replacement = recorded.commit()
        assert replacement is not None and replacement.body == b"committed"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert len(tries) == 4 and store.closed
    assert "the key store is open" in caplog.text and "secret" not in caplog.text
    # Each thing that stood in the way is told once.
    assert caplog.text.count("still does not open") == (problem is not AWAY)


def test_what_fails_while_it_closes_is_not_taken_for_a_store_that_does_not_open(
    audit: AuditLog, executor: ThreadPoolExecutor
) -> None:
    waiting = WaitingApplication(audit, AWAY, retry_s=(0.001, 0.002))

    @asynccontextmanager
    async def failing(_: OpenStore) -> AsyncIterator[Recorded]:
        async with served(MemoryKeyStore()) as recorded:
            try:
                yield recorded
            finally:
                raise StoreTamperedError("row 3")

    async def run() -> None:
        task = asyncio.create_task(waiting.run(MemoryKeyStore, failing, executor))
        await until_served(waiting.recorded)
        task.cancel()
        await asyncio.wait_for(task, 5)

    with pytest.raises(StoreTamperedError):
        asyncio.run(run())
