"""Keys on a secure cluster, by Hadoop's own commands: roll and re-encrypt, with our KMS and with Hadoop's."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_commands import wait_until
from secure_clusters import SecureCluster

pytestmark = [pytest.mark.cluster, pytest.mark.long]

PLAIN = "read under two versions of the key"


@pytest.mark.parametrize("kind", ["secure_cluster", "secure_stock_cluster"])
def test_a_zone_is_re_encrypted_and_its_files_stay_readable(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cluster: SecureCluster = request.getfixturevalue(kind)
    policy = tmp_path / "zones.yaml"
    kms = "kms: {namenode_users: [hdfs], admins: [hdfs]}\n" if kind == "secure_cluster" else ""
    policy.write_text(
        f"version: 1\ncluster: keys\n{kms}zones:\n"
        '  - {path: /keys, owner: etl, group: pii, mode: "0750", readers: [analyst], writers: [etl]}\n'
    )
    cluster.ringfence("apply", "-f", policy, environ=cluster.environ("hdfs"))
    (tmp_path / "f").write_text(PLAIN)
    cluster.run("hdfs", "dfs", "-put", str(tmp_path / "f"), "/keys/f", user="etl")
    assert version_of(cluster) == "keys-keys@0"
    cluster.run("hadoop", "key", "roll", "keys-keys", user="hdfs")
    cluster.run("hdfs", "crypto", "-reencryptZone", "-start", "-path", "/keys", user="hdfs")
    wait_until(lambda: version_of(cluster) == "keys-keys@1", timeout_s=90)
    assert cluster.run("hdfs", "dfs", "-cat", "/keys/f", user="analyst").stdout.decode() == PLAIN


def version_of(cluster: SecureCluster) -> str:
    shown = cluster.run("hdfs", "crypto", "-getFileEncryptionInfo", "-path", "/keys/f", user="hdfs").output
    return shown.partition("ezKeyVersionName: ")[2].partition("}")[0].partition(",")[0].strip()


def test_our_commands_work_on_a_secure_cluster_with_hadoop_s_own_kms(
    secure_stock_cluster: SecureCluster, tmp_path: Path
) -> None:
    policy = tmp_path / "zones.yaml"
    policy.write_text("version: 1\ncluster: stock\nzones:\n  - {path: /stock, readers: [analyst], writers: [etl]}\n")
    environ = secure_stock_cluster.environ_of_keytab("hdfs")
    secure_stock_cluster.ringfence("apply", "-f", policy, environ=environ)
    assert "stock-stock@0" in secure_stock_cluster.ringfence("status", environ=environ)
    assert "kms_get_open" in secure_stock_cluster.ringfence("check", "-f", policy, environ=environ, expect=3)
