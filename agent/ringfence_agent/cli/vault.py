"""`ringfence vault`: Vault or OpenBao prepared for a cluster, and the key server's login there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ringfence_agent import process_hygiene
from ringfence_agent.cli.kms_options import config_option
from ringfence_agent.kms.config import load_vault_settings
from ringfence_agent.vault.control import FixedToken, VaultControl
from ringfence_agent.vault.login import VaultLogin, log_in_and_share
from ringfence_agent.vault.open import open_control
from ringfence_agent.vault.policy import PolicyRole, policy_hcl, policy_name
from ringfence_agent.vault.secret_file import read_secret_file
from ringfence_agent.vault.settings import WRAP_KEY, VaultSettings
from ringfence_agent.vault.setup import SetupChoices, Step, VaultSetup, key_server_policies, parse_cidrs
from ringfence_zones.cli import exits
from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, print_table, shown
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ConfigError, InputError, RingfenceError

_ROLE_ID_FILE, _WRAPPED_FILE = "vault-role-id", "vault-wrapped-secret-id"

_token_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="an administrator's token, mode 0600",
)


@click.group(cls=ComponentGroup)
def vault() -> None:
    """Vault or OpenBao: prepare it, log in, see what is there."""


@vault.command()
@config_option
@click.option(
    "--role",
    type=click.Choice([role.value for role in PolicyRole]),
    help="service, generator, keyadmin or destroyer  [all, one after the other]",
)
@global_options
def policy(context: CommandContext, config: Path | None, role: str | None) -> None:
    """Print the least that each part needs in Vault, as HCL for `vault policy write`. Connects to nothing."""
    settings = load_vault_settings(config)
    roles = [PolicyRole(role)] if role is not None else list(PolicyRole)
    if context.json:
        print_json({policy_name(each, settings): policy_hcl(each, settings) for each in roles})
    else:
        click.echo("\n".join(policy_hcl(each, settings) for each in roles), nl=False)


@vault.command()
@config_option
@_token_option
@click.option("--dry-run", is_flag=True, help="show what would be done, and stop")
@click.option("--yes", is_flag=True, help="do it without asking")
@click.option(
    "--bound-cidr",
    "cidrs",
    multiple=True,
    metavar="NET",
    help="where the key servers log in from; secret ids and tokens are good nowhere else",
)
@click.option(
    "--issue",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="write what a node needs for its first login there: role id and wrapped secret id",
)
@global_options
def setup(
    context: CommandContext,
    config: Path | None,
    token_file: Path,
    cidrs: tuple[str, ...],
    issue: Path | None,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Prepare Vault for the cluster of kms.yaml: mounts, the key z-wrap, policies, the AppRole. The KV engine is of
    no concern unless `keystore:` is in it.

    Shows the plan first and asks. What is there already is left alone, so that a second run does nothing. Nothing is
    deleted, and what would be felt by others who use this Vault is marked.
    """
    process_hygiene.forbid_core_dumps()
    settings = load_vault_settings(config)
    if issue is not None and settings.auth.wrapped_secret_id_file is None:
        raise InputError(
            "--issue makes a wrapped secret id, and kms.yaml names no file for one",
            hint="set vault.auth.wrapped_secret_id_file, or leave --issue out",
        )
    choices = SetupChoices(bound_cidrs=parse_cidrs(cidrs))
    with _as_administrator(settings, token_file) as control:
        prepared = VaultSetup(control, choices)
        steps = prepared.plan()
        due = [step for step in steps if step.action is not None]
        if not context.json:
            _print_steps(settings, steps)
        agreed = not dry_run and (not due or _agree(context, yes=yes))
        if due and agreed:
            prepared.apply()
        issued = _issue(prepared, issue, context) if issue is not None and agreed else None
    if context.json:
        applied = bool(due) and agreed
        print_json({"steps": [step.to_json() for step in steps], "applied": applied, "issued": issued})
    elif due:
        click.echo("nothing was changed" if not agreed else f"done: {len(due)} of {len(steps)} were to be made")


@vault.command()
@config_option
@global_options
def login(context: CommandContext, config: Path | None) -> None:
    """Log the key server in now, as kms.yaml says, and put its token where its processes read it.

    Run it as the key server's user. The server does this by itself, unless its secret id was used up: then a person
    puts a new wrapped one in place first (`ringfence vault setup --token-file FILE --issue DIR` makes it).
    """
    process_hygiene.forbid_core_dumps()
    settings = load_vault_settings(config)
    _require_owner(settings.token_file.parent)
    with closing(VaultLogin(settings)) as attempt:
        got = log_in_and_share(settings, attempt)
    if context.json:
        print_json({"accessor": got.accessor, "policies": list(got.policies), "ttl_s": got.lease_s})
    else:
        click.echo(shown(f"logged in for {got.lease_s} s with {', '.join(got.policies)} (accessor {got.accessor})"))
        click.echo(shown(f"the token is in {settings.token_file}"))


@vault.command()
@config_option
@global_options
@click.pass_context
def status(click_context: click.Context, context: CommandContext, config: Path | None) -> None:
    """Show Vault's nodes, the key server's token and the key z-wrap; exit 1 when keys could not be used now."""
    process_hygiene.forbid_core_dumps()
    settings = load_vault_settings(config)
    with open_control(settings) as control:
        nodes = [
            {"address": each.address, "role": each.role.value, "version": each.version, "why": each.why}
            for each in control.nodes.probe_all()
        ]
        token, problem = _token_state(control)
        key, key_problem = _wrap_key(control) if problem is None else (None, None)
    problem = problem or key_problem
    if context.json:
        print_json({"nodes": nodes, "token": token, "key": key, "problem": problem})
    else:
        print_table(["NODE", "IS", "VERSION"], [[each["address"], each["role"], each["version"]] for each in nodes])
        for name, facts in (("token", token), (f"key {WRAP_KEY}", key)):
            if facts is not None:
                click.echo(shown(f"{name}: " + ", ".join(f"{word} {value}" for word, value in facts.items())))
        if problem is not None:
            click.echo(shown(f"problem: {problem}"))
    click_context.exit(exits.FAILED if problem is not None else exits.DONE)


def _as_administrator(settings: VaultSettings, token_file: Path) -> VaultControl:
    return VaultControl(settings, FixedToken(read_secret_file(token_file, "administrator's token")))


def _agree(context: CommandContext, *, yes: bool) -> bool:
    if yes:
        return True
    if context.json:
        raise InputError("with --json nobody is asked", hint="give --dry-run, or --yes")
    return click.confirm("do this?", default=False)


def _print_steps(settings: VaultSettings, steps: Sequence[Step]) -> None:
    click.echo(shown(f"{settings.label}, cluster {settings.cluster}:"))
    for step in steps:
        mark = "ok" if step.action is None else "do"
        line = f"  {mark}  {step.thing}: {step.found}" + (f" -> {step.action}" if step.action else "")
        click.echo(shown(line + ("  (others who use it will feel this)" if step.affects_others else "")))
    if settings.auth.method != "approle":
        policies = " and ".join(key_server_policies(settings))
        click.echo(
            shown(
                f"  --  the login ({settings.auth.method}) is yours to set up: its tokens need the policies {policies},"
                " a period (1h), and not the policy default (token_no_default_policy)"
            )
        )


def _issue(prepared: VaultSetup, directory: Path, context: CommandContext) -> dict[str, Any]:
    role_id, wrapped = prepared.issue_secret_id()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(directory / _ROLE_ID_FILE, role_id.encode() + b"\n", 0o644)
        replace_file(directory / _WRAPPED_FILE, wrapped.token.reveal() + b"\n", 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from None
    if not context.json:
        click.echo(
            shown(f"{directory / _WRAPPED_FILE} opens once, within {wrapped.ttl_s} s: bring both files to the node now")
        )
    return {"directory": str(directory), "ttl_s": wrapped.ttl_s}


def _require_owner(directory: Path) -> None:
    """A token written by root is one that the key server refuses to read."""
    try:
        owner = directory.stat().st_uid
    except OSError as error:
        raise ConfigError(f"cannot look at {directory}, where vault.token_file goes: {error.strerror}") from None
    if owner != os.geteuid():
        raise ConfigError(
            f"{directory} belongs to uid {owner}, and this is uid {os.geteuid()}: the key server would not read the"
            " token",
            hint="run this as the key server's user, with `runuser -u USER --` or `sudo -u USER`",
        )


def _token_state(control: VaultControl) -> tuple[dict[str, Any] | None, str | None]:
    try:
        state = control.tokens.find_self()
    except RingfenceError as error:
        return None, error.message
    if state is None:
        return None, "Vault does not take the key server's token"
    facts = {"accessor": state.accessor, "ttl_s": state.ttl_s, "policies": " ".join(state.policies)}
    return facts, None


def _wrap_key(control: VaultControl) -> tuple[dict[str, Any] | None, str | None]:
    try:
        key = control.transit.get(WRAP_KEY).require_sound()
    except RingfenceError as error:
        return None, error.message
    return {"version": key.latest_version, "mount": control.transit.mount}, None
