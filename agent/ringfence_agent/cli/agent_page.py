"""`ringfence agent page`: the agent's page in a browser on this machine."""

from __future__ import annotations

import click

from ringfence_zones.cli.context import CommandContext, global_options


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="the loopback port; 0 picks one  [0]")
@global_options
def page(context: CommandContext, port: int) -> None:
    """Open a door to the agent's page for a browser on this machine, until Ctrl-C.

    Prints the page's address. Only programs of the user who runs this get through, and the agent answers them as that
    user. From another machine: ssh -L 8480:/run/ringfence/agent.sock HOST, then http://localhost:8480/page/.
    """
    from ringfence_agent.page_door import serve  # noqa: PLC0415 - --help must not load a server
    from ringfence_zones.errors import AgentUnavailableError  # noqa: PLC0415

    if not context.agent_socket.is_socket():
        raise AgentUnavailableError(
            f"there is no agent's socket at {context.agent_socket}",
            hint="name it with --agent-socket, or start the agent",
        )
    serve(context.agent_socket, port, click.echo)
