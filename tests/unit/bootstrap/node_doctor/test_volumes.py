"""What a file rests on, from mountinfo and sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_trees import EBS, INSTANCE_STORE, NodeTree

from ringfence_bootstrap.node_doctor.volumes import Protection, find_volume

LUKS = "CRYPT-LUKS2-0123456789abcdef-luks"


def protection(tree: NodeTree, path: str = "/mnt/x") -> Protection:
    volume = find_volume(Path(path), tree.root)
    assert volume is not None
    return volume.protection


@pytest.mark.parametrize(
    ("model", "uuid", "expected"),
    [
        (EBS, None, Protection.UNSEEN),
        (INSTANCE_STORE, None, Protection.HARDWARE),
        (None, LUKS, Protection.DM_CRYPT),
        (None, "CRYPT-PLAIN-x", Protection.DM_CRYPT),
        (None, "LVM-x", Protection.NONE),
        ("Some Disk", None, Protection.NONE),
    ],
)
def test_what_encrypts_a_disk(tmp_path: Path, model: str | None, uuid: str | None, expected: Protection) -> None:
    tree = NodeTree(tmp_path).disk("/", "/dev/root").disk("/mnt", "/dev/x", model=model, uuid=uuid)
    assert protection(tree) is expected


def test_the_longest_mount_counts_and_of_two_on_one_place_the_last(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).disk("/", "/dev/a", uuid=LUKS).disk("/mnt", "/dev/b", model=EBS)
    tree.mount("/mnt", "tmpfs", "0:30", "tmpfs").disk("/mnt/with\\040blank", "/dev/c", uuid=LUKS)
    assert protection(tree, "/var") is Protection.DM_CRYPT
    assert protection(tree, "/mnt") is Protection.MEMORY
    assert protection(tree, "/mnt/with blank/file") is Protection.DM_CRYPT
    assert protection(tree, "/mntx") is Protection.DM_CRYPT


def test_a_partition_is_as_its_disk_and_a_stack_as_its_worst(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).write("/sys/devices/nvme0n1/device/model", EBS)
    tree.write("/sys/devices/nvme0n1/nvme0n1p1/partition", "1\n")
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/259:77").symlink_to(tmp_path / "sys/devices/nvme0n1/nvme0n1p1")
    tree.mount("/", "/dev/nvme0n1p1", "259:77")
    assert protection(tree, "/") is Protection.UNSEEN
    tree.disk("/mnt", "/dev/mapper/raid", uuid="LVM-x")
    for name, uuid in (("dm-1", LUKS), ("dm-2", LUKS)):
        tree.write(f"/sys/block/{name}/dm/uuid", uuid)
        (tree.last_device / "slaves").mkdir(exist_ok=True)
        (tree.last_device / "slaves" / name).symlink_to(tmp_path / "sys/block" / name)
    assert protection(tree) is Protection.DM_CRYPT
    tree.write("/sys/block/dm-2/dm/uuid", "LVM-y")
    assert protection(tree) is Protection.NONE


def test_a_disk_of_xen_says_nothing_of_itself(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/vbd-1/xvda").mkdir(parents=True)
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/202:1").symlink_to(tmp_path / "sys/devices/vbd-1/xvda")
    tree = NodeTree(tmp_path).mount("/", "/dev/xvda", "202:1")
    assert protection(tree, "/") is Protection.UNSEEN


def test_a_suspended_device_is_seen_through_what_lies_on_it(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).disk("/mnt", "/dev/mapper/data", uuid="LVM-x")
    tree.write("/sys/block/dm-1/dm/uuid", LUKS).write("/sys/block/dm-1/dm/suspended", "1\n")
    (tree.last_device / "slaves").mkdir()
    (tree.last_device / "slaves/dm-1").symlink_to(tmp_path / "sys/block/dm-1")
    volume = find_volume(Path("/mnt"), tmp_path)
    assert volume is not None and volume.suspended


def test_what_the_kernel_does_not_say_is_not_made_up(tmp_path: Path) -> None:
    assert find_volume(Path("/x"), tmp_path) is None
    tree = NodeTree(tmp_path).mount("/", "overlay", "0:50", "overlay").write("/proc/self/mountinfo.bad", "")
    assert protection(tree, "/") is Protection.UNKNOWN
    tree.write("/proc/self/mountinfo", "cut off in the mid")
    assert find_volume(Path("/"), tmp_path) is None


def test_this_machine_s_root_is_found() -> None:
    assert find_volume(Path("/")) is not None
