"""Global options: accepted before or after the sub-command, merged once, passed on as one value."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_HADOOP_CONF = Path("/etc/hadoop/conf")
DEFAULT_AGENT_SOCKET = Path("/run/ringfence/agent.sock")


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The global options after defaults. `as_user` is None when nobody was named on the command line."""

    hadoop_conf: Path
    as_user: str | None
    json: bool
    agent_socket: Path
    verbose: int

    @property
    def user(self) -> str:
        """The user whom HDFS and the KMS see under simple authentication."""
        return self.as_user or os.environ.get("HADOOP_USER_NAME") or login_name()


def login_name() -> str:
    """The operating system's name for whoever runs this process."""
    # Hadoop asks the operating system, not LOGNAME: an environment variable is not an identity.
    import pwd  # noqa: PLC0415

    return pwd.getpwuid(os.geteuid()).pw_name


def default_context(environ: Mapping[str, str]) -> CommandContext:
    """The context before any option was given."""
    return CommandContext(
        hadoop_conf=Path(environ.get("HADOOP_CONF_DIR") or DEFAULT_HADOOP_CONF),
        as_user=None,
        json=False,
        agent_socket=Path(environ.get("RINGFENCE_AGENT_SOCKET") or DEFAULT_AGENT_SOCKET),
        verbose=0,
    )


_OPTIONS = (
    click.option(
        "--hadoop-conf",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Hadoop's configuration directory  [HADOOP_CONF_DIR, else /etc/hadoop/conf]",
    ),
    click.option("--as", "as_user", metavar="USER", help="act as this user (simple authentication only)"),
    click.option("--json", "json", is_flag=True, help="machine-readable output"),
    click.option(
        "--agent-socket",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="the agent's Unix socket  [RINGFENCE_AGENT_SOCKET, else /run/ringfence/agent.sock]",
    ),
    click.option("-v", "--verbose", count=True, help="say more; twice for everything"),
)


def global_options(command: Callable[..., R]) -> Callable[..., R]:
    """Adds the global options to a command, which receives a `CommandContext` as its first argument.

    What is given closest to the command wins over what was given to the group above it.
    """

    @click.pass_context
    @functools.wraps(command)
    def wrapper(click_context: click.Context, *args: Any, **kwargs: Any) -> R:
        context = _merge(click_context, kwargs)
        click_context.obj = context
        return click_context.invoke(command, context, *args, **kwargs)

    decorated: Callable[..., R] = wrapper
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _merge(click_context: click.Context, kwargs: dict[str, Any]) -> CommandContext:
    inherited = click_context.parent.obj if click_context.parent else None
    context = inherited if isinstance(inherited, CommandContext) else default_context(os.environ)
    given: dict[str, Any] = {
        name: kwargs.pop(name) for name in ("hadoop_conf", "as_user", "json", "agent_socket", "verbose")
    }
    return replace(context, **{name: value for name, value in given.items() if value})


def hadoop_conf_given() -> Path | None:
    """--hadoop-conf as it was typed, here or before the sub-command; the default is no choice of Hadoop's files."""
    context: click.Context | None = click.get_current_context()
    while context is not None:
        given = context.params.get("hadoop_conf")
        if isinstance(given, Path):
            return given.absolute()
        context = context.parent
    return None
