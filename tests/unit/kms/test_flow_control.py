"""What one worker remembers of the flow memory's answers, for how long, and what it does without any."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from ringfence_agent.flow.automaton import LABEL_LASTS_MS, REMEMBERED_S, SENT_AGAIN_S
from ringfence_agent.flow.grants import Admitted
from ringfence_agent.flow.memory import UNKNOWN_S, Answer, Ask
from ringfence_agent.flow.rules import FlowRules
from ringfence_agent.flow.stamp import Stamps
from ringfence_agent.http.request import Peer, Request
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.authorization.acls import read_acls
from ringfence_agent.kms.authorization.published import NOTHING_PUBLISHED
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.flow_control import UNDECIDED, FlowControl
from ringfence_agent.kms.routes import Query
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import RefusedError, StoreUnavailableError
from ringfence_zones.findings import Rule
from ringfence_zones.flow_labels import Crossing, Kind
from ringfence_zones.hadoop_conf import HadoopConf
from ringfence_zones.secret import Secret

NOW_S = 1_795_000_000.0
SINCE_MS = int((NOW_S - 2 * UNKNOWN_S) * 1000)
NEW_MS = int((NOW_S - 60) * 1000)
CROSSING = Crossing("pii", "masked", Kind.WRITE)
IV, OTHER_IV = bytes(16), bytes(15) + b"\1"
SHADOW = FlowRules(paths={"pii": "/data/pii", "masked": "/data/masked"})
ENFORCED = replace(SHADOW, enforces=True)


class FakeMemory:
    """Answers as it is told, and has what it was asked."""

    def __init__(self) -> None:
        self.current = 7
        self.opened: list[bytes] = []
        self.answer = Answer(Kind.READ, None, is_lasting=True)
        self.error: Exception | None = None
        self.asked: list[Ask] = []
        self.batches: list[int] = []
        self.issued: list[tuple[str, int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def epoch(self, since_ms: int) -> int:
        assert since_ms == SINCE_MS
        return self.current

    def note_opened(self, ivs: Sequence[bytes]) -> None:
        if self.error is None:
            self.opened += ivs

    def settle(self, asks: Sequence[Ask], since_ms: int) -> list[Answer]:
        assert since_ms in (SINCE_MS, NEW_MS)
        answer = self.answer
        self.may_go.wait(10)
        self.batches.append(len(asks))
        self.asked += asks
        if self.error is not None:
            raise self.error
        return [answer] * len(asks)

    def note_issued(self, zone: str, ivs: Sequence[bytes], epoch: int, since_ms: int) -> bool:
        assert since_ms == SINCE_MS
        if self.error is not None:
            raise self.error
        self.issued.append((zone, len(ivs)))
        return epoch == self.current

    def close(self) -> None:
        pass


@dataclass
class Bench:
    executor: ThreadPoolExecutor
    memory: FakeMemory = field(default_factory=FakeMemory)
    now_s: float = 0.0
    confirmed: Callable[[], None] = lambda: None
    counted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.access = AccessRules(read_acls(HadoopConf({})), lambda _: frozenset())
        self.stamps = Stamps(Secret(bytes(32)))
        self.publish(SHADOW)

        async def confirm() -> None:
            self.confirmed()

        self.control = FlowControl(
            lambda: self.memory,  # type: ignore[arg-type,return-value]
            self.executor, self.stamps, self.access, lambda _: frozenset(), confirm,
            self.counted.append, lambda: self.now_s, lambda: NOW_S + self.now_s,
        )  # fmt: skip

    def publish(self, rules: FlowRules | None) -> None:
        published = replace(NOTHING_PUBLISHED, revision=3, rule="policy:3", flows=rules, flows_since_ms=SINCE_MS)
        self.access.use_published(published)

    async def open(self, zone: str = "pii", iv: bytes = IV, caller: Caller | None = None, address: str = "a") -> Call:
        """As the application does: again from the beginning after each load."""
        call = Call(Request(b"POST", b"/", b"", {}, b"", Peer(address), keep_alive=True), Query())
        call.caller = caller or Caller("alice", Identity.KERBEROS)
        call.user = call.caller.user
        for _ in range(4):
            try:
                self.control.check(call, zone, iv)
            except Unready as missing:
                await missing.load()
            else:
                return call
        raise AssertionError("it is never ready")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(1) as executor:
        yield Bench(executor)


def test_what_was_granted_is_remembered_for_a_minute_and_asked_again_then(bench: Bench) -> None:
    async def run() -> None:
        for bench.now_s in (0, 1, REMEMBERED_S - 0.1):
            assert (await bench.open()).opened == "read"
        assert len(bench.memory.asked) == 1
        bench.now_s = REMEMBERED_S
        await bench.open()
        assert len(bench.memory.asked) == 2

    asyncio.run(run())


def test_remembering_never_outlasts_the_label_that_was_granted(bench: Bench) -> None:
    """An answer about another EDEK renews no label, so it must not renew what is remembered of one either."""

    async def run() -> None:
        await bench.open()
        for number in range(20):
            bench.now_s += 10
            await bench.open(iv=bytes(14) + bytes([1, number]))
        renewed = [ask for ask in bench.memory.asked if not ask.granted]
        assert len(renewed) == 1 + 200 // REMEMBERED_S
        assert REMEMBERED_S * 1000 < LABEL_LASTS_MS

    asyncio.run(run())


def test_each_session_zone_and_kind_is_asked_about(bench: Bench) -> None:
    async def run() -> None:
        bob = Caller("bob", Identity.KERBEROS)
        by_token = [Caller("alice", Identity.TOKEN, is_token=True, token=number) for number in (1, 2)]
        via = Caller("alice", Identity.KERBEROS, real_user="hive")
        for caller in (None, bob, via, *by_token):
            await bench.open(caller=caller)
        await bench.open(address="b")
        await bench.open(zone="masked")
        assert len({(ask.session, ask.zone) for ask in bench.memory.asked}) == len(bench.memory.asked) == 7
        # A token is one session wherever it comes from.
        await bench.open(caller=by_token[0], address="c")
        assert len(bench.memory.asked) == 7

    asyncio.run(run())


def test_the_first_opening_is_a_write_of_its_session_for_a_minute_and_a_read_of_others(bench: Bench) -> None:
    async def run() -> None:
        bench.memory.answer = Answer(Kind.WRITE)
        assert (await bench.open()).opened == "write"
        assert (await bench.open()).opened == "write"
        bench.memory.answer = Answer(Kind.READ)
        assert (await bench.open(caller=Caller("bob", Identity.KERBEROS))).opened == "read"
        assert bench.memory.asked[-1].unknown is Kind.READ
        assert bench.memory.asked[-1].stamp is None
        bench.now_s = SENT_AGAIN_S
        assert (await bench.open()).opened == "read"

    asyncio.run(run())


def test_a_refusal_names_both_zones_and_the_rule_and_is_not_remembered(bench: Bench) -> None:
    async def run() -> None:
        bench.publish(ENFORCED)
        bench.memory.answer = Answer(Kind.WRITE, CROSSING)
        for _ in range(2):
            with pytest.raises(RefusedError, match=r"/data/pii to /data/masked.*revision 3.*decide-move") as refused:
                await bench.open("masked")
            assert refused.value.rule is Rule.FLOW_REFUSED
        assert [ask.enforced for ask in bench.memory.asked] == [True, True]
        bench.memory.answer = Answer(Kind.WRITE)
        assert (await bench.open("masked")).opened == "write"
        assert bench.counted.count("flow_refusals") == 2

    asyncio.run(run())


def test_claimed_names_are_only_told_of_unless_it_is_written_out(bench: Bench) -> None:
    async def run() -> None:
        claimed = Caller("alice", Identity.CLAIMED)
        bench.publish(ENFORCED)
        bench.memory.answer = Answer(Kind.WRITE, CROSSING)
        for _ in range(2):  # the second from memory
            call = await bench.open("masked", caller=claimed)
            assert call.detail == {"flow": {"from": "/data/pii", "to": "/data/masked", "mode": "shadow"}}
        assert len(bench.memory.asked) == 1
        # The same session, proven, is refused: what shadow mode remembers grants nothing.
        with pytest.raises(RefusedError):
            await bench.open("masked")
        bench.publish(replace(ENFORCED, on_claims=True))
        with pytest.raises(RefusedError):
            await bench.open("masked", caller=claimed)
        assert bench.counted.count("flow_shadow_refusals") == 2

    asyncio.run(run())


def test_other_rules_ask_anew_and_no_rules_ask_nothing(bench: Bench) -> None:
    async def run() -> None:
        await bench.open()
        bench.publish(replace(SHADOW, paths={}))
        await bench.open()
        assert len(bench.memory.asked) == 2
        bench.publish(None)
        assert (await bench.open(iv=OTHER_IV)).opened is None
        assert len(bench.memory.asked) == 2

    asyncio.run(run())


def test_nobody_is_refused_by_a_policy_that_was_replaced_meanwhile(bench: Bench) -> None:
    async def run() -> None:
        bench.publish(ENFORCED)
        bench.memory.answer = Answer(Kind.WRITE, CROSSING)
        bench.confirmed = lambda: bench.publish(SHADOW)
        assert (await bench.open("masked")).opened == "write"
        assert [ask.enforced for ask in bench.memory.asked] == [True, False]

    asyncio.run(run())


def test_without_its_memory_it_refuses_where_rules_are_enforced_and_serves_in_shadow(bench: Bench) -> None:
    async def run() -> None:
        bench.memory.error = StoreUnavailableError("the disk is full")
        call = await bench.open()
        assert call.opened == UNDECIDED
        assert bench.control.problem == "the disk is full"
        bench.publish(ENFORCED)
        with pytest.raises(StoreUnavailableError, match="cannot be decided now: the disk is full"):
            await bench.open()
        # Not asked for each of them, but soon again.
        assert len(bench.memory.asked) == 1
        bench.memory.error = None
        bench.now_s = 1
        assert (await bench.open()).opened == "read"
        # What was opened meanwhile is said as soon as it can be.
        assert bench.memory.opened == [IV]
        assert bench.control.problem is None

    asyncio.run(run())


def test_what_gathers_while_one_is_decided_is_decided_at_once(bench: Bench) -> None:
    async def run() -> None:
        bench.memory.may_go.clear()
        openings = [asyncio.create_task(bench.open(address=str(number))) for number in range(50)]
        for _ in range(20):
            await asyncio.sleep(0)
        openings[30].cancel()
        bench.memory.may_go.set()
        await asyncio.gather(*(each for each in openings if each is not openings[30]))
        assert bench.memory.batches in ([50], [49], [1, 49], [1, 48])

    asyncio.run(run())


def test_new_edeks_are_noted_or_say_that_they_are_not(bench: Bench) -> None:
    def epochs(ivs: bytes) -> set[int | None]:
        stamps = [bench.stamps.find("pii", ivs[at : at + 16]) for at in range(0, len(ivs), 16)]
        return {stamp.epoch if stamp is not None else None for stamp in stamps}

    async def run() -> None:
        assert bench.control.is_tracking
        assert epochs(await bench.control.issue("pii", 20)) == {7}
        assert bench.memory.issued == [("pii", 20)]
        bench.memory.current = 8  # of which note_issued is told only after the stamps were made
        assert epochs(await bench.control.issue("pii", 3)) == {8}
        bench.memory.error = StoreUnavailableError("the disk is full")
        assert epochs(await bench.control.issue("pii", 3)) == {0}
        assert epochs(bench.control.untracked_ivs("pii", 3)) == {0}
        bench.publish(None)
        assert not bench.control.is_tracking

    asyncio.run(run())


@pytest.mark.parametrize(
    ("epoch", "age_s", "kind"),
    [
        (0, UNKNOWN_S - 120, Kind.BOTH), (0, UNKNOWN_S + 120, Kind.READ),
        (5, UNKNOWN_S - 120, Kind.BOTH), (5, UNKNOWN_S + 120, Kind.READ),
        (None, 0, Kind.READ),
    ],
)  # fmt: skip
def test_what_the_memory_cannot_know_counts_by_its_age(
    bench: Bench, epoch: int | None, age_s: float, kind: Kind
) -> None:
    async def run() -> None:
        iv = IV if epoch is None else bench.stamps.make("pii", 1, epoch, NOW_S - age_s)
        await bench.open(iv=iv)
        assert bench.memory.asked[0].unknown is kind

    asyncio.run(run())


def test_edeks_of_another_kms_count_as_both_while_flows_are_new(bench: Bench) -> None:
    async def run() -> None:
        published = bench.access.published
        bench.access.use_published(replace(published, flows_since_ms=NEW_MS))
        await bench.open()
        assert bench.memory.asked[0].unknown is Kind.BOTH

    asyncio.run(run())


def test_edeks_are_noted_once_every_server_knows_that_openings_are(bench: Bench) -> None:
    """One that does not know yet opens them without a word, and a later opening would be taken for the first."""

    async def run() -> None:
        bench.control._settling_s = 30.0
        published = bench.access.published
        bench.access.use_published(replace(published, flows_since_ms=int(NOW_S * 1000)))
        for bench.now_s in (0, 29.9):
            await bench.control.issue("pii", 3)
        assert bench.memory.issued == []
        bench.access.use_published(published)  # published long before this server began
        await bench.control.issue("pii", 3)
        assert bench.memory.issued == [("pii", 3)]

    asyncio.run(run())


def test_what_may_be_both_is_remembered_as_each_of_them(bench: Bench) -> None:
    async def run() -> None:
        bench.memory.answer = Answer(Kind.BOTH)
        assert (await bench.open()).opened == "read or write"
        assert (await bench.open()).opened == "read or write"
        bench.memory.answer = Answer(Kind.WRITE)
        await bench.open(iv=OTHER_IV)
        assert [ask.granted for ask in bench.memory.asked] == [Kind(0), Kind.BOTH]

    asyncio.run(run())


def test_what_was_granted_by_rules_that_were_replaced_meanwhile_grants_nothing(bench: Bench) -> None:
    async def run() -> None:
        bench.publish(ENFORCED)
        bench.memory.may_go.clear()
        opening = asyncio.create_task(bench.open("masked"))
        for _ in range(20):
            await asyncio.sleep(0)
        bench.publish(replace(ENFORCED, paths={}))
        bench.memory.answer = Answer(Kind.WRITE, CROSSING)
        bench.memory.batches.clear()
        bench.memory.may_go.set()
        with pytest.raises(RefusedError):
            await opening
        assert len(bench.memory.batches) == 2

    asyncio.run(run())


GRANTED = Answer(Kind.WRITE, None, admitted=Admitted(("g",), int((NOW_S + 20) * 1000)))


def test_what_a_grant_admitted_is_on_record_each_time_and_remembered_no_longer_than_it_holds(bench: Bench) -> None:
    async def run() -> None:
        bench.publish(ENFORCED)
        bench.memory.answer = GRANTED
        for bench.now_s in (0, 1, 19.9):
            call = await bench.open()
            assert (call.opened, call.detail) == ("write", {"grants": ["g"]})
        assert len(bench.memory.asked) == 1
        assert bench.memory.asked[0].user == "alice"
        assert bench.counted.count("flow_admitted_by_grant") == 3
        bench.now_s = 20.1
        bench.memory.answer = Answer(Kind.WRITE, CROSSING)
        with pytest.raises(RefusedError):
            await bench.open()

    asyncio.run(run())


def test_another_edek_that_is_opened_by_what_is_remembered_of_a_grant_says_so_too(bench: Bench) -> None:
    async def run() -> None:
        bench.memory.answer = replace(GRANTED, kind=Kind.READ, is_lasting=True)
        await bench.open()
        bench.memory.answer = Answer(Kind.READ, None, is_lasting=True)
        assert (await bench.open(iv=OTHER_IV)).detail == {"grants": ["g"]}
        assert (await bench.open(iv=OTHER_IV, address="b")).detail is None

    asyncio.run(run())


def test_nothing_is_remembered_longer_than_the_revocation_bound(bench: Bench) -> None:
    async def run() -> None:
        bench.control._remembered_s = 5.0
        for bench.now_s in (0, 4.9, 5.0):
            await bench.open()
        assert len(bench.memory.asked) == 2

    asyncio.run(run())
