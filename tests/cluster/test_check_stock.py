"""`ringfence check` on a cluster that knows nothing of Ringfence: Hadoop's own KMS, zones made by Hadoop's shell.

First contact must cost nothing, so what matters as much as the findings is that the look changed nothing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import requests
from cluster_commands import Cluster, add_property, wait_until, write_in_one_step
from sandboxes import RINGFENCE, new_sandbox

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

PINNED, UNPINNED = "/data/orders", "/data/people"
SHARED_KEY, OWN_KEY = "everything", "people"
POLICY = f"""\
version: 1
cluster: stock
zones:
  - {{path: {PINNED}, key: {SHARED_KEY}, length_bits: 128, owner: hdfs, group: supergroup, mode: "0755"}}
  - {{path: {UNPINNED}, key: {OWN_KEY}, length_bits: 128, owner: hdfs, group: supergroup, mode: "0755"}}
"""


@dataclass(frozen=True)
class Unchanged:
    """What a read-only command must leave alone."""

    transaction: int
    keys: list[str]
    configuration: Mapping[str, bytes]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A stock cluster of this module's own: two zones on one key, one root pinned, one not."""
    with new_sandbox("--kms", "stock") as described:
        cluster = Cluster(described)
        cluster.run("hadoop", "key", "create", SHARED_KEY)
        cluster.run("hdfs", "dfs", "-mkdir", "-p", PINNED, UNPINNED)
        for path in (PINNED, UNPINNED):
            cluster.run("hdfs", "crypto", "-createZone", "-keyName", SHARED_KEY, "-path", path)
        pin(cluster, PINNED)
        yield cluster


@pytest.fixture(scope="module")
def mended(cluster: Cluster) -> Cluster:
    """The same cluster after its administrator split the key, pinned the root and closed the access lists."""
    cluster.run("hadoop", "key", "create", OWN_KEY)
    cluster.run("hdfs", "dfs", "-rm", "-r", "-skipTrash", UNPINNED)
    cluster.run("hdfs", "dfs", "-mkdir", UNPINNED)
    cluster.run("hdfs", "crypto", "-createZone", "-keyName", OWN_KEY, "-path", UNPINNED)
    pin(cluster, f"{PINNED},{UNPINNED}")
    tree = ElementTree.parse(cluster.kms_conf / "kms-acls.xml")
    add_property(tree, "hadoop.kms.acl.GET", " ")
    write_in_one_step(cluster.kms_conf / "kms-acls.xml", tree)
    wait_until(lambda: get_is_refused(cluster), timeout_s=15)
    return cluster


@pytest.fixture(params=["without a policy", "with a policy"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where check runs: `zones.yaml` is looked for there, and need not be."""
    if request.param == "with a policy":
        (tmp_path / "zones.yaml").write_text(POLICY)
    return tmp_path


# Tests run in this order: the cluster is mended once, for all that follow.


def test_shared_key_open_get_plain_http_and_the_unpinned_root_are_found(cluster: Cluster, tmp_path: Path) -> None:
    found = check(cluster, tmp_path)
    assert sorted({finding["rule"] for finding in found}) == [
        "kms_get_open",
        "kms_plain_http",
        "root_not_pinned",
        "shared_key",
    ]
    assert [finding["path"] for finding in found if finding["rule"] == "root_not_pinned"] == [UNPINNED]
    shared = [finding for finding in found if finding["rule"] == "shared_key"]
    assert {finding["key"] for finding in shared} == {SHARED_KEY}
    told = " ".join(finding["path"] + finding["message"] for finding in shared)
    assert PINNED in told
    assert UNPINNED in told


def test_a_policy_that_wants_a_key_of_its_own_adds_only_that(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "zones.yaml").write_text(POLICY)
    assert {finding["rule"] for finding in check(cluster, tmp_path)} == {
        "kms_get_open",
        "kms_plain_http",
        "root_not_pinned",
        "shared_key",
        "zone_key_mismatch",
    }


def test_every_finding_has_the_documented_shape(cluster: Cluster, directory: Path) -> None:
    for finding in check(cluster, directory):
        assert {"severity", "rule", "path", "message", "hint"} <= finding.keys()
        assert finding.keys() <= {"severity", "rule", "path", "message", "hint", "key", "command"}
        assert finding["severity"] in {"error", "warn", "info"}
        assert finding["hint"]


def test_looking_changes_nothing(cluster: Cluster, directory: Path) -> None:
    before = unchanged(cluster)
    assert check(cluster, directory)
    assert unchanged(cluster) == before


def test_only_plain_http_remains_when_all_else_is_mended(mended: Cluster, directory: Path) -> None:
    before = unchanged(mended)
    assert [finding["rule"] for finding in check(mended, directory)] == ["kms_plain_http"]
    assert unchanged(mended) == before


def check(cluster: Cluster, directory: Path) -> list[dict[str, Any]]:
    """The findings of `ringfence check --json`, run in `directory` as `hdfs`."""
    finished = subprocess.run(
        [RINGFENCE, "check", "--json"],
        env=cluster.environ("hdfs"),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 3, finished.stderr
    findings: list[dict[str, Any]] = json.loads(finished.stdout)["findings"]
    return findings


def unchanged(cluster: Cluster) -> Unchanged:
    """The NameNode's last transaction, the KMS's key names, and every configuration file."""
    jmx = requests.get(
        f"http://localhost:{cluster.ports['namenode_http']}/jmx",
        params={"qry": "Hadoop:service=NameNode,name=NameNodeInfo", "user.name": "hdfs"},
        timeout=30,
    ).json()
    journal = json.loads(jmx["beans"][0]["JournalTransactionInfo"])
    names = requests.get(f"{cluster.kms_url}/v1/keys/names", params={"user.name": "hdfs"}, timeout=30).json()
    files = {
        str(file): file.read_bytes() for folder in (cluster.hadoop_conf, cluster.kms_conf) for file in folder.iterdir()
    }
    return Unchanged(int(journal["LastAppliedOrWrittenTxId"]), sorted(names), files)


def pin(cluster: Cluster, roots: str) -> None:
    """Sets fs.protected.directories and has the NameNode read it again, as an administrator does."""
    path = cluster.hadoop_conf / "core-site.xml"
    tree = ElementTree.parse(path)
    for element in tree.getroot().findall("property"):
        if element.findtext("name") == "fs.protected.directories":
            tree.getroot().remove(element)
    add_property(tree, "fs.protected.directories", roots)
    write_in_one_step(path, tree)
    name_node = f"localhost:{cluster.ports['namenode']}"
    cluster.run("hdfs", "dfsadmin", "-reconfig", "namenode", name_node, "start")
    wait_until(
        lambda: (
            "SUCCESS: Changed property fs.protected.directories"
            in cluster.run("hdfs", "dfsadmin", "-reconfig", "namenode", name_node, "status").output
        ),
        timeout_s=60,
    )


def get_is_refused(cluster: Cluster) -> bool:
    """Whether the KMS keeps key material from `hdfs` now. The answer is not looked at."""
    answer = requests.get(
        f"{cluster.kms_url}/v1/key/{SHARED_KEY}/_currentversion", params={"user.name": "hdfs"}, timeout=30
    )
    return answer.status_code == 403
