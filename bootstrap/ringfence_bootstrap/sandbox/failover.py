"""Two NameNodes of one nameservice: which is active, and the change from one to the other.

Rules: the change is made by Hadoop's own `haadmin`, at somebody's word. Nothing watches: there is no ZooKeeper and no
ZKFC, so after a crash the pair stands still until it is told what to do (decision 0035). What a NameNode is, it says
itself: it answers a WebHDFS question, or refuses it because it is standby. A NameNode that was replaced cannot write
any more, because the JournalNode takes edits of the newest epoch alone.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from ringfence_bootstrap.sandbox import processes, readiness
from ringfence_bootstrap.sandbox.daemons import hadoop_environment
from ringfence_bootstrap.sandbox.readiness import Access, Role
from ringfence_bootstrap.sandbox.security import get_ticket, superuser_access
from ringfence_bootstrap.sandbox.state import Layout, NameNode, State, save_state
from ringfence_zones.errors import SandboxError

_HAADMIN_TIMEOUT_S = 120.0
_FOLLOWS_TIMEOUT_S = 60.0
_POLL_S = 0.1
# A JVM that lives for one call starts sooner without the optimising compiler.
_CLIENT_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx128m"


def find_roles(access: Access, state: State) -> dict[str, Role | None]:
    """What each NameNode says it is; None when it does not answer."""
    return {each.name: readiness.find_role(access, each.http_port) for each in state.namenodes}


def asking_active(access: Access, state: State) -> Access:
    """The same, of the NameNode that is active; of the first one while none is."""
    if not state.ha:
        return access
    roles = find_roles(access, state)
    active = next((each for each in state.namenodes if roles[each.name] == "active"), state.namenodes[0])
    return replace(access, namenode_http=active.http_port)


def pair_waits_for(access: Access, state: State) -> str | None:
    """Every NameNode of a pair says what it is."""
    silent = [name for name, role in find_roles(access, state).items() if role is None]
    return f"{silent[0]} to say whether it is active" if silent else None


def ensure_active(layout: Layout, state: State, caller: Mapping[str, str], access: Access) -> State:
    """Makes the one that was active last active again when none is; both answer. Returns who is active."""
    roles = find_roles(access, state)
    if "active" not in roles.values():
        _haadmin(layout, state, caller, "-transitionToActive", state.active)
        return state
    return replace(state, active=next(name for name, role in roles.items() if role == "active"))


def fail_over(
    layout: Layout,
    state: State,
    caller: Mapping[str, str],
    say: Callable[[str], None],
    *,
    to: str | None,
    kill: bool,
) -> State:
    """Makes `to` active, by default the one that is not; with `kill` the active one is killed first, not asked.

    Returns when a file can be written there. Raises SandboxError when the sandbox has one NameNode, when the one
    that should be active does not answer, or when `haadmin` refuses.
    """
    if not state.ha:
        raise SandboxError(
            f"the sandbox in {layout.directory} has one NameNode", hint="make one with two: ringfence sandbox up --ha"
        )
    with superuser_access(layout, state) as access:
        roles = find_roles(access, state)
        active = next((each for each in state.namenodes if roles[each.name] == "active"), None)
        target = _choose(state, to, active)
        if target == active:
            if kill:
                raise SandboxError(f"{target.name} is the active one, and --kill would end it: give the other to --to")
            say(f"{target.name} is active already")
            return state
        if roles[target.name] is None:
            raise SandboxError(
                f"{target.name} does not answer, so it cannot be made active",
                hint=f"its log is {layout.log(target.daemon)}",
                command=f"ringfence sandbox up --dir {layout.directory}",
            )
        if kill and active is not None:
            say(f"killing the {active.daemon}")
            processes.kill(state.processes[active.daemon])
            active = None
        say(f"making {target.name} active")
        _haadmin(layout, state, caller, *_words(active, target))
        state = replace(state, active=target.name)
        save_state(layout, state)
        _await_writable(replace(access, namenode_http=target.http_port))
    say(f"{target.name} is active: a file can be written to {state.filesystem}")
    return state


def _words(active: NameNode | None, target: NameNode) -> tuple[str, ...]:
    if active is not None:
        return "-failover", active.name, target.name
    # The other one is gone, or standby: asking it first would wait for a connection in vain.
    return "-transitionToActive", "--forceactive", target.name


def _choose(state: State, to: str | None, active: NameNode | None) -> NameNode:
    if to is not None:
        return next(each for each in state.namenodes if each.name == to)
    before = active.name if active is not None else state.active
    return next(each for each in state.namenodes if each.name != before)


def _await_writable(access: Access) -> None:
    deadline = time.monotonic() + _FOLLOWS_TIMEOUT_S
    while (waiting := readiness.hdfs_waits_for(access)) is not None:
        if time.monotonic() > deadline:
            raise SandboxError(f"after {_FOLLOWS_TIMEOUT_S:.0f} s the sandbox still waits for {waiting}")
        time.sleep(_POLL_S)


def _haadmin(layout: Layout, state: State, caller: Mapping[str, str], *arguments: str) -> None:
    environ = hadoop_environment(layout, state, caller) | {"HADOOP_CLIENT_OPTS": _CLIENT_OPTIONS}
    if state.kerberos:
        environ |= get_ticket(layout, state, "hdfs")
    command = [str(layout.hadoop_home / "bin/hdfs"), "haadmin", *arguments]
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=_HAADMIN_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"haadmin {' '.join(arguments)} did not end in {_HAADMIN_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise SandboxError(
            f"haadmin {' '.join(arguments)} failed: {said[-1].strip() if said else 'it printed nothing'}",
            hint=f"the logs are in {layout.logs}",
        )
