"""The agent on a real NameNode: pins take effect live, questions are answered, and it outlives what it watches.

One sandbox and one published policy serve the module; each test says in the policy what it needs and waits until the
agent has followed. What HDFS does is judged with Hadoop's own commands.
"""

from __future__ import annotations

import enum
import json
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import agent_until
import pytest
import requests
from cluster_commands import Cluster, wait_until
from sandboxes import RINGFENCE, new_sandbox, run_ringfence

import ringfence_agent.client as client_module
from ringfence_agent.act import PinStep
from ringfence_agent.client import AgentClient, AgentError
from ringfence_agent.loop import PolicyStep
from ringfence_zones.hadoop_xml import read_property, set_property

pytestmark = pytest.mark.cluster

PROPERTY = "fs.protected.directories"
# Spelled as an administrator may, and as the NameNode holds it.
ADMINS = "/apps/hive/"
ADMINS_LIVE = "/apps/hive"
ROOTS = ("/agent/pii", "/agent/masked")
_FOLLOWS_S = 60.0
_ENDS_S = 10.0

_POLICY = """
version: 1
cluster: agent-test
zones:
{zones}
kms: {{namenode_users: [hdfs], admins: [hdfs]}}
agent: {{mode: {mode}, pin: {pin}}}
"""


class Watched:
    """A sandbox with two zones, and the agents that tests start on it."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.core_site = cluster.hadoop_conf / "core-site.xml"
        self.socket = directory / "agent.sock"
        self.config = directory / "agent.yaml"
        self.config.write_text(
            f"hadoop_conf: {cluster.hadoop_conf}\n"
            f"socket: {self.socket}\n"
            f"state_dir: {directory}/state\n"
            "interval: 200ms\ncall_timeout: 5s\nstale_after: 20s\n"
        )
        self.policy_file = directory / "followed.yaml"
        self.file_config = directory / "by-file.yaml"
        # Without a lease: the next agent need not wait until the killed one's has run out.
        self.leaseless_conf = directory / "conf"
        shutil.copytree(cluster.hadoop_conf, self.leaseless_conf)
        (self.leaseless_conf / "ringfence-client.yaml").unlink()
        self.file_config.write_text(
            f"policy: {self.policy_file}\nnamenode_conf_dir: {cluster.hadoop_conf}\n"
            f"socket: {self.socket}\nstate_dir: {directory}/state\ninterval: 200ms\nstale_after: 120s\n"
            "budgets: {cpu_percent: 200}\n"
        )
        self.armed = directory / "armed"
        self.client = AgentClient(str(self.socket))

    def publish(self, mode: str, pin: str = "apply", roots: tuple[str, ...] = ROOTS) -> None:
        """Applies a policy with these zones and this agent block."""
        document = self.directory / "zones.yaml"
        document.write_text(_document(mode, pin, roots))
        applied = run_ringfence(["apply", "-f", document], self.cluster.environ("hdfs"))
        assert applied.returncode == 0, applied.stderr

    def replace_file(self, *roots: str) -> None:
        """The policy of agents that follow a file, in one step."""
        following = self.policy_file.with_suffix(".new")
        following.write_text(_document("enforce", "apply", roots))
        following.replace(self.policy_file)

    @contextmanager
    def agent(self, config: Path | None = None, stop_at: enum.StrEnum | None = None) -> Iterator[subprocess.Popen[str]]:
        """An agent that answers; ended afterwards, however the test went. With `stop_at` it stops there once armed."""
        config = config or self.config
        conf = self.leaseless_conf if config == self.file_config else self.cluster.hadoop_conf
        self.armed.unlink(missing_ok=True)
        command: list[str | Path] = [RINGFENCE, "agent", "serve", "--config", config]
        if stop_at is not None:
            command = [sys.executable, agent_until.__file__, config, conf, stop_at, self.armed]
        with (
            (self.directory / "agent.log").open("ab") as log,
            subprocess.Popen(
                command,
                env={**self.cluster.environ("hdfs"), "HADOOP_CONF_DIR": str(conf)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"ready unix:{self.socket}\n", self.last_lines()
                yield process
                process.terminate()
                process.wait(_ENDS_S)
            finally:
                if process.poll() is None:
                    process.kill()

    def pins_at_rest(self) -> tuple[set[str], set[str]]:
        """What the agent remembers as its own, and what core-site.xml lists beside the administrator's entry."""
        memory = json.loads((self.directory / "state" / "pins.json").read_text())["pinned"]
        written = read_property(self.core_site.read_bytes(), PROPERTY)
        assert written is not None
        administrators, *ours = written.value.split(",")
        assert administrators == ADMINS
        return set(memory), set(ours)

    def await_at_rest(self, *roots: str) -> None:
        """Until exactly these are pinned, and neither the memory nor the file says anything else."""
        self.await_pins(*roots)
        wait_until(lambda: self.pins_at_rest() == (set(roots), set(roots)), timeout_s=_FOLLOWS_S)

    def last_lines(self) -> str:
        """The end of the agents' log."""
        return (self.directory / "agent.log").read_text()[-2000:]

    def live_value(self) -> str:
        """What the running NameNode holds, from its own servlet."""
        url = f"http://localhost:{self.cluster.ports['namenode_http']}/conf"
        answer = requests.get(url, params={"name": PROPERTY}, headers={"Accept": "application/json"}, timeout=10)
        return str(answer.json()["property"]["value"] or "") if answer.ok else ""

    def await_health(self, **wanted: object) -> None:
        """Until a cycle that began after now says so."""
        began = self.client.health()["cycle"]

        def holds() -> bool:
            health = self.client.health()
            return health["cycle"] > began + 1 and all(health[name] == value for name, value in wanted.items())

        wait_until(holds, timeout_s=_FOLLOWS_S)

    def await_pins(self, *roots: str) -> None:
        """Until exactly these roots are pinned, beside the administrator's entry."""
        expected = {ADMINS_LIVE, *roots}

        def holds() -> bool:
            # A restarted NameNode shows an entry as the file spells it, a reloaded one without the last slash.
            return {entry.rstrip("/") for entry in self.live_value().split(",")} == expected

        wait_until(holds, timeout_s=_FOLLOWS_S)
        self.await_health(ready=True)

    def rules(self) -> set[str]:
        return {finding.rule for finding in self.client.findings()}

    def move(self, source: str, target: str, expect: int = 1) -> str:
        """The real shell's words on a rename."""
        return self.cluster.run("hdfs", "dfs", "-mv", source, target, expect=expect).output


def _document(mode: str, pin: str, roots: tuple[str, ...]) -> str:
    zones = "\n".join(f"  - {{path: {root}, owner: etl}}" for root in roots)
    return _POLICY.format(zones=zones, mode=mode, pin=pin)


def _await_stopped(process: subprocess.Popen[str], step: enum.StrEnum) -> None:
    """Until it is at that step; fails the test when it does not come there."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _FOLLOWS_S)
    assert ready, f"it never came to '{step}'"
    assert process.stdout.readline() == f"reached {step}\n"


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with (
        new_sandbox("--kms", "ringfence") as described,
        tempfile.TemporaryDirectory(prefix="rfa-") as directory,
    ):
        cluster = Cluster(described)
        world = Watched(cluster, Path(directory))
        # What an administrator had there before anybody thought of an agent.
        document = world.core_site.read_bytes()
        world.core_site.write_bytes(set_property(document, PROPERTY, ADMINS))
        address = f"localhost:{cluster.ports['namenode']}"
        cluster.run("hdfs", "dfsadmin", "-reconfig", "namenode", address, "start")
        wait_until(lambda: world.live_value() == ADMINS_LIVE, timeout_s=30)
        yield world


def _children(pid: int) -> list[int]:
    """Of all its threads: Java is started by the loop's."""
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in listed for child in line.split()]


def _await_children(pid: int) -> list[int]:
    """The two Java processes: one for looks, one for events, which comes second."""
    wait_until(lambda: len(_children(pid)) == 2, timeout_s=_FOLLOWS_S)
    return _children(pid)


def test_observe_changes_nothing_and_says_what_it_would_do(watched: Watched) -> None:
    watched.publish("observe")
    before = watched.core_site.read_bytes()
    with watched.agent():
        watched.await_health(ready=True, mode="observe")
        assert "would pin /agent/masked, /agent/pii" in watched.client.health()["sentence"]
        assert "root_not_pinned" in watched.rules()
    assert watched.core_site.read_bytes() == before
    assert watched.live_value() == ADMINS_LIVE


def test_print_says_what_to_set_and_leaves_the_file_alone(watched: Watched) -> None:
    watched.publish("enforce", "print")
    before = watched.core_site.read_bytes()
    with watched.agent():
        watched.await_health(ready=True, mode="enforce")
        (finding,) = [each for each in watched.client.findings() if each.rule == "pins_to_set"]
        assert f'"{ADMINS},/agent/masked,/agent/pii"' in finding.hint
    assert watched.core_site.read_bytes() == before
    assert watched.live_value() == ADMINS_LIVE


def test_both_roots_are_pinned_live_and_the_administrators_entry_stays(watched: Watched) -> None:
    watched.publish("enforce")
    before = watched.core_site.read_bytes()
    with watched.agent():
        watched.await_pins(*ROOTS)
        assert "root_not_pinned" not in watched.rules()
        after = watched.core_site.read_bytes()
        written = read_property(after, PROPERTY)
        assert written is not None
        assert written.value == f"{ADMINS},/agent/masked,/agent/pii"
        assert after == before.replace(ADMINS.encode(), written.value.encode())
        for root in ROOTS:
            assert f"Cannot delete/rename non-empty protected directory {root}" in watched.move(root, "/elsewhere")
        assert "Cannot delete/rename non-empty protected subdirectory" in watched.move("/agent", "/elsewhere")
        # Inside the zone, life goes on.
        watched.cluster.run("hdfs", "dfs", "-touchz", f"{ROOTS[0]}/a", user="etl")
        watched.cluster.run("hdfs", "dfs", "-mv", f"{ROOTS[0]}/a", f"{ROOTS[0]}/b", user="etl")
    # Pins outlive the agent.
    assert "protected directory" in watched.move(ROOTS[0], "/elsewhere")


def test_questions_are_answered_over_the_socket(watched: Watched) -> None:
    watched.publish("enforce")
    with watched.agent():
        watched.await_pins(*ROOTS)
        zones = watched.client.zones()
        assert {zone.path: zone.key for zone in zones} == watched.cluster.list_zones()
        assert all(zone.pinned and zone.in_policy for zone in zones)
        zone = watched.client.zone_of("/agent/pii/2026/x")
        assert zone is not None
        assert zone.path == "/agent/pii"
        assert watched.client.zone_of("/agent/pii2") is None
        answer = watched.client.check_move("/agent/pii/x", "/agent/masked/x", user="etl")
        assert (answer.rename, answer.same_zone, answer.rule) == (False, False, "zone_to_zone")
        assert watched.client.check_move("/agent/pii/x", "/agent/pii/y").rename
        with pytest.raises(AgentError) as caught:
            watched.client.check_move("/agent/../x", "/y")
        assert caught.value.type == "bad-path"


def test_a_zone_that_leaves_the_policy_is_unpinned_and_one_that_comes_is_pinned(watched: Watched) -> None:
    watched.publish("enforce")
    with watched.agent():
        watched.await_pins(*ROOTS)
        watched.publish("enforce", roots=ROOTS[:1])
        watched.await_pins(ROOTS[0])
        watched.publish("enforce", roots=(*ROOTS, "/agent/third"))
        watched.await_pins(*ROOTS, "/agent/third")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_at_any_step_of_a_new_policy_and_of_its_pins_it_converges(watched: Watched) -> None:
    """One chain: each agent first brings to an end what the one before was killed in, and is then killed at the next
    step of a policy that lets one root go and brings another."""
    ones, others = ROOTS, (ROOTS[0], "/agent/third")
    watched.publish("enforce", roots=(*ROOTS, "/agent/third"))
    watched.replace_file(*ones)
    for step in (*PolicyStep, *PinStep):
        with watched.agent(watched.file_config, step) as process:
            watched.await_at_rest(*ones)
            watched.armed.touch()
            watched.replace_file(*others)
            _await_stopped(process, step)
            process.kill()
            process.wait()
        assert watched.pins_at_rest() == _at(step, set(ones), set(others))
        ones, others = others, ones
    with watched.agent(watched.file_config):
        watched.await_at_rest(*ones)
        for root in ones:
            assert "protected directory" in watched.move(root, "/elsewhere")


def _at(step: enum.StrEnum, old: set[str], new: set[str]) -> tuple[set[str], set[str]]:
    """What has to be in the memory and in core-site.xml at a step: nothing is in the file that is not remembered."""
    if isinstance(step, PolicyStep):
        return old, old
    if step is PinStep.REMEMBERED:
        return old | new, old
    return new if step is PinStep.FORGOTTEN else old | new, new


def test_a_policy_published_while_the_one_before_is_read_is_followed_after_a_kill(watched: Watched) -> None:
    watched.publish("enforce")
    with watched.agent(stop_at=PolicyStep.READ) as process:
        watched.await_pins(*ROOTS)
        watched.armed.touch()
        watched.publish("enforce", roots=ROOTS[:1])
        _await_stopped(process, PolicyStep.READ)
        watched.publish("enforce", roots=(ROOTS[0], "/agent/third"))
        process.kill()
        process.wait()
    with watched.agent():
        watched.await_pins(ROOTS[0], "/agent/third")


def test_a_policy_file_replaced_while_the_one_before_is_adopted_is_followed_without_one(watched: Watched) -> None:
    watched.publish("enforce", roots=(*ROOTS, "/agent/third"))
    watched.replace_file(*ROOTS)
    with watched.agent(watched.file_config, PolicyStep.ADOPTED) as process:
        watched.await_pins(*ROOTS)
        watched.armed.touch()
        watched.replace_file(ROOTS[0])
        _await_stopped(process, PolicyStep.ADOPTED)
        watched.replace_file(ROOTS[0], "/agent/third")
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        watched.await_pins(ROOTS[0], "/agent/third")


def test_it_survives_a_namenode_restart_and_the_roots_stay_pinned(watched: Watched) -> None:
    watched.publish("enforce")
    with watched.agent() as process:
        watched.await_pins(*ROOTS)
        status = run_ringfence(["sandbox", "status", "--json", "--dir", watched.cluster.directory])
        os.kill(json.loads(status.stdout)["pids"]["namenode"], signal.SIGKILL)
        wait_until(lambda: "namenode_unreachable" in watched.rules(), timeout_s=_FOLLOWS_S)
        assert watched.client.health()["live"] is True
        up = run_ringfence(["sandbox", "up", "--dir", watched.cluster.directory], timeout_s=300)
        assert up.returncode == 0, up.stderr
        watched.await_health(live=True, ready=True)
        assert process.poll() is None
        assert "protected directory" in watched.move(ROOTS[0], "/elsewhere")


def test_it_survives_a_kms_that_hangs_and_goes_on_with_the_last_policy(watched: Watched) -> None:
    watched.publish("enforce")
    with watched.agent():
        watched.await_pins(*ROOTS)
        status = run_ringfence(["sandbox", "status", "--json", "--dir", watched.cluster.directory])
        kms = json.loads(status.stdout)["pids"]["kms"]
        stopped = [kms, *_children(kms)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: {"kms_unreachable", "policy_unavailable"} <= watched.rules(), timeout_s=_FOLLOWS_S)
            health = watched.client.health()
            assert (health["live"], health["ready"], health["mode"]) == (True, True, "enforce")
            assert watched.client.check_move("/agent/pii/x", "/agent/pii/y").rename
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not {"kms_unreachable", "policy_unavailable"} & watched.rules(), timeout_s=_FOLLOWS_S)


def test_sigterm_ends_it_within_seconds_with_its_java_and_its_socket(watched: Watched) -> None:
    with watched.agent() as process:
        watched.await_health(live=True)
        children = _await_children(process.pid)
        assert stat.S_IMODE(watched.socket.stat().st_mode) == 0o660
        process.terminate()
        assert process.wait(_ENDS_S) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not watched.socket.exists()


def test_a_killed_agent_leaves_nothing_that_keeps_the_next_one_out(watched: Watched) -> None:
    with watched.agent() as process:
        watched.await_health(live=True)
        children = _await_children(process.pid)
        process.kill()
        process.wait()
        # The child sees its pipe close.
        wait_until(lambda: not any(map(_runs, children)), timeout_s=30)
    assert watched.socket.exists()
    with watched.agent():
        watched.await_health(ready=True)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_second_agent_is_kept_out(watched: Watched) -> None:
    with watched.agent():
        second = run_ringfence(["agent", "serve", "--config", watched.config], watched.cluster.environ("hdfs"))
        assert second.returncode == 2
        assert "another agent is running" in second.stderr


def test_losing_its_socket_is_fatal(watched: Watched) -> None:
    with watched.agent() as process:
        watched.await_health(live=True)
        watched.socket.unlink()
        assert process.wait(_ENDS_S + 10) == 1
    assert "was removed or replaced" in watched.last_lines()


def _ask_as(user: str, path: Path, client_file: Path) -> str:
    """What the agent tells a process of another user: its Python needs nothing of ours but the one file."""
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('client', {str(client_file)!r})\n"
        "client = importlib.util.module_from_spec(spec); spec.loader.exec_module(client)\n"
        "try:\n"
        f"    print(client.AgentClient({str(path)!r}).zones())\n"
        "except client.AgentError as error:\n"
        "    print(error.status, error.type, error.message)\n"
    )
    python = Path("/usr/bin/python3")
    asked = subprocess.run(
        [python if python.exists() else sys.executable, "-I", "-c", program],
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=[],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def test_a_foreign_user_is_kept_out_by_the_file_and_by_the_agent(watched: Watched) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with watched.agent(), tempfile.TemporaryDirectory(prefix="rfc-") as shared:
        watched.await_health(ready=True)
        client_file = Path(shared) / "client.py"
        client_file.write_text(Path(client_module.__file__).read_text(encoding="utf-8"), encoding="utf-8")
        Path(shared).chmod(0o755)
        watched.directory.chmod(0o711)
        assert "Permission denied" in _ask_as("daemon", watched.socket, client_file)
        # An administrator's mistake with the file's mode opens nothing: the kernel still says who asks.
        watched.socket.chmod(0o666)
        assert _ask_as("daemon", watched.socket, client_file).startswith("403 access-denied daemon may not")
        assert _ask_as("nobody", watched.socket, client_file).startswith("401 not-identified")
        assert "/agent/pii" in _ask_as("root", watched.socket, client_file)


def test_a_configuration_with_mistakes_is_refused_with_all_of_them(watched: Watched) -> None:
    bad = watched.directory / "bad.yaml"
    bad.write_text("intervall: 5s\nsocket: relative\ncall_timeout: 5\n")
    refused = run_ringfence(["agent", "serve", "--config", bad], watched.cluster.environ("hdfs"))
    assert refused.returncode == 2
    for part in ("'intervall' is not a setting: did you mean 'interval'?", "'socket'", "'call_timeout'"):
        assert part in refused.stderr
