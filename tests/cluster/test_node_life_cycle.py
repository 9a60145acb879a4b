"""A node's whole life on the real HDFS: bootstrap action, provisioning, waiter, takeover, zones, drift, uninstall.

In a clean root without any network but loopback, each process killed from outside at every step and run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from emr_node import CHECKOUT, SANDBOX, STATUS, EmrNode, emr_node, watching
from node_life import ACTION, CONFIG, OURS, bootstrap, check, differences, give_wheelhouse, wait_until_done

from ringfence_bootstrap.sandbox.certificates import CertificateAuthority

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

_POLICY = """\
version: 1
cluster: analytics
zones:
  - {path: /data/pii, owner: etl, mode: "0750", readers: [analyst], writers: [etl]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
"""
_CORE_SITE = b"""<?xml version="1.0"?>
<!-- as EMR writes it, more or less -->
<configuration>
  <property><name>fs.defaultFS</name><value>hdfs://ip-10-0-0-1.ec2.internal:8020</value></property>
  <property>
    <name>hadoop.security.key.provider.path</name>
    <value>kms://http@ip-10-0-0-1.ec2.internal:9600/kms</value>
  </property>
</configuration>
"""
_BEFORE = '  - {path: /before, key: before, owner: etl, mode: "0770", writers: [etl]}\n'
_WITH_TLS = """\
kms:
  prove_as: [etl]
  settings: {tombstone: 7d, audit: {format: both}}
  tls: {cert: /etc/ringfence/kms.pem, key: /etc/ringfence/kms.key, ca_file: /etc/ringfence/ca.pem}
files:
  - {source: s3://artifacts/kms.pem, path: /etc/ringfence/kms.pem, mode: "0644", nodes: primary}
  - {source: s3://artifacts/kms.key, path: /etc/ringfence/kms.key, owner: ringfence, nodes: primary}
  - {source: s3://artifacts/ca.pem, path: /etc/ringfence/ca.pem, mode: "0644"}
"""
_HARDENED = """\
mode: hardened-stock-kms
hardened:
  policy: /etc/ringfence/zones.yaml
  password_file: /mnt/secrets/kms.password
  allow_root_volume: true
  prove_as: [etl]
  tls: {cert: /etc/ringfence/kms.pem, key: /etc/ringfence/kms.key, ca_file: /etc/ringfence/ca.pem}
files:
  - {source: s3://artifacts/zones.yaml, path: /etc/ringfence/zones.yaml, mode: "0644"}
  - {source: s3://artifacts/kms.pem, path: /etc/ringfence/kms.pem, mode: "0644", nodes: primary}
  - {source: s3://artifacts/kms.key, path: /etc/ringfence/kms.key, nodes: primary}
  - {source: s3://artifacts/ca.pem, path: /etc/ringfence/ca.pem, mode: "0644"}
"""
_WORDS = "what was written stays readable"
# By their command lines, parents first. The key server and the stand-in for systemd that holds it are not among them.
_OF_THE_SET_UP = (
    *("ringfence-bootstrap.service", "bootstrap-action.sh", "emr node install", "emr node wait", "ringfence uninstall"),
    *(
        "ringfence kms takeover",
        "ringfence kms return",
        "ringfence key ",
        "ringfence kms serve --config /etc/ringfence/kms.yaml --listen",
    ),
    *("pip-", "systemctl"),
)


@pytest.fixture
def node(tmp_path: Path, wheelhouse: tuple[Path, str]) -> Iterator[EmrNode]:
    with emr_node(tmp_path) as made:
        give_wheelhouse(made, wheelhouse)
        yield made


def hadoop(node: EmrNode, *arguments: str, user: str = "hdfs") -> str:
    return node.run("env", f"HADOOP_USER_NAME={user}", "hadoop", *arguments).stdout


def make_stock_zone(node: EmrNode) -> None:
    """A key and a file of before, as EMR's own classification would have made them."""
    hadoop(node, "key", "create", "before")
    hadoop(node, "fs", "-mkdir", "-p", "/before")
    hadoop(node, "org.apache.hadoop.hdfs.tools.CryptoAdmin", "-createZone", "-keyName", "before", "-path", "/before")
    hadoop(node, "fs", "-chmod", "777", "/before")
    write(node, "/before/file")


def write(node: EmrNode, path: str) -> None:
    node.run("sh", "-c", f"echo {_WORDS} | HADOOP_USER_NAME=etl hadoop fs -put - {path}")


def read(node: EmrNode, *paths: str) -> list[str]:
    return hadoop(node, "fs", "-cat", *paths, user="etl").splitlines()


def apply_zones(node: EmrNode) -> None:
    node.path("/srv/zones.yaml").write_text(_POLICY)
    node.run(OURS, "apply", "-f", "/srv/zones.yaml", "--as", "hdfs")
    node.path("/srv/zones.yaml").unlink()


def test_a_node_is_set_up_checked_and_returned_to_what_it_was(node: EmrNode) -> None:
    make_stock_zone(node)
    before = node.tree()
    assert node.run("ip", "route").stdout == ""

    assert bootstrap(node).startswith("installed;")
    node.wait_for("the waiter", lambda: node.status().get("waiting_for") == "EMR to provision this node")
    assert bootstrap(node).startswith("installed before;")
    assert check(node, 3) == [("node_unfinished", str(STATUS))]
    node.provision()
    wait_until_done(node)

    uploaded = node.path("/srv/s3/logs/ringfence/j-2AXXXXXXGAPLF/i-0123456789abcdef0.json")
    # The node's own comes first.
    node.wait_for("the uploaded status", lambda: json.loads(uploaded.read_text()) == node.status(), timeout_s=30)
    assert any("sudo" in each for each in node.status()["warnings"])
    apply_zones(node)
    write(node, "/data/pii/file")
    assert read(node, "/before/file", "/data/pii/file") == [_WORDS] * 2
    assert check(node, 0) == []

    unit = node.path("/etc/systemd/system/hadoop-kms.service")
    unit.unlink()
    node.run("systemctl", "stop", "ringfence-kms")
    assert [rule for rule, _ in check(node, 3)] == ["node_stock_unit", "kms_unreachable"]
    unit.symlink_to("/dev/null")
    node.run("systemctl", "start", "ringfence-kms")

    assert node.run(OURS, "uninstall", "--yes").stdout.strip() == "this node is as it was"
    assert differences(before, node.tree()) == []
    assert read(node, "/before/file", "/data/pii/file") == [_WORDS] * 2


def test_a_new_cluster_whose_stock_kms_never_had_a_key_is_set_up_and_returned(node: EmrNode) -> None:
    before = node.tree()
    assert not (node.path(SANDBOX) / "kms.keystore").exists()
    node.provision()
    bootstrap(node)
    wait_until_done(node)
    apply_zones(node)
    write(node, "/data/pii/file")
    assert check(node, 0) == []

    assert node.run(OURS, "uninstall", "--yes").stdout.strip() == "this node is as it was"
    assert differences(before, node.tree()) == []
    assert (node.path(SANDBOX) / "kms.keystore").exists()
    assert read(node, "/data/pii/file") == [_WORDS]


def test_tls_changes_the_address_everywhere_and_back(node: EmrNode, tmp_path: Path) -> None:
    put_certificate(node, tmp_path)
    bucket = node.path("/srv/s3/artifacts")
    config = (bucket / "bootstrap.yaml").read_text().partition("kms:")[0] + _WITH_TLS
    (bucket / "bootstrap.yaml").write_text(config)
    make_stock_zone(node)
    before = node.tree()
    node.provision()
    bootstrap(node)
    wait_until_done(node)

    core_site = node.path("/etc/hadoop/conf.empty/core-site.xml")
    former = core_site.read_bytes()
    assert b"kms://https@localhost" in former and check(node, 0) == []
    apply_zones(node)
    write(node, "/data/pii/file")
    assert read(node, "/before/file", "/data/pii/file") == [_WORDS] * 2
    core_site.write_bytes(former.replace(b"kms://https@", b"kms://http@"))
    assert {"node_overwritten", "node_provider", "kms_unreachable"} == {rule for rule, _ in check(node, 3)}
    core_site.write_bytes(former)

    node.run(OURS, "uninstall", "--yes")
    assert differences(before, node.tree()) == []
    assert read(node, "/before/file", "/data/pii/file") == [_WORDS] * 2


def test_the_stock_kms_is_hardened_and_returned_to_what_it_was(node: EmrNode, tmp_path: Path) -> None:
    put_certificate(node, tmp_path)
    bucket = node.path("/srv/s3/artifacts")
    (bucket / "zones.yaml").write_text(_POLICY.replace("zones:\n", f"zones:\n{_BEFORE}"))
    config = (bucket / "bootstrap.yaml").read_text().partition("mode:")[0]
    (bucket / "bootstrap.yaml").write_text(config + _HARDENED)
    make_stock_zone(node)
    before = node.tree()
    node.provision()
    bootstrap(node)
    wait_until_done(node)
    assert b"kms://https@localhost" in node.path("/etc/hadoop/conf.empty/core-site.xml").read_bytes()
    apply_zones(node)
    write(node, "/data/pii/file")
    assert read(node, "/before/file", "/data/pii/file") == [_WORDS] * 2
    found = node.run(OURS, "emr", "node", "check", "--json", expect=3).stdout
    # The password is on the root volume, and no place for backups was named.
    assert [each["rule"] for each in json.loads(found)["findings"]] == ["emr_stock_kms", "key_store_not_durable"], found

    node.run(OURS, "uninstall", "--yes")
    assert differences(before, node.tree()) == []
    assert read(node, "/before/file", "/data/pii/file") == [_WORDS] * 2


def put_certificate(node: EmrNode, directory: Path) -> None:
    """A server's certificate for localhost and its authority, where the node fetches files."""
    authority = CertificateAuthority.make(directory / "ca")
    issued = authority.issue_server("kms")
    files = {"kms.pem": issued.certificate, "kms.key": issued.key, "ca.pem": directory / "ca/ca.pem"}
    for name, source in files.items():
        shutil.copyfile(source, node.path("/srv/s3/artifacts") / name)


def test_clients_only_names_key_servers_elsewhere_and_refuses_to_leave_keys_behind(node: EmrNode) -> None:
    elsewhere = node.path("/srv/s3/other")
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "kms.yaml").write_text(
        "listen: localhost:9601\nkeystore: sqlite:////srv/s3/other/keys.db\nhadoop_conf: /etc/hadoop-kms/conf\n"
    )
    server = node.spawn(CHECKOUT / ".venv/bin/ringfence", "kms", "serve", "--config", "/srv/s3/other/kms.yaml")
    try:
        log = node.path("/run/spawned.log")
        node.wait_for("the key server", lambda: "ready kms" in log.read_text())
        bucket = node.path("/srv/s3/artifacts")
        config = (bucket / "bootstrap.yaml").read_text().partition("mode:")[0]
        uri = "kms://http@localhost:9601/kms"
        (bucket / "bootstrap.yaml").write_text(f"{config}mode: clients-only\nclients: {{uri: {uri}}}\n")
        hadoop(node, "key", "create", "made-by-emr")
        before = node.tree()
        node.provision()
        bootstrap(node)
        node.wait_for("the refusal", lambda: node.status().get("state") == "failed")
        assert "key made-by-emr" in node.status()["error"]["message"]
        hadoop(node, "key", "delete", "made-by-emr", "-f")
        wait_until_done(node)
        assert uri.encode() in node.path("/etc/hadoop/conf.empty/core-site.xml").read_bytes()
        assert check(node, 0) == []
        hadoop(node, "key", "create", "made-there")
        node.run(OURS, "uninstall", "--yes")
        assert differences(before, node.tree()) == []
        assert "made-there" not in hadoop(node, "key", "list")
    finally:
        node.kill("/srv/s3/other/kms.yaml")
        server.wait()


def test_a_core_node_learns_the_address_and_whom_to_trust(tmp_path: Path, wheelhouse: tuple[Path, str]) -> None:
    with emr_node(tmp_path / "node", with_hadoop=False) as node:
        give_wheelhouse(node, wheelhouse)
        put_certificate(node, tmp_path)
        bucket = node.path("/srv/s3/artifacts")
        config = (bucket / "bootstrap.yaml").read_text().partition("kms:")[0] + _WITH_TLS.replace(
            ", owner: ringfence", ""
        )
        (bucket / "bootstrap.yaml").write_text(config)
        node.become_core()
        conf = node.path("/etc/hadoop/conf")
        conf.mkdir(parents=True)
        (conf / "core-site.xml").write_bytes(_CORE_SITE)
        (conf / "core-site.xml").chmod(0o640)
        before = node.tree()
        bootstrap(node)
        node.provision(role="CORE")
        wait_until_done(node)
        # Neither the certificate nor its key: they are for the primary.
        assert node.status()["steps"] == ["file-2", "client", "trust-store", "ssl-client", "core-site"]
        assert (conf / "core-site.xml").read_bytes() == _CORE_SITE.replace(b"kms://http@", b"kms://https@")
        assert b"/etc/ringfence/truststore.jks" in (conf / "ssl-client.xml").read_bytes()

        written = (conf / "core-site.xml").read_bytes()
        (conf / "core-site.xml").write_bytes(_CORE_SITE)
        assert ("node_overwritten", "/etc/hadoop/conf/core-site.xml") in check(node, 3)
        (conf / "core-site.xml").write_bytes(written)
        node.run(OURS, "uninstall", "--yes")
        assert differences(before, node.tree()) == []


@pytest.mark.timeout(2400)
def test_every_step_may_be_killed_and_run_again(node: EmrNode) -> None:
    make_stock_zone(node)
    before = node.tree()
    for phase in ("fetching the configuration", "fetching the wheelhouse", "installing into", "handing over"):
        kill_action(node, phase)
    install = ["settings", "configuration", "waiter-unit", "enable"]
    for step in install:
        kill_at(node, ("bash", ACTION, CONFIG), "ringfence-node/journal/install.json", step)
    bootstrap(node)
    node.provision()
    node.wait_for("the first step", lambda: node.journal("ringfence-node/journal/set-up.json")[1], pause_s=0.002)
    kill_all(node)
    set_up = ["account", "key-directory", "log-directory", "kms-unit", "client", "takeover", "verify"]
    for step in set_up:
        start = ("systemctl", "start", "ringfence-bootstrap.service")
        kill_at(node, start, "ringfence-node/journal/set-up.json", step, is_service=True)
    node.run("systemctl", "start", "ringfence-bootstrap.service")
    wait_until_done(node)
    assert node.journal("ringfence-node/journal/set-up.json") == ("done", set_up)
    assert node.journal("ringfence-node/journal/install.json") == ("done", install)
    apply_zones(node)
    write(node, "/data/pii/file")

    killed = [step for _ in range(len(set_up) + len(install)) if (step := kill_uninstall(node)) is not None]
    assert "takeover" in killed and len(killed) >= 5, killed
    if node.path(OURS).exists():
        node.run(OURS, "uninstall", "--yes")
    assert differences(before, node.tree()) == []
    assert read(node, "/before/file", "/data/pii/file") == [_WORDS] * 2


def kill_action(node: EmrNode, phase: str) -> None:
    """Starts the bootstrap action and kills it when it says that it is there."""
    log = node.path("/run/spawned.log")
    log.write_text("")
    process = node.spawn("bash", ACTION, CONFIG)
    node.wait_for(phase, lambda: phase in log.read_text(), pause_s=0.001)
    assert process.poll() is None, f"{phase} was over"
    kill_all(node)
    process.wait()


def kill_at(node: EmrNode, command: Sequence[str | Path], journal: str, step: str, *, is_service: bool = False) -> None:
    """Starts a command and kills it when its journal's last begun step is this one."""
    process = node.spawn(*command)

    def is_there() -> bool:
        assert is_service or process.poll() is None, f"{step} was never the last step\n{node.logs()}"
        _, steps = node.journal(journal)
        return steps[-1:] == [step]

    with watching():
        node.wait_for(step, is_there, pause_s=0.0005)
        kill_all(node)
    process.wait()


def kill_uninstall(node: EmrNode) -> str | None:
    """Starts to uninstall and kills it when a step was undone that was not before; which one it was at then.

    None when there was nothing left to kill: some undo takes a millisecond.
    """
    journals = [f"ringfence-node/journal/{name}.json" for name in ("set-up", "install")]
    before = [node.journal(each) for each in journals]
    if not node.path(OURS).exists():
        return None
    process = node.spawn(OURS, "uninstall", "--yes")
    with watching():
        node.wait_for(
            "a step to be undone",
            lambda: process.poll() is not None or [node.journal(each) for each in journals] != before,
            pause_s=0.0005,
        )
        is_running = process.poll() is None
        kill_all(node)
    process.wait()
    left = [step for each in reversed(journals) for step in node.journal(each)[1]]
    return left[-1] if left and is_running else None


def kill_all(node: EmrNode) -> None:
    """What systemd would take for one unit, or a shell for one job: the program and all that it started."""
    for fragment in _OF_THE_SET_UP:
        node.kill(fragment)
