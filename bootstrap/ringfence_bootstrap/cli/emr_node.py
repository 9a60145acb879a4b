"""`ringfence emr node`: this node of an EMR cluster, set up after provisioning; or a key server off the cluster.

`install` and `wait` are called by the bootstrap action and by its unit; people call `check` and `status`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from ringfence_bootstrap.node import lifecycle, places
from ringfence_bootstrap.node.configuration import NodeConfig, read_node_config
from ringfence_bootstrap.node.drift import find_drift
from ringfence_bootstrap.node.status import read_status
from ringfence_zones.cli import exits
from ringfence_zones.cli.command_group import CommandGroup
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_findings, print_json, shown
from ringfence_zones.errors import ConfigError, InstallError
from ringfence_zones.findings import findings_json

_HINT = "run it on a node whose bootstrap action was bootstrap-action.sh; its logs: /emr/instance-controller/log"
_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=places.BOOTSTRAP_CONFIG,
    metavar="FILE",
    help=f"the node's configuration  [{places.BOOTSTRAP_CONFIG}]",
)


@click.group(cls=CommandGroup)
def node() -> None:
    """This node of an EMR cluster: set up after provisioning, checked for drift."""


@node.command()
@_config
@global_options
def install(context: CommandContext, config: Path) -> None:
    """Install the unit that sets this node up once EMR has provisioned it, and start it.

    The bootstrap action calls it. May be repeated; another configuration needs `ringfence uninstall` first.
    """
    document = read_node_config(config)
    is_new = lifecycle.install(document, config.read_text(), _say(context))
    _tell(context, "installed" if is_new else "installed before", f"{places.WAITER_UNIT} goes on from here")


@node.command()
@_config
@global_options
def wait(context: CommandContext, config: Path) -> None:
    """Wait for EMR's provisioning, the KMS and HDFS, then set this node up. The unit calls it.

    Whatever fails ends with the node as EMR left it (exit 4; 5 when that failed too).
    """
    document = read_node_config(config)
    is_new = lifecycle.set_up(document, config.read_text(), _say(context))
    _tell(context, "set up" if is_new else "set up before", "`ringfence emr node check` looks for drift")


@node.command()
@global_options
@click.pass_context
def check(click_context: click.Context, context: CommandContext) -> None:
    """Look for what has changed since this node was set up; exit 3 when anything is found.

    A reconfiguration of the cluster writes Hadoop's files anew, and may start the stock KMS again.
    """
    findings = find_drift(context.hadoop_conf, _installed_config())
    if context.json:
        print_json(findings_json(findings))
    else:
        print_findings(findings, nothing="nothing found")
    click_context.exit(exits.FINDINGS if findings else exits.DONE)


@node.command()
@global_options
def status(context: CommandContext) -> None:
    """Show how far this node's set-up is."""
    found = read_status(places.STATUS)
    if found is None:
        raise InstallError(f"there is no {places.STATUS}: this node was not set up", hint=_HINT)
    if context.json:
        print_json(found)
        return
    waiting = f", waiting for {found['waiting_for']}" if "waiting_for" in found else ""
    click.echo(shown(f"{found['state']}{waiting}, at {found['updated']}"))
    for warning in found.get("warnings", ()):
        click.echo(shown(f"  note: {warning}"))
    if "error" in found:
        click.echo(shown(f"  error: {found['error']['message']}"))


def _installed_config() -> NodeConfig:
    if not places.BOOTSTRAP_CONFIG.exists():
        raise ConfigError(f"there is no {places.BOOTSTRAP_CONFIG}: this node was not set up", hint=_HINT)
    return read_node_config(places.BOOTSTRAP_CONFIG)


def _say(context: CommandContext) -> Callable[[str], None]:
    return (lambda _text: None) if context.json else (lambda text: click.echo(shown(text), err=True))


def _tell(context: CommandContext, outcome: str, next_step: str) -> None:
    if context.json:
        print_json({"schema": 1, "outcome": outcome})
    else:
        click.echo(f"{outcome}; {next_step}")
