"""The real Java clients of three Hadoop versions against both key servers: same results, but for differences.yaml."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import differences
import java_access_cases
import java_key_cases
import java_runs
import java_token_cases
import pytest
import settings
from certificates import JavaStores
from differences import Steps
from kdc import Kdc
from key_servers import KeyServer
from table import ROWS
from wire import cases_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

# Who runs what: under `simple` authentication a JVM has one user.
RUNS = {"alice": (java_key_cases, java_token_cases), "nobody": (java_access_cases,)}
CASES = [(user, name) for user, modules in RUNS.items() for module in modules for name in cases_of(module)]
SANDBOX, OTHERS = java_runs.SANDBOX_VERSION, java_runs.OTHER_VERSIONS

Run = Callable[[str, str], Mapping[str, Mapping[str, Steps]]]
"""(version, user) -> case -> server -> steps; each combination is run once."""


@pytest.fixture(scope="module")
def run(simple_servers: tuple[KeyServer, KeyServer]) -> Run:
    """The user is claimed."""

    @functools.cache
    def once(version: str, user: str) -> Mapping[str, Mapping[str, Steps]]:
        return java_runs.run(version, [module.__name__ for module in RUNS[user]], simple_servers, user=user)

    return once


@pytest.fixture(scope="module")
def run_secure(secure_servers: tuple[KeyServer, KeyServer], kdc: Kdc, java_stores: JavaStores) -> Run:
    """The user is proven by a keytab, the servers by Kerberos and by their certificates."""

    @functools.cache
    def once(version: str, user: str) -> Mapping[str, Mapping[str, Steps]]:
        return java_runs.run(
            version,
            [module.__name__ for module in RUNS[user]],
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


@pytest.mark.parametrize("version", [SANDBOX, *(pytest.param(version, marks=pytest.mark.long) for version in OTHERS)])
@pytest.mark.parametrize(("user", "name"), CASES)
def test_both_servers_serve_the_java_client_alike(run: Run, version: str, user: str, name: str) -> None:
    check(run(version, user)[name], name, version)


@pytest.mark.long
@pytest.mark.parametrize("version", [SANDBOX, *OTHERS])
@pytest.mark.parametrize(("user", "name"), CASES)
def test_both_servers_serve_the_java_client_alike_with_kerberos_and_tls(
    run_secure: Run, version: str, user: str, name: str
) -> None:
    check(run_secure(version, user)[name], name, version)


def check(records: Mapping[str, Steps], name: str, version: str) -> None:
    assert "unexpected" not in records["stock"], records["stock"]["unexpected"]
    found = differences.find_differences(records["stock"], records["ours"])
    complaints = differences.judge(name, found, ROWS, version)
    assert not complaints, "\n".join(complaints)
