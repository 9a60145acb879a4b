"""A cluster with Kerberos, TLS and encryption on every way, with our KMS: what must work, and who is kept out.

The short part of `test_secure_*`: one sandbox, few JVMs. What takes minutes (ticket lifetimes) is marked `long`
elsewhere.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import requests
from secure_clusters import SecureCluster

from ringfence_zones.errors import AccessDeniedError

pytestmark = pytest.mark.cluster

PLAIN = "the plain text of the secure smoke test"
POLICY = """\
version: 1
cluster: smoke
kms: {namenode_users: [hdfs], admins: [hdfs]}
zones:
  - {path: /smoke, owner: etl, group: pii, mode: "0750", readers: [analyst], writers: [etl]}
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "zones.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def zone(secure_cluster: SecureCluster, policy: Path) -> str:
    """The zone /smoke, made by `ringfence apply` with hdfs's ticket, with one file that etl wrote."""
    environ = secure_cluster.environ("hdfs")
    assert "policy revision" in secure_cluster.ringfence("apply", "-f", policy, environ=environ)
    local = policy.with_name("f")
    local.write_text(PLAIN)
    secure_cluster.run("hdfs", "dfs", "-put", str(local), "/smoke/f", user="etl")
    return "/smoke"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hadoop.security.authentication", "kerberos"),
        ("hadoop.rpc.protection", "privacy"),
        ("dfs.encrypt.data.transfer", "true"),
        ("dfs.encrypt.data.transfer.cipher.suites", "AES/CTR/NoPadding"),
        ("dfs.encrypt.data.transfer.cipher.key.bitlength", "256"),
        ("dfs.data.transfer.protection", "privacy"),
        ("dfs.block.access.token.enable", "true"),
        ("dfs.http.policy", "HTTPS_ONLY"),
    ],
)
@pytest.mark.parametrize("daemon", ["namenode_http", "datanode_http"])
def test_the_daemons_hold_a_configuration_that_encrypts_everything(
    secure_cluster: SecureCluster, daemon: str, name: str, value: str
) -> None:
    assert secure_cluster.live_value(daemon, name) == value


def test_readers_read_what_writers_wrote_and_the_disk_holds_something_else(
    secure_cluster: SecureCluster, zone: str
) -> None:
    assert secure_cluster.run("hdfs", "dfs", "-cat", f"{zone}/f", user="analyst").stdout.decode() == PLAIN
    raw = secure_cluster.run("hdfs", "dfs", "-cat", f"/.reserved/raw{zone}/f", user="hdfs").stdout
    assert len(raw) == len(PLAIN)
    assert raw != PLAIN.encode()


def test_the_commands_work_from_a_ticket(secure_cluster: SecureCluster, zone: str, policy: Path) -> None:
    environ = secure_cluster.environ("hdfs")
    plan = json.loads(secure_cluster.ringfence("--json", "plan", "-f", policy, environ=environ))
    assert plan["actions"] == []
    status = json.loads(secure_cluster.ringfence("--json", "status", environ=environ))
    assert zone in [each["path"] for each in status["zones"]]


def test_a_job_reads_and_writes_with_nothing_but_its_tokens_until_they_are_cancelled(
    secure_cluster: SecureCluster, zone: str, tmp_path: Path
) -> None:
    tokens, keytab = tmp_path / "tokens", secure_cluster.keytabs["etl"]
    fetched = secure_cluster.job("fetch", tokens, keytab, "etl", "hdfs")
    assert fetched == {"result": ["HDFS_DELEGATION_TOKEN", "kms-dt"]}
    assert "error" in secure_cluster.job("read", f"{zone}/f"), "without tokens it is nobody"
    assert secure_cluster.job("read", f"{zone}/f", token_file=tokens) == {"result": PLAIN}
    assert secure_cluster.job("write", f"{zone}/by-token", "from a job", token_file=tokens) == {"result": None}
    assert secure_cluster.job("read", f"{zone}/by-token", token_file=tokens) == {"result": "from a job"}
    assert secure_cluster.job("cancel", tokens, keytab, "etl") == {"result": ["HDFS_DELEGATION_TOKEN", "kms-dt"]}
    assert "error" in secure_cluster.job("read", f"{zone}/f", token_file=tokens)


def test_without_a_ticket_every_door_is_closed_and_ours_says_how_to_get_one(
    secure_cluster: SecureCluster, zone: str
) -> None:
    environ = secure_cluster.environ_without_ticket()
    refused = secure_cluster.run_as(environ, "hdfs", "dfs", "-ls", zone, expect=1)
    assert "Client cannot authenticate via:[TOKEN, KERBEROS]" in refused.output
    said = secure_cluster.ringfence("status", environ=environ, expect=1)
    assert "this cluster uses Kerberos, and there is no valid ticket here" in said
    assert "run:  kinit" in said
    assert "--as etl is for simple authentication" in secure_cluster.ringfence(
        "--as", "etl", "status", environ=environ, expect=2
    )


def test_the_kms_knows_nobody_by_name(secure_cluster: SecureCluster) -> None:
    answer = secure_cluster.get(f"{secure_cluster.kms_url}/v1/keys/names", None, **{"user.name": "hdfs"})
    assert answer.status == 401
    assert secure_cluster.get(f"{secure_cluster.kms_url}/v1/keys/names", "hdfs").status == 200
    assert secure_cluster.get(f"{secure_cluster.kms_url}/v1/keys/names", "masker").status == 403


def test_a_replayed_token_and_an_altered_or_foreign_cookie_are_refused(secure_cluster: SecureCluster) -> None:
    url = f"{secure_cluster.kms_url}/v1/keys/names"
    token = secure_cluster.token("hdfs")
    first = requests.get(url, headers={"Authorization": token}, verify=secure_cluster.authority, timeout=30)
    assert first.status_code == 200
    again = requests.get(url, headers={"Authorization": token}, verify=secure_cluster.authority, timeout=30)
    assert again.status_code == 401
    cookie = first.cookies["hadoop.auth"].strip('"')
    foreign = cookie.rpartition("&s=")[0] + "&s=" + base64.b64encode(bytes(32)).decode()
    for value, status in ((cookie, 200), (cookie.replace("hdfs", "etl"), 401), (foreign, 401)):
        headers = {"Cookie": f'hadoop.auth="{value}"'}
        assert requests.get(url, headers=headers, verify=secure_cluster.authority, timeout=30).status_code == status


def test_an_administrator_publishes_by_ticket_and_nobody_else_does(secure_cluster: SecureCluster, zone: str) -> None:
    with secure_cluster.admin("hdfs") as admin:
        found = admin.find_published()
        assert found is not None
        publication, document = found
        assert [each["path"] for each in document["zones"]] == [zone]
        published = admin.publish(publication.revision, json.dumps(document).encode())
        assert published.revision == publication.revision + 1
    with secure_cluster.admin("etl") as stranger, pytest.raises(AccessDeniedError):
        stranger.publish(published.revision, json.dumps(document).encode())


def test_a_keytab_without_the_principal_that_is_asked_for_is_refused_by_name(secure_cluster: SecureCluster) -> None:
    wrong = {**secure_cluster.environ_of_keytab("hdfs"), "RINGFENCE_KEYTAB": str(secure_cluster.keytabs["etl"])}
    said = secure_cluster.ringfence("zone", "list", environ=wrong, expect=1)
    assert f"the keytab {secure_cluster.keytabs['etl']} gives no ticket for hdfs" in said


@pytest.mark.parametrize(
    ("lowered", "refusal"),
    [
        ("hadoop.rpc.protection=authentication", "No common protection layer"),
        ("hadoop.security.authentication=simple", "SIMPLE authentication is not enabled"),
    ],
)
def test_a_client_that_offers_less_is_refused(secure_cluster: SecureCluster, lowered: str, refusal: str) -> None:
    once = "-Dipc.client.connect.max.retries.on.sasl=1"
    refused = secure_cluster.run("hdfs", "dfs", f"-D{lowered}", once, "-ls", "/", user="hdfs", expect=1)
    assert refusal in refused.output
