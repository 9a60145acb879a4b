"""Which AWS account and region a command asks: the same options for every command that does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ringfence_bootstrap.account.connection import SERVICES, AwsPlace
from ringfence_zones.cli.context import CommandContext
from ringfence_zones.errors import InputError

R = TypeVar("R")

_OPTIONS = (
    click.option("--region", metavar="REGION", help="AWS's region  [AWS_REGION, else the profile's]"),
    click.option("--profile", metavar="NAME", help="a profile of ~/.aws  [AWS_PROFILE]"),
    click.option(
        "--endpoint",
        "endpoints",
        multiple=True,
        metavar="SERVICE=URL",
        help=f"where a service ({', '.join(SERVICES)}) is asked, such as a VPC endpoint; may be repeated"
        "  [AWS_ENDPOINT_URL_…, else AWS's own]",
    ),
)


def account_options(command: Callable[..., R]) -> Callable[..., R]:
    """Adds the options to a command, which receives them as one `place`."""

    @functools.wraps(command)
    def wrapper(*args: Any, region: str | None, profile: str | None, endpoints: tuple[str, ...], **kwargs: Any) -> R:
        return command(*args, place=AwsPlace(region, profile, _parsed(endpoints)), **kwargs)

    decorated: Callable[..., R] = wrapper
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def agreed(context: CommandContext, question: str, *, yes: bool) -> bool:
    """Whether to go on: --yes, or somebody at a terminal who says so. Under --json nobody is asked."""
    if yes or context.json:
        return yes
    return click.confirm(question, err=True)


def _parsed(endpoints: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in endpoints:
        service, separator, url = each.partition("=")
        if not separator:
            raise InputError(f"--endpoint {each!r} names no service", hint="write --endpoint emr=https://HOST")
        found[service] = url
    return found
