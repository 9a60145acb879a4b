"""Runs every assertion on the double, and on the real server that RINGFENCE_TEST_VAULT_ADDR and _TOKEN name.

`unconfirmed` marks what no real server has shown yet; the count is printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import vault_contract
from vault_contract import ContractServer, real_server
from vault_doubles import running_vault

_IS_REAL_ASKED_FOR = bool(os.environ.get(vault_contract.ADDRESS) and os.environ.get(vault_contract.TOKEN))
_collected = pytest.StashKey[list[pytest.Item]]()


@pytest.fixture(scope="session", params=["double", *(["real"] if _IS_REAL_ASKED_FOR else [])])
def server(request: pytest.FixtureRequest) -> Iterator[ContractServer]:
    """The server under contract; tests share it and use names of their own."""
    if request.param == "real":
        found = real_server()
        assert found is not None
        try:
            yield found
        finally:
            found.clean_up()
        return
    with running_vault() as double:
        yield ContractServer(double.address, double.root_token, double=double)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_collected] = [item for item in items if "contract/vault/" in item.nodeid]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ours = config.stash.get(_collected, [])
    if not ours:
        return
    unconfirmed = sum(1 for item in ours if item.get_closest_marker("unconfirmed"))
    double_only = sum(1 for item in ours if "server" not in getattr(item, "fixturenames", ()))
    against = (
        "the double and a real server" if _IS_REAL_ASKED_FOR else f"the double alone: {vault_contract.ADDRESS} unset"
    )
    terminalreporter.write_line(
        f"vault contract: {len(ours) - double_only} assertions against {against}; {double_only} more that only the"
        f" double can show; {unconfirmed} of all not yet seen on a real server"
    )
