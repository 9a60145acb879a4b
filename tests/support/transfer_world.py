"""A sandbox with zones and the real agent, for transfers on a real HDFS: an agent that can be killed and started again.

What HDFS holds afterwards is judged with Hadoop's own commands and WebHDFS.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cluster_commands import Cluster, wait_until
from sandboxes import RINGFENCE, run_ringfence

from ringfence_agent.client import AgentClient, Transfer

ENDS_S = 240.0
_PATIENCE_S = 300.0  # one command of Hadoop, or the start of an agent, on a machine with much else to do
POLICY = """
version: 1
cluster: transfer-test
zones:
  - {path: /t/pii, owner: etl, readers: [masker]}
  - {path: /t/masked, owner: etl, writers: [masker]}
  - {path: /t/own, owner: masker}
flows:
  - {from: /t/pii, to: /t/masked, who: [masker]}
  - {from: /t/own, to: /t/masked, who: [masker]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
agent: {mode: observe, pin: off}
"""


class World:
    """A sandbox with three zones and an agent that can be killed and started again."""

    def __init__(
        self, cluster: Cluster, directory: Path, transfers: str = "{streams: 4}", policy: str = POLICY
    ) -> None:
        """`transfers` is that block of agent.yaml, on one line; `policy` the zones."""
        self.cluster = cluster
        self.directory = directory
        self.policy = policy
        self.socket = directory / "agent.sock"
        self.state = directory / "state"
        self.config = directory / "agent.yaml"
        self.config.write_text(
            f"hadoop_conf: {cluster.hadoop_conf}\nsocket: {self.socket}\nstate_dir: {self.state}\n"
            f"interval: 500ms\ncall_timeout: 30s\ntransfers: {transfers}\n"
        )
        self.client = AgentClient(str(self.socket), timeout_s=60)
        self.process: subprocess.Popen[str] | None = None

    def publish(self, more: str = "") -> None:
        """The policy, with further lines; what is there already stays."""
        document = self.directory / "zones.yaml"
        document.write_text(self.policy + more)
        applied = run_ringfence(["apply", "-f", document], self.cluster.environ("hdfs"), timeout_s=_PATIENCE_S)
        assert applied.returncode == 0, applied.stderr

    def start(self) -> None:
        with (self.directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [RINGFENCE, "agent", "serve", "--config", self.config],
                env=self.cluster.environ("hdfs"),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"ready unix:{self.socket}\n", self.last_lines()
        wait_until(lambda: bool(self.client.health()["ready"]), timeout_s=_PATIENCE_S)

    def end(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def last_lines(self) -> str:
        return (self.directory / "agent.log").read_text()[-3000:]

    def put(self, path: str, files: dict[str, bytes], user: str = "etl", *, block_bytes: int = 128 << 20) -> None:
        """A tree of files, by Hadoop's own shell."""
        with tempfile.TemporaryDirectory() as local:
            for name, content in files.items():
                target = Path(local, "tree", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            self.cluster.run(
                "hdfs",
                "dfs",
                f"-Ddfs.blocksize={block_bytes}",
                "-put",
                f"{local}/tree",
                path,
                user=user,
                timeout_s=_PATIENCE_S,
            )

    def read(self, path: str, user: str = "masker") -> bytes:
        return self.cluster.run("hdfs", "dfs", "-cat", path, user=user, timeout_s=_PATIENCE_S).stdout

    def exists(self, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        return name in self.names(parent)

    def is_open(self, path: str) -> bool:
        """Whether somebody writes to a file, as the NameNode knows it."""
        located = self.cluster.webhdfs("GET", "GET_BLOCK_LOCATIONS", path).json()["LocatedBlocks"]
        return bool(located["isUnderConstruction"])

    def names(self, path: str) -> set[str]:
        """What a directory holds."""
        listed = self.cluster.webhdfs("GET", "LISTSTATUS", path).json()
        return {each["pathSuffix"] for each in listed["FileStatuses"]["FileStatus"]}

    def command(self, *arguments: str | Path, user: str = "masker") -> subprocess.CompletedProcess[str]:
        environ = self.cluster.environ("hdfs") | {"RINGFENCE_AGENT_SOCKET": str(self.socket)}
        return run_ringfence([*arguments, "--as", user], environ, timeout_s=ENDS_S)

    def transfer(self, src: str, dst: str, **more: Any) -> Transfer:
        made = self.client.submit_transfer(src, dst, user="masker", **more)
        return self.client.wait_for_transfer(made.id, ENDS_S, poll_s=0.1)
