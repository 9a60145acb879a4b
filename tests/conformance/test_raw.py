"""Every raw case on Hadoop's key server and on ours: same answers, but for the rows of differences.yaml."""

from __future__ import annotations

import differences
import pytest
from key_servers import KeyServer
from table import RAW_CASES, ROWS
from wire import Case, Wire

pytestmark = [pytest.mark.cluster]


@pytest.mark.parametrize("name", RAW_CASES)
def test_both_servers_answer_alike(simple_servers: tuple[KeyServer, KeyServer], name: str) -> None:
    recorded = [run(RAW_CASES[name], server) for server in simple_servers]
    complaints = differences.judge(name, differences.find_differences(*recorded), ROWS)
    assert not complaints, "\n".join(complaints)


def run(case: Case, server: KeyServer) -> dict[str, dict[str, str]]:
    wire = Wire(server)
    case(wire)
    return wire.steps
