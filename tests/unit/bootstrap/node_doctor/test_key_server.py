"""How a node reaches its KMS, and what the KMS knows of the cluster."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import Certificates
from node_trees import NodeTree
from scripted_http import Answer, Seen, scripted_server

from ringfence_bootstrap.node_doctor import key_server
from ringfence_bootstrap.sandbox.certificates import CertificateFiles
from ringfence_zones.findings import Rule
from ringfence_zones.named_checks import NotChecked

PROVIDER = "hadoop.security.key.provider.path"
KERBEROS = {"hadoop.security.authentication": "kerberos"}


def node_tree(tmp_path: Path, uri: str, **core: str) -> NodeTree:
    return NodeTree(tmp_path).hadoop(core={PROVIDER: uri, **core}, hdfs={})


@contextmanager
def tls_port(files: CertificateFiles) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with scripted_server(lambda _seen: (200, b"{}"), tls=context) as server:
        yield server.port


def test_no_kms_or_none_that_is_one(tmp_path: Path) -> None:
    (missing,) = key_server.check_address(NodeTree(tmp_path).hadoop().node())
    (wrong,) = key_server.check_address(node_tree(tmp_path, "jceks://file@/x").node())
    assert {missing.rule, wrong.rule} == {Rule.NO_KEY_PROVIDER}


def test_plain_http_is_an_error_beyond_this_machine(tmp_path: Path) -> None:
    (found,) = key_server.check_address(node_tree(tmp_path, "kms://http@ip-10-0-0-1.ec2.internal:9600/kms").node())
    assert found.rule is Rule.KMS_PLAIN_HTTP
    assert list(key_server.check_address(node_tree(tmp_path, "kms://http@localhost:9600/kms").node())) == []


def test_a_certificate_is_verified_as_clients_do(tmp_path: Path, certificates: Certificates) -> None:
    with tls_port(certificates.server) as port:
        tree = node_tree(tmp_path, f"kms://https@localhost:{port}/kms")
        (untrusted,) = key_server.check_address(tree.node())
        assert (untrusted.rule, untrusted.path) == (Rule.CERTIFICATE, f"localhost:{port}")
        tree.write("/etc/hadoop/conf/ringfence-client.yaml", f"kms_ca_file: {certificates.trusted}\n")
        assert list(key_server.check_address(tree.node())) == []
        tree.write("/etc/hadoop/conf/ringfence-client.yaml", f"kms_ca_file: {tmp_path}/absent.pem\n")
        (no_file,) = key_server.check_address(tree.node())
        assert no_file.rule is Rule.CERTIFICATE and "absent.pem" in no_file.message


def test_a_certificate_that_runs_out_and_one_of_another_name(tmp_path: Path, certificates: Certificates) -> None:
    client = f"kms_ca_file: {certificates.trusted}\n"
    short = certificates.authority.issue_server("short", valid_for=datetime.timedelta(days=5))
    other = certificates.authority.issue_server("other", names=["kms.example.com"])
    found = []
    for files in (short, other):
        with tls_port(files) as port:
            tree = node_tree(tmp_path, f"kms://https@localhost:{port}/kms")
            tree.write("/etc/hadoop/conf/ringfence-client.yaml", client)
            found += [each.rule for each in key_server.check_address(tree.node())]
    assert found == [Rule.CERTIFICATE_EXPIRES, Rule.CERTIFICATE]


def test_https_in_the_address_and_http_at_the_port(tmp_path: Path) -> None:
    with scripted_server(lambda _seen: (200, b"{}")) as server:
        (found,) = key_server.check_address(node_tree(tmp_path, f"kms://https@localhost:{server.port}/kms").node())
    assert found.rule is Rule.CERTIFICATE and "does not speak TLS" in found.message


def test_tls_of_nobody_is_not_checked(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotChecked, match="nothing answers there"):
        list(key_server.check_address(node_tree(tmp_path, f"kms://https@localhost:{port}/kms").node()))


def test_the_port_is_tried_from_other_nodes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotChecked, match="run this on a core or task node"):
        list(key_server.check_port(node_tree(tmp_path, "kms://http@localhost:9600/kms").node()))
    monkeypatch.setattr(key_server, "is_own_host", lambda _host: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"kms://http@127.0.0.1:{server.getsockname()[1]}/kms"
        assert list(key_server.check_port(node_tree(tmp_path, uri).node())) == []
    (refused,) = key_server.check_port(node_tree(tmp_path, uri).node())
    assert refused.rule is Rule.KMS_UNREACHABLE


def test_a_port_that_answers_nothing_is_the_security_group_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_server, "is_own_host", lambda _host: False)
    monkeypatch.setattr(key_server, "CONNECT_TIMEOUT_S", 0.2)
    # A queue that is full: the kernel drops what comes, as a firewall does.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            (found,) = key_server.check_port(node_tree(tmp_path, f"kms://http@127.0.0.1:{port}/kms").node())
        finally:
            for each in waiting:
                each.close()
    assert found.rule is Rule.NODE_KMS_PORT and f"TCP port {port}" in found.hint


def test_own_names_and_others() -> None:
    assert key_server.is_own_host("localhost") and key_server.is_own_host("127.0.0.1")
    assert not key_server.is_own_host("192.0.2.1")


def test_the_namenode_goes_by_the_same_kms(tmp_path: Path) -> None:
    values = {"fs.defaultFS": "hdfs://localhost:1"}

    def conf_servlet(seen: Seen) -> Answer:
        name = seen.target.partition("name=")[2].partition("&")[0]
        if name not in values:
            return 404, b"{}"
        return 200, json.dumps({"property": {"key": name, "value": values[name]}}).encode()

    with scripted_server(conf_servlet) as server:
        uri = "kms://https@kms.example.com:9600/kms"
        tree = NodeTree(tmp_path).hadoop(
            core={PROVIDER: uri, "fs.defaultFS": "hdfs://localhost:1"},
            hdfs={"dfs.namenode.http-address": f"localhost:{server.port}"},
        )
        (none_yet,) = key_server.check_namenode(tree.node())
        assert none_yet.rule is Rule.NODE_PROVIDER and "has none" in none_yet.message
        values[PROVIDER] = "kms://http@old:9600/kms"
        (old,) = key_server.check_namenode(tree.node())
        assert f"has {values[PROVIDER]}, and core-site.xml says {uri}" in old.message
        values[PROVIDER] = uri
        assert list(key_server.check_namenode(tree.node())) == []
    with pytest.raises(NotChecked, match="does not run"):
        list(key_server.check_namenode(tree.node()))


def test_services_that_may_act_for_others_in_hadoop_alone(tmp_path: Path) -> None:
    core = {
        "hadoop.proxyuser.hive.hosts": "*",
        "hadoop.proxyuser.hive.groups": "*",
        "hadoop.proxyuser.livy.hosts": "*",
        "hadoop.proxyuser.livy.users": "etl",
        "hadoop.proxyuser.half.hosts": "*",
    }
    tree = NodeTree(tmp_path).hadoop(core=core)
    with pytest.raises(NotChecked, match="no key server is configured"):
        list(key_server.check_proxy_users(tree.node()))
    kms = {"hadoop.kms.proxyuser.hive.hosts": "*", "hadoop.kms.proxyuser.hive.users": "*"}
    tree.hadoop(core=core, kms=kms)
    (found,) = key_server.check_proxy_users(tree.node())
    assert found.rule is Rule.NODE_PROXY_USER and found.message.startswith("livy may act")
    tree.write("/etc/ringfence/kms.yaml", "proxy_users: {livy: {users: [etl], hosts: ['*']}}\n")
    (found,) = key_server.check_proxy_users(tree.node())
    assert found.message.startswith("hive may act") and found.path.endswith("etc/ringfence/kms.yaml")
    tree.write("/etc/ringfence/kms.yaml", "hadoop_conf: /etc/hadoop/conf\n")
    (found,) = key_server.check_proxy_users(tree.node())
    assert found.message.startswith("livy may act")


def test_rules_for_names_are_compared_word_for_word(tmp_path: Path) -> None:
    rules = "RULE:[1:$1@$0](.*@AD)s/@.*//\nDEFAULT"
    core = {**KERBEROS, "hadoop.security.auth_to_local": rules}
    with pytest.raises(NotChecked, match="without Kerberos"):
        list(key_server.check_name_rules(NodeTree(tmp_path).hadoop(kms={}).node()))
    tree = NodeTree(tmp_path).hadoop(core=core, kms={})
    (found,) = key_server.check_name_rules(tree.node())
    assert found.rule is Rule.NODE_NAME_RULES
    setting = "hadoop.kms.authentication.kerberos.name.rules"
    tree.hadoop(core=core, kms={setting: rules.replace("\n", "\n    ")})
    assert list(key_server.check_name_rules(tree.node())) == []
    tree.write("/etc/ringfence/kms.yaml", "authentication: {kerberos: {auth_to_local: DEFAULT}}\n")
    (own,) = key_server.check_name_rules(tree.node())
    assert own.message.startswith("authentication.kerberos.auth_to_local is not")


def test_what_keeps_jobs_from_their_tokens(tmp_path: Path) -> None:
    with pytest.raises(NotChecked, match="jobs need no tokens"):
        list(key_server.check_tokens(NodeTree(tmp_path).hadoop(kms={}).node()))
    spark = "spark.security.credentials.hadoopfs.enabled false\n"
    tree = NodeTree(tmp_path).hadoop(core=KERBEROS, kms={}).write("/etc/spark/conf/spark-defaults.conf", spark)
    found = list(key_server.check_tokens(tree.node()))
    assert {each.rule for each in found} == {Rule.NODE_TOKENS} and len(found) == 3
    core = {**KERBEROS, PROVIDER: "kms://https@kms:9600/kms"}
    tree.hadoop(core=core, kms={"hadoop.kms.authentication.type": "kerberos"})
    tree.write("/etc/spark/conf/spark-defaults.conf", "")
    assert list(key_server.check_tokens(tree.node())) == []
