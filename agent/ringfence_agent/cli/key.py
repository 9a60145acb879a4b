"""`ringfence key`: the keys of a key server, and who may do what with them."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ringfence_agent.cli.key_create import create
from ringfence_agent.cli.key_undelete import deleted, undelete
from ringfence_agent.cli.kms_options import config_option
from ringfence_agent.kms.authorization.access import Subject
from ringfence_agent.kms.authorization.acl_document import AclDocument, read_acl_document
from ringfence_agent.kms.authorization.acl_explain import ASKED, Explainer, Explanation, PolicyInForce
from ringfence_agent.kms.authorization.acl_lint import find_acl_problems
from ringfence_agent.kms.authorization.acls import FILE_NAME
from ringfence_agent.kms.config import Options, Places, default_file, find_places
from ringfence_zones.cli import exits
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options, hadoop_conf_given
from ringfence_zones.cli.render import print_findings, print_json, shown
from ringfence_zones.client_config import ClientConfig, read_client_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.findings import findings_json
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.kms_admin import open_admin_client
from ringfence_zones.kms_uri import KEY_PROVIDER, parse_kms_uri
from ringfence_zones.policy import load_policy, policy_from_json

# An admin socket has no use for the URI that a token would be sent to.
_ON_THIS_MACHINE = "kms://http@localhost:9600/kms"

_acls_option = click.option(
    "--acls",
    "acl_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"the ACL file  [{FILE_NAME} in --hadoop-conf]",
)
_policy_option = click.option(
    "-f", "--file", "policy_file", type=click.Path(path_type=Path), metavar="FILE", help="the policy document"
)


@click.group(cls=ComponentGroup)
def key() -> None:
    """Keys and who may use them."""


key.add_command(create)
key.add_command(deleted)
key.add_command(undelete)


@key.group(cls=CommandGroup)
def acl() -> None:
    """Who may do what on which key, and which line says so."""


@acl.command()
@click.argument("user")
@click.argument("operation", metavar="OP", type=click.Choice(list(ASKED), case_sensitive=False))
@click.argument("key_name", metavar="KEY")
@click.option("--real-user", metavar="USER", help="who acts for USER (doAs)")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="a group of USER, instead of looking them up")
@click.option("--acl-name", metavar="NAME", help="the key's attribute key.acl.name  [the key's name]")
@config_option
@_acls_option
@_policy_option
@global_options
def explain(
    context: CommandContext,
    user: str,
    operation: str,
    key_name: str,
    real_user: str | None,
    groups: tuple[str, ...],
    acl_name: str | None,
    config: Path | None,
    acl_file: Path | None,
    policy_file: Path | None,
) -> None:
    """Say whether USER may do OP on KEY, and which line decides it. Always exits 0.

    Read are kms-acls.xml, the groups this machine knows, and the policy: FILE with -f, else the revision that the
    KMS of this machine enforces, when its admin socket is known. Nothing is sent to the KMS but that question.
    """
    kms = _find_kms(config)
    document = _document(context, acl_file, kms)
    in_force, looked_at = _policy(context, policy_file, kms)
    given = frozenset(groups)
    explainer = Explainer(document, in_force, (lambda _: given) if given else None)
    explanation = explainer.explain(Subject(user, real_user), operation.upper(), key_name, acl_name)
    if context.json:
        print_json(explanation.to_json())
    else:
        _print(explanation, document, looked_at)


@acl.command()
@click.option("--superuser", default="hdfs", metavar="USER", help="who runs the NameNode  [hdfs]")
@config_option
@_acls_option
@_policy_option
@global_options
@click.pass_context
def lint(
    click_context: click.Context,
    context: CommandContext,
    superuser: str,
    config: Path | None,
    acl_file: Path | None,
    policy_file: Path | None,
) -> None:
    """Name what a kms-acls.xml says otherwise than it looks; exit 3 when anything is found.

    Works on the file of a stock KMS too. With -f it also names lines that the policy makes void.
    """
    document = _document(context, acl_file, _find_kms(config))
    keys = {zone.key for zone in load_policy(policy_file).zones} if policy_file is not None else set[str]()
    findings = find_acl_problems(document, superuser, keys)
    if context.json:
        print_json(findings_json(findings))
    else:
        print_findings(findings, nothing=f"{document.path}: nothing found")
    click_context.exit(exits.FINDINGS if findings else exits.DONE)


def _find_kms(config: Path | None) -> Places | None:
    """The KMS of kms.yaml, as `kms serve` would find it; None when Hadoop's files are to be looked at alone."""
    hadoop_conf = hadoop_conf_given()
    if config is None and (hadoop_conf is not None or not default_file().exists()):
        return None
    return find_places(Options(config=config, hadoop_conf=hadoop_conf))


def _document(context: CommandContext, acl_file: Path | None, kms: Places | None) -> AclDocument:
    directory = context.hadoop_conf if kms is None else kms.hadoop_conf
    if acl_file is None and directory is None:
        raise ConfigError(
            f"the KMS's settings name no hadoop_conf, so it has no {FILE_NAME}: Hadoop's defaults hold",
            hint=f"name the directory of its {FILE_NAME} in kms.yaml (hadoop_conf), or the file with --acls",
        )
    return read_acl_document((acl_file or (directory or Path()) / FILE_NAME).absolute())


def _policy(context: CommandContext, policy_file: Path | None, kms: Places | None) -> tuple[PolicyInForce | None, bool]:
    """The policy, None when there is none; and whether anybody could be asked for one."""
    if policy_file is not None:
        return PolicyInForce(load_policy(policy_file), 0, str(policy_file)), True
    config = read_client_config(context.hadoop_conf, os.environ)
    if kms is not None and kms.admin_socket.exists():
        config = ClientConfig(kms_admin_socket=kms.admin_socket)
    if config.kms_admin_socket is None and config.kms_token_file is None:
        return None, False
    provider = read_hadoop_conf(context.hadoop_conf, "core-site.xml").get(KEY_PROVIDER)
    found = open_admin_client(config, parse_kms_uri(provider or _ON_THIS_MACHINE)).find_published()
    if found is None:
        return None, True
    publication, document = found
    place = f"policy revision {publication.revision}"
    return PolicyInForce(policy_from_json(document), publication.revision, place), True


def _print(explanation: Explanation, document: AclDocument, policy_looked_at: bool) -> None:
    subject = explanation.subject
    who = subject.user if subject.real_user is None else f"{subject.user} (through {subject.real_user})"
    verb = "may" if explanation.allowed else "may not"
    click.echo(shown(f"{who} {verb} {explanation.operation} on {explanation.key}"))
    for step in explanation.steps:
        outcome = "allowed" if step.allowed else "refused"
        value = "" if step.value is None else f" = {step.value!r}"
        click.echo(shown(f"  {step.check:<9}  {outcome}  {step.source or document.path}  {_bare(step.rule)}{value}"))
    groups = ", ".join(sorted(explanation.groups)) or "none that this machine knows"
    click.echo(shown(f"  groups     {groups}"))
    if not policy_looked_at:
        click.echo(
            "no published policy was looked at: name the KMS's settings with --config, or a policy with -f", err=True
        )


def _bare(rule: str) -> str:
    return rule.removeprefix(f"{FILE_NAME}:").replace("default:hadoop", "not set: hadoop")
