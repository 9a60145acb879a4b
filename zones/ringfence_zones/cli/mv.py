"""`ringfence mv`: a rename that is refused, with the reason and the way out, before the NameNode is asked.

The agent decides when its socket is there: a refusal then costs no JVM. Without one the command looks for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ringfence_zones.agent_client import find_agent
from ringfence_zones.cli import exits
from ringfence_zones.cli.cluster import open_hdfs
from ringfence_zones.cli.context import CommandContext, global_options, login_name
from ringfence_zones.cli.policy_file import load_optional_policy, policy_option
from ringfence_zones.cli.render import print_json, shown
from ringfence_zones.client_config import is_secure
from ringfence_zones.errors import (
    AgentUnavailableError,
    HdfsPermissionError,
    RefusedError,
)
from ringfence_zones.findings import Rule
from ringfence_zones.hadoop_conf import find_default_fs
from ringfence_zones.hdfs_interface import Hdfs, find_zone_around
from ringfence_zones.model import EncryptionZone
from ringfence_zones.moves import MoveDecision, ZoneMap, decide_move, final_destination
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy import Policy


@click.command()
@policy_option(required=False)
@click.argument("src")
@click.argument("dst")
@global_options
@click.pass_context
def mv(click_context: click.Context, context: CommandContext, policy_file: Path | None, src: str, dst: str) -> None:
    """Rename SRC to DST, or into DST when that is a directory.

    A move that would leave its encryption zone, enter one, or take a zone's root along is refused with exit code 1,
    the rule, and a command that works instead.
    """
    default_fs = find_default_fs(context.hadoop_conf)
    source, target = HdfsPath.parse(src, default_fs=default_fs), HdfsPath.parse(dst, default_fs=default_fs)
    policy = load_optional_policy(policy_file)
    decision = _ask_agent(context, source, target)
    if decision is None or decision.rename:
        decision, target = _move(context, policy, source, target, known=decision)
    if context.json:
        print_json(decision.to_json())
    elif decision.rename:
        click.echo(f"renamed {shown(str(source))} to {shown(str(target))}")
    if decision.rename:
        return
    if context.json:
        click_context.exit(exits.FAILED)
    assert decision.rule is not None
    raise RefusedError(decision.reason or decision.rule.meaning, decision.rule, command=decision.command)


def _ask_agent(context: CommandContext, src: HdfsPath, dst: HdfsPath) -> MoveDecision | None:
    """The agent's decision; None when there is no agent or it has no answer for this user."""
    agent = find_agent(context.agent_socket)
    # With Kerberos the ticket says who moves; the agent would answer for the operating system's user.
    if agent is None or is_secure(context.hadoop_conf):
        return None
    user = context.user if context.user != login_name() else None
    try:
        answer = agent.check_move(str(src), str(dst), user)
        rule = Rule.find_rule(answer["rule"]) if answer["rule"] is not None else None
        if answer["rename"] is not (rule is None):
            return None
        return MoveDecision(
            rename=answer["rename"] is True,
            transfer=answer["transfer"] is True,
            same_zone=answer["same_zone"] is True,
            reason=answer["reason"],
            rule=rule,
            command=answer["command"],
        )
    except (AgentUnavailableError, KeyError):
        return None


def _move(
    context: CommandContext, policy: Policy | None, src: HdfsPath, dst: HdfsPath, *, known: MoveDecision | None
) -> tuple[MoveDecision, HdfsPath]:
    """Decides unless the agent has, and renames what may be renamed; with where it went.

    Raises the `HdfsError` family.
    """
    with open_hdfs(context) as hdfs:
        target = hdfs.find_directory(str(dst))
        into = target is not None and target.is_directory
        zones = _zones_for(hdfs, policy, src, dst) if known is None else ()
        decision = known
        if decision is None:
            state = hdfs.find_directory(str(src)) if not src.is_root else None
            decision = decide_move(
                policy,
                zones,
                user=hdfs.user,
                src=src,
                dst=dst,
                src_is_directory=state is not None and state.is_directory,
                dst_is_directory=into,
            )
        final = final_destination(ZoneMap(zones), src, dst, dst_is_directory=into)
        if decision.rename:
            hdfs.rename(str(src), str(final))
    return decision, final


def _zones_for(hdfs: Hdfs, policy: Policy | None, src: HdfsPath, dst: HdfsPath) -> Sequence[EncryptionZone]:
    """Every zone for a superuser. Anybody else sees the zones of the two ends; roots below them from the policy."""
    try:
        return hdfs.list_zones()
    except HdfsPermissionError:
        found = {zone for path in (src.live, dst.live) for zone in (find_zone_around(hdfs, path),) if zone is not None}
        known = {EncryptionZone(zone.path, zone.key) for zone in policy.zones} if policy is not None else set()
        paths = {zone.path for zone in found}
        return sorted(found | {zone for zone in known if zone.path not in paths})
