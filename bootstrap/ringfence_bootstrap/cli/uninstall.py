"""`ringfence uninstall`: the node as it was before the bootstrap action."""

from __future__ import annotations

import click

from ringfence_bootstrap.node import lifecycle, places
from ringfence_zones.cli.context import CommandContext, global_options
from ringfence_zones.cli.render import print_json, shown
from ringfence_zones.errors import ConfigError


@click.command()
@click.option("--yes", is_flag=True, help="go on; without it the plan is shown and nothing is changed")
@click.option("--delete-keys", is_flag=True, help="on a key server: also the only copy of its keys, for ever")
@global_options
def uninstall(context: CommandContext, yes: bool, delete_keys: bool) -> None:
    """Return this EMR node, or key server of a bootstrap action, to what it was before.

    The stock KMS serves again, with every key and version that was made since; Hadoop's files, units, users and
    directories are as they were. Our key store, its root key and the audit log on this node are deleted: copy the audit
    log first. Killed in the middle, it goes on when it is run again (exit 5 when something could not be put back).

    On a key server off the cluster a store in a database or in Vault stays. An SQLite store with keys in it, and a root
    key that was made there, are deleted with --delete-keys alone.
    """
    installed = lifecycle.find_installed()
    if installed is None:
        raise ConfigError("this machine was not set up by the bootstrap action, so there is nothing to undo")
    lifecycle.check_uninstall(delete_keys=delete_keys)
    undone = [*installed.set_up, *installed.install]
    deleted = [str(each) for each in (places.KMS_STATE, places.KMS_LOGS, places.HOME) if each.exists()]
    if not yes:
        if context.json:
            print_json({"schema": 1, "plan": "uninstall", "undo": undone, "delete": deleted})
            return
        click.echo(f"undone, the last step first: {shown(', '.join(undone)) or 'nothing'}")
        click.echo(f"deleted, with all that is in it: {', '.join(deleted)}")
        click.echo("nothing was changed; give --yes to go on")
        return
    told = lifecycle.uninstall(
        lambda text: None if context.json else click.echo(shown(text), err=True), delete_keys=delete_keys
    )
    if context.json:
        print_json({"schema": 1, "outcome": "uninstalled", "told": told})
    else:
        click.echo("this node is as it was" + (f"; {shown(told)}" if told else ""))
    lifecycle.finish_uninstall()
