"""What rests on a node, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from node_trees import EBS, INSTANCE, INSTANCE_STORE, NodeTree

from ringfence_bootstrap.node_doctor import disks
from ringfence_bootstrap.node_doctor.subject import Node
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked

LUKS = "CRYPT-LUKS2-0123456789abcdef-luks"
HDFS = {"dfs.datanode.data.dir": "[DISK]file:///mnt/hdfs,/mnt1/hdfs", "dfs.namenode.name.dir": "file:///mnt/namenode"}


def found_before_not_checked(check: Callable[[Node], Iterator[Finding]], node: Node) -> tuple[list[Rule], str]:
    found = []
    try:
        for each in check(node):
            found.append(each.rule)
    except NotChecked as reason:
        return found, str(reason)
    return found, ""


def test_a_root_device_in_clear_is_an_error_on_emr(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).disk("/", "/dev/sda1")
    (elsewhere,) = disks.check_root_device(tree.node())
    (found,) = disks.check_root_device(tree.emr().node())
    assert (elsewhere.severity, found.severity) == (Severity.WARN, Severity.ERROR)
    assert found.rule is Rule.NODE_DISK_CLEAR and "EnableEbsEncryption" in found.hint


def test_what_ebs_does_is_left_to_ec2(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).emr().disk("/", "/dev/nvme0n1p1", model=EBS)
    found, reason = found_before_not_checked(disks.check_root_device, tree.node())
    assert found == []
    assert (
        f"aws ec2 describe-volumes --region eu-west-1 --filters Name=attachment.instance-id,Values={INSTANCE}" in reason
    )


def test_data_disks_under_luks_are_fine_and_others_are_named(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).emr().hadoop(hdfs=HDFS).disk("/", "/dev/nvme0n1", model=EBS)
    tree.disk("/mnt", "/dev/mapper/mnt", uuid=LUKS).disk("/mnt1", "/dev/nvme2n1", model=INSTANCE_STORE)
    assert found_before_not_checked(disks.check_data_disks, tree.node()) == ([], "")
    (tmp_path / "mnt2").mkdir()
    tree.disk("/mnt2", "/dev/sdc")
    (clear,) = disks.check_data_disks(tree.node())
    assert clear.path == "/mnt2"
    (tmp_path / "mnt3").mkdir()
    tree.disk("/mnt3", "/dev/nvme3n1", model=EBS)
    found, reason = found_before_not_checked(disks.check_data_disks, tree.node())
    assert found == [Rule.NODE_DISK_CLEAR] and reason.startswith("/mnt3: EBS without LUKS")


def test_a_suspended_data_disk_is_found(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).hadoop(hdfs=HDFS).disk("/", "/dev/a", uuid=LUKS).disk("/mnt", "/dev/mapper/m", uuid=LUKS)
    (tree.last_device / "dm/suspended").write_text("1\n")
    (found,) = disks.check_data_disks(tree.node())
    assert (found.rule, found.command) == (Rule.NODE_DISK_SUSPENDED, "dmsetup resume /dev/mapper/m")


def test_a_node_with_one_disk_has_no_data_disks(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).hadoop(hdfs=HDFS).disk("/", "/dev/a", uuid=LUKS)
    with pytest.raises(NotChecked, match="besides the root device"):
        list(disks.check_data_disks(tree.node()))


def test_the_stock_key_store_lies_in_the_kms_user_s_home(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).hadoop(kms={}).disk("/", "/dev/sda1").disk("/srv", "/dev/mapper/s", uuid=LUKS)
    with pytest.raises(NotChecked, match=r"there is no .*/hadoop-kms/kms.keystore: the key server .* elsewhere"):
        list(disks.check_key_store(tree.node()))
    tree.write("/var/lib/hadoop-kms/kms.keystore", "keys")
    (clear,) = disks.check_key_store(tree.node())
    assert "the disk with the key store /var/lib/hadoop-kms/kms.keystore" in clear.message
    tree.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nkms:x:902:902::/srv/kms:/bin/false\n")
    tree.write("/srv/kms/kms.keystore", "keys")
    assert list(disks.check_key_store(tree.node())) == []


def test_on_emr_a_key_store_goes_away_with_the_node(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).emr().hadoop(kms={"hadoop.kms.key.provider.uri": "jceks://file@/srv/k.jceks"})
    tree.disk("/", "/dev/nvme0n1", model=EBS).write("/srv/k.jceks", "keys")
    found, reason = found_before_not_checked(disks.check_key_store, tree.node())
    assert found == [Rule.KEY_STORE_NOT_DURABLE]
    assert "the disk with the key store /srv/k.jceks" in reason and "describe-volumes" in reason


def test_our_own_key_store_counts_where_kms_yaml_is(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).hadoop(kms={}).disk("/", "/dev/a").disk("/var/lib/ringfence", "/dev/m", uuid=LUKS)
    tree.write("/etc/ringfence/kms.yaml", "keystore: sqlite:////var/lib/ringfence/keys.db\n")
    tree.write("/var/lib/ringfence/keys.db", "keys")
    assert list(disks.check_key_store(tree.node())) == []
    tree.write("/etc/ringfence/kms.yaml", "keystore: postgresql://kms@db.example.com/keys\n")
    assert list(disks.check_key_store(tree.node())) == []
    tree.write("/etc/ringfence/kms.yaml", "keystore: [unclosed\n")
    with pytest.raises(NotChecked, match="not what the key server would start with"):
        list(disks.check_key_store(tree.node()))


def test_without_a_key_server_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(NotChecked, match="no key server is configured"):
        list(disks.check_key_store(NodeTree(tmp_path).hadoop().node()))
