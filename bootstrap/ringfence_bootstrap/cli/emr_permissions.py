"""`ringfence emr permissions`: whether EMR's roles may use the keys of a security configuration, and what to add."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ringfence_bootstrap.account import configurations
from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_bootstrap.account.emr_calls import EmrCalls, check_name
from ringfence_bootstrap.account.failures import NOT_FOUND
from ringfence_bootstrap.account.key_calls import KeyCalls, RoleArn
from ringfence_bootstrap.account.key_needs import demands
from ringfence_bootstrap.account.key_policy_change import apply_proposal, undo
from ringfence_bootstrap.account.permissions import Preflight, Proposal, check_permissions, roles_of
from ringfence_bootstrap.cli.account_options import account_options, agreed
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.keys import KeyUse
from ringfence_bootstrap.security_configuration.reading import read_document
from ringfence_zones.cli import exits
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import counted, print_findings, print_json, shown
from ringfence_zones.errors import AwsError, InputError, RingfenceError
from ringfence_zones.findings import Severity, findings_json

_path = click.Path(path_type=Path)
DEFAULT_INSTANCE_ROLE, DEFAULT_SERVICE_ROLE = "EMR_EC2_DefaultRole", "EMR_DefaultRole"


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whose keys and whose roles are looked at."""

    document: SecurityConfiguration
    instance: tuple[RoleArn, ...]
    service: tuple[RoleArn, ...]


@click.command()
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--name", metavar="NAME", help="a security configuration of the account, in place of FILE")
@click.option("--cluster", "cluster_id", metavar="ID", help="a cluster: its configuration and its roles")
@click.option(
    "--instance-role",
    "instance_roles",
    multiple=True,
    metavar="ROLE",
    help=f"of the nodes (their EC2 instance profile); may be repeated  [{DEFAULT_INSTANCE_ROLE}]",
)
@click.option(
    "--service-role",
    "service_roles",
    multiple=True,
    metavar="ROLE",
    help=f"of EMR itself; may be repeated  [{DEFAULT_SERVICE_ROLE}]",
)
@click.option("--apply", "is_applied", is_flag=True, help="add what is missing to the keys' policies, after asking")
@click.option("--yes", is_flag=True, help="do it without asking")
@click.option("--undo", "undo_file", type=_path, metavar="FILE", help="put a key's policy back as --apply found it")
@click.option(
    "--undo-dir", type=_path, metavar="DIR", help="where --apply keeps what it found  [~/.local/state/ringfence/emr]"
)
@account_options
@global_options
@click.pass_context
def permissions(
    click_context: click.Context,
    context: CommandContext,
    file: Path | None,
    name: str | None,
    cluster_id: str | None,
    instance_roles: tuple[str, ...],
    service_roles: tuple[str, ...],
    undo_file: Path | None,
    undo_dir: Path | None,
    place: AwsPlace,
    *,
    is_applied: bool,
    yes: bool,
) -> None:
    """Look whether the roles of a cluster may use every KMS key that FILE names; exit 3 when they may not.

    EMR itself says nothing of it until a cluster fails. Keys are looked at as they are (region, state, kind, policy,
    grants), roles as IAM simulates them. What a key's policy lacks is printed; --apply adds it, leaves every other
    statement as it is, and names the file with which --undo goes back.
    """
    connection = Connection(place)
    keys = KeyCalls(connection)
    if undo_file is not None:
        _undo(context, keys, undo_file, yes=yes)
        return
    subject = _subject(connection, keys, file, name, cluster_id, instance_roles, service_roles)
    region = connection.region
    roles = roles_of(subject.document, subject.instance, subject.service)
    found = check_permissions(keys, subject.document, roles, region)
    records: list[Path] = []
    if is_applied and found.proposals:
        if not context.json:
            _print(found, subject.document)
        if agreed(context, f"add this to the policy of {counted(len(found.proposals), 'key')}?", yes=yes):
            directory = undo_dir or _default_directory()
            records = _apply(keys, found.proposals, directory)
            found = check_permissions(keys, subject.document, roles, region)
    _report(context, subject.document, found, records, was_shown=is_applied and not records)
    if any(each.severity is Severity.ERROR for each in found.findings):
        click_context.exit(exits.FINDINGS)


def _apply(keys: KeyCalls, proposals: Sequence[Proposal], directory: Path) -> list[Path]:
    records: list[Path] = []
    for proposal in proposals:
        try:
            records.append(apply_proposal(keys, proposal, directory))
        except RingfenceError:
            # Of several keys some have changed: nobody would know how to go back.
            for each in records:
                click.echo(f"added; `ringfence emr permissions --undo {shown(str(each))}` goes back", err=True)
            raise
    return records


def _subject(
    connection: Connection,
    keys: KeyCalls,
    file: Path | None,
    name: str | None,
    cluster_id: str | None,
    instance_roles: Sequence[str],
    service_roles: Sequence[str],
) -> _Subject:
    if sum(each is not None for each in (file, name, cluster_id)) != 1:
        raise InputError("name one of FILE, --name and --cluster", command="ringfence emr permissions --help")
    calls = EmrCalls(connection)
    instances = [keys.role(each) for each in instance_roles]
    services = [keys.role(each) for each in service_roles]
    if cluster_id is not None:
        cluster = calls.describe_cluster(cluster_id)
        name = cluster.security_configuration
        if name is None:
            raise RingfenceError(
                f"cluster {cluster.label} has no security configuration, so it names no key",
                hint="nothing is encrypted by default: `ringfence emr security-config audit` says what stays in clear",
            )
        if not instances and cluster.instance_profile is not None:
            instances = [keys.instance_profile_role(cluster.instance_profile)]
        if not services and cluster.service_role is not None:
            services = [keys.role(cluster.service_role)]
    if file is not None:
        document = read_document(file)
    else:
        assert name is not None
        document = configurations.document_of(configurations.get(calls, check_name(name)))
    uses = {use for demand in demands(document) for use in demand.uses}
    if uses and not instances:
        instances = [_default(keys.instance_profile_role, DEFAULT_INSTANCE_ROLE, "--instance-role")]
    # EMR itself touches no other key: who has no volumes to encrypt need not name its role.
    if uses & {KeyUse.EBS, KeyUse.CERTIFICATES} and not services:
        services = [_default(keys.role, DEFAULT_SERVICE_ROLE, "--service-role")]
    return _Subject(document, tuple(instances), tuple(services))


def _default(find: Callable[[str], RoleArn], name: str, option: str) -> RoleArn:
    try:
        return find(name)
    except AwsError as error:
        if error.code not in NOT_FOUND:
            raise
        raise InputError(f"the account has no {name}, EMR's default", hint=f"name the role with {option}") from None


def _undo(context: CommandContext, keys: KeyCalls, path: Path, *, yes: bool) -> None:
    if not agreed(context, f"put the policy back that {path} holds?", yes=yes):
        raise InputError("nothing was changed", hint="give --yes to go on")
    key = undo(keys, path)
    if context.json:
        print_json({"schema": 1, "undone": key is not None, "key": key.text if key is not None else None})
    else:
        click.echo(f"put the policy of {key.text} back" if key is not None else "nothing to do: it is as it was")


def _default_directory() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "ringfence" / "emr"


def _report(
    context: CommandContext,
    document: SecurityConfiguration,
    found: Preflight,
    records: Sequence[Path],
    *,
    was_shown: bool,
) -> None:
    if context.json:
        print_json(
            {
                "schema": 1,
                "keys": [each.arn for each in demands(document)],
                **findings_json(found.findings),
                "proposals": [{"key": each.key.text, "statements": list(each.statements)} for each in found.proposals],
                "role_policies": {role: dict(statement) for role, statement in found.own_policies.items()},
                "applied": [str(each) for each in records],
            }
        )
        return
    for each in records:
        click.echo(f"added; `ringfence emr permissions --undo {shown(str(each))}` goes back")
    if was_shown and found.proposals:
        click.echo("nothing was changed")
    else:
        _print(found, document)


def _print(found: Preflight, document: SecurityConfiguration) -> None:
    keys = demands(document)
    names = shown(document.name)
    nothing = f"{names} names no KMS key" if not keys else f"{names}: the roles may use {counted(len(keys), 'key')}"
    print_findings(found.findings, nothing=nothing)
    for proposal in found.proposals:
        click.echo(f"\nto be added to the policy of {proposal.key.text} (--apply does it):")
        click.echo(json.dumps(list(proposal.statements), indent=2))
    for role, statement in found.own_policies.items():
        click.echo(f"\nto be added to the policies of {role}, by the account that it is of:")
        click.echo(json.dumps(statement, indent=2))
