"""Transfers on a real HDFS: by the command and by a step's client, through the real agent, as the requesting user.

One sandbox and one agent serve the module. What HDFS holds afterwards is judged with Hadoop's own commands.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_commands import Cluster, wait_until
from sandboxes import RINGFENCE, new_sandbox
from transfer_world import ENDS_S, World

from ringfence_agent.client import AgentError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_STEP = Path(__file__).parents[2] / "agent" / "examples" / "transfer_step.py"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_sandbox("--kms", "ringfence") as described, tempfile.TemporaryDirectory(prefix="rft-") as directory:
        made = World(Cluster(described), Path(directory))
        made.publish()
        made.start()
        try:
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.end()


def verify(world: World, receipt: bytes, home: Path) -> subprocess.CompletedProcess[str]:
    """In an empty home, without a configuration; from the receipt and the public key alone."""
    (home / "receipt").write_bytes(receipt)
    (home / "agent.pub").write_bytes((world.state / "receipt-key.pub").read_bytes())
    argv = [str(RINGFENCE), "receipt", "verify", "receipt", "--key", "agent.pub", "--json"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return subprocess.run(argv, cwd=home, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_file_goes_from_zone_to_zone_and_its_receipt_verifies(world: World, tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000 + b"end"
    world.put("/t/pii/one", {"file": content, "empty": b""})
    receipt = tmp_path / "receipt.json"
    done = world.command("transfer", "/t/pii/one", "/t/masked", "--receipt", receipt, "--purpose", "a test")
    assert done.returncode == 0, done.stderr + world.last_lines()
    assert world.read("/t/masked/one/file") == content
    assert content[:64] not in world.cluster.read_raw("/t/masked/one/file")
    assert world.cluster.encryption_of("/t/masked/one/file").version_name == "transfer-test-t-masked@0"
    verified = verify(world, receipt.read_bytes(), tmp_path)
    assert verified.returncode == 0, verified.stderr
    body = json.loads(verified.stdout)
    assert {file["path"]: file["sha256"] for file in body["files"]} == {
        "file": hashlib.sha256(content).hexdigest(),
        "empty": hashlib.sha256(b"").hexdigest(),
    }
    assert body["source"]["key_versions"] == ["transfer-test-t-pii@0"]
    assert body["target"]["key_versions"] == ["transfer-test-t-masked@0"]
    assert (body["requested_by"], body["copied_as"], body["policy"]["revision"]) == ("masker", "masker", 1)
    altered = receipt.read_bytes().replace(b"a test", b"b test", 1)
    assert verify(world, altered, tmp_path).returncode == 1


def test_a_user_without_an_edge_is_refused_with_the_rule(world: World) -> None:
    world.put("/t/pii/refused", {"a": b"1"})
    refused = world.command("transfer", "/t/pii/refused", "/t/masked/refused", user="etl")
    assert refused.returncode == 1
    assert "no flow from /t/pii to /t/masked for etl" in refused.stderr
    assert "rule: zone_to_zone" in refused.stderr
    assert not world.exists("/t/masked/refused")


def test_modes_and_times_are_kept_and_the_copier_owns_the_copy(world: World) -> None:
    world.put("/t/pii/kept", {"sub/a": b"1"})
    world.cluster.run("hdfs", "dfs", "-chmod", "640", "/t/pii/kept/sub/a", user="etl")
    world.cluster.run("hdfs", "dfs", "-touch", "-m", "-t", "20260101:010203", "/t/pii/kept/sub/a", user="etl")
    assert world.transfer("/t/pii/kept", "/t/masked/kept").state == "done"
    before = world.cluster.webhdfs("GET", "GETFILESTATUS", "/t/pii/kept/sub/a").json()["FileStatus"]
    after = world.cluster.webhdfs("GET", "GETFILESTATUS", "/t/masked/kept/sub/a").json()["FileStatus"]
    assert after["modificationTime"] == before["modificationTime"]
    assert after["permission"] == before["permission"]
    assert after["owner"] == "masker"


def test_a_source_is_removed_only_by_who_may_and_after_verification(world: World) -> None:
    world.put("/t/own/mine", {"a": b"1" * 1000, "sub/b": b"2"}, user="masker")
    moved = world.transfer("/t/own/mine", "/t/masked/mine", remove_source=True)
    assert (moved.state, moved.source_removed, moved.problem) == ("done", True, None), world.last_lines()
    assert world.names("/t/own") == {".Trash"}
    assert world.read("/t/masked/mine/sub/b") == b"2"
    world.put("/t/pii/theirs", {"a": b"1"})
    stays = world.transfer("/t/pii/theirs", "/t/masked/theirs", remove_source=True)
    assert (stays.state, stays.source_removed) == ("done", False)
    assert stays.problem is not None
    assert "Permission denied" in stays.problem["message"]
    assert world.exists("/t/pii/theirs/a")


def test_a_source_that_somebody_writes_to_is_refused(world: World) -> None:
    world.put("/t/pii/open", {"a": b"1"})
    writer = subprocess.Popen(
        [Path(world.cluster.environment["HADOOP_HOME"]) / "bin" / "hdfs", "dfs", "-appendToFile", "-", "/t/pii/open/a"],
        env=world.cluster.environ("etl"),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert writer.stdin is not None
    try:
        # The shell opens the file before it reads what to append.
        wait_until(lambda: world.is_open("/t/pii/open/a"), timeout_s=120)
        failed = world.transfer("/t/pii/open", "/t/masked/open")
    finally:
        writer.stdin.close()
        writer.wait(60)
    assert failed.state == "failed"
    assert failed.problem is not None
    assert failed.problem["kind"] == "SourceChangedError"
    assert not any(name.startswith("_ringfence") for name in world.names("/t/masked"))


def test_a_full_quota_fails_clearly_and_leaves_nothing(world: World) -> None:
    world.put("/t/pii/large", {"a": b"x" * 3_000_000})
    world.cluster.run("hdfs", "dfsadmin", "-setSpaceQuota", "1m", "/t/masked")
    try:
        failed = world.transfer("/t/pii/large", "/t/masked/large")
    finally:
        world.cluster.run("hdfs", "dfsadmin", "-clrSpaceQuota", "/t/masked")
    assert failed.state == "failed"
    assert failed.problem is not None
    assert "the target's quota is used up" in failed.problem["message"]
    assert not any(name.startswith("_ringfence") for name in world.names("/t/masked"))
    assert world.exists("/t/pii/large/a")


def test_killed_with_its_agent_in_the_middle_it_goes_on_and_loses_nothing(world: World) -> None:
    files = {f"f{number:03}": bytes([number]) * 400_000 for number in range(40)}
    world.put("/t/own/big", files, user="masker")
    made = world.client.submit_transfer("/t/own/big", "/t/masked/big", user="masker", remove_source=True)
    wait_until(lambda: world.client.get_transfer(made.id).files_verified >= 3, timeout_s=ENDS_S)
    assert world.client.get_transfer(made.id).state == "copying", "too fast to be killed in the middle"
    world.end(signal.SIGKILL)
    assert world.exists("/t/own/big/f000")
    assert not world.exists("/t/masked/big")
    world.start()
    ended = world.client.wait_for_transfer(made.id, ENDS_S, poll_s=0.1)
    assert (ended.state, ended.source_removed, ended.files) == ("done", True, 40), world.last_lines()
    assert world.read("/t/masked/big/f039") == files["f039"]
    assert world.names("/t/masked/big") == set(files)
    assert not world.exists("/t/own/big")
    assert not any(name.startswith("_ringfence") for name in world.names("/t/masked") | world.names("/t/own"))


def test_a_killed_process_that_copies_is_replaced(world: World) -> None:
    world.put("/t/pii/hands", {f"f{number}": bytes([number]) * 400_000 for number in range(30)})
    made = world.client.submit_transfer("/t/pii/hands", "/t/masked/hands", user="masker")
    wait_until(lambda: world.client.get_transfer(made.id).files_verified >= 2, timeout_s=ENDS_S)
    assert world.process is not None
    for pid in _children(world.process.pid):
        if "ringfence_agent.transfer.hands_main" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    ended = world.client.wait_for_transfer(made.id, ENDS_S, poll_s=0.1)
    assert (ended.state, ended.files_verified) == ("done", 30), world.last_lines()


def test_a_step_is_refused_a_rename_submits_a_transfer_and_verifies_the_receipt(world: World, tmp_path: Path) -> None:
    world.put("/t/pii/step", {"part-0": b"rows"})
    environ = world.cluster.environ("masker") | {"RINGFENCE_AGENT_SOCKET": str(world.socket)}
    environ["PATH"] = f"{RINGFENCE.parent}:{environ['PATH']}"
    key = world.state / "receipt-key.pub"
    argv = [sys.executable, _STEP, "/t/pii/step", "/t/masked/step", "--key", key, "--user", "masker"]
    ran = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr + world.last_lines()
    assert "refused (zone_to_zone)" in ran.stdout
    assert "1 of 1 files" in ran.stdout
    assert "verified" in ran.stdout
    assert world.read("/t/masked/step/part-0") == b"rows"


def test_raw_paths_and_targets_that_are_there_are_refused(world: World) -> None:
    world.put("/t/pii/raw", {"a": b"1"})
    with pytest.raises(AgentError) as refused:
        world.client.submit_transfer("/.reserved/raw/t/pii/raw", "/t/masked/raw", user="masker")
    assert refused.value.rule == "raw_path"
    world.put("/t/masked/taken", {"a": b"2"}, user="masker")
    failed = world.transfer("/t/pii/raw/a", "/t/masked/taken/a")
    assert failed.problem is not None
    assert "/t/masked/taken/a is there already" in failed.problem["message"]
    assert world.read("/t/masked/taken/a") == b"2"


def _children(pid: int) -> list[int]:
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in listed for child in line.split()]
