"""A node's whole life with a key store that Vault opens: EMR's keys are imported under Vault's protector, and returned.

Vault is the double, in the node's own network. The key server logs in to it before it has ever run.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from emr_node import CHECKOUT, EmrNode, emr_node
from node_life import OURS, bootstrap, check, differences, give_wheelhouse, wait_until_done

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

_POLICY = """\
version: 1
cluster: analytics
zones:
  - {path: /data/pii, owner: etl, mode: "0750", readers: [analyst], writers: [etl]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
"""
_WORDS = "what was written stays readable"
_ISSUED = ("vault-role-id", "vault-wrapped-secret-id")


@pytest.fixture
def node(tmp_path: Path, wheelhouse: tuple[Path, str]) -> Iterator[EmrNode]:
    with emr_node(tmp_path) as made:
        give_wheelhouse(made, wheelhouse)
        yield made


@contextmanager
def vault_in(node: EmrNode) -> Iterator[dict[str, Any]]:
    """The double as a process of the node; what a client must know."""
    settings = {
        "flavour": "openbao",
        "nodes": 1,
        "lag_s": 0.1,
        "tls": None,
        "unix_socket": None,
        "control": "/tmp/vault-control",
    }
    process = subprocess.Popen(
        node.command(
            "env", f"PYTHONPATH={CHECKOUT}/tests/support", CHECKOUT / ".venv/bin/python", "-m", "vault_double"
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        yield dict(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate(timeout=20)


def prepare(node: EmrNode, vault: dict[str, Any]) -> dict[str, Any]:
    """As an administrator would, elsewhere: the cluster's part of Vault, and a first login for this node."""
    block = {
        "addresses": vault["addresses"],
        "cluster": "analytics",
        "auth": {
            "role_id_file": f"/etc/ringfence/{_ISSUED[0]}",
            "wrapped_secret_id_file": f"/etc/ringfence/{_ISSUED[1]}",
        },
    }
    settings = {"protector": ["vault-transit"], "vault": block}
    place = node.path("/srv/s3/administrator")
    place.mkdir(mode=0o700)
    (place / "kms.yaml").write_text(yaml.safe_dump(settings))
    (place / "token").write_text(vault["root_token"])
    (place / "token").chmod(0o600)
    issued = Path("/srv/s3/artifacts")
    ringfence = (CHECKOUT / ".venv/bin/ringfence", "vault", "setup", "--config", "/srv/s3/administrator/kms.yaml")
    node.run(*ringfence, "--token-file", "/srv/s3/administrator/token", "--yes", "--issue", issued / "first-login")
    bucket = node.path(issued)
    files = [
        {"source": f"s3://artifacts/first-login/{name}", "path": f"/etc/ringfence/{name}", "owner": "ringfence"}
        for name in _ISSUED
    ]
    config = (bucket / "bootstrap.yaml").read_text().partition("kms:")[0]
    document = {
        "kms": {"prove_as": ["etl"], "settings": settings},
        "files": [{**each, "nodes": "primary"} for each in files],
    }
    (bucket / "bootstrap.yaml").write_text(config + yaml.safe_dump(document))
    return settings


def hadoop(node: EmrNode, *arguments: str, user: str = "hdfs") -> str:
    return node.run("env", f"HADOOP_USER_NAME={user}", "hadoop", *arguments).stdout


def write(node: EmrNode, path: str) -> None:
    node.run("sh", "-c", f"echo {_WORDS} | HADOOP_USER_NAME=etl hadoop fs -put - {path}")


def test_the_keys_of_emr_come_under_vaults_protector_and_go_back(node: EmrNode) -> None:
    hadoop(node, "key", "create", "before")
    hadoop(node, "fs", "-mkdir", "-p", "/before")
    hadoop(node, "org.apache.hadoop.hdfs.tools.CryptoAdmin", "-createZone", "-keyName", "before", "-path", "/before")
    hadoop(node, "fs", "-chmod", "777", "/before")
    write(node, "/before/file")
    before = node.tree()
    with vault_in(node) as vault:
        prepare(node, vault)
        bootstrap(node)
        node.provision()
        wait_until_done(node)
        steps = node.status()["steps"]
        assert steps.index("file-1") < steps.index("vault-login") < steps.index("takeover")
        assert not node.path("/var/lib/ringfence/root-key").exists()
        # No root key: nothing on this node's disk opens the store but what Vault decrypts.
        slots = node.run("runuser", "-u", "ringfence", "--", OURS, "keystore", "slots", "--json").stdout
        assert "vault-transit" in slots and '"file"' not in slots

        node.path("/srv/zones.yaml").write_text(_POLICY)
        node.run("bash", CHECKOUT / "bootstrap/emr/step-zones.sh", "--policy", "/srv/zones.yaml", "--kms", "ringfence")
        node.path("/srv/zones.yaml").unlink()
        write(node, "/data/pii/file")
        read = ("fs", "-cat", "/before/file", "/data/pii/file")
        assert hadoop(node, *read, user="etl").splitlines() == [_WORDS] * 2
        assert check(node, 0) == []

        assert node.run(OURS, "uninstall", "--yes").stdout.strip() == "this node is as it was"
    assert differences(before, node.tree()) == []
    # The stock KMS has the key that was made under Vault, and needs no Vault.
    assert hadoop(node, *read, user="etl").splitlines() == [_WORDS] * 2
