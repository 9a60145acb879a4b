"""`ringfence agent`: the resident that keeps zones as policy wants them."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence_zones.cli.component_group import ComponentGroup
from ringfence_zones.cli.context import CommandContext, global_options


@click.group(cls=ComponentGroup)
def agent() -> None:
    """The resident agent: watches zones, pins their roots, answers step jobs."""


@agent.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the agent's settings  [/etc/ringfence/agent.yaml]",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="answer here instead of where the settings say",
)
@global_options
def serve(context: CommandContext, config: Path | None, socket: Path | None) -> None:
    """Watch zones and answer questions until SIGTERM.

    Prints `ready unix:PATH` once questions can be asked, `ready https://HOST:PORT` too when the settings have `listen`,
    and logs one line per cycle.
    """
    from ringfence_agent.config import load_config  # noqa: PLC0415 - --help must not load a server
    from ringfence_agent.logging_json import log_to_stderr  # noqa: PLC0415
    from ringfence_agent.serve import serve as run  # noqa: PLC0415

    settings = load_config(config)
    changes: dict[str, object] = {}
    if socket is not None:
        changes["socket"] = socket.absolute()
    if context.as_user is not None:
        changes["user"] = context.as_user
    log_to_stderr(context.verbose)
    run(
        settings.model_copy(update=changes),
        settings.hadoop_conf or context.hadoop_conf,
        lambda address: click.echo(f"ready {address}"),
    )
