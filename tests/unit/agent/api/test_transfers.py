"""The routes of transfers over a real Unix socket, asked by the client of step jobs; HDFS is a directory here."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from local_hdfs import LocalHdfs
from transfer_scenes import FILES

from ringfence_agent.api import transfers
from ringfence_agent.api.access import AccessRules, Members
from ringfence_agent.api.app import create_app
from ringfence_agent.api.asgi import AsgiBridge
from ringfence_agent.api.caller import Role
from ringfence_agent.api.gate import core_problem
from ringfence_agent.api.identify import Identifier
from ringfence_agent.api.tokens import TokenBook, TokenWish
from ringfence_agent.api.view import ClusterView
from ringfence_agent.client import AgentClient, AgentError
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import listen_unix
from ringfence_agent.http.server import HttpServer
from ringfence_agent.http.service import HttpService
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_agent.transfer.clearance import Clearance
from ringfence_agent.transfer.config import TransferConfig
from ringfence_agent.transfer.ledger import Ledger
from ringfence_agent.transfer.record import State, Transfer
from ringfence_agent.transfer.service import TransferService
from ringfence_agent.transfer.signing import open_signer
from ringfence_agent.transfer.streams import Streams
from ringfence_zones.errors import KmsUnavailableError, TransferError
from ringfence_zones.model import ClusterState, DirectoryState, EncryptionZone
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import parse_policy
from ringfence_zones.receipt import read_public_key, verify_receipt

POLICY = parse_policy(
    """
version: 1
cluster: test
zones:
  - {path: /data/pii, key: k-pii, owner: etl, readers: [masker, analyst]}
  - {path: /data/masked, key: k-masked, owner: etl, writers: [masker, analyst]}
flows:
  - {from: /data/pii, to: /data/masked, who: [masker]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
""",
    "zones.yaml",
)
STATE = ClusterState((3, 4, 2), tuple(EncryptionZone(zone.path, zone.key) for zone in POLICY.zones), {}, None, None)
SOURCE, TARGET = "/data/pii/export", "/data/masked/export"


class Accounts:
    """The test's own user under a name of our choosing."""

    name = "masker"

    def find_name(self, uid: int) -> str | None:
        return self.name if uid == os.geteuid() else None

    def groups_of(self, user: str) -> frozenset[str]:
        return frozenset()


class Cluster(LocalHdfs):
    """With the look that tells a directory from what is not there."""

    def find_directory(self, path: str) -> DirectoryState | None:
        if not self.local(path).exists():
            return None
        return DirectoryState(path, self.local(path).is_dir(), False, "etl", "etl", 0o755, 5)


class Admitted:
    """Notes which transfers the KMS was asked to admit; `away` is what it answers instead."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.away: Exception | None = None

    def admit(self, transfer: Transfer) -> None:
        if self.away is not None:
            raise self.away
        self.calls.append(f"admit {transfer.request.copy_as}")

    def end(self, transfer: Transfer) -> None:
        self.calls.append("end")


class Agent:
    """The API and its transfers. One after the other may run on one directory."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self.directory = directory
        self.socket = socket
        self.accounts = Accounts()
        self.hdfs = Cluster(directory)
        self.admitted = Admitted()
        self.client = AgentClient(str(socket))
        self.tokens = TokenBook(directory / "tokens.json")
        self.give_up_after = "1h"

    @contextmanager
    def running(self) -> Iterator[None]:
        board = Board(1e9)
        board.publish(
            Snapshot(cycle=1, sentence="", finished_s=0.0, state=STATE, policy=POLICY, observed_s=board._clock())
        )
        config = TransferConfig.model_validate({"streams": 2, "give_up_after": self.give_up_after})
        service = TransferService(
            config,
            Ledger(self.directory / "transfers.sqlite"),
            Clearance(board, self.accounts, config, is_secure=False),
            self.hdfs,
            open_signer(self.directory),
            self.admitted,
            cluster_name="hdfs://nn:8020",
            make_hands=lambda _request: self.hdfs,
            make_job=lambda _request, hands, meter, _stop: Streams(hands, meter, 1),
        )
        view = ClusterView(board, self.accounts, version="9", default_fs="hdfs://nn:8020")
        loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._serve(service, view, stop, started),))
        thread.start()
        assert started.wait(10)
        service.start()
        try:
            yield
        finally:
            service.close(5.0)
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()

    async def _serve(
        self, service: TransferService, view: ClusterView, stop: asyncio.Event, started: threading.Event
    ) -> None:
        rules = AccessRules(
            operators=Members.of(["masker", "etl", "analyst"]),
            admins=Members.of(["boss"]),
            delegate_users=["boss"],
            trusted_uids=[],
            accounts=self.accounts,
        )
        identifier = Identifier(rules, self.accounts, tokens=self.tokens)
        app = create_app(view, identifier, routers=[transfers.router(service, view)])
        listener = listen_unix(self.socket)
        server = HttpServer(
            HttpService(AsgiBridge(app), Limits(body_bytes=65536), core_problem), listener.sockets_for(0)
        )
        await server.start()
        started.set()
        await stop.wait()
        await server.drain(2.0)
        listener.close()

    @contextmanager
    def as_user(self, name: str) -> Iterator[None]:
        before, self.accounts.name = self.accounts.name, name
        yield
        self.accounts.name = before

    def with_token(self, user: str, issuer: str, *paths: str) -> AgentClient:
        """Asks with an administrator's token of `user`, which `issuer` made."""
        scope = [HdfsPath.parse(path) for path in paths] or None
        wish = TokenWish(user=user, role=Role.ADMIN, life_s=600, paths=scope)
        file = self.directory / "token"
        file.write_bytes(self.tokens.issue(wish, f"{issuer} (uid 1)", issuer)[1].reveal())
        file.chmod(0o600)
        return AgentClient(str(self.socket), token_file=str(file))

    def wait(self, transfer_id: str) -> Any:
        return self.client.wait_for_transfer(transfer_id, timeout_s=60, poll_s=0.02)


@pytest.fixture
def agent(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    made = Agent(tmp_path, tmp_path_factory.mktemp("a") / "a.sock")
    for name, content in FILES.items():
        made.hdfs.write(f"{SOURCE}/{name}", content)
    with made.running():
        yield made


def test_a_step_submits_follows_and_verifies(agent: Agent) -> None:
    seen: list[str] = []
    submitted = agent.client.submit_transfer(SOURCE, "hdfs://nn:8020" + TARGET, purpose="monthly masking")
    assert submitted.state not in ("waiting_for_approval", "failed")  # it may be over by now
    ended = agent.client.wait_for_transfer(submitted.id, 60, lambda each: seen.append(each.state), poll_s=0.01)
    assert (ended.state, ended.files_verified, ended.bytes_verified, ended.problem) == ("done", 3, 6500, None)
    assert seen[-1] == "done"
    assert agent.hdfs.content(TARGET) == FILES
    public = (agent.directory / "receipt-key.pub").read_bytes()
    receipt = verify_receipt(agent.client.get_receipt(submitted.id), read_public_key(public, "key"))
    assert (receipt.requested_by, receipt.copied_as, receipt.purpose) == ("masker", "masker", "monthly masking")
    assert agent.admitted.calls[0] == "admit masker"
    assert agent.admitted.calls[-1] == "end"


def test_the_key_that_is_handed_out_is_the_public_one(agent: Agent) -> None:
    with pytest.raises(AgentError, match="not JSON"):  # a PEM, whole
        agent.client._ask("GET", "/v1/receipts/key")
    key = agent.directory / "receipt-key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (agent.directory / "receipt-key.pub").read_bytes()


def test_a_transfer_without_an_edge_is_refused_by_the_rule_of_moves(agent: Agent) -> None:
    with agent.as_user("etl"), pytest.raises(AgentError) as refused:
        agent.client.submit_transfer(SOURCE, TARGET)
    assert (refused.value.status, refused.value.rule, refused.value.command) == (403, "zone_to_zone", None)
    assert "no flow from /data/pii to /data/masked for etl" in refused.value.message
    assert agent.client.transfers() == []


def test_an_approval_by_somebody_else_lets_it_go_on(agent: Agent) -> None:
    with agent.as_user("analyst"):
        with pytest.raises(AgentError, match="has to know what for"):
            agent.client.submit_transfer(SOURCE, TARGET, ask_for_approval=True)
        waiting = agent.client.submit_transfer(SOURCE, TARGET, ask_for_approval=True, purpose="audit sample")
        assert waiting.state == "waiting_for_approval"
        with pytest.raises(AgentError) as denied:
            agent.client.approve_transfer(waiting.id)
        assert denied.value.status == 403
    with agent.as_user("boss"):
        agent.client.approve_transfer(waiting.id)
        ended = agent.wait(waiting.id)
        assert (ended.state, ended.grant["approver"], ended.grant["purpose"]) == ("done", "boss", "audit sample")
        with pytest.raises(AgentError, match="is done"):
            agent.client.approve_transfer(waiting.id)


def test_nobody_approves_what_they_asked_for_in_whoevers_name(agent: Agent) -> None:
    with agent.as_user("boss"):
        waiting = agent.client.submit_transfer(SOURCE, TARGET, ask_for_approval=True, purpose="mine", user="analyst")
        with pytest.raises(AgentError, match="somebody else has to approve it"):
            agent.client.approve_transfer(waiting.id)


def test_a_token_that_the_requester_made_is_no_second_person(agent: Agent) -> None:
    with agent.as_user("boss"):
        waiting = agent.client.submit_transfer(SOURCE, TARGET, ask_for_approval=True, purpose="mine")
    with agent.as_user("etl"):
        with pytest.raises(AgentError, match="boss asked for this transfer: somebody else"):
            agent.with_token("etl", "boss").approve_transfer(waiting.id)
        agent.with_token("etl", "root").approve_transfer(waiting.id)


def test_a_tokens_paths_bind_what_it_sees_and_does(agent: Agent) -> None:
    with agent.as_user("analyst"):
        waiting = agent.client.submit_transfer(SOURCE, TARGET, ask_for_approval=True, purpose="audit sample")
    with agent.as_user("etl"):
        scoped = agent.with_token("etl", "root", "/data/pii", "/data/elsewhere")
        assert scoped.transfers() == []
        acts = (scoped.get_transfer, scoped.get_receipt, scoped.cancel_transfer, scoped.approve_transfer)
        for act in acts:
            with pytest.raises(AgentError) as missing:
                act(waiting.id)
            assert missing.value.status == 404
        assert [each.id for each in agent.with_token("etl", "root", "/data").transfers()] == [waiting.id]


def test_one_user_leaves_room_for_the_others(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence_agent.transfer.service.MAX_UNFINISHED", 2)
    with agent.as_user("analyst"):
        for number in range(2):
            agent.client.submit_transfer(SOURCE, f"{TARGET}{number}", ask_for_approval=True, purpose="p")
        with pytest.raises(AgentError, match="2 transfers of analyst are not over yet"):
            agent.client.submit_transfer(SOURCE, TARGET, ask_for_approval=True, purpose="p")
    assert agent.wait(agent.client.submit_transfer(SOURCE, TARGET).id).state == "done"


def test_a_disk_that_was_full_when_it_gave_up_leaves_nothing_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(tmp_path, tmp_path / "a.sock")
    agent.give_up_after = "1s"
    for name, content in FILES.items():
        agent.hdfs.write(f"{SOURCE}/{name}", content)
    tried = threading.Event()

    def full(_ledger: Ledger, _transfer_id: str, _problem: object) -> None:
        tried.set()
        raise TransferError("the ledger of transfers cannot be written: database or disk is full")

    agent.admitted.away = KmsUnavailableError("the KMS is away")
    with agent.running(), monkeypatch.context() as patch:
        patch.setattr(Ledger, "failing", full)
        made = agent.client.submit_transfer(SOURCE, TARGET)
        assert tried.wait(60)
        patch.undo()
        assert "given up after 1 s" in agent.wait(made.id).problem["message"]


def test_a_transfer_is_nobody_elses_but_an_administrators(agent: Agent) -> None:
    made = agent.client.submit_transfer(SOURCE, TARGET)
    agent.wait(made.id)
    with agent.as_user("etl"):
        assert agent.client.transfers() == []
        for ask in (agent.client.get_transfer, agent.client.get_receipt, agent.client.cancel_transfer):
            with pytest.raises(AgentError) as missing:
                ask(made.id)
            assert (missing.value.status, missing.value.type) == (404, "transfer-not-found")
    with agent.as_user("boss"):
        assert [each.id for each in agent.client.transfers()] == [made.id]


@pytest.mark.parametrize("transfer_id", ["nope", "../zones", "0" * 31, "G" * 32, "%00", "' OR 1=1 --"])
def test_ids_that_are_none_are_refused(agent: Agent, transfer_id: str) -> None:
    with pytest.raises(AgentError) as refused:
        agent.client.get_transfer(transfer_id)
    assert refused.value.status in (400, 404)


def test_the_same_key_is_the_same_transfer_after_a_restart_too(agent: Agent) -> None:
    first = agent.client.submit_transfer(SOURCE, TARGET, idempotency_key="step-7")
    agent.wait(first.id)
    again = Agent(agent.directory, agent.socket.with_name("b.sock"))
    with again.running():
        assert again.client.submit_transfer(SOURCE, TARGET, idempotency_key="step-7").id == first.id
        with pytest.raises(AgentError, match="used for another"):
            again.client.submit_transfer(SOURCE, TARGET + "2", idempotency_key="step-7")


def test_what_was_under_way_goes_on_with_the_next_agent(agent: Agent) -> None:
    agent.admitted.away = KmsUnavailableError("the KMS is away")
    waits = agent.client.submit_transfer(SOURCE, TARGET)
    while agent.client.get_transfer(waits.id).waits_for is None:
        pass
    assert agent.client.get_transfer(waits.id).waits_for == "the KMS is away"
    again = Agent(agent.directory, agent.socket.with_name("b.sock"))
    with again.running():
        assert again.wait(waits.id).state == "done"


def test_a_cancelled_transfer_leaves_nothing(agent: Agent) -> None:
    begun, held = threading.Event(), threading.Event()

    def before_copy(_path: str) -> None:
        begun.set()
        held.wait(30)

    agent.hdfs.before_copy = before_copy
    made = agent.client.submit_transfer(SOURCE, TARGET)
    assert begun.wait(30)  # before, a cancelled one may be over when the answer is written
    assert agent.client.cancel_transfer(made.id).state == "cleaning"
    held.set()
    ended = agent.wait(made.id)
    assert ended.state == "failed"
    assert ended.problem["message"].startswith("cancelled by masker")
    assert list(agent.hdfs.local("/data/masked").iterdir()) == []
    with pytest.raises(AgentError, match="too late"):
        agent.client.cancel_transfer(made.id)


def test_a_zones_root_is_not_removed(agent: Agent) -> None:
    with pytest.raises(AgentError) as refused:
        agent.client.submit_transfer("/data/pii", TARGET, remove_source=True)
    assert (refused.value.status, refused.value.rule) == (403, "zone_root")


def test_the_api_and_the_ledger_know_the_same_states() -> None:
    assert set(get_args(transfers._STATES)) == {state.value for state in State}
