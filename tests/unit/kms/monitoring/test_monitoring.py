from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from kms_monitoring import idle_keeper
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.keystore.interface import NewKey, SealedKey, StoredKey
from ringfence_agent.kms.audit.config import AuditSettings
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.audit.record import Decision
from ringfence_agent.kms.monitoring.config import MetricsAccess
from ringfence_agent.kms.monitoring.health import HealthCheck
from ringfence_agent.kms.monitoring.metrics import BUCKETS_S, METER_TICK_S, MetricsTable
from ringfence_agent.kms.monitoring.pages import Monitoring, ServerFacts
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError, StoreTamperedError
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

DECISION = Decision("DECRYPT_EEK", "k", 0, "etl", None, None, "kerberos", "10.0.0.7", 200, "ok", "r", 3)


class ScriptedStore(MemoryKeyStore):
    """Counts looks, fails or hangs when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.problem: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def find_key(self, name: str) -> StoredKey | None:
        self.looks += 1
        self.gate.wait(30)
        if self.problem is not None:
            raise self.problem
        return super().find_key(name)


class Place:
    def __init__(self, directory: Path, executor: ThreadPoolExecutor) -> None:
        self.now_s = 0.0
        self.store = ScriptedStore()
        self.audit = AuditLog(AuditSettings(directory=directory / "audit"), 0, executor)
        self.access = StoreAccess(self.store, GenerationTable(1).view(0), GenerationTable(1).view(0))
        self.health = HealthCheck(self.access, self.audit, lambda: self.now_s, deadline_s=0.2)

    def check(self) -> tuple[str, ...]:
        return asyncio.run(self.health.check()).problems


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ThreadPoolExecutor(1) as executor:
        place = Place(tmp_path, executor)
        yield place
        place.store.gate.set()
        place.access.close()
        place.audit.close()


def add_key(place: Place) -> None:
    place.store.create_key(NewKey("k", "AES/CTR/NoPadding", 128, Secret(bytes(16)), None, {}))


def test_a_canary_is_opened_with_a_key_read_afresh_once_a_second_at_most(place: Place) -> None:
    assert place.check() == ()
    add_key(place)
    for _ in range(10):
        place.now_s += 0.3
        assert place.check() == ()
    assert place.store.looks == 2  # at 1.2 s and 2.4 s


def test_a_store_that_fails_is_not_ready_until_it_works_again(place: Place) -> None:
    add_key(place)
    place.store.problem = StoreTamperedError("row 3 was changed")
    assert place.check() == ("row 3 was changed",)
    place.store.problem = ZeroDivisionError("secret text")
    place.now_s += 1
    assert place.check() == ("the key store fails with ZeroDivisionError",)
    place.store.problem = None
    place.now_s += 1
    assert place.check() == ()


def test_a_store_that_hangs_is_not_ready_and_is_not_asked_twice(place: Place) -> None:
    add_key(place)
    place.store.gate.clear()

    async def look() -> None:
        first = await asyncio.gather(*(place.health.check() for _ in range(5)))
        assert {health.problems for health in first} == {("the key store does not answer within 0.2 s",)}
        place.now_s += 10
        assert not (await asyncio.wait_for(place.health.check(), 0.1)).is_ready
        assert place.store.looks == 1
        place.store.gate.set()
        for _ in range(200):
            if (await place.health.check()).is_ready:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never became ready")

    asyncio.run(look())


def test_a_deleted_canary_gives_way_to_another_key(place: Place) -> None:
    add_key(place)
    assert place.check() == ()
    place.store.delete_key("k")
    place.now_s += 1
    assert place.check() == ()


class SlottedStore(MemoryKeyStore):
    """Each key is sealed by a protector of its own name, but for those that are `local`."""

    def __init__(self, *names: str, local: str = "") -> None:
        super().__init__()
        for name in names:
            self.create_key(NewKey(name, "AES/CTR/NoPadding", 128, Secret(bytes(16)), None, {}))
        self.local = local
        self.problems: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.asked: list[str] = []

    def list_canaries(self) -> list[tuple[str, int]]:
        return [(key.name, 0) for key in self.list_metadata()]

    def find_sealed_key(self, name: str) -> SealedKey | None:
        key = super().find_sealed_key(name)
        if key is None:
            return None
        remote = frozenset() if name == self.local else frozenset(key.numbers)

        def opened(numbers: Collection[int]) -> Sequence[KeyVersion]:
            self.asked.append(name)
            self.gates.get(name, threading.Event()).wait(30 if name in self.gates else 0)
            if name in self.problems:
                raise self.problems[name]
            return key.open_versions(numbers)

        return replace(key, open_versions=opened, remote=remote)


@contextmanager
def slotted(directory: Path, *names: str, local: str = "") -> Iterator[tuple[SlottedStore, Place]]:
    store = SlottedStore(*names, local=local)
    with ThreadPoolExecutor(1) as executor:
        place = Place(directory, executor)
        access = StoreAccess(store, GenerationTable(1).view(0), GenerationTable(1).view(0))
        place.health = HealthCheck(access, place.audit, lambda: place.now_s, deadline_s=2.5)
        yield store, place
        for gate in store.gates.values():
            gate.set()
        access.close()
        place.access.close()
        place.audit.close()


AWAY, REFUSED = ProtectorUnavailableError("vault is sealed"), ProtectorRefusedError("no such key", reason="key")


@pytest.mark.parametrize(
    ("failing", "ready", "degraded"),
    [
        ({}, True, False),
        ({"vault": AWAY}, True, True),
        ({"vault": AWAY, "aws": REFUSED}, True, True),
        ({"vault": AWAY, "aws": REFUSED, "file": AWAY}, False, False),
        ({"file": StoreTamperedError("row 3")}, False, False),
        ({"vault": StoreTamperedError("row 3")}, False, False),
    ],
    ids=["all well", "one away", "all but one", "all", "tampered", "remote tampered"],
)
def test_some_protectors_that_do_not_open_degrade_and_all_of_them_make_unready(
    tmp_path: Path, failing: dict[str, Exception], ready: bool, degraded: bool
) -> None:
    with slotted(tmp_path, "aws", "file", "vault") as (store, place):
        store.problems = failing
        health = asyncio.run(place.health.check())
        assert (health.is_ready, health.is_degraded) == (ready, degraded)
        assert {str(error) for error in failing.values()} == set("; ".join(health.problems).split("; ")) - {""}


def test_only_the_protector_that_is_away_is_asked_at_each_look(tmp_path: Path) -> None:
    with slotted(tmp_path, "aws", "file", "vault", local="file") as (store, place):
        store.problems = {"vault": AWAY}
        for _ in range(5):
            place.now_s += 1.5
            assert asyncio.run(place.health.check()).is_degraded
        assert {name: store.asked.count(name) for name in ("aws", "file", "vault")} == {"aws": 1, "file": 5, "vault": 5}
        store.problems = {}
        place.now_s += 1.5
        assert place.check() == ()


def test_a_protector_that_hangs_degrades_in_time_and_is_asked_again_only_when_it_answered(tmp_path: Path) -> None:
    with slotted(tmp_path, "file", "vault", local="file") as (store, place):
        gate = store.gates["vault"] = threading.Event()

        async def look() -> None:
            for _ in range(3):
                place.now_s += 1.5
                health = await asyncio.wait_for(place.health.check(), 5)
                assert health.problems == ("what sealed vault@0 does not answer",)
                assert health.is_degraded
            assert store.asked.count("vault") == 1
            gate.set()
            for _ in range(500):
                place.now_s += 1.5
                if (await place.health.check()).problems == ():
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("it stayed degraded")

        asyncio.run(look())


def test_the_page_says_degraded_beside_ready_and_why_on_the_socket_alone(tmp_path: Path) -> None:
    with slotted(tmp_path, "aws", "file", local="file") as (store, place):
        store.problems = {"aws": AWAY}
        watched = monitoring(place, MetricsAccess.LOCAL).watch(lambda _: Response(ResponseHead(418)))

        def ask(peer: Peer) -> tuple[int, object]:
            answer = watched(Request(b"GET", b"/health/ready", b"", {}, b"", peer, keep_alive=True))

            async def waited() -> Response:
                return answer if isinstance(answer, Response) else await answer

            response = asyncio.run(waited())
            return response.head.status, json.loads(response.body)

        assert ask(Peer("10.0.0.7")) == (200, {"ready": True, "degraded": True})
        told = {"ready": True, "degraded": True, "problems": ["vault is sealed"]}
        assert ask(Peer(None)) == (200, told)
        place.now_s += 1.5
        store.problems["file"] = StoreTamperedError("row 3")
        assert ask(Peer("10.0.0.7")) == (503, {"ready": False})


def monitoring(place: Place, access: MetricsAccess) -> Monitoring:
    facts = ServerFacts(
        address="kms.example.com:9600",
        scheme="http",
        only_loopback=False,
        authentication="simple",
        revocation_bound_s=30.0,
        service_name="KMS",
        metrics_access=access,
        certificate_not_after_s=lambda: 2_000_000_000.0,
    )
    return Monitoring(facts, MetricsTable(1).worker(0, 0), place.health, place.audit, idle_keeper())


@pytest.mark.parametrize(
    ("access", "address", "status"),
    [
        (MetricsAccess.LOCAL, "127.0.0.1", 200),
        (MetricsAccess.LOCAL, "::1", 200),
        (MetricsAccess.LOCAL, None, 200),
        (MetricsAccess.LOCAL, "10.0.0.7", 418),
        (MetricsAccess.AUTHENTICATED, "127.0.0.1", 200),
        (MetricsAccess.AUTHENTICATED, "10.0.0.7", 418),
        (MetricsAccess.ANYONE, "10.0.0.7", 200),
    ],
)
def test_who_is_not_on_this_machine_reads_metrics_only_by_leave(
    place: Place, access: MetricsAccess, address: str | None, status: int
) -> None:
    # 418 stands for the application, which asks for a name first.
    watched = monitoring(place, access).watch(lambda _: Response(ResponseHead(418)))
    answer = watched(Request(b"GET", b"/metrics", b"", {}, b"", Peer(address), keep_alive=True))
    assert isinstance(answer, Response)
    assert answer.head.status == status
    assert (b"ringfence_kms_certificate_expiry_seconds 2e+09" in answer.body) == (status == 200)


@pytest.mark.parametrize(("access", "status"), [(MetricsAccess.LOCAL, 403), (MetricsAccess.AUTHENTICATED, 200)])
def test_an_authenticated_user_elsewhere_reads_metrics_when_that_is_set(
    place: Place, access: MetricsAccess, status: int
) -> None:
    assert monitoring(place, access).render_metrics(0).head.status == status


def test_risks_are_named(place: Place) -> None:
    told = asyncio.run(monitoring(place, MetricsAccess.LOCAL).describe("sqlite:x", 3))
    assert [risk.partition(":")[0] for risk in told["risks"]] == ["plain HTTP", "simple authentication"]
    assert told["certificate"]["not_after"] == "2033-05-18T03:33:20.000000Z"


def test_counters_go_on_under_a_new_process_and_gauges_do_not() -> None:
    table = MetricsTable(2)
    first, second = table.worker(0, 0), table.worker(1, 1)
    first.request(DECISION, 0.0003)
    second.request(DECISION._replace(item_count=7, op="GENERATE_EEK"), 9.0)
    for metrics in (first, second):
        metrics.flush()
    first.set_connections(5)
    assert [process.connections for process in table.living()] == [5, 0]
    again = table.worker(0, 0)
    again.request(DECISION._replace(outcome="denied"), 0.0003)
    assert table.requests("DECRYPT_EEK", "denied") == 0
    again.flush()
    again.flush()
    assert (table.requests("DECRYPT_EEK", "ok"), table.requests("DECRYPT_EEK", "denied")) == (1, 1)
    assert (table.total("eeks_generated"), table.total("eeks_decrypted")) == (7, 1)
    assert table.total("worker_starts") == 3
    assert table.latency("DECRYPT_EEK").buckets[BUCKETS_S.index(0.0005)] == 2
    assert table.latency("GENERATE_EEK").buckets[-1] == 1
    assert table.latency("GENERATE_EEK").sum_s == pytest.approx(9.0)
    assert (table.meter("decrypt_eek"), table.meter("unauthorized"), table.meter("invalid")) == (2, 1, 1)
    assert sum(process.connections for process in table.living()) == 0
    again.end()
    assert len(table.living()) == 1


def test_rates_approach_what_happens_and_fade(place: Place) -> None:
    table = MetricsTable(1)
    metrics, now_s = table.worker(0, 0), 1000.0
    metrics.tick(now_s)
    for _ in range(60):
        for _ in range(50):
            metrics.request(DECISION, 0.001)
        now_s += METER_TICK_S
        metrics.tick(now_s)
    assert table.rate("decrypt_eek", 0) == pytest.approx(10.0, rel=0.02)
    assert 2 < table.rate("decrypt_eek", 2) < 4
    for _ in range(60):
        now_s += METER_TICK_S
        metrics.tick(now_s)
    assert table.rate("decrypt_eek", 0) < 0.1


def test_what_is_counted_elsewhere_is_added_by_what_is_new() -> None:
    table = MetricsTable(1)
    metrics = table.worker(0, 0)
    metrics.copy("audit_bytes", 100)
    metrics.copy("audit_bytes", 150)
    table.worker(0, 0).copy("audit_bytes", 30)
    assert table.total("audit_bytes") == 180
