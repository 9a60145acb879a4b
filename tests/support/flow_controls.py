"""Flow control for a KMS application that is built by hand."""

from __future__ import annotations

from concurrent.futures import Executor

from ringfence_agent.flow.memory import FlowMemory
from ringfence_agent.flow.stamp import Stamps
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.flow_control import FlowControl
from ringfence_zones.access_list import GroupsOf
from ringfence_zones.secret import Secret


def no_flows(access: AccessRules, groups_of: GroupsOf, executor: Executor) -> FlowControl:
    """Of a server whose published policy never has flows: nothing is asked of a memory."""

    def no_memory() -> FlowMemory:
        raise AssertionError("there are no flows")

    async def nothing_new() -> None:
        raise AssertionError("nobody is refused")

    return FlowControl(no_memory, executor, Stamps(Secret(bytes(32))), access, groups_of, nothing_new)
