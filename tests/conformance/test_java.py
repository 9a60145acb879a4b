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
from differences import Steps
from key_servers import KeyServer
from table import ROWS
from wire import cases_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

# Who runs what: under `simple` authentication a JVM has one user.
RUNS = {"alice": (java_key_cases, java_token_cases), "nobody": (java_access_cases,)}
VERSIONS = [
    java_runs.SANDBOX_VERSION,
    *(pytest.param(version, marks=pytest.mark.long) for version in java_runs.OTHER_VERSIONS),
]
Run = Callable[[str, str], Mapping[str, Mapping[str, Steps]]]


@pytest.fixture(scope="module")
def run(simple_servers: tuple[KeyServer, KeyServer]) -> Run:
    """Each combination of version and user is run once."""

    @functools.cache
    def once(version: str, user: str) -> Mapping[str, Mapping[str, Steps]]:
        return java_runs.run(version, [module.__name__ for module in RUNS[user]], simple_servers, user=user)

    return once


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("user", "name"),
    [(user, name) for user, modules in RUNS.items() for module in modules for name in cases_of(module)],
)
def test_both_servers_serve_the_java_client_alike(run: Run, version: str, user: str, name: str) -> None:
    records = run(version, user)[name]
    found = differences.find_differences(records["stock"], records["ours"])
    assert "unexpected" not in records["stock"], records["stock"]["unexpected"]
    complaints = differences.judge(name, found, ROWS, version)
    assert not complaints, "\n".join(complaints)
