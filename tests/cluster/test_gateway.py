"""The gateway on a real NameNode: what it does, that doing it twice is fine, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cluster_commands import Cluster, add_property, wait_until
from sandboxes import run_ringfence

from ringfence_zones.errors import (
    HadoopNotFoundError,
    HdfsError,
    HdfsNotFoundError,
    HdfsPermissionError,
    InputError,
    KmsUnavailableError,
    NameNodeUnavailableError,
    NoKeyProviderError,
    SafeModeError,
)
from ringfence_zones.hdfs_child import HdfsChild
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.model import EncryptionZone

pytestmark = pytest.mark.cluster


@contextmanager
def gateway_of(cluster: Cluster, user: str = "hdfs", hadoop_conf: Path | None = None) -> Iterator[HdfsChild]:
    """A gateway in a process of its own: pytest's process stays free of Java."""
    conf = hadoop_conf or cluster.hadoop_conf
    child = HdfsChild(conf, environ={**cluster.environ(user), "HADOOP_CONF_DIR": str(conf)})
    try:
        yield child
    finally:
        child.close()


@pytest.fixture(scope="module")
def cluster(stock_cluster: Cluster) -> Cluster:
    return stock_cluster


@pytest.fixture(scope="module")
def gateway(cluster: Cluster) -> Iterator[HdfsChild]:
    with gateway_of(cluster) as child:
        yield child


@pytest.fixture(scope="module")
def keys(cluster: Cluster) -> KmsClient:
    client = KmsClient(cluster.environment["RINGFENCE_KMS_URI"], "hdfs")
    client.create_key("gateway-1", 128)
    client.create_key("gateway-2", 128)
    return client


def test_the_cluster_is_described_as_it_is(cluster: Cluster, gateway: HdfsChild) -> None:
    assert gateway.user == "hdfs"
    assert gateway.hadoop_version() == (3, 4, 2)
    assert gateway.key_provider_uri() == cluster.environment["RINGFENCE_KMS_URI"]
    before = gateway.last_transaction_id()
    gateway.list_zones()
    assert gateway.last_transaction_id() == before


def test_a_zone_is_made_closed_first_and_every_step_may_be_repeated(gateway: HdfsChild, keys: KmsClient) -> None:
    path = "/gateway/made/deep zoné"
    for _ in range(2):
        gateway.make_directory(path)
    made = gateway.find_directory(path)
    assert made is not None
    assert (made.mode, made.owner, made.is_empty, made.trash_mode) == (0o700, "hdfs", True, None)
    ancestor = gateway.find_directory("/gateway/made")
    assert ancestor is not None
    assert ancestor.mode == 0o755
    for _ in range(2):
        gateway.create_zone(path, "gateway-1")
        gateway.provision_trash(path)
    assert EncryptionZone(path, "gateway-1") in gateway.list_zones()
    assert gateway.find_zone_of(f"{path}/not/there") == EncryptionZone(path, "gateway-1")
    assert gateway.find_zone_of("/gateway") is None
    finished = gateway.find_directory(path)
    assert finished is not None
    assert finished.trash_mode == 0o1777


def test_rights_are_exactly_those_asked_for_whatever_was_there(gateway: HdfsChild) -> None:
    path = "/gateway/rights"
    gateway.make_directory(path)
    acl = ["default:group::r-x", "default:other::---", "default:user::rwx", "default:user:analyst:r-x"]
    for _ in range(2):
        gateway.set_rights(path, "etl", "pii", 0o750, ["user:analyst:r-x", "user:masker:rwx", *acl])
    opened = gateway.find_directory(path)
    assert opened is not None
    assert (opened.owner, opened.group, opened.group_bits) == ("etl", "pii", 5)
    assert set(opened.acl) == {"user:analyst:r-x", "user:masker:rwx", "default:mask::r-x", *acl}
    gateway.set_rights(path, None, None, 0o1700, ["user:analyst:r-x"])
    narrowed = gateway.find_directory(path)
    assert narrowed is not None
    assert narrowed.acl == ("user:analyst:r-x",)
    assert (narrowed.owner, narrowed.mode & 0o7707, narrowed.group_bits) == ("etl", 0o1700, 0)
    gateway.set_rights(path, "hdfs", None, 0o770, [])
    plain = gateway.find_directory(path)
    assert plain is not None
    assert (plain.owner, plain.group, plain.mode, plain.acl) == ("hdfs", "pii", 0o770, ())


def test_a_provisioned_trash_has_no_inherited_acl(cluster: Cluster, gateway: HdfsChild, keys: KmsClient) -> None:
    gateway.make_directory("/gateway/inherits")
    gateway.set_rights("/gateway/inherits", "hdfs", None, 0o755, ["default:user:masker:rwx"])
    path = "/gateway/inherits/zone"
    gateway.make_directory(path)
    gateway.create_zone(path, "gateway-1")
    gateway.provision_trash(path)
    listing = cluster.run("hdfs", "dfs", "-getfacl", f"{path}/.Trash").output
    assert "masker" not in listing
    assert "# flags: --t" in listing
    assert gateway.find_directory(path).trash_mode == 0o1777  # type: ignore[union-attr]


def test_a_zone_with_another_key_or_a_full_directory_is_refused_by_name(gateway: HdfsChild, keys: KmsClient) -> None:
    gateway.make_directory("/gateway/taken")
    gateway.create_zone("/gateway/taken", "gateway-1")
    with pytest.raises(HdfsError, match="zone with the key gateway-1, not gateway-2"):
        gateway.create_zone("/gateway/taken", "gateway-2")
    gateway.make_directory("/gateway/full/child")
    with pytest.raises(HdfsError, match=r"/gateway/full cannot become a zone: .*non-empty"):
        gateway.create_zone("/gateway/full", "gateway-2")
    with pytest.raises(HdfsError, match="nokey"):
        gateway.create_zone("/gateway/full/child", "nokey")
    with pytest.raises(HdfsNotFoundError, match="/gateway/nope"):
        gateway.create_zone("/gateway/nope", "gateway-2")


def test_renames_follow_the_namenodes_rules_in_one_line(gateway: HdfsChild, keys: KmsClient) -> None:
    gateway.make_directory("/gateway/z")
    gateway.create_zone("/gateway/z", "gateway-2")
    gateway.make_directory("/gateway/z/a b")
    gateway.rename("/gateway/z/a b", "/gateway/z/é")
    gateway.make_directory("/gateway/plain")
    with pytest.raises(HdfsError) as caught:
        gateway.rename("/gateway/z/é", "/gateway/plain/x")
    assert caught.value.message == "/gateway/z/é can't be moved from an encryption zone"
    with pytest.raises(HdfsNotFoundError):
        gateway.rename("/gateway/nope", "/gateway/other")
    with pytest.raises(HdfsError, match="already exists"):
        gateway.rename("/gateway/plain", "/gateway/z")


def test_the_protected_directories_are_the_running_namenodes_not_the_files(
    cluster: Cluster, gateway: HdfsChild
) -> None:
    (namenode,) = gateway.namenodes
    core_site = cluster.hadoop_conf / "core-site.xml"
    original = core_site.read_bytes()
    # None as long as a busy NameNode takes too long to show its configuration.
    wait_until(lambda: gateway.protected_directories() is not None, timeout_s=60)
    before = gateway.protected_directories()
    try:
        tree = ElementTree.fromstring(original)
        for element in list(tree):
            if element.findtext("name") == "fs.protected.directories":
                tree.remove(element)
        document = ElementTree.ElementTree(tree)
        add_property(document, "fs.protected.directories", "/gateway/z, /gateway/taken")
        document.write(core_site, encoding="unicode")
        assert gateway.protected_directories() == before
        gateway.start_reconfiguration(namenode)
        wait_until(lambda: not gateway.reconfiguration_status(namenode).running, timeout_s=20)
        changes = {change.name: change for change in gateway.reconfiguration_status(namenode).changes}
        assert changes["fs.protected.directories"].error is None
        assert gateway.protected_directories() == ("/gateway/taken", "/gateway/z")
    finally:
        core_site.write_bytes(original)
        gateway.start_reconfiguration(namenode)
        wait_until(lambda: gateway.protected_directories() == before, timeout_s=20)


def test_what_only_the_superuser_may_do_names_the_way_to_be_it(cluster: Cluster) -> None:
    with gateway_of(cluster, "etl") as etl:
        for call in (etl.list_zones, lambda: etl.make_directory("/gateway/by-etl")):
            with pytest.raises(HdfsPermissionError) as caught:
                call()
            assert "etl" in caught.value.message
            assert "--as hdfs" in (caught.value.hint or "")


def test_safe_mode_is_told_and_reading_goes_on(cluster: Cluster, gateway: HdfsChild) -> None:
    cluster.run("hdfs", "dfsadmin", "-safemode", "enter")
    try:
        with pytest.raises(SafeModeError):
            gateway.make_directory("/gateway/safe")
        gateway.list_zones()
    finally:
        cluster.run("hdfs", "dfsadmin", "-safemode", "leave")


def conf_with(cluster: Cluster, directory: Path, properties: dict[str, str | None]) -> Path:
    """A copy of the cluster's client configuration with properties replaced, or removed when None."""
    shutil.copytree(cluster.hadoop_conf, directory)
    for name in ("core-site.xml", "hdfs-site.xml"):
        root = ElementTree.parse(directory / name).getroot()
        for element in list(root):
            if element.findtext("name") in properties:
                root.remove(element)
        document = ElementTree.ElementTree(root)
        for key, value in properties.items():
            if value is not None:
                add_property(document, key, value)
        document.write(directory / name, encoding="unicode")
    return directory


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_namenode_that_is_down_is_told_within_seconds(cluster: Cluster, tmp_path: Path) -> None:
    conf = conf_with(cluster, tmp_path / "conf", {"fs.defaultFS": f"hdfs://localhost:{unused_port()}"})
    with gateway_of(cluster, hadoop_conf=conf) as gateway:
        assert gateway.user == "hdfs"
        started = time.monotonic()
        with pytest.raises(NameNodeUnavailableError, match="connection refused"):
            gateway.list_zones()
        assert time.monotonic() - started < 15
    applied = apply_to(cluster, conf, tmp_path)
    assert applied.returncode == 1
    assert applied.stderr.startswith("ringfence: the NameNode at localhost:")
    assert "connection refused" in applied.stderr


def test_a_namenode_that_accepts_and_never_answers_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        conf = conf_with(cluster, tmp_path / "conf", {"fs.defaultFS": f"hdfs://localhost:{silent.getsockname()[1]}"})
        child = HdfsChild(conf, environ={**cluster.environ("hdfs"), "HADOOP_CONF_DIR": str(conf)}, deadline_s=3)
        try:
            with pytest.raises(NameNodeUnavailableError, match="within 3 s"):
                child.list_zones()
        finally:
            child.close()


def test_a_name_cannot_be_claimed_on_a_cluster_with_kerberos(cluster: Cluster, tmp_path: Path) -> None:
    conf = conf_with(cluster, tmp_path / "conf", {"hadoop.security.authentication": "kerberos"})
    child = HdfsChild(conf, "hdfs", environ=cluster.environ("hdfs"))
    try:
        with pytest.raises(InputError, match="uses Kerberos"):
            child.list_zones()
    finally:
        child.close()


def test_a_machine_without_hadoop_is_told_what_to_do(cluster: Cluster) -> None:
    environ = {name: value for name, value in cluster.environ("hdfs").items() if name != "HADOOP_HOME"}
    child = HdfsChild(cluster.hadoop_conf, environ=environ | {"PATH": "/nonexistent"})
    try:
        with pytest.raises(HadoopNotFoundError, match="HADOOP_HOME is not set"):
            child.list_zones()
    finally:
        child.close()


@contextmanager
def namenode_of_its_own(cluster: Cluster, directory: Path, key_provider: str | None) -> Iterator[Path]:
    """A second NameNode with its own empty namespace and key provider; the configuration directory to reach it."""
    conf = conf_with(
        cluster,
        directory / "conf",
        {
            "fs.defaultFS": f"hdfs://localhost:{unused_port()}",
            "dfs.namenode.http-address": f"localhost:{unused_port()}",
            "dfs.namenode.name.dir": f"file://{directory}/name",
            "hadoop.security.key.provider.path": key_provider,
        },
    )
    environ = {**cluster.environ("hdfs"), "HADOOP_CONF_DIR": str(conf)}
    hdfs = str(cluster.directory / "hadoop" / "bin" / "hdfs")
    format_ = [hdfs, "namenode", "-format", "-force", "-nonInteractive"]
    subprocess.run(format_, env=environ, check=True, timeout=120, capture_output=True)
    with (directory / "namenode.log").open("wb") as log:
        process = subprocess.Popen([hdfs, "namenode"], env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        with gateway_of(cluster, hadoop_conf=conf) as gateway:
            wait_until(lambda: answers(gateway), timeout_s=60)
        yield conf
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def answers(gateway: HdfsChild) -> bool:
    try:
        gateway.make_directory("/a")
    except HdfsError:
        return False
    return True


def apply_to(cluster: Cluster, conf: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    policy = directory / "zones.yaml"
    policy.write_text("version: 1\ncluster: c\nzones: [{path: /a}]\nkms: {namenode_users: [hdfs], admins: [hdfs]}\n")
    return run_ringfence(["apply", "-f", policy, "--hadoop-conf", conf], cluster.environ("hdfs"))


def test_a_namenode_without_a_key_provider_says_so(cluster: Cluster, tmp_path: Path) -> None:
    with namenode_of_its_own(cluster, tmp_path, None) as conf, gateway_of(cluster, hadoop_conf=conf) as gateway:
        assert gateway.key_provider_uri() is None
        with pytest.raises(NoKeyProviderError) as caught:
            gateway.create_zone("/a", "gateway-1")
        assert "hadoop.security.key.provider.path" in (caught.value.hint or "")
        applied = apply_to(cluster, conf, tmp_path)
        assert applied.returncode == 1
        assert "no key provider" in applied.stderr
        assert "hadoop.security.key.provider.path" in applied.stderr


def test_a_namenode_with_a_wrong_kms_address_names_that_address(cluster: Cluster, tmp_path: Path) -> None:
    uri = f"kms://http@localhost:{unused_port()}/kms"
    with namenode_of_its_own(cluster, tmp_path, uri) as conf, gateway_of(cluster, hadoop_conf=conf) as gateway:
        with pytest.raises(KmsUnavailableError) as caught:
            gateway.create_zone("/a", "gateway-1")
        assert uri in caught.value.message
        applied = apply_to(cluster, conf, tmp_path)
        assert applied.returncode == 1
        assert uri in applied.stderr
        assert "nothing was changed" in applied.stderr
        found = gateway.find_directory("/a")
        assert found is not None
        assert (found.is_empty, gateway.list_zones()) == (True, ())
