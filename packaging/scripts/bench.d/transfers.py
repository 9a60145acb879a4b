"""A verified transfer of 200 files of 1 MiB between two zones, against DistCp and a checksum pass after it.

DistCp between zones verifies nothing (`-skipcrccheck`, for checksums are of ciphertext), so that what it takes to know
as much is DistCp in local mode, then the SHA-256 of the plain text of both sides by Hadoop's shell. Ours is timed from
the request to the signed receipt. Both run on the same sandbox, in turns, each into a target of its own; a copy that
does not hold what the source holds fails the measurement. DistCp comes with a sandbox that has YARN.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from figures import Spread, spread_of
from kms_load import BenchError
from move_checks import running_agent
from sandbox import Sandbox

from ringfence_agent.client import AgentClient, AgentError

FILES, FILE_BYTES = 200, 1024 * 1024
_USER = "etl"
_SOURCE, _TARGETS = "/bench-t/a/files", "/bench-t/b"
_POLICY = """\
version: 1
cluster: bench
zones:
  - {path: /bench-t/a, owner: etl}
  - {path: /bench-t/b, owner: etl}
kms: {namenode_users: [hdfs], admins: [hdfs]}
agent: {mode: observe, pin: off}
"""
_TIMEOUT_S = 900
_DISTCP = ("distcp", "-Dmapreduce.framework.name=local", "-update", "-skipcrccheck")


@dataclass(frozen=True, slots=True)
class Transfers:
    """Seconds for all files: ours with its receipt, DistCp alone, and DistCp with the checksum pass."""

    ours_s: Spread | None
    distcp_s: Spread | None
    distcp_verified_s: Spread | None


def measure_transfers(yarn: Sandbox, scratch: Path, *, rounds: int, say: Callable[[str], None]) -> Transfers:
    """On a running sandbox with DistCp. Raises BenchError when a copy is not one."""
    document = scratch / "transfers.yaml"
    document.write_text(_POLICY)
    yarn.run([str(yarn.program), "apply", "-f", str(document)])
    wanted = _make_files(yarn, scratch)
    ours, copies, verified = [], [], []
    with running_agent(yarn, scratch) as (_, socket):
        client = AgentClient(str(socket), timeout_s=60)
        for number in range(rounds):
            say(f"transfers: round {number + 1} of {rounds}")
            ours.append(_transfer(client, f"{_TARGETS}/ours{number}"))
            _expect(wanted, _digest(yarn, f"{_TARGETS}/ours{number}"))
            target = f"{_TARGETS}/theirs{number}"
            began = time.monotonic()
            _run(yarn, ["hadoop", *_DISTCP, _SOURCE, target])
            copies.append(time.monotonic() - began)
            _expect(_digest(yarn, _SOURCE), _digest(yarn, target))
            verified.append(time.monotonic() - began)
    return Transfers(spread_of(ours), spread_of(copies), spread_of(verified))


def _make_files(yarn: Sandbox, scratch: Path) -> str:
    """Puts the files there, and says what the digest of all of them is."""
    local, digest = scratch / "files", hashlib.sha256()
    local.mkdir()
    for number in range(FILES):
        content = os.urandom(FILE_BYTES)
        digest.update(content)
        (local / f"f{number:03}").write_bytes(content)
    _run(yarn, ["hdfs", "dfs", "-put", str(local), _SOURCE])
    return digest.hexdigest()


def _transfer(client: AgentClient, target: str) -> float:
    for _ in range(600):  # the agent has to have seen the cluster once
        began = time.monotonic()
        try:
            submitted = client.submit_transfer(_SOURCE, target, user=_USER)
            break
        except AgentError as error:
            if error.type != "namenode-unavailable":
                raise BenchError(f"the agent took no transfer: {error}") from error
            time.sleep(0.2)
    else:
        raise BenchError("the agent saw no cluster within two minutes")
    ended = client.wait_for_transfer(submitted.id, _TIMEOUT_S, poll_s=0.05)
    client.get_receipt(submitted.id)
    seconds = time.monotonic() - began
    if ended.state != "done" or ended.files_verified != FILES:
        raise BenchError(f"the transfer is {ended.state}: {ended.problem}")
    return seconds


def _digest(yarn: Sandbox, directory: str) -> str:
    """SHA-256 of all files, in the order of their names, as Hadoop's shell reads them."""
    piped = f"set -o pipefail; hdfs dfs -cat '{directory}/f*' | sha256sum"
    return _run(yarn, ["bash", "-c", piped]).split()[0]


def _expect(wanted: str, found: str) -> None:
    if wanted != found:
        raise BenchError("a copy does not hold what the source holds")


def _run(yarn: Sandbox, argv: list[str]) -> str:
    environ = yarn.environment | {"HADOOP_USER_NAME": _USER}
    finished = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if finished.returncode != 0:
        raise BenchError(f"{' '.join(argv[:2])} failed with {finished.returncode}: {finished.stderr.strip()[-800:]}")
    return finished.stdout
