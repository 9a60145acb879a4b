"""How commands ask the agent: with the client that step jobs use, and its errors as those of the command line.

The agent of `--agent-socket` is asked. Where nobody named a socket and RINGFENCE_AGENT_URL is set, the one there is,
with the token of RINGFENCE_AGENT_TOKEN_FILE.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from ringfence_agent.client import AgentClient, AgentError
from ringfence_zones.cli.context import DEFAULT_AGENT_SOCKET, CommandContext
from ringfence_zones.config_file import parse_duration_s
from ringfence_zones.errors import (
    AccessDeniedError,
    AgentUnavailableError,
    AuthenticationError,
    InputError,
    RingfenceError,
)

_LONGEST_S = 24 * 60 * 60
_BY_STATUS: dict[int | None, type[RingfenceError]] = {
    400: InputError,
    401: AuthenticationError,
    403: AccessDeniedError,
    404: InputError,
    409: InputError,
    422: InputError,
}


@contextmanager
def asking(context: CommandContext) -> Iterator[AgentClient]:
    """A client; what it raises becomes an error of the tree."""
    named = context.agent_socket != DEFAULT_AGENT_SOCKET
    try:
        yield AgentClient(str(context.agent_socket) if named else None)
    except AgentError as error:
        kind = _BY_STATUS.get(error.status, AgentUnavailableError)
        raise kind(error.message, hint=error.hint, command=error.command) from error


def duration_s(_context: click.Context, parameter: click.Parameter, value: str) -> float:
    """The callback of an option: `30m` or `8h` in seconds, a day at most, as the agent's API takes it."""
    try:
        found_s = parse_duration_s(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error
    if found_s > _LONGEST_S:
        raise click.BadParameter(f"must be a day at most, not {value}", param=parameter)
    return found_s


def time_text(epoch_s: float | None) -> str:
    """In UTC, to the second."""
    return "-" if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
