"""`ringfence status`: zones, keys, versions, custody, KMS and agent on one screen. Read-only.

With the agent's socket there it starts no JVM: zones come from the agent, keys from the KMS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click

from ringfence_zones.agent_client import AgentClient, find_agent
from ringfence_zones.cli.cluster import open_hdfs
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_json, print_table, shown
from ringfence_zones.client_config import read_http_access
from ringfence_zones.custody import custody_word
from ringfence_zones.errors import AgentUnavailableError, RingfenceError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kerberos import refuse_claimed_user
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.kms_client import KmsClient, RingfenceStatus
from ringfence_zones.kms_uri import KEY_PROVIDER, OLD_KEY_PROVIDER
from ringfence_zones.namenodes import default_filesystem

STATUS_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class _Zone:
    path: str
    key: str
    pinned: bool | None


@dataclass(frozen=True, slots=True)
class _Kms:
    uri: str | None
    keys: dict[str, KeyMetadata]
    ringfence: RingfenceStatus | None
    error: str | None


@click.command()
@global_options
def status(context: CommandContext) -> None:
    """Show zones, keys, KMS and agent on one screen."""
    conf = read_hadoop_conf(context.hadoop_conf, "core-site.xml", "hdfs-site.xml")
    access = read_http_access(context.hadoop_conf, os.environ)
    if access.kerberos is not None:
        refuse_claimed_user(context.as_user)
    agent = find_agent(context.agent_socket)
    health = agent.find_health() if agent is not None else None
    zones, provider = _look(context, agent if health is not None else None, conf)
    kms = _ask_kms(provider, context.user, access, sorted({zone.key for zone in zones}))
    if context.json:
        print_json(_to_json(conf, zones, kms, health))
    else:
        _print(conf, zones, kms, health)


def _look(context: CommandContext, agent: AgentClient | None, conf: HadoopConf) -> tuple[list[_Zone], str | None]:
    """The zones, and the key provider's URI: as the NameNode names it, or with the agent as core-site.xml does."""
    if agent is not None:
        try:
            listed = [_Zone(each["path"], each["key"], each.get("pinned")) for each in agent.list_zones()]
        except (AgentUnavailableError, KeyError):
            pass
        else:
            return listed, conf.get(KEY_PROVIDER) or conf.get(OLD_KEY_PROVIDER)
    with open_hdfs(context) as hdfs:
        protected = hdfs.protected_directories()
        zones = [
            _Zone(zone.path, zone.key_name, zone.path in protected if protected is not None else None)
            for zone in hdfs.list_zones()
        ]
        return zones, hdfs.key_provider_uri()


def _ask_kms(uri: str | None, user: str, access: HttpAccess, names: Sequence[str]) -> _Kms:
    if uri is None:
        return _Kms(None, {}, None, "the NameNode has no key provider")
    try:
        with closing(KmsClient(uri, user, access=access)) as client:
            ringfence = client.find_ringfence_status()
            return _Kms(uri, client.find_keys(names) if names else {}, ringfence, None)
    except RingfenceError as error:
        return _Kms(uri, {}, None, error.message)


def _custody(key: KeyMetadata | None, kms: _Kms) -> str | None:
    """None on another KMS than Ringfence's, where the attribute is a word without effect."""
    return custody_word(key.attributes) if key is not None and kms.ringfence is not None else None


def _to_json(conf: HadoopConf, zones: list[_Zone], kms: _Kms, health: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "schema": STATUS_SCHEMA,
        "file_system": default_filesystem(conf),
        "authentication": conf.get("hadoop.security.authentication", "simple"),
        "kms": {
            "uri": kms.uri,
            "ringfence": kms.ringfence is not None,
            "version": kms.ringfence.version if kms.ringfence else None,
            "revision": kms.ringfence.revision if kms.ringfence else None,
            "custody": list(kms.ringfence.custodies) if kms.ringfence else [],
            "error": kms.error,
        },
        "agent": health,
        "zones": [
            {
                "path": zone.path,
                "key": zone.key,
                "versions": key.versions if key else None,
                "current_version": key.current_version_name if key else None,
                "length_bits": key.length_bits if key else None,
                "custody": _custody(key, kms),
                "pinned": zone.pinned,
            }
            for zone in zones
            for key in (kms.keys.get(zone.key),)
        ],
    }


def _print(conf: HadoopConf, zones: list[_Zone], kms: _Kms, health: dict[str, Any] | None) -> None:
    click.echo(f"HDFS   {default_filesystem(conf)}, {counted(len(zones), 'encryption zone')}")
    if kms.error is not None:
        click.echo(f"KMS    {shown(kms.error)}")
    elif kms.ringfence is None:
        click.echo(f"KMS    {kms.uri}, not Ringfence's: no published policy, no custody")
    else:
        revision = f"policy revision {kms.ringfence.revision}" if kms.ringfence.revision else "no policy published"
        about = (f"Ringfence {kms.ringfence.version}", revision, f"custody {' and '.join(kms.ringfence.custodies)}")
        click.echo(f"KMS    {kms.uri}, {shown(', '.join(about))}")
    if health is None:
        click.echo("agent  not running here")
    else:
        click.echo(f"agent  {shown(str(health.get('sentence') or 'no cycle yet'))}")
    if conf.get("hadoop.security.authentication", "simple") == "simple":
        click.echo("note   simple authentication: a user is a claim that nobody proves")
    if zones:
        click.echo()
        print_table(("ZONE", "KEY", "VERSION", "BITS", "CUSTODY", "PINNED"), [_row(zone, kms) for zone in zones])


def _row(zone: _Zone, kms: _Kms) -> tuple[str, ...]:
    key = kms.keys.get(zone.key)
    missing = "?" if kms.error is not None else "missing"
    return (
        zone.path,
        zone.key,
        key.current_version_name if key else missing,
        str(key.length_bits) if key else missing,
        _custody(key, kms) or "-",
        {True: "yes", False: "no", None: "?"}[zone.pinned],
    )
