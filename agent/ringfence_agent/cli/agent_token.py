"""`ringfence agent token`: bearer tokens for jobs on other nodes, made and ended by an administrator.

A token goes from the agent's answer into a file of mode 0600 that was not there before: never to the terminal, never
into an argument.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from ringfence_agent.cli.agent_asking import asking, duration_s, time_text
from ringfence_agent.client import Token
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, print_table, shown
from ringfence_zones.durable_file import new_file
from ringfence_zones.errors import InputError

SCHEMA = 1
_ROLES = ("viewer", "operator", "admin")
_VERBS = ("look", "check", "grant", "transfer", "administer")


@click.group(cls=CommandGroup)
def token() -> None:
    """Bearer tokens of the agent's API: make, list, end."""


@token.command()
@click.option("--user", required=True, metavar="USER", help="whose rights it carries")
@click.option("--role", type=click.Choice(_ROLES), default="viewer", help="viewer, operator or admin  [viewer]")
@click.option("--for", "life_s", callback=duration_s, default="8h", metavar="TIME", help="at most a day  [8h]")
@click.option("--verb", "verbs", type=click.Choice(_VERBS), multiple=True, help="only this; may be given again")
@click.option("--path", "paths", multiple=True, metavar="PATH", help="only there; may be given again")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="a new file, which gets mode 0600"
)
@global_options
def issue(
    context: CommandContext,
    user: str,
    role: str,
    life_s: float,
    verbs: tuple[str, ...],
    paths: tuple[str, ...],
    out: Path,
) -> None:
    """Make a token and write it to FILE, for `AgentClient(token_file=...)`.

    The agent keeps its hash alone. Hand the file to the job with `spark-submit --files`, or through YARN's own
    localisation, which keep it to the job's user.
    """
    try:
        # First the place, then the token: one that nobody could keep would be good all the same.
        with new_file(out) as stream, asking(context) as agent:
            secret, made = agent.issue_token(user, role, life_s, verbs or None, paths or None)
            stream.write(secret.encode("ascii") + b"\n")
    except OSError as error:
        raise InputError(f"cannot write {out}: {os.strerror(error.errno or 0)}") from error
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    if context.json:
        print_json({"schema": SCHEMA, "token": _describe(made), "file": str(out)})
    else:
        click.echo(f"token {made.name} for {shown(user)} ({role}) until {time_text(made.expires_s)}: {shown(str(out))}")


@token.command("list")
@global_options
def list_tokens(context: CommandContext) -> None:
    """List the tokens that are good; those that end first come first."""
    with asking(context) as agent:
        tokens = agent.tokens()
    if context.json:
        print_json({"schema": SCHEMA, "tokens": [_describe(each) for each in tokens]})
        return
    if not tokens:
        click.echo("no token is good")
        return
    print_table(
        ("NAME", "USER", "ROLE", "VERBS", "PATHS", "UNTIL", "ISSUED BY"),
        [
            (
                each.name,
                each.user,
                each.role,
                ", ".join(each.verbs),
                ", ".join(each.paths) if each.paths is not None else "everywhere",
                time_text(each.expires_s),
                each.issued_by,
            )
            for each in tokens
        ],
    )


@token.command()
@click.argument("name")
@global_options
def revoke(context: CommandContext, name: str) -> None:
    """End the token NAME at once."""
    with asking(context) as agent:
        agent.revoke_token(name)
    if context.json:
        print_json({"schema": SCHEMA, "revoked": name})
    else:
        click.echo(f"token {shown(name)} has ended")


def _describe(token: Token) -> dict[str, object]:
    return token._asdict()
