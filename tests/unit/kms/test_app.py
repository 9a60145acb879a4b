"""The application's own duties, on a store in memory: what it loads when, and what happens while things change."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from flow_controls import no_flows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kms_authenticators import simple_authenticator
from kms_monitoring import idle_keeper, plain_monitoring
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.keystore.interface import ChangeOrigin, NewKey, PolicyRevision, StoredKey
from ringfence_agent.kms.app import _HANDLERS, KmsApplication
from ringfence_agent.kms.audit.config import AuditSettings
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.authentication.admin_access import AdminAccess
from ringfence_agent.kms.authentication.caller import Identity
from ringfence_agent.kms.authentication.delegation_tokens import DelegationTokens, TokenLifetimes
from ringfence_agent.kms.authentication.proxy_users import ProxyUsers
from ringfence_agent.kms.authentication.simple import plain_name
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.authorization.acls import read_acls
from ringfence_agent.kms.authorization.groups import Groups
from ringfence_agent.kms.authorization.groups_config import GroupSettings
from ringfence_agent.kms.freshness import Freshness
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.kms import KeyDefaults, Kms
from ringfence_agent.kms.lease_desk import LeaseDesk
from ringfence_agent.kms.repeated_change import RepeatedChanges
from ringfence_agent.kms.routes import Resource
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.leases.book import LeaseBook
from ringfence_agent.promise import Promise
from ringfence_zones.errors import StoreTamperedError, StoreUnavailableError
from ringfence_zones.hadoop_conf import HadoopConf
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

OPEN = {f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "READ", "GENERATE_EEK", "DECRYPT_EEK")}


class BusyStore(MemoryKeyStore):
    """Another worker commits something during every read."""

    def __init__(self) -> None:
        super().__init__()
        self.on_read: Callable[[], None] = lambda: None

    def find_key(self, name: str) -> StoredKey | None:
        self.on_read()
        return super().find_key(name)

    def find_policy(self) -> PolicyRevision | None:
        self.on_read()
        return super().find_policy()


def no_leases() -> LeaseBook:
    raise AssertionError("nothing here asks for a lease")


class Bench:
    def __init__(self, directory: Path, executor: ThreadPoolExecutor, acls: dict[str, str]) -> None:
        table = GenerationTable(2)
        self.other = table.view(1)
        self.store = BusyStore()
        self.audit_file = directory / "audit" / "worker-0.jsonl"
        self.audit = AuditLog(AuditSettings(directory=directory / "audit"), 0, executor)
        self.access = StoreAccess(self.store, table.view(0), GenerationTable(1).view(0), self.audit.require_writable)
        groups = Groups(GroupSettings(30.0, 30.0), executor, lambda: 0.0, look_up=lambda _: frozenset({"staff"}))
        rules = AccessRules(read_acls(HadoopConf(acls)), groups.of)
        keys = KeyCache(self.access, lambda: 0.0, 600.0)
        tokens = DelegationTokens(self.access, TokenLifetimes(), Identity.CLAIMED, plain_name, lambda: 0, 1000)
        freshness = Freshness(self.access, keys, rules, lambda: 0.0, 30.0)
        repeated = RepeatedChanges(self.access, Secret(bytes(32)))
        defaults = KeyDefaults("AES/CTR/NoPadding", 128)
        self.keeper = idle_keeper(self.store)
        monitoring = plain_monitoring(self.access, self.audit, self.keeper)
        kms = Kms(
            self.access,
            keys,
            rules,
            defaults,
            "1",
            self.audit,
            tokens,
            "simple",
            freshness,
            repeated,
            monitoring,
            self.keeper,
            no_flows(rules, groups.of, executor),
            LeaseDesk(no_leases, executor),
            86_400.0,
        )
        authenticator = simple_authenticator(lambda: 0, tokens=tokens)
        self.app = KmsApplication(kms, authenticator, AdminAccess(None), ProxyUsers({}, groups.of, plain_name))
        self.store.create_key(NewKey("k", "AES/CTR/NoPadding", 128, Secret(bytes(16)), None, {}))

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        return self.app(request)

    async def ask(self, path: bytes, query: bytes = b"", method: bytes = b"GET", body: bytes = b"") -> Response:
        answer = self.answer(request(path, query, method, body))
        response = answer if isinstance(answer, Response) else await answer
        return self.app.commit() or response

    def lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.audit_file.read_text().splitlines()]
        return [line for line in lines if line["outcome"] != "begun"]


def request(path: bytes, query: bytes = b"", method: bytes = b"GET", body: bytes = b"") -> Request:
    headers = {b"content-type": b"application/json"} if body else {}
    return Request(method, path, b"user.name=alice&" + query, headers, body, Peer("127.0.0.1"), keep_alive=True)


GENERATE = (b"/kms/v1/key/k/_eek", b"eek_op=generate")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def bench(tmp_path: Path, executor: ThreadPoolExecutor) -> Iterator[Bench]:
    bench = Bench(tmp_path, executor, OPEN)
    yield bench
    bench.audit.close()
    bench.access.close()


def test_the_hot_path_answers_without_the_loop_once_the_key_is_in_memory(bench: Bench) -> None:
    async def ask() -> None:
        assert (await bench.ask(*GENERATE)).head.status == 200
        again = bench.answer(request(*GENERATE))
        assert isinstance(again, Response) and again.head.status == 200
        bench.other.bump()
        assert not isinstance(later := bench.answer(request(*GENERATE)), Response)
        assert (await later).head.status == 200

    asyncio.run(ask())


def test_a_request_is_answered_although_something_is_committed_during_each_of_its_reads(bench: Bench) -> None:
    bench.store.on_read = bench.other.bump

    async def ask() -> None:
        # Others come in between and make the worker forget what it has, again and again.
        answers = await asyncio.gather(*(bench.ask(*GENERATE) for _ in range(20)))
        assert {answer.head.status for answer in answers} == {200}

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "status"), [(StoreTamperedError("tampered"), 500), (StoreUnavailableError("locked"), 503)]
)
def test_a_store_that_cannot_be_read_refuses_and_says_so_in_the_audit_log(
    bench: Bench, error: Exception, status: int
) -> None:
    def fail() -> None:
        raise error

    bench.store.on_read = fail

    async def ask() -> None:
        assert (await bench.ask(*GENERATE)).head.status == status

    asyncio.run(ask())
    (line,) = bench.lines()
    assert (line["user"], line["status"], line["outcome"]) == ("alice", status, "failed")


def test_groups_are_looked_up_before_a_decision_and_only_when_a_list_has_groups(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    bench = Bench(tmp_path, executor, {**OPEN, "hadoop.kms.acl.GENERATE_EEK": " staff"})

    async def ask() -> None:
        assert (await bench.ask(*GENERATE)).head.status == 200

    asyncio.run(ask())
    bench.audit.close()
    bench.access.close()


def test_a_policy_that_cannot_be_read_closes_every_key(bench: Bench) -> None:
    bench.store.publish_policy(0, b'{"not": "a policy"}', "x")

    async def ask() -> None:
        for path, query in (GENERATE, (b"/kms/v1/keys/names", b"")):
            answer = await bench.ask(path, query)
            assert answer.head.status == 500
            assert b"cannot be read" in answer.body

    asyncio.run(ask())


def test_an_audit_log_that_fails_turns_an_answer_into_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _data: bytes) -> int:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "write", fail)

    async def ask() -> None:
        answer = await bench.ask(*GENERATE)
        assert answer.head.status == 503
        assert b"encryptedKeyVersion" not in answer.body

    asyncio.run(ask())


_SEGMENTS = st.sampled_from(
    [b"kms", b"ringfence", b"v1", b"key", b"keys", b"keyversion", b"k", b"k%400", b"k@0", b"_eek", b"_versions",
     b"_metadata", b"_currentversion", b"_reencryptbatch", b"_invalidatecache", b"names", b"metadata", b"policy",
     b"status", b"", b"%ff", b"%00", b"+"]
)  # fmt: skip
_PATHS = st.lists(_SEGMENTS, max_size=6).map(lambda segments: b"/" + b"/".join(segments)) | st.binary(max_size=30).map(
    lambda tail: b"/kms/v1/" + tail
)
_QUERIES = st.sampled_from(
    [b"eek_op=generate", b"eek_op=decrypt", b"eek_op=reencrypt&num_keys=3", b"num_keys=x", b"doAs=x", b"key=k&key=z"]
) | st.binary(max_size=20)
_BODIES = st.sampled_from(
    [b"", b"{}", b"[]", b"null", b'{"name":"k","iv":"","material":""}', b'{"name":"new","length":128}', b'[{"iv":1}]',
     b'{"name":"k","iv":"AAAAAAAAAAAAAAAAAAAAAA","material":"AAAA"}', b'{"expected_revision":0,"policy":{}}',
     b'[{"versionName":"k@0","iv":"AAAAAAAAAAAAAAAAAAAAAA","encryptedKeyVersion":{"versionName":"EEK"}}]']
) | st.binary(max_size=40)  # fmt: skip
_METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_METHODS, _PATHS, _QUERIES, _BODIES)
def test_any_request_gets_an_answer_of_the_dialect(
    bench: Bench, method: bytes, path: bytes, query: bytes, body: bytes
) -> None:
    answer = asyncio.run(bench.ask(path, query, method, body))
    assert answer.head.status in (200, 201, 400, 401, 403, 404, 405, 409, 500)
    if answer.head.status >= 400 and answer.head.status != 401:
        error = json.loads(answer.body)["RemoteException"]
        assert error["javaClassName"].endswith(error["exception"])
    elif answer.body:
        json.loads(answer.body)


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        (b"/kms/v1/keyversion/k@0/_eek", b"eek_op=decrypt", {"name": "n" * 100_000, "iv": "", "material": ""}),
        (b"/kms/v1/keys", b"", {"name": "n" * 100_000}),
        (b"/kms/v1/keys", b"", {"name": "n", "cipher": "c" * 100_000}),
        (b"/kms/v1/keys", b"", {"name": "n", "description": "d" * 100_000}),
        (b"/kms/v1/keys", b"", {"name": "n", "attributes": {"a" * 50_000: "b" * 50_000}}),
        (b"/kms/v1/keys", b"", {"name": "n", "length": 10**4000}),
        (
            b"/kms/v1/key/k/_reencryptbatch",
            b"",
            [{"versionName": "n" * 100_000, "encryptedKeyVersion": {"versionName": "EEK"}}],
        ),
    ],
)
def test_what_a_client_sends_at_length_is_refused_and_not_logged_at_length(
    bench: Bench, path: bytes, query: bytes, body: object
) -> None:
    async def ask() -> None:
        assert (await bench.ask(path, query, b"POST", json.dumps(body).encode())).head.status in (400, 500)

    asyncio.run(ask())
    assert bench.audit_file.stat().st_size < 4096
    assert [key.name for key in bench.store.list_metadata()] == ["k"]


@pytest.mark.parametrize("count", ["1e3", " 5", "5 ", "1_0", "\N{ARABIC-INDIC DIGIT ONE}", "0x1", "9" * 5000])
def test_a_count_is_written_in_ascii_digits_alone(bench: Bench, count: str) -> None:
    async def ask() -> None:
        query = b"eek_op=generate&num_keys=" + quote(count).encode()
        assert (await bench.ask(b"/kms/v1/key/k/_eek", query)).head.status == 400

    asyncio.run(ask())


CHANGES = [
    (b"POST", b"/kms/v1/keys", b'{"name": "new"}'),
    (b"POST", b"/kms/v1/key/k", b"{}"),
    (b"DELETE", b"/kms/v1/key/k", b""),
]


def assert_nothing_changes(bench: Bench) -> None:
    async def ask() -> None:
        for method, path, body in CHANGES:
            assert (await bench.ask(path, b"", method, body)).head.status == 503

    asyncio.run(ask())
    assert [(key.name, key.versions) for key in bench.store.list_metadata()] == [("k", 1)]


def test_nothing_changes_when_the_disk_has_no_room_to_record_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=4096))
    assert_nothing_changes(bench)
    monkeypatch.undo()
    lines = bench.lines()
    assert [(line["op"], line["status"]) for line in lines] == [
        ("CREATE_KEY", 503),
        ("ROLL_NEW_VERSION", 503),
        ("DELETE_KEY", 503),
    ]


def test_nothing_changes_after_a_line_that_could_not_be_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int, _data: bytes) -> int:
        raise OSError(122, "Disk quota exceeded")

    async def ask() -> int:
        return (await bench.ask(*GENERATE)).head.status

    monkeypatch.setattr(os, "write", fail)
    assert asyncio.run(ask()) == 503
    assert_nothing_changes(bench)
    monkeypatch.undo()
    assert asyncio.run(ask()) == 200

    async def roll() -> int:
        return (await bench.ask(b"/kms/v1/key/k", b"", b"POST", b"{}")).head.status

    assert asyncio.run(roll()) == 200


def test_a_change_is_on_record_although_a_bug_follows_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    roll_key = bench.store.roll_key

    def roll_and_fail(name: str, material: Secret | None, origin: ChangeOrigin) -> KeyVersion:
        roll_key(name, material, origin)
        raise ZeroDivisionError("canary")

    monkeypatch.setattr(bench.store, "roll_key", roll_and_fail)

    async def roll() -> None:
        with pytest.raises(ZeroDivisionError):
            await bench.ask(b"/kms/v1/key/k", b"", b"POST", b"{}")
        assert bench.app.commit() is None

    asyncio.run(roll())
    (line,) = bench.lines()
    assert (line["op"], line["key"], line["status"]) == ("ROLL_NEW_VERSION", "k", 500)
    assert line["error"] == "unhandled ZeroDivisionError"


@pytest.mark.parametrize(
    ("outcome", "status", "told"),
    [
        (Response(ResponseHead(200)), 200, None),
        (StoreUnavailableError("sealed"), 503, "sealed"),
        (ZeroDivisionError("canary"), None, "unhandled ZeroDivisionError"),
    ],
    ids=["answer", "refusal", "bug"],
)
def test_a_promise_is_on_record_with_what_comes_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, outcome: Response | Exception, status: int | None, told: str | None
) -> None:
    promise: Promise[Response] = Promise()
    monkeypatch.setitem(_HANDLERS[Resource.KEY_NAMES], b"GET", lambda _kms, _call: promise)
    seen: list[Response | Exception] = []

    async def ask() -> None:
        assert (await bench.ask(*GENERATE)).head.status == 200  # policy and groups are in memory then
        answer = bench.answer(request(b"/kms/v1/keys/names"))
        assert answer is promise
        promise.listen(seen.append)
        assert len(bench.lines()) == 1 and seen == []
        promise.keep(outcome)
        assert bench.app.commit() is None

    asyncio.run(ask())
    (answered,) = seen
    if isinstance(answered, Response):
        assert answered.head.status == status
    else:
        assert answered is outcome and status is None
    line = bench.lines()[1]
    assert (line["status"], line.get("error")) == (status or 500, told)


def test_a_promise_after_a_load_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(_kms: Kms, _call: object) -> Promise[Response]:
        promise: Promise[Response] = Promise()
        asyncio.get_running_loop().call_soon(promise.keep, Response(ResponseHead(200), b"later"))
        return promise

    monkeypatch.setitem(_HANDLERS[Resource.KEY_NAMES], b"GET", begin)
    assert asyncio.run(bench.ask(b"/kms/v1/keys/names")).body == b"later"  # nothing is in memory yet
    assert [line["status"] for line in bench.lines()] == [200]


def test_a_stranger_with_a_forged_token_costs_neither_a_change_nor_what_workers_remember(bench: Bench) -> None:
    elsewhere = StoreAccess(MemoryKeyStore(), GenerationTable(1).view(0), GenerationTable(1).view(0))
    tokens = DelegationTokens(elsewhere, TokenLifetimes(), Identity.CLAIMED, plain_name, lambda: 0, 1000)

    async def ask() -> None:
        forged = await tokens.issue("alice", "alice", None, None)
        await bench.ask(b"/kms/v1/", b"op=GETDELEGATIONTOKEN")  # so that there is a master key
        bench.access.tokens_have_changed()
        before = bench.audit_file.read_text()
        for token in (forged, "garbage"):
            answer = await bench.ask(b"/kms/v1/", b"op=CANCELDELEGATIONTOKEN&token=" + token.encode(), b"PUT")
            assert answer.head.status == 404
        assert not bench.access.tokens_have_changed()
        records = [json.loads(line) for line in bench.audit_file.read_text().removeprefix(before).splitlines()]
        assert [(record["outcome"], record["status"]) for record in records] == [("failed", 404)] * 2

    asyncio.run(ask())
    elsewhere.close()
