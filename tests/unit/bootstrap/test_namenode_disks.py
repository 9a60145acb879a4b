"""A disk with an image is never formatted, and both NameNodes of a pair begin with one image."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox.namenode_disks import is_formatted, prepare_disks
from ringfence_bootstrap.sandbox.state import Layout, Ports, State
from ringfence_zones.errors import SandboxError

PAIR = State("3.4.2", "ringfence", Ports(1, 2, 3, 4, 5, 6), "/jvm", ha=True)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """With a stand-in for `hdfs namenode -format` that notes its words and makes an image."""
    made = Layout(tmp_path)
    made.logs.mkdir()
    install(made, f"mkdir -p {tmp_path}/name/current\ntouch {tmp_path}/name/current/fsimage_0")
    return made


def install(layout: Layout, script: str) -> None:
    program = layout.hadoop_home / "bin/hdfs"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\necho "$*" >>{layout.directory}/told\n{script}\n')
    program.chmod(0o755)


def write(layout: Layout, path: str, text: str = "") -> None:
    file = layout.directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_new_pair_is_formatted_once_and_copied(layout: Layout) -> None:
    assert not is_formatted(layout, PAIR)
    prepare_disks(layout, PAIR, os.environ)
    assert (layout.directory / "name2/current/fsimage_0").exists()
    prepare_disks(layout, PAIR, os.environ)
    assert (layout.directory / "told").read_text() == "namenode -Ddfs.ha.namenode.id=nn1 -format -force\n"


def test_one_namenode_is_formatted_without_force(layout: Layout) -> None:
    prepare_disks(layout, replace(PAIR, ha=False), os.environ)
    assert (layout.directory / "told").read_text() == "namenode -format -nonInteractive\n"
    assert not (layout.directory / "name2").exists()


@pytest.mark.parametrize(("there", "lost"), [("name", "name2"), ("name2", "name")])
def test_a_lost_disk_is_made_from_the_other_one_and_nothing_is_formatted(layout: Layout, there: str, lost: str) -> None:
    for name in ("fsimage_7", "VERSION", "edits_8-9", "edits_inprogress_10"):
        write(layout, f"{there}/current/{name}", name)
    write(layout, f"{there}/in_use.lock")
    write(layout, f"{lost}/current/VERSION", "half of a copy")
    prepare_disks(layout, PAIR, os.environ)
    copied = sorted(path.name for path in (layout.directory / lost).rglob("*") if path.is_file())
    assert copied == ["VERSION", "fsimage_7"]
    assert (layout.directory / lost / "current/VERSION").read_text() == "VERSION"
    assert not (layout.directory / "told").exists()


def test_what_formatting_said_is_told_when_it_made_no_image(layout: Layout) -> None:
    install(layout, "echo '2026 ERROR no space'")
    with pytest.raises(SandboxError, match=r"the NameNode's disk was not formatted: 2026 ERROR no space"):
        prepare_disks(layout, PAIR, os.environ)
