"""Our classifications on a real cluster with Kerberos: a known pattern crosses in clear before them, and not after.

The sandbox begins as a cluster with Kerberos that encrypts nothing: who calls is proven, what they say is not hidden.
Then the generated properties are merged into its files, as EMR merges them, and NameNode and DataNode start again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from cluster_commands import Cluster
from sandboxes import sandbox_in, start_stopped
from secure_clusters import SecureCluster
from wire_capture import Relay, Wire, captured_packets

from ringfence_bootstrap.cli.emr_classifications import classifications
from ringfence_bootstrap.sandbox.artifacts import HADOOP_VERSION
from ringfence_bootstrap.sandbox.configuration import write_configuration
from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_bootstrap.sandbox.state import Layout, State, choose_ports, save_state
from ringfence_zones.hadoop_xml import set_properties

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(300)]

_BYTES = 4096
_LOWERED = {
    "core-site.xml": {"hadoop.rpc.protection": "authentication"},
    # A secure DataNode on a high port has to name some protection; this one proves who calls and hides nothing.
    "hdfs-site.xml": {"dfs.data.transfer.protection": "authentication", "dfs.encrypt.data.transfer": "false"},
}
_DROPPED = ("dfs.encrypt.data.transfer.cipher.suites", "dfs.encrypt.data.transfer.cipher.key.bitlength")


@contextmanager
def prepared(*, kerberos: bool) -> Iterator[tuple[Layout, tuple[str, ...]]]:
    """A sandbox that was configured and never started, and the options of `sandbox up` for it."""
    with tempfile.TemporaryDirectory(prefix="rf-") as parent:
        layout = Layout(Path(parent) / "s")
        layout.directory.mkdir(mode=0o700)
        state = State(
            HADOOP_VERSION,
            "ringfence",
            choose_ports(),
            str(find_java_home(os.environ)),
            kerberos=kerberos,
            tls=kerberos,
            prepared=False,
        )
        write_configuration(layout, state)
        save_state(layout, state)
        yield layout, ("--kerberos", "--tls") if kerberos else ()


@contextmanager
def cluster_in_clear() -> Iterator[SecureCluster]:
    """Kerberos, and nothing encrypted."""
    with prepared(kerberos=True) as (layout, options):
        for name, properties in _LOWERED.items():
            set_in(layout.conf / name, properties)
        path = layout.conf / "hdfs-site.xml"
        for name in _DROPPED:
            text, count = re.subn(rf"<property><name>{re.escape(name)}</name>.*?</property>", "", path.read_text())
            assert count == 1
            path.write_text(text)
        with sandbox_in(layout.directory, *options) as described:
            yield SecureCluster(described)


def set_in(path: Path, properties: dict[str, str]) -> None:
    path.write_bytes(set_properties(path.read_bytes(), properties))


def generated() -> dict[str, dict[str, str]]:
    """What the command prints for such a cluster, by classification."""
    arguments = ["--release", "emr-7.12.0", "--applications", "Hadoop", "--kerberos"]
    done = CliRunner().invoke(classifications, arguments)
    assert done.exit_code == 0, done.output
    return {each["Classification"]: each["Properties"] for each in json.loads(done.stdout)}


def restart(cluster: SecureCluster, *daemons: str) -> None:
    for daemon in daemons:
        pid = cluster.pids[daemon]
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while any(_runs(cluster.pids[daemon]) for daemon in daemons):
        assert time.monotonic() < deadline, "a daemon does not end"
        time.sleep(0.05)
    start_stopped(cluster.directory)


def _runs(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Traffic:
    """A file outside any zone and an attribute, written by one user while the wire is watched."""

    def __init__(self, cluster: Cluster, directory: Path, name: str) -> None:
        self._datanode, self._namenode = cluster.ports["datanode"], cluster.ports["namenode"]
        self.block, self.attribute = secrets.token_bytes(_BYTES), secrets.token_bytes(_BYTES)
        local, path = directory / name, f"/tmp/{name}"
        local.write_bytes(self.block)
        with ExitStack() as watching:
            relay = watching.enter_context(Relay())
            packets = watching.enter_context(captured_packets(self._datanode, self._namenode))
            run = ("hdfs", "dfs", *relay.client_options)
            cluster.run(*run, "-put", str(local), path, user="etl")
            cluster.run(*run, "-setfattr", "-n", "user.pattern", "-v", f"0x{self.attribute.hex()}", path, user="etl")
        self.wires: list[Wire] = [wire for wire in (relay.wire, packets) if wire is not None]
        read = cluster.run("hdfs", "dfs", "-cat", path, user="etl").stdout
        assert read == self.block

    def in_clear(self) -> list[tuple[float, float]]:
        """For each way of watching: how much of the block, and of the attribute, could be read."""
        for wire in self.wires:
            assert wire.size(self._datanode) > _BYTES, "block transfer was not seen"
            assert wire.size(self._namenode) > _BYTES, "RPC was not seen"
        return [
            (
                wire.share_in_clear(self._datanode, self.block),
                wire.share_in_clear(self._namenode, self.attribute),
            )
            for wire in self.wires
        ]


def test_blocks_and_calls_cross_in_clear_before_the_classifications_and_not_after(tmp_path: Path) -> None:
    with cluster_in_clear() as cluster:
        assert cluster.live_value("namenode_http", "hadoop.rpc.protection") == "authentication"
        assert cluster.live_value("datanode_http", "dfs.encrypt.data.transfer") == "false"
        before = Traffic(cluster, tmp_path, "before").in_clear()
        assert before == [(1.0, 1.0)] * len(before)

        made = generated()
        assert set(made) == {"core-site", "hdfs-site"}
        for name, properties in made.items():
            set_in(cluster.hadoop_conf / f"{name}.xml", properties)
        restart(cluster, "namenode", "datanode")
        for daemon in ("namenode_http", "datanode_http"):
            for properties in made.values():
                for name, value in properties.items():
                    assert cluster.live_value(daemon, name) == value

        after = Traffic(cluster, tmp_path, "after").in_clear()
        assert after == [(0.0, 0.0)] * len(before)


def test_without_kerberos_calls_stay_in_clear_and_show_the_key_that_blocks_are_encrypted_with(tmp_path: Path) -> None:
    """Why the generator leaves them out there: what it writes for a cluster with Kerberos, on one without."""
    with prepared(kerberos=False) as (layout, options):
        for name, properties in generated().items():
            set_in(layout.conf / f"{name}.xml", properties)
        with sandbox_in(layout.directory, *options) as described:
            traffic = Traffic(Cluster(described), tmp_path, "plain")
            assert traffic.in_clear() == [(0.0, 1.0)] * len(traffic.wires)
            for wire in traffic.wires:
                # DataEncryptionKeyProto: block pool, nonce (8 bytes), encryption key (20 bytes).
                found = wire.find(described["ports"]["namenode"], rb"BP-[0-9.-]+\x1a\x08.{8}\x22\x14(.{20})")
                assert found is not None, "the key was not seen in the NameNode's answer"
