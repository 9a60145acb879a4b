"""Transfers under Kerberos: copied by the service principal of the edge, from its keytab, for who may do so themselves.

RPC, blocks and the KMS are encrypted; the client in Rust trusts the authority of Hadoop's own `ssl-client.xml`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import new_sandbox
from secure_clusters import SecureCluster
from transfer_world import World

from ringfence_agent.client import AgentError
from ringfence_zones.receipt import read_public_key, verify_receipt

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]

_POLICY = """
version: 1
cluster: transfer-test
zones:
  - {path: /t/pii, owner: etl, readers: [masker, analyst]}
  - {path: /t/masked, owner: etl, writers: [masker, analyst]}
  - {path: /t/open, owner: etl, writers: [masker]}
flows:
  - {from: /t/pii, to: /t/open, who: [masker]}
  - {from: /t/pii, to: /t/masked, who: [masker, analyst]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
agent: {mode: observe, pin: off}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureCluster]:
    settings = tmp_path_factory.mktemp("kms") / "settings.yaml"
    settings.write_text("delegation_tokens: {in_query: true}\n")
    with new_sandbox("--kerberos", "--tls", "--kms-settings", str(settings)) as described:
        yield SecureCluster(described)


@pytest.fixture(scope="module")
def world(cluster: SecureCluster) -> Iterator[World]:
    login = f"{{principal: analyst@{cluster.realm.name}, keytab: {cluster.keytabs['analyst']}}}"
    service = f"{{from: /t/pii, to: /t/masked, user: analyst, kerberos: {login}}}"
    with tempfile.TemporaryDirectory(prefix="rft-") as directory:
        made = World(cluster, Path(directory), f"{{streams: 4, services: [{service}]}}", _POLICY)
        made.publish()
        made.start()
        try:
            yield made
        finally:
            made.end()


def test_the_service_principal_copies_and_the_receipt_says_for_whom(world: World) -> None:
    content = bytes(range(256)) * 9000 + b"end"
    world.put("/t/pii/one", {"file": content, "sub/empty": b""})
    done = world.transfer("/t/pii/one", "/t/masked/one", purpose="under Kerberos")
    assert done.state == "done", (done.problem, world.last_lines())
    assert world.read("/t/masked/one/file") == content
    raw = world.cluster.run("hdfs", "dfs", "-cat", "/.reserved/raw/t/masked/one/file").stdout
    assert len(raw) == len(content)
    assert content[:64] not in raw
    key = world.state / "receipt-key.pub"
    receipt = verify_receipt(world.client.get_receipt(done.id), read_public_key(key.read_bytes(), key.name))
    assert (receipt.requested_by, receipt.copied_as) == ("masker", "analyst")
    assert {file.path: file.sha256 for file in receipt.files} == {
        "file": hashlib.sha256(content).hexdigest(),
        "sub/empty": hashlib.sha256(b"").hexdigest(),
    }


def test_an_edge_without_a_service_principal_is_refused_with_what_to_add(world: World) -> None:
    world.put("/t/pii/two", {"file": b"1"})
    with pytest.raises(AgentError, match="needs a service principal with a keytab for its edge") as refused:
        world.client.submit_transfer("/t/pii/two", "/t/open/two", user="masker")
    assert "transfers.services in agent.yaml" in str(refused.value.hint)
    assert b"/t/open/two" not in world.cluster.run("hdfs", "dfs", "-ls", "/t/open").stdout
