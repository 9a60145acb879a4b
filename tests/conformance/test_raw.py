"""Every raw case on Hadoop's key server and on ours: same answers, but for the rows of differences.yaml."""

from __future__ import annotations

from pathlib import Path

import differences
import pytest
import raw_access_cases
import raw_eek_cases
import raw_http_cases
import raw_key_cases
from key_servers import KeyServer
from wire import Case, Wire, cases_of

ROWS = differences.load_rows(Path(__file__).with_name("differences.yaml"))
CASES = {
    name: case
    for module in (raw_key_cases, raw_eek_cases, raw_http_cases, raw_access_cases)
    for name, case in cases_of(module).items()
}

pytestmark = [pytest.mark.cluster]


@pytest.mark.parametrize("name", CASES)
def test_both_servers_answer_alike(simple_servers: tuple[KeyServer, KeyServer], name: str) -> None:
    recorded = [run(CASES[name], server) for server in simple_servers]
    complaints = differences.judge(name, differences.find_differences(*recorded), ROWS)
    assert not complaints, "\n".join(complaints)


def run(case: Case, server: KeyServer) -> dict[str, dict[str, str]]:
    wire = Wire(server)
    case(wire)
    return wire.steps
