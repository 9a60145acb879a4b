"""The real Java clients of three Hadoop versions against both key servers: same results, but for differences.yaml."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import differences
import java_access_cases
import java_fault_cases
import java_key_cases
import java_runs
import java_token_cases
import pytest
import settings
from certificates import JavaStores
from differences import Steps, Tally
from kdc import Kdc
from key_servers import KeyServer
from table import ROWS
from wire import cases_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

# Which user's JVM runs which cases: under `simple` authentication a JVM has one user.
USERS = {java_key_cases: "alice", java_token_cases: "alice", java_access_cases: "nobody", java_fault_cases: "alice"}
MODULES = {module.__name__: module for module in USERS}
CASES = [(module.__name__, name) for module in USERS for name in cases_of(module)]
# A proxy cannot spoil what it cannot read.
SECURE_CASES = [case for case in CASES if case[0] != java_fault_cases.__name__]
SANDBOX, OTHERS = java_runs.SANDBOX_VERSION, java_runs.OTHER_VERSIONS

Run = Callable[[str, str], Mapping[str, Mapping[str, Steps]]]
"""(version, module) -> case -> server -> steps; each combination is run once."""


@pytest.fixture(scope="module")
def run(simple_servers: tuple[KeyServer, KeyServer]) -> Run:
    """The user is claimed."""

    @functools.cache
    def once(version: str, module: str) -> Mapping[str, Mapping[str, Steps]]:
        return java_runs.run(version, module, simple_servers, user=USERS[MODULES[module]])

    return once


@pytest.fixture(scope="module")
def run_secure(secure_servers: tuple[KeyServer, KeyServer], kdc: Kdc, java_stores: JavaStores) -> Run:
    """The user is proven by a keytab, the servers by Kerberos and by their certificates."""

    @functools.cache
    def once(version: str, module: str) -> Mapping[str, Mapping[str, Steps]]:
        user = USERS[MODULES[module]]
        return java_runs.run(
            version,
            module,
            secure_servers,
            conf={
                "hadoop.security.authentication": "kerberos",
                "login.principal": kdc.principal(user),
                "login.keytab": str(kdc.keytab(user)),
            },
            krb5_conf=kdc.realm.krb5_conf,
            ssl_client=settings.ssl_client(java_stores),
        )

    return once


def simple_runs() -> Iterator[Any]:
    """Every case with every version; the sandbox's own version without faults is what each run of the tests does."""
    for version in (SANDBOX, *OTHERS):
        for module, name in CASES:
            quick = version == SANDBOX and module != java_fault_cases.__name__
            yield pytest.param(version, module, name, marks=() if quick else pytest.mark.long)


@pytest.mark.parametrize(("version", "module", "name"), list(simple_runs()))
def test_both_servers_serve_the_java_client_alike(run: Run, tally: Tally, version: str, module: str, name: str) -> None:
    check(run(version, module)[name], name, version, tally, f"client {version}")


@pytest.mark.long
@pytest.mark.parametrize("version", [SANDBOX, *OTHERS])
@pytest.mark.parametrize(("module", "name"), SECURE_CASES)
def test_both_servers_serve_the_java_client_alike_with_kerberos_and_tls(
    run_secure: Run, tally: Tally, version: str, module: str, name: str
) -> None:
    check(run_secure(version, module)[name], name, version, tally, f"client {version}, Kerberos and TLS")


def check(records: Mapping[str, Steps], name: str, version: str, tally: Tally, group: str) -> None:
    for server, steps in records.items():
        assert "unexpected" not in steps, f"{server}: {steps['unexpected']}"
    found = differences.find_differences(records["stock"], records["ours"])
    tally.add(group, len(records["stock"]), len(found))
    complaints = differences.judge(name, found, ROWS, version)
    assert not complaints, "\n".join(complaints)
