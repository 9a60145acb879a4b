"""`ringfence doctor vault` on what only the double can be: sealed, many-headed, wrong about cryptography."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from vault_clusters import VaultCluster, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault

from ringfence_agent.doctor import vault_trial
from ringfence_agent.doctor.vault import CHECKS, VaultSubject
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.system import RaftPeer
from ringfence_agent.vault.transit_batches import TransitBatches
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, RewrapItem, TransitCiphertext
from ringfence_zones.errors import ProtectorRefusedError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, Outcome, run_checks
from ringfence_zones.secret import Secret


@pytest.fixture(scope="module")
def double() -> Iterator[VaultDouble]:
    with running_vault(nodes=3) as double:
        yield double


@pytest.fixture
def cluster(double: VaultDouble, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server_of(double), tmp_path) as cluster:
        cluster.set_up_and_log_in()
        yield cluster


def outcomes(cluster: VaultCluster) -> dict[str, Outcome]:
    subject = VaultSubject(cluster.own(), cluster.administrator())
    return {each.name: each for each in run_checks(CHECKS, subject)}


def test_one_sealed_node_of_three_is_a_warning(cluster: VaultCluster, double: VaultDouble) -> None:
    double.seal(2)
    try:
        (found,) = outcomes(cluster)["nodes"].findings
    finally:
        double.unseal(2)
    assert (found.severity, found.rule, found.path) == (Severity.WARN, Rule.VAULT, double.addresses[2])
    assert "sealed" in found.message


def test_without_an_active_node_nothing_else_is_called_fine(cluster: VaultCluster, double: VaultDouble) -> None:
    standby = {"standby": True, "sealed": False}
    with double.fault("status", path="sys/health", status=429, body=standby):
        found = outcomes(cluster)
    assert [each.severity for each in found["nodes"].findings] == [Severity.ERROR]
    assert "every node named is a standby" in found["nodes"].findings[0].message
    assert {each.not_checked for name, each in found.items() if name != "nodes"} == {"no node of Vault is active"}


def test_two_nodes_that_say_they_are_active(cluster: VaultCluster, double: VaultDouble) -> None:
    with double.fault("status", path="sys/health", status=200, body={"sealed": False, "standby": False}):
        found = outcomes(cluster)["nodes"].findings
    assert "3 nodes say that they are active" in found[0].message


def test_a_vault_whose_health_is_good_and_whose_calls_fail(cluster: VaultCluster, double: VaultDouble) -> None:
    with double.fault("status", path="^(?!sys/health)", status=500):
        found = outcomes(cluster)
    assert found["nodes"].findings == ()
    assert "audit" in found["token"].findings[0].hint


def test_too_few_voters_and_too_few_audit_devices(cluster: VaultCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    administrator = cluster.administrator()
    subject = VaultSubject(cluster.own(), administrator)

    def checked(peers: list[RaftPeer] | None, devices: list[str] | None) -> dict[str, Outcome]:
        monkeypatch.setattr(administrator.system, "find_raft_peers", lambda: peers)
        monkeypatch.setattr(administrator.system, "find_audit_devices", lambda: devices)
        return {each.name: each for each in run_checks(CHECKS, subject)}

    voters = [RaftPeer(name, is_voter=True, is_leader=False) for name in "abc"]
    well = checked(voters, ["file/", "syslog/"])
    assert (well["voters"].findings, well["audit"].findings) == ((), ())
    ill = checked([*voters[:2], RaftPeer("c", is_voter=False, is_leader=False)], [])
    assert "2 of the 3 voting nodes" in ill["voters"].findings[0].message
    assert "no audit log" in ill["audit"].findings[0].message
    assert "one audit device (file/)" in checked(voters, ["file/"])["audit"].findings[0].message
    unseen = checked(None, None)
    assert unseen["voters"].not_checked is not None
    assert unseen["audit"].not_checked is not None


class Wrong(TransitBatches):
    """Batches of a server that does something else than Transit."""

    def __init__(self, right: TransitBatches, fault: str) -> None:
        self._right = right
        self._fault = fault

    def encrypt(self, key: str, items: Sequence[EncryptItem]) -> list[TransitCiphertext | ItemFault]:
        if self._fault == "small" and len(items) > 100:
            raise ProtectorRefusedError("Vault refuses encrypt: the batch is too large")
        found = self._right.encrypt(key, items)
        return [ItemFault.OUR_BUG] * len(items) if self._fault == "encrypts nothing" else found

    def decrypt(self, key: str, items: Sequence[OpenItem]) -> list[Secret | ItemFault]:
        found = self._right.decrypt(key, items)
        if self._fault == "takes everything":
            return [Secret(b"x" * 32) if isinstance(each, ItemFault) else each for each in found]
        if self._fault == "all or nothing" and any(isinstance(each, ItemFault) for each in found):
            return [ItemFault.CORRUPT] * len(items)
        return list(reversed(found)) if self._fault == "out of order" else found

    def rewrap(self, key: str, items: Sequence[RewrapItem]) -> list[TransitCiphertext | ItemFault]:
        found: list[Any] = self._right.rewrap(key, items)
        return [item.ciphertext for item in items] if self._fault == "rewraps nothing" else found


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("encrypts nothing", "did not come back as ciphertexts"),
        ("takes everything", "a ciphertext that was changed is not refused"),
        ("takes everything", "opens with the context of another"),
        ("all or nothing", "one bad item of a batch spoils the others"),
        ("out of order", "does not decrypt to what it was"),
        ("rewraps nothing", "a rewrap did not bring everything to version 2"),
        ("small", "a batch of 128 items is refused"),
    ],
)
def test_a_server_that_does_something_else_than_transit_is_found_out(
    fault: str, words: str, cluster: VaultCluster
) -> None:
    own, administrator = cluster.own(), cluster.administrator()
    own.batches = Wrong(own.batches, fault)
    found: list[Finding] = list(vault_trial.check_transit(own, administrator))
    assert any(words in each.message for each in found), found
    assert {each.rule for each in found} == {Rule.VAULT}
    assert cluster.administrator().transit.list_names() == [WRAP_KEY]


def test_a_temporary_key_is_destroyed_even_when_the_trial_breaks_off(
    cluster: VaultCluster, double: VaultDouble
) -> None:
    with double.fault("status", path="/encrypt/", status=500):
        found = outcomes(cluster)["trial"]
    assert [each.rule for each in found.findings] == [Rule.VAULT]
    assert cluster.administrator().transit.list_names() == [WRAP_KEY]


def test_without_an_administrator_what_was_not_tried_is_said(cluster: VaultCluster) -> None:
    with pytest.raises(NotChecked, match="a roll and a deletion"):
        list(vault_trial.check_transit(cluster.own(), None))
