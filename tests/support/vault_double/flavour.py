"""What differs between the servers that speak this API, as data. Only OpenBao's line was measured."""

from __future__ import annotations

from dataclasses import dataclass

from vault_double.wire import PERMISSION_DENIED, in_multierror


@dataclass(frozen=True, slots=True)
class Flavour:
    """One server's ways. `dead_token_errors` and `no_policy_errors` are the two texts of a 403."""

    name: str
    version: str
    max_json_strings: int | None
    has_soft_delete: bool
    has_aws_auth: bool
    has_namespaces: bool
    standby_serves_reads: bool
    create_key_returns_key: bool
    has_pages: bool
    dead_token_errors: tuple[str, ...]
    no_policy_errors: tuple[str, ...]
    token_prefix: str


OPENBAO = Flavour(
    name="openbao",
    version="2.6.2",
    max_json_strings=1000,
    has_soft_delete=True,
    has_aws_auth=False,
    has_namespaces=True,
    standby_serves_reads=True,
    create_key_returns_key=True,
    has_pages=True,
    dead_token_errors=(PERMISSION_DENIED,),
    no_policy_errors=(in_multierror(PERMISSION_DENIED),),
    token_prefix="s.",
)
# From its documentation, not from a running server.
HASHICORP = Flavour(
    name="hashicorp",
    version="1.20.4",
    max_json_strings=None,
    has_soft_delete=False,
    has_aws_auth=True,
    has_namespaces=False,
    standby_serves_reads=False,
    create_key_returns_key=True,
    has_pages=False,
    dead_token_errors=("2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n",),
    no_policy_errors=(in_multierror(PERMISSION_DENIED),),
    token_prefix="hvs.",
)
FLAVOURS = {flavour.name: flavour for flavour in (OPENBAO, HASHICORP)}


def flavour_of_version(version: str) -> Flavour:
    """The flavour by `sys/health`'s version: OpenBao counts from 2."""
    return HASHICORP if version.startswith(("0.", "1.")) else OPENBAO
