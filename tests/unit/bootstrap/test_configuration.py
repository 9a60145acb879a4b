"""What a new sandbox writes: read back with the readers that the programs themselves use."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ringfence_agent.config import load_config
from ringfence_agent.kms.config import Options, load_settings
from ringfence_bootstrap.cli.sandbox import _read_settings
from ringfence_bootstrap.sandbox.configuration import environment, write_configuration
from ringfence_bootstrap.sandbox.daemons import describe_daemons, hadoop_environment
from ringfence_bootstrap.sandbox.lifecycle import Sandbox, Wanted
from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_bootstrap.sandbox.state import KmsKind, Layout, Ports, State, save_state
from ringfence_zones.cli.main import root
from ringfence_zones.errors import SandboxError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.namenodes import namenode_addresses

PORTS = Ports(*range(20001, 20001 + len(fields(Ports))))


def make(
    directory: Path, kms: KmsKind, *, kerberos: bool = False, tls: bool = False, ha: bool = False, yarn: bool = False
) -> tuple[Layout, State]:
    java_home = str(find_java_home(os.environ)) if tls else "/jvm"
    layout = Layout(directory)
    state = State("3.4.2", kms, PORTS, java_home, kerberos=kerberos, tls=tls, ha=ha, yarn=yarn)
    write_configuration(layout, state)
    return layout, state


def client_conf(layout: Layout) -> HadoopConf:
    return read_hadoop_conf(layout.conf, "core-site.xml", "hdfs-site.xml")


@pytest.mark.parametrize("kms", ["ringfence", "stock"])
def test_clients_and_namenode_find_each_other_and_the_kms_by_name(tmp_path: Path, kms: KmsKind) -> None:
    layout, _ = make(tmp_path, kms)
    conf = client_conf(layout)
    assert conf["fs.defaultFS"] == "hdfs://localhost:20002"
    assert conf["hadoop.security.key.provider.path"] == "kms://http@localhost:20001/kms"
    assert conf["dfs.namenode.name.dir"] == f"file://{tmp_path}/name"
    assert conf["dfs.client.block.write.locateFollowingBlock.initial.delay.ms"] == "5"
    assert conf["dfs.client.block.write.locateFollowingBlock.retries"] == "12"


def test_the_users_of_the_sandbox_have_groups_that_no_machine_needs_to_know(tmp_path: Path) -> None:
    layout, _ = make(tmp_path, "ringfence")
    mapping = client_conf(layout)["hadoop.user.group.static.mapping.overrides"]
    users = {entry.partition("=")[0]: entry.partition("=")[2].split(",") for entry in mapping.split(";")}
    assert {"hdfs", "etl", "analyst", "masker"} <= users.keys()
    assert "supergroup" in users["hdfs"]
    assert all("supergroup" not in users[user] for user in ("etl", "analyst", "masker"))


def test_no_directory_is_protected_at_first(tmp_path: Path) -> None:
    layout, _ = make(tmp_path, "stock")
    assert client_conf(layout).get_list("fs.protected.directories") == []


def test_our_kms_starts_closed(tmp_path: Path) -> None:
    layout, _ = make(tmp_path, "ringfence")
    acls = read_hadoop_conf(layout.kms_conf, "kms-acls.xml")
    assert acls["hadoop.kms.acl.GET"] == ""
    assert acls["hadoop.kms.blacklist.DECRYPT_EEK"] == "hdfs"
    assert acls["default.key.acl.DECRYPT_EEK"] == ""
    assert "*" not in {value for name, value in acls.items() if name != "hadoop.kms.acl.DECRYPT_EEK"}


def test_hadoops_own_kms_starts_with_hadoops_own_open_defaults(tmp_path: Path) -> None:
    layout, _ = make(tmp_path, "stock")
    acls = read_hadoop_conf(layout.kms_conf, "kms-acls.xml")
    assert {name: acls[name] for name in acls} == {
        f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ")
    }


def test_the_stock_key_store_s_password_is_random_and_private(tmp_path: Path) -> None:
    paths = [make(tmp_path / name, "stock")[0].kms_conf / "kms-keystore.password" for name in ("a", "b")]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    assert paths[0].read_text() != paths[1].read_text()


@pytest.fixture(autouse=True)
def directories(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()


def test_our_kms_reads_what_was_written_for_it(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "ringfence")
    command = describe_daemons(layout, state, {})["kms"].command
    options = dict(word.removeprefix("--").split("=", 1) for word in command if word.startswith("--"))
    assert options["config"] == environment(layout, state)["RINGFENCE_KMS_CONFIG"]
    settings = load_settings(Options(config=Path(options["config"])))
    assert (settings.host, settings.port) == ("localhost", 20001)
    assert settings.groups.static["analyst"] == {"analyst", "pii-readers"}
    assert settings.keystore == f"sqlite:///{tmp_path}/kms.db"
    client = (layout.conf / "ringfence-client.yaml").read_text()
    assert client == f"kms_admin_socket: {settings.admin_socket}\n"


def test_a_stock_kms_has_no_settings_of_ours(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "stock")
    assert not layout.kms_config.exists()
    assert "RINGFENCE_KMS_CONFIG" not in environment(layout, state)


def test_the_agent_reads_what_was_written_for_it(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "ringfence")
    settings = load_config(tmp_path / "agent.yaml")
    assert settings.namenode_conf_dir == layout.conf
    assert str(settings.socket) == environment(layout, state)["RINGFENCE_AGENT_SOCKET"]


def test_the_agent_is_a_daemon_only_when_asked_for(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "ringfence")
    assert list(describe_daemons(layout, state, {})) == ["kms", "namenode", "datanode"]
    with_agent = State(state.hadoop_version, state.kms, state.ports, state.java_home, agent=True)
    assert list(describe_daemons(layout, with_agent, {})) == ["kms", "namenode", "datanode", "agent"]


def test_hadoop_s_variables_of_the_caller_are_left_behind(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "ringfence")
    caller = {"PATH": "/bin", "HADOOP_OPTS": "-Dx", "HDFS_NAMENODE_OPTS": "-Dy", "RINGFENCE_KMS_URI": "kms://other"}
    found = hadoop_environment(layout, state, caller)
    assert found == {"PATH": "/bin", **environment(layout, state)}


@pytest.mark.parametrize("kms", ["ringfence", "stock"])
def test_a_secure_sandbox_encrypts_every_way_that_data_takes(tmp_path: Path, kms: KmsKind) -> None:
    layout, _ = make(tmp_path, kms, kerberos=True, tls=True)
    conf = client_conf(layout)
    assert conf["hadoop.security.authentication"] == "kerberos"
    assert conf["hadoop.rpc.protection"] == "privacy"
    assert conf["dfs.data.transfer.protection"] == "privacy"
    assert conf["dfs.encrypt.data.transfer"] == "true"
    assert conf["dfs.encrypt.data.transfer.cipher.key.bitlength"] == "256"
    assert conf["dfs.http.policy"] == "HTTPS_ONLY"
    assert conf["dfs.block.access.token.enable"] == "true"
    assert conf["hadoop.security.key.provider.path"] == "kms://https@localhost:20001/kms"
    assert conf["dfs.heartbeat.interval"] == "1", "what every sandbox has is still there"
    kms_conf = read_hadoop_conf(layout.kms_conf, "kms-site.xml")
    assert kms_conf["hadoop.kms.authentication.type"] == "kerberos"
    assert Path(kms_conf["hadoop.kms.authentication.kerberos.keytab"]).exists()
    assert kms_conf["hadoop.kms.ssl.enabled"] == "true"


def test_tls_alone_changes_the_kms_alone(tmp_path: Path) -> None:
    layout, _ = make(tmp_path, "stock", tls=True)
    conf = client_conf(layout)
    assert conf["hadoop.security.key.provider.path"] == "kms://https@localhost:20001/kms"
    assert "dfs.http.policy" not in conf
    assert not layout.kdc.exists()


def test_what_holds_a_password_or_a_key_is_its_owner_s_alone(tmp_path: Path) -> None:
    layout, _ = make(tmp_path, "stock", kerberos=True, tls=True)
    secret = [*layout.conf.glob("ssl-*.xml"), *layout.kms_conf.glob("ssl-*.xml"), *layout.kdc.glob("keytabs/*")]
    assert len(secret) >= 10
    secret += [layout.tls / "server.key", layout.tls / "server.jks", layout.conf / "http-signature.secret"]
    assert [path for path in secret if path.stat().st_mode & 0o077] == []


def test_with_kerberos_the_environment_has_tickets_and_no_claimed_name(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "stock", kerberos=True, tls=True)
    found = hadoop_environment(layout, state, {"KRB5CCNAME": "KEYRING:mine", "KRB5_TRACE": "/t"})
    assert found["KRB5_CONFIG"] == str(layout.kdc / "krb5.conf")
    assert found["KRB5CCNAME"] == f"FILE:{layout.directory}/tickets/hdfs"
    assert not found.keys() & {"HADOOP_USER_NAME", "KRB5_TRACE"}


def test_daemons_log_in_from_keytabs_and_the_kdc_comes_first(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "stock", kerberos=True, tls=True)
    daemons = describe_daemons(layout, state, {"KRB5CCNAME": "KEYRING:mine"})
    assert list(daemons) == ["kdc", "kms", "namenode", "datanode"]
    assert all("KRB5CCNAME" not in daemon.environ for daemon in daemons.values())
    assert daemons["kdc"].environ["KRB5_KDC_PROFILE"] == str(layout.kdc / "kdc.conf")


def test_two_namenodes_share_edits_and_clients_know_both_by_one_name(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "ringfence", ha=True)
    conf = client_conf(layout)
    assert conf["fs.defaultFS"] == "hdfs://ringfence"
    found = namenode_addresses(conf)
    assert [(each.rpc, each.web) for each in found] == [
        (f"localhost:{each.port}", f"http://localhost:{each.http_port}") for each in state.namenodes
    ]
    assert conf["dfs.client.failover.proxy.provider.ringfence"].endswith(".ConfiguredFailoverProxyProvider")
    assert conf["dfs.namenode.shared.edits.dir"] == f"qjournal://localhost:{PORTS.journalnode}/ringfence"
    disks = [conf[f"dfs.namenode.name.dir.ringfence.{each.name}"] for each in state.namenodes]
    assert disks == [f"file://{tmp_path}/{each.disk}" for each in state.namenodes]
    assert not {"dfs.namenode.name.dir", "dfs.namenode.http-address", "dfs.ha.automatic-failover.enabled"} & conf.keys()
    daemons = describe_daemons(layout, state, {})
    assert list(daemons) == ["kms", "journalnode", "namenode-nn1", "namenode-nn2", "datanode"]
    assert daemons["namenode-nn2"].command[-1] == "-Ddfs.ha.namenode.id=nn2"
    audits = {daemons[each.daemon].environ["HADOOP_DAEMON_OPTS"].rpartition("=")[2] for each in state.namenodes}
    assert audits == {"hdfs-audit-nn1.log", "hdfs-audit-nn2.log"}
    agent = load_config(tmp_path / "agent.yaml")
    assert {path.name for path in agent.namenode_audit_log} == audits
    assert agent.namenode_log == [layout.log("namenode-nn1"), layout.log("namenode-nn2")]


def test_two_secure_namenodes_speak_https_and_the_journalnode_asks_for_kerberos(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "ringfence", kerberos=True, tls=True, ha=True)
    conf = client_conf(layout)
    assert [each.web for each in namenode_addresses(conf)] == [
        f"https://localhost:{each.http_port}" for each in state.namenodes
    ]
    assert conf["dfs.journalnode.kerberos.principal"].startswith("hdfs/localhost@")
    assert Path(conf["dfs.journalnode.keytab.file"]).exists()
    assert "dfs.namenode.https-address" not in conf


def test_yarn_listens_on_its_own_ports_and_containers_find_hadoop(tmp_path: Path) -> None:
    layout, state = make(tmp_path, "ringfence", yarn=True)
    conf = read_hadoop_conf(layout.conf, "core-site.xml", "yarn-site.xml", "mapred-site.xml")
    assert conf["yarn.resourcemanager.webapp.address"] == f"localhost:{PORTS.resourcemanager_http}"
    assert conf["mapreduce.shuffle.port"] == str(PORTS.shuffle)
    assert conf["yarn.application.classpath"].split(",")[0] == str(layout.conf)
    daemons = describe_daemons(layout, state, {})
    assert list(daemons) == ["kms", "namenode", "datanode", "resourcemanager", "nodemanager", "historyserver"]
    ports = [port for daemon in daemons.values() for port in daemon.ports]
    assert len(ports) == len(set(ports))
    (tmp_path / "a").mkdir(exist_ok=True)
    plain, _ = make(tmp_path / "a", "ringfence")
    assert not list(plain.conf.glob("yarn-site.xml"))


def test_our_kms_gets_the_settings_that_a_sandbox_is_made_with_and_no_other_later(tmp_path: Path) -> None:
    settings = 'workers: 1\nvault: {addresses: ["https://vault:8200"], cluster: c, auth: {method: token_file}}\n'
    layout, state = Layout(tmp_path), State("3.4.2", "ringfence", PORTS, "/jvm")
    write_configuration(layout, state, settings)
    save_state(layout, state)
    read = load_settings(Options(config=layout.kms_config))
    assert (read.port, read.workers) == (20001, 1)
    assert read.vault is not None
    assert read.vault.cluster == "c"
    up = Sandbox(tmp_path, {"JAVA_HOME": "/nonexistent"}).up
    with pytest.raises(SandboxError, match=r"has other settings of its KMS, in .*/kms\.yaml"):
        up(Wanted(kms_settings="workers: 2\n"), print, print)
    with pytest.raises(SandboxError, match="JAVA_HOME"):  # The next thing that an up needs.
        up(Wanted(kms_settings=settings), print, print)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(kerberos=True), "needs TLS too"),
        (Wanted(ticket_lifetime_s=120), "there are no tickets to limit"),
        (Wanted(kms="stock", kms_settings="workers: 1\n"), "for Ringfence's KMS"),
        (Wanted(kerberos=True, tls=True, yarn=True), "YARN with Kerberos needs Hadoop's setuid program"),
    ],
)
def test_what_no_sandbox_can_be_is_refused(wanted: Wanted, message: str) -> None:
    with pytest.raises(SandboxError, match=message):
        wanted.check()


def test_a_sandbox_is_never_silently_of_another_kind_than_asked_for(tmp_path: Path) -> None:
    plain = State("3.4.2", "stock", PORTS, "/jvm")
    secure = State("3.4.2", "stock", PORTS, "/jvm", kerberos=True, tls=True)
    assert Wanted(kerberos=True, tls=True).difference(plain) == "was made without Kerberos or TLS"
    assert Wanted(kms="ringfence").difference(plain) == "has the stock KMS, and its zones' keys are in there"
    assert Wanted(kerberos=True, tls=True, ticket_lifetime_s=120).difference(secure) == "has tickets of 36000 s"
    assert Wanted(ha=True).difference(plain) == "was made with one NameNode"
    assert Wanted(yarn=True).difference(plain) == "was made without YARN"
    assert Wanted().difference(State("3.4.2", "stock", PORTS, "/jvm", ha=True, yarn=True)) is None
    assert Wanted().difference(secure) is None, "what it is stays with it"


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "cannot read"), ("a: [", "not well-formed"), ("- a\n", "no settings"), ("", "no settings")],
)
def test_settings_that_are_none_are_a_wrong_word_and_nothing_is_made(
    tmp_path: Path, text: str | None, told: str
) -> None:
    file, directory = tmp_path / "settings.yaml", tmp_path / "sandbox"
    if text is not None:
        file.write_text(text)
    done = CliRunner().invoke(root, ["sandbox", "up", "--dir", str(directory), "--kms-settings", str(file)])
    assert done.exit_code == 2
    assert told in done.stderr
    assert not directory.exists()


def test_settings_in_braces_become_lines_that_can_follow_others(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"workers": 3,\n "vault": {"addresses": ["https://vault:8200"], "cluster": "c"}}\n')
    context = click.Context(root)
    settings = _read_settings(context, click.Option(["--kms-settings"]), str(file))
    assert settings == "workers: 3\nvault:\n  addresses:\n  - https://vault:8200\n  cluster: c\n"
