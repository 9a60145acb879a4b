"""Every raw case on Hadoop's key server and on ours: same answers, but for the rows of differences.yaml."""

from __future__ import annotations

import differences
import pytest
from differences import Tally
from key_servers import KeyServer
from table import RAW_CASES, ROWS
from wire import Case, Wire

pytestmark = [pytest.mark.cluster]


@pytest.mark.parametrize("name", RAW_CASES)
def test_both_servers_answer_alike(simple_servers: tuple[KeyServer, KeyServer], tally: Tally, name: str) -> None:
    recorded = [run(RAW_CASES[name], server) for server in simple_servers]
    found = differences.find_differences(*recorded)
    tally.add(name.partition(".")[0], len(recorded[0]), len(found))
    complaints = differences.judge(name, found, ROWS)
    assert not complaints, "\n".join(complaints)


def run(case: Case, server: KeyServer) -> dict[str, dict[str, str]]:
    wire = Wire(server)
    case(wire)
    return wire.steps
