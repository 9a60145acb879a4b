"""`ringfence mv`, `zone` and `status` on a real HDFS with Hadoop's own KMS; zones made by Hadoop's shell.

No agent runs here: the commands look for themselves.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cluster_commands import Cluster
from sandboxes import RINGFENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

BASE = "/zone-commands"
A, B = f"{BASE}/a", f"{BASE}/b"
KEYS = {A: "zc-a", B: "zc-b"}


class Commands:
    """Runs `ringfence` and the commands it suggests against one cluster."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory

    def run(self, *arguments: str, user: str = "hdfs") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RINGFENCE, *arguments],
            cwd=self.directory,  # no zones.yaml lies here
            env=self.cluster.environ(user),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str, user: str = "hdfs", expect: int = 0) -> Any:
        done = self.run("--json", *arguments, user=user)
        assert done.returncode == expect, done.stderr
        return json.loads(done.stdout)

    def shell(self, command: str) -> int:
        """What `sh` says to a suggested command."""
        environ: Mapping[str, str] = self.cluster.environ("hdfs")
        path = f"{self.cluster.directory / 'hadoop' / 'bin'}:{environ['PATH']}"
        env = {**environ, "PATH": path, "LC_ALL": "C.UTF-8"}
        return subprocess.run(["sh", "-c", command], env=env, capture_output=True, timeout=300, check=False).returncode


@pytest.fixture(scope="module")
def commands(stock_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    cluster = stock_cluster
    for path, key in KEYS.items():
        cluster.run("hadoop", "key", "create", key, "-size", "256")
        cluster.make_directory(path)
        cluster.run("hdfs", "crypto", "-createZone", "-keyName", key, "-path", path)
    for path in (f"{A}/dir", f"{A}/tree/sub", f"{BASE}/clear", f"{B}/own"):
        cluster.make_directory(path, owner="etl" if path.endswith("own") else "hdfs")
    directory = tmp_path_factory.mktemp("zone-commands")
    # Hadoop's shell makes no name with a star when it is told one, only when it copies such a file; and it reads a
    # local name with a blank as a URI.
    for name, target in {"one": f"{A}/tree", "file": f"{A}/a file", "st*r": f"{A}/tree/sub"}.items():
        (directory / name).write_text(name, encoding="utf-8")
        cluster.run("hdfs", "dfs", "-put", str(directory / name), target)
    return Commands(cluster, directory)


def test_a_refusal_names_the_rule_and_a_command_that_works(commands: Commands) -> None:
    before = commands.cluster.status_of(f"{A}/a file")
    decision = commands.json("mv", f"{A}/a file", B, expect=1)
    assert (decision["rename"], decision["transfer"], decision["rule"]) == (False, True, "zone_to_zone")
    assert f"zone {A}" in decision["reason"]
    assert f"zone {B}" in decision["reason"]
    assert commands.cluster.status_of(f"{A}/a file") == before
    assert commands.shell(decision["command"]) == 0
    assert commands.cluster.read_raw(f"{B}/a file") != b"file"
    assert commands.cluster.status_of(f"{B}/a file")["length"] == len("file")
    # Again it must fail: the copy is there, and nothing is compared that was not copied.
    assert commands.shell(decision["command"]) != 0


def test_a_tree_is_copied_and_compared_as_a_whole(commands: Commands) -> None:
    decision = commands.json("mv", f"{A}/tree", f"{B}/copy", expect=1)
    assert commands.shell(decision["command"]) == 0
    comparison = decision["command"].split(" && ", 1)[1]
    assert commands.shell(comparison) == 0
    commands.cluster.webhdfs("DELETE", "DELETE", f"{B}/copy/sub/st*r")
    assert commands.shell(comparison) != 0


def test_a_rename_inside_a_zone_is_done_and_a_directory_is_put_into(commands: Commands) -> None:
    commands.cluster.webhdfs("PUT", "MKDIRS", f"{A}/leaf d")
    assert commands.json("mv", f"{A}/leaf d", f"{A}/dir")["rename"] is True
    assert commands.cluster.status_of(f"{A}/dir/leaf d")["type"] == "DIRECTORY"


@pytest.mark.parametrize(
    ("src", "dst", "rule"),
    [
        (A, f"{BASE}/clear", "zone_root"),
        (BASE, "/elsewhere", "zone_root_ancestor"),
        (f"{A}/dir", f"{BASE}/clear", "zone_to_clear"),
        (f"{BASE}/clear", A, "clear_to_zone"),
        (f"/.reserved/raw{A}/dir", f"/.reserved/raw{A}/dir2", "raw_path"),
    ],
)
def test_each_rule_refuses(commands: Commands, src: str, dst: str, rule: str) -> None:
    done = commands.run("mv", src, dst)
    assert done.returncode == 1
    assert f"  rule: {rule}: " in done.stderr
    assert done.stdout == ""


def test_somebody_who_may_not_list_zones_is_refused_just_the_same(commands: Commands) -> None:
    assert commands.json("mv", f"{B}/own", f"{A}/own", user="etl", expect=1)["rule"] == "zone_to_zone"


def test_a_source_that_is_not_there_is_an_error_of_hdfs(commands: Commands) -> None:
    done = commands.run("mv", f"{A}/none", f"{A}/other")
    assert done.returncode == 1
    assert f"{A}/none" in done.stderr


def test_zone_list_of_and_show_agree_with_hadoops_shell(commands: Commands) -> None:
    listed = {zone["path"]: zone["key"] for zone in commands.json("zone", "list")["zones"]}
    assert KEYS.items() <= listed.items()
    assert commands.json("zone", "of", f"{A}/dir/not/there/yet")["zone"] == {"path": A, "key": KEYS[A]}
    assert commands.json("zone", "of", f"{BASE}/clear")["zone"] is None
    shown = commands.json("zone", "show", A)
    assert (shown["key"], shown["versions"], shown["length_bits"]) == (KEYS[A], 1, 256)
    assert (shown["trash_mode"], shown["pinned"]) == ("1777", False)
    assert commands.run("zone", "show", f"{A}/dir").returncode == 2


def test_status_shows_zones_keys_kms_and_that_no_agent_runs(commands: Commands) -> None:
    status = commands.json("status")
    assert status["kms"]["ringfence"] is False
    assert status["kms"]["error"] is None
    assert status["agent"] is None
    assert status["authentication"] == "simple"
    [zone] = [zone for zone in status["zones"] if zone["path"] == A]
    assert (zone["key"], zone["current_version"], zone["length_bits"]) == ("zc-a", "zc-a@0", 256)
    plain = commands.run("status").stdout
    assert "not Ringfence's" in plain
    assert "a user is a claim" in plain
