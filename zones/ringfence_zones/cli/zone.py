"""`ringfence zone`: the encryption zones as the cluster has them. Read-only."""

from __future__ import annotations

from typing import Any

import click

from ringfence_zones.agent_client import find_agent
from ringfence_zones.cli.cluster import open_cluster, open_hdfs
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, print_table, shown
from ringfence_zones.errors import AgentUnavailableError, PathError
from ringfence_zones.hadoop_conf import find_default_fs
from ringfence_zones.hdfs_interface import find_zone_around
from ringfence_zones.model import EncryptionZone
from ringfence_zones.paths import HdfsPath


@click.group(cls=CommandGroup)
def zone() -> None:
    """List and look at encryption zones."""


@zone.command("list")
@global_options
def list_command(context: CommandContext) -> None:
    """List every zone with its key. Needs the agent, or HDFS's superuser."""
    zones = _zones_of_agent(context)
    if zones is None:
        with open_hdfs(context) as hdfs:
            zones = hdfs.list_zones()
    if context.json:
        print_json({"zones": [_json(each) for each in zones]})
    elif zones:
        print_table(("ZONE", "KEY"), [(each.path, each.key_name) for each in zones])
    else:
        click.echo("no encryption zones")


@zone.command("of")
@click.argument("path")
@global_options
def of_command(context: CommandContext, path: str) -> None:
    """Say which zone PATH is in."""
    parsed = HdfsPath.parse(path, default_fs=find_default_fs(context.hadoop_conf))
    found = _zone_of(context, parsed)
    if context.json:
        print_json({"path": str(parsed), "zone": None if found is None else _json(found)})
    elif found is None:
        click.echo(f"{shown(str(parsed))} is in no encryption zone")
    else:
        click.echo(f"{shown(found.path)}  key {shown(found.key_name)}")


@zone.command("show")
@click.argument("path")
@global_options
def show_command(context: CommandContext, path: str) -> None:
    """Show the zone whose root is PATH: key, versions, rights, trash, pin."""
    root = HdfsPath.parse(path, default_fs=find_default_fs(context.hadoop_conf))
    with open_cluster(context) as cluster:
        found = cluster.hdfs.find_zone_of(str(root))
        if found is None or found.path != str(root):
            hint = "it is in no zone" if found is None else f"it is in the zone {found.path}"
            raise PathError(str(root), "is not the root of an encryption zone", hint=hint)
        directory = cluster.hdfs.find_directory(found.path)
        protected = cluster.hdfs.protected_directories()
        key = cluster.kms.find_key(found.key_name)
    facts: dict[str, Any] = {
        "path": found.path,
        "key": found.key_name,
        "current_version": key.current_version_name if key is not None else None,
        "versions": key.versions if key is not None else None,
        "length_bits": key.length_bits if key is not None else None,
        "owner": directory.owner if directory is not None else None,
        "group": directory.group if directory is not None else None,
        "mode": f"{directory.mode:04o}" if directory is not None else None,
        "acl": list(directory.acl) if directory is not None else None,
        "trash_mode": f"{directory.trash_mode:04o}"
        if directory is not None and directory.trash_mode is not None
        else None,
        "pinned": found.path in protected if protected is not None else None,
    }
    if context.json:
        print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):<16} {shown(_text(value))}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _json(found: EncryptionZone) -> dict[str, str]:
    return {"path": found.path, "key": found.key_name}


def _zones_of_agent(context: CommandContext) -> tuple[EncryptionZone, ...] | None:
    agent = find_agent(context.agent_socket)
    if agent is None:
        return None
    try:
        return tuple(EncryptionZone(each["path"], each["key"]) for each in agent.list_zones())
    except (AgentUnavailableError, KeyError):
        return None


def _zone_of(context: CommandContext, path: HdfsPath) -> EncryptionZone | None:
    agent = find_agent(context.agent_socket)
    if agent is not None:
        try:
            answer = agent.find_zone_of(str(path))
            return None if answer is None else EncryptionZone(answer["path"], answer["key"])
        except (AgentUnavailableError, KeyError):
            pass
    with open_hdfs(context) as hdfs:
        return find_zone_around(hdfs, path)
