"""Runs every assertion on the double, and on the real server that RINGFENCE_TEST_VAULT_ADDR and _TOKEN name.

`unconfirmed` marks what no real server has shown yet; the count is printed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vault_contract import ADDRESS, ContractServer, contract_kinds, contract_server, is_real_asked_for

_collected = pytest.StashKey[list[pytest.Item]]()


@pytest.fixture(scope="session", params=contract_kinds())
def server(request: pytest.FixtureRequest) -> Iterator[ContractServer]:
    """The server under contract; tests share it and use names of their own."""
    with contract_server(request.param) as found:
        yield found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_collected] = [item for item in items if "contract/vault/" in item.nodeid]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ours = config.stash.get(_collected, [])
    if not ours:
        return
    unconfirmed = sum(1 for item in ours if item.get_closest_marker("unconfirmed"))
    double_only = sum(1 for item in ours if "server" not in getattr(item, "fixturenames", ()))
    against = "the double and a real server" if is_real_asked_for() else f"the double alone: {ADDRESS} unset"
    terminalreporter.write_line(
        f"vault contract: {len(ours) - double_only} assertions against {against}; {double_only} more that only the"
        f" double can show; {unconfirmed} of all not yet seen on a real server"
    )
