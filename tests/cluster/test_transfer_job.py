"""Transfers that are copied by a job on a real ResourceManager and NodeManager, and the agent killed meanwhile.

One sandbox and one agent serve the module. It takes minutes: each file of a job costs three starts of Java.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster_commands import Cluster, wait_until
from sandboxes import new_sandbox
from transfer_world import World

from ringfence_agent.client import Transfer

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

_ENDS_S = 900.0
_MIB = 1 << 20
_SETTINGS = "{streams: 2, job: {above: 64KiB}}"
_AWKWARD = "a,b {x} [1] *? ü\u2028\U0001f980 %20$HOME\\z 'q' \"d\""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    options = ("--kms", "ringfence", "--yarn")
    with new_sandbox(*options) as described, tempfile.TemporaryDirectory(prefix="rft-") as directory:
        made = World(Cluster(described), Path(directory), _SETTINGS)
        made.publish()
        made.start()
        try:
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.end()


def jobs_of(world: World, transfer_id: str) -> list[dict[str, Any]]:
    """Every application of a transfer, as the ResourceManager lists them."""
    url = f"http://localhost:{world.cluster.ports['resourcemanager_http']}/ws/v1/cluster/apps"
    listed = requests.get(url, headers={"Accept": "application/json"}, timeout=30).json()["apps"] or {}
    return [app for app in listed.get("app", ()) if f"ringfence-transfer-{transfer_id}" in app["applicationTags"]]


def submit(world: World, source: str, target: str) -> str:
    return world.client.submit_transfer(source, target, user="masker").id


def ended(world: World, transfer_id: str) -> Transfer:
    return world.client.wait_for_transfer(transfer_id, _ENDS_S, poll_s=0.5)


def found(world: World, path: str) -> set[str]:
    """What a directory holds; nothing when it is not there."""
    answer = world.cluster.ask_webhdfs("GET", "LISTSTATUS", path)
    statuses = answer.json()["FileStatuses"]["FileStatus"] if answer.ok else []
    return {each["pathSuffix"] for each in statuses}


def wait_for_copies(world: World, transfer_id: str, number: int = 1) -> None:
    """Until the job writes: then it is in the middle."""
    copies = f"/t/masked/_ringfence_job_{transfer_id}/{number}/copies"
    wait_until(lambda: bool(found(world, copies)), timeout_s=_ENDS_S)


def left_over(world: World) -> list[str]:
    return [name for zone in ("/t/pii", "/t/masked") for name in world.names(zone) if name.startswith("_ringfence")]


@contextmanager
def most_at_once(count: Callable[[], int]) -> Iterator[list[int]]:
    """What `count` said at most meanwhile, in a list of one."""
    most, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.3):
            most[0] = max(most[0], count())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def test_a_tree_is_copied_by_a_job_and_its_receipt_says_the_same_as_sha256sum(world: World) -> None:
    large = bytes(range(256)) * 4096 * 3 + b"end"  # three blocks and a bit
    files = {"large": large, "empty": b"", f"sub/{_AWKWARD}": b"awkward"}
    world.put("/t/pii/tree", files, block_bytes=_MIB)
    transfer_id = submit(world, "/t/pii/tree", "/t/masked/tree")
    done = ended(world, transfer_id)
    assert (done.state, done.files_verified, done.bytes_verified) == ("done", 3, len(large) + 7), done.problem
    [job] = jobs_of(world, transfer_id)
    assert (job["user"], job["finalStatus"]) == ("masker", "SUCCEEDED")
    assert world.read("/t/masked/tree/large") == large
    assert world.names("/t/masked/tree/sub") == {_AWKWARD}
    assert world.cluster.encryption_of("/t/masked/tree/large").version_name == "transfer-test-t-masked@0"
    receipt = json.loads(world.client.get_receipt(transfer_id))["receipt"]
    assert {file["path"]: file["sha256"] for file in receipt["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    assert left_over(world) == []
    logs = [path for path in (world.cluster.directory / "yarn/logs").rglob("*") if path.is_file()]
    assert logs
    assert [path for path in logs if b"{x}" in path.read_bytes()] == []


def test_a_single_file_is_closed_to_others_until_it_is_verified(world: World) -> None:
    world.put("/t/pii/one", {"file": b"1" * 100_000})
    transfer_id = submit(world, "/t/pii/one/file", "/t/masked/one")
    wait_for_copies(world, transfer_id)
    status = world.cluster.status_of(f"/t/masked/_ringfence_job_{transfer_id}")
    assert (status["owner"], status["permission"]) == ("masker", "700")
    done = ended(world, transfer_id)
    assert done.state == "done", done.problem
    assert world.read("/t/masked/one") == b"1" * 100_000


def test_killed_while_it_submits_and_while_the_job_runs_it_goes_on_with_one_job(world: World) -> None:
    files = {f"f{number}": bytes([number]) * 50_000 for number in range(6)}
    world.put("/t/pii/killed", files)
    transfer_id = submit(world, "/t/pii/killed", "/t/masked/killed")
    job = f"/t/masked/_ringfence_job_{transfer_id}"
    alive = ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED", "RUNNING")
    with most_at_once(lambda: sum(app["state"] in alive for app in jobs_of(world, transfer_id))) as most:
        wait_until(lambda: "listing" in found(world, f"{job}/1"), timeout_s=_ENDS_S)
        world.end(signal.SIGKILL)
        world.start()
        wait_until(lambda: bool(jobs_of(world, transfer_id)), timeout_s=_ENDS_S)
        [number] = world.names(job)
        wait_for_copies(world, transfer_id, int(number))
        world.end(signal.SIGKILL)
        assert not world.exists("/t/masked/killed")
        world.start()
        done = ended(world, transfer_id)
    assert (done.state, done.files_verified) == ("done", 6), done.problem
    assert most == [1]
    assert [app["finalStatus"] for app in jobs_of(world, transfer_id)] == ["SUCCEEDED"]
    assert world.names("/t/masked/killed") == set(files)
    assert world.read("/t/masked/killed/f5") == files["f5"]
    assert left_over(world) == []


def test_a_cancelled_transfer_kills_its_job_and_leaves_nothing(world: World) -> None:
    world.put("/t/pii/cancelled", {f"f{number}": b"x" * 100_000 for number in range(8)})
    transfer_id = submit(world, "/t/pii/cancelled", "/t/masked/cancelled")
    wait_for_copies(world, transfer_id)
    world.client.cancel_transfer(transfer_id)
    done = ended(world, transfer_id)
    assert done.state == "failed"
    assert done.problem is not None
    assert "cancelled by" in done.problem["message"]
    assert [app["state"] for app in jobs_of(world, transfer_id)] == ["KILLED"]
    assert left_over(world) == []
    assert len(world.names("/t/pii/cancelled")) == 8


def test_a_file_that_the_copying_user_may_not_read_fails_it_with_hdfs_s_own_words(world: World) -> None:
    world.put("/t/pii/closed", {"open": b"1" * 70_000, "closed": b"2"})
    world.cluster.run("hdfs", "dfs", "-chmod", "000", "/t/pii/closed/closed", user="etl", timeout_s=300)
    done = ended(world, submit(world, "/t/pii/closed", "/t/masked/closed"))
    assert done.state == "failed"
    assert done.problem is not None
    assert "the job could not copy closed: cat: Permission denied: user=masker" in done.problem["message"]
    assert not world.exists("/t/masked/closed")
    assert left_over(world) == []


def test_where_flow_rules_are_enforced_a_job_copies_along_an_edge(world: World) -> None:
    world.put("/t/pii/edge", {"a": b"1" * 70_000, "b": b"2"})
    world.publish("flow_control: {mode: enforce, enforce_on_claimed_identity: true}\n")
    wait_until(lambda: copying_on_is_refused(world), timeout_s=_ENDS_S)
    done = ended(world, submit(world, "/t/pii/edge", "/t/masked/edge"))
    assert done.state == "done", done.problem
    assert world.read("/t/masked/edge/b") == b"2"


def copying_on_is_refused(world: World) -> bool:
    """Whether the KMS keeps masker from a copy that no edge allows; a worker learns of a policy within moments."""
    hdfs = world.cluster.directory / "hadoop/bin/hdfs"
    argv = [hdfs, "dfs", "-cp", "-f", "/t/pii/edge/b", "/t/own/onward"]
    environ = world.cluster.environ("masker")
    copied = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=300, check=False)
    return copied.returncode != 0 and "has no flow between them for masker" in copied.stderr
