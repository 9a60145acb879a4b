"""The option `-f FILE`, and what it means when nobody gave it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ringfence_zones.policy import Policy, load_policy

DEFAULT_POLICY = Path("zones.yaml")


def policy_option(*, required: bool) -> Callable[[Any], Any]:
    """`-f FILE`. Not required: without the option and without ./zones.yaml the command gets None."""
    return click.option(
        "-f",
        "--file",
        "policy_file",
        type=click.Path(path_type=Path),
        default=DEFAULT_POLICY if required else None,
        metavar="FILE",
        help=f"the policy document  [./{DEFAULT_POLICY}{'' if required else ' when it is there'}]",
    )


def load_optional_policy(policy_file: Path | None) -> Policy | None:
    """The policy of FILE, else of ./zones.yaml, else None. A FILE that was named must be there. Raises PolicyError."""
    if policy_file is None and not DEFAULT_POLICY.exists():
        return None
    return load_policy(policy_file or DEFAULT_POLICY)
