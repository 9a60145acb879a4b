"""The agent's page in a real browser: it shows what was seen, goes on when the agent does not, and runs nobody's names.

Snapshots are the test's own; the real loop on a real cluster is in tests/cluster/test_agent_page.py.
"""

from __future__ import annotations

import base64
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_page import ServedAgent, open_door, state_with
from browser import Browser
from certificates import Certificates
from fastapi import APIRouter
from selenium.webdriver.common.keys import Keys
from selenium_axe_python import Axe
from starlette.responses import JSONResponse, Response

from ringfence_agent.client import AgentClient
from ringfence_zones.errors import AccessDeniedError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.moves import MoveDecision
from ringfence_zones.policy import Policy, parse_policy

_ROOTS = ("/data/pii", "/data/masked", "/data/open")


def policy_with(*roots: str, flows: str = "") -> Policy:
    zones = "\n".join(f"  - {{path: '{root}', owner: etl, readers: [masker], writers: [masker]}}" for root in roots)
    return parse_policy(
        f"version: 1\ncluster: paged\nzones:\n{zones}\n{flows}kms: {{namenode_users: [hdfs], admins: [hdfs]}}\n",
        "z.yaml",
    )


FLOWS = """flows:
  - {from: /data/pii, to: /data/masked, who: [masker]}
  - {from: /data/masked, to: /data/pii, who: [masker]}
  - {from: /data/masked, to: /data/open, who: [masker]}
outside: {/exports: {from: [/data/open]}}
"""


def finding(path: str, message: str = "is not as it should be", severity: Severity = Severity.ERROR) -> Finding:
    return Finding(
        severity=severity, rule=Rule.ROOT_NOT_PINNED, path=path, message=message, hint="mend it", command="hdfs mend"
    )


@pytest.fixture(scope="module")
def served_agent() -> Iterator[ServedAgent]:
    """An agent that answers, and has seen nothing yet."""
    with tempfile.TemporaryDirectory(prefix="rfg") as directory:
        agent = ServedAgent(Path(directory))
        with agent.serving():
            yield agent


@pytest.fixture(scope="module")
def door(served_agent: ServedAgent) -> Iterator[str]:
    with open_door(served_agent.socket_path) as address:
        yield address


def test_zones_keys_custody_flows_and_findings_are_shown(
    browser: Browser, served_agent: ServedAgent, door: str
) -> None:
    served_agent.publish(
        state_with(*_ROOTS, pinned=("/data/pii",)), policy_with(*_ROOTS, flows=FLOWS), findings=(finding("/data/open"),)
    )
    browser.open(door)
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 3)
    cells = browser.run(
        "return [...document.querySelectorAll('#zones-rows tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert cells[0] == ["/data/pii", "key-0", "key-0@2", "256 bits", "envelope", "yes", "yes"]
    assert cells[1][5:] == ["yes", "no"]
    assert "/data/open" in browser.text("#findings-list")
    assert "hdfs mend" in browser.text("#findings-list .command")
    assert browser.text("#cluster") == "paged"
    assert browser.run("return document.querySelectorAll('#flows-graph .edge').length") == 4
    assert browser.run("return document.querySelectorAll('#flows-graph .node').length") == 4
    assert browser.run("return document.querySelectorAll('#flows-graph .node.clear').length") == 1
    assert "masker" in browser.text("#flows-rows")
    assert browser.complaints() == []


def test_what_changes_is_shown_without_loading_the_page_again(
    browser: Browser, served_agent: ServedAgent, door: str
) -> None:
    served_agent.publish(state_with("/data/pii"))
    browser.open(door)
    browser.await_(lambda: browser.texts("#zones-rows th") == ["/data/pii"])
    browser.run("window.isThis = 'the same document'")
    served_agent.publish(state_with("/data/new", "/data/pii"), findings=(finding("/data/new"),))
    browser.await_(lambda: browser.texts("#zones-rows th") == ["/data/new", "/data/pii"])
    browser.await_(lambda: "/data/new" in browser.text("#findings-list"))
    AgentClient(str(served_agent.socket_path)).check_move("/data/new/f", "/data/pii/f")
    browser.await_(lambda: "zone_to_zone" in browser.text("#refused-rows"))
    assert "/data/new/f" in browser.text("#refused-rows")
    assert browser.run("return window.isThis") == "the same document"
    assert browser.complaints() == []


def test_an_agent_that_restarts_is_said_to_be_away_and_followed_again(
    browser: Browser,
) -> None:
    with tempfile.TemporaryDirectory(prefix="rfg") as directory:
        agent = ServedAgent(Path(directory))
        agent.publish(state_with("/data/before"))
        with agent.serving(), open_door(agent.socket_path) as address:
            browser.open(address)
            browser.await_(lambda: browser.texts("#zones-rows th") == ["/data/before"])
        # The door is gone too: the browser meets a closed port.
        browser.await_(lambda: "cannot be asked" in browser.text("#status.trouble"))
        assert "What you see is from" in browser.text("#status")
        assert browser.texts("#zones-rows th") == ["/data/before"], "what was seen last stays"
        port = address.split(":")[2].split("/")[0]
        agent.publish(state_with("/data/after"))
        with agent.serving(), open_door(agent.socket_path, "--port", port):
            browser.await_(lambda: browser.texts("#zones-rows th") == ["/data/after"])
            browser.await_(lambda: browser.text("#status.trouble") == "")


def test_a_look_that_is_too_old_is_shown_as_such(browser: Browser, served_agent: ServedAgent, door: str) -> None:
    served_agent.publish(state_with("/data/pii"), observed_s=-1000.0, sentence="the NameNode does not answer")
    browser.open(door)
    browser.await_(lambda: "what you see may have changed" in browser.text("#status.trouble"))
    assert "the NameNode does not answer" in browser.text("#status")
    served_agent.publish(state_with("/data/pii"), finished_s=-1000.0)
    browser.await_(lambda: "stands still" in browser.text("#status.trouble"))


HOSTILE = {
    "markup": "/data/<script>alert(1)</script><img src=x onerror=alert(2)>",
    "attribute": '/data/" onmouseover="alert(3)" \'><svg onload=alert(4)>',
    "template": "/data/${alert(5)}`{{constructor.constructor('alert(6)')()}}",
    "address": "/javascript:alert(7)",
    "long": "/" + "/".join(["x" * 250] * 16) + "/end-of-4-KiB",
    "combining": "/data/" + "e" + "\u0301" * 200,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_whole_and_runs_nothing(
    browser: Browser, served_agent: ServedAgent, door: str, name: str
) -> None:
    path = HOSTILE[name]
    served_agent.publish(
        state_with(path, "/data/plain"), findings=(finding(path, f"about {path}"),), sentence=f"saw {path}"
    )
    served_agent.moves.add(path, path, path, _refusal(path))
    browser.open(door)
    browser.run("window.alert = () => { window.alerted = true }")
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 2)
    whole = ".whole" if len(path) > 200 else ".name"
    assert browser.texts(f"#zones-rows th {whole}")[0] == path
    browser.await_(lambda: path in browser.texts(f"#findings-list {whole}"))
    browser.await_(lambda: any(path[:500] in each for each in browser.texts(f"#refused-rows {whole}")))
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.run("return document.querySelectorAll('img').length") == 1
    assert (
        browser.run("return document.querySelectorAll('main svg [onload], main [onerror], main [onmouseover]').length")
        == 0
    )
    assert not browser.run("return window.alerted ?? false")
    width, shown = browser.run("return [innerWidth, document.documentElement.scrollWidth]")
    assert shown <= width, "a name must not push the page out of the window"
    tallest = browser.run(
        "return Math.max(...[...document.querySelectorAll('#zones-rows tr')].map(r => r.offsetHeight))"
    )
    assert tallest < 300
    assert browser.complaints() == []


def _refusal(command: str) -> MoveDecision:
    return MoveDecision(
        rename=False, transfer=True, same_zone=False, reason="r", rule=Rule.ZONE_TO_ZONE, command=command
    )


@pytest.mark.parametrize(
    "sign", ["\u202e", "\u200f", "\u200b", "\u2066", "\x07", "\u00a0", "\ud800", "\u2028", "\U000e0041"]
)
def test_what_cannot_be_seen_in_a_name_is_written_out(
    browser: Browser, served_agent: ServedAgent, door: str, sign: str
) -> None:
    served_agent.publish(state_with(f"/data/a{sign}b"))
    browser.open(door)
    browser.await_(lambda: browser.texts("#zones-rows th") == [f"/data/aU+{ord(sign):04X}b"])
    assert browser.texts("#zones-rows .escape") == [f"U+{ord(sign):04X}"]


def test_a_component_from_right_to_left_turns_no_other_one_round(
    browser: Browser, served_agent: ServedAgent, door: str
) -> None:
    served_agent.publish(state_with("/\u05d0\u05d1\u05d2/\u05d3\u05d4\u05d5/abc"))
    browser.open(door)
    browser.await_(lambda: len(browser.texts("#zones-rows th")) == 1)
    lefts = browser.run(
        "return [...document.querySelectorAll('#zones-rows th bdi')].map(b => b.getBoundingClientRect().left)"
    )
    assert lefts == sorted(lefts)
    assert len(lefts) == 3


def test_a_thousand_zones_stay_usable(browser: Browser, served_agent: ServedAgent, door: str) -> None:
    paths = [f"/data/team-{number % 40:02}/zone-{number:04}" for number in range(1000)]
    edges = "".join(f"  - {{from: {one}, to: {two}, who: [masker]}}\n" for one, two in itertools.pairwise(paths))
    served_agent.publish(
        state_with(*paths), policy_with(*paths, flows=f"flows:\n{edges}"), findings=tuple(map(finding, paths))
    )
    browser.open(door)
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 200)
    assert browser.text("#zones-count") == "1000"
    assert browser.text("#zones-more") == "Show all 1000"
    assert "too many places to draw" in browser.text("#flows-note")
    browser.run("document.querySelector('#zones-more').click()")
    assert len(browser.texts("#zones-rows tr")) == 1000
    before = browser.run("return performance.now()")
    browser.driver.find_element("id", "filter").send_keys("zone-0500")
    assert browser.texts("#zones-rows th") == [paths[500]]
    assert browser.text("#zones-count") == "1 of 1000"
    assert browser.run("return document.querySelectorAll('#flows-graph .node').length") == 3
    assert browser.run("return performance.now()") - before < 20_000, "nine key strokes"
    assert browser.complaints() == []


def test_nothing_is_drawn_anew_while_nothing_changes(browser: Browser, served_agent: ServedAgent, door: str) -> None:
    served_agent.publish(state_with("/data/pii"))
    browser.open(door)
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 1)
    browser.run("document.querySelector('#zones-rows tr').isTheSame = true")
    for _ in range(2):
        served_agent.publish(state_with("/data/pii"))
        said = f"cycle {served_agent.board.snapshot.cycle}."
        browser.await_(lambda said=said: said in browser.text("#version"))
    assert browser.run("return document.querySelector('#zones-rows tr').isTheSame") is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screen_reader_and_weak_eyes_can_use_it(
    browser: Browser, served_agent: ServedAgent, door: str, scheme: str
) -> None:
    served_agent.publish(
        state_with(*_ROOTS, "/data/a\u202eb", pinned=("/data/pii",)),
        policy_with(*_ROOTS, flows=FLOWS),
        findings=tuple(finding("/data/open", severity=each) for each in Severity),
    )
    served_agent.moves.add("etl", "/data/pii/a", "/data/open/a", _refusal("hadoop distcp"))
    emulated = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    browser.open(door)
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 4)
    browser.await_(lambda: browser.texts("#refused-rows tr"))
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    axe = Axe(browser.driver)
    axe.inject()
    found = axe.run()
    assert found["violations"] == [], axe.report(found["violations"])
    assert len(found["passes"]) > 20


def test_the_keyboard_reaches_everything(browser: Browser, served_agent: ServedAgent, door: str) -> None:
    served_agent.publish(state_with(*_ROOTS), policy_with(*_ROOTS, flows=FLOWS))
    browser.open(door)
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 3)
    reached = []
    for _ in range(12):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            browser.run(
                "const a = document.activeElement; return a.id || a.getAttribute('aria-label') || a.textContent"
            )
        )
    assert reached[0] == "Skip to the content"
    assert {"filter", "Table of zones", "flows-table"} <= set(reached)


def test_without_transfers_there_is_no_section_for_them(browser: Browser, served_agent: ServedAgent, door: str) -> None:
    served_agent.publish(state_with("/data/pii"))
    browser.open(door)
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 1)
    assert browser.run("return [...document.querySelectorAll('[data-section]')].every(each => each.hidden)") is True


def test_the_browser_itself_refuses_what_the_policy_forbids(
    browser: Browser, served_agent: ServedAgent, door: str
) -> None:
    # The control of the tests above: markup from text and things from elsewhere are refused, and the console says so.
    served_agent.publish(state_with("/data/pii"))
    browser.open(door)
    tried = "try { document.body.innerHTML = '<b>'; return 'done' } catch (error) { return error.name }"
    assert browser.run(tried) == "TypeError"
    browser.run("const i = document.createElement('img'); i.src = 'http://localhost:1/x.png'; document.body.append(i)")
    browser.run("const p = document.createElement('p'); p.setAttribute('style', 'color:red'); document.body.append(p)")
    said: list[str] = []

    def is_said() -> bool:
        said.extend(browser.complaints())
        return all(any(directive in each for each in said) for directive in ("img-src", "style-src"))

    browser.await_(is_said)
    assert any("TrustedHTML" in each for each in said)


class Transfers:
    """`/v1/transfers` as the agent's API describes it, for an agent that has it."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.status = 200
        self.router = APIRouter()
        self.router.add_api_route("/v1/transfers", self._answer, methods=["GET"])

    async def _answer(self) -> Response:
        if self.status == 403:
            raise AccessDeniedError("not for you")
        return JSONResponse({"transfers": self.listed})


def transfer(state: str, done: int, **changes: Any) -> dict[str, Any]:
    told = {"id": "a" * 32, "state": state, "user": "etl", "src": "/data/<b>pii</b>", "dst": "/data/masked/x"}
    counts = {"files": 4, "files_verified": done, "bytes": 4096, "bytes_verified": 1024 * done}
    return {**told, **counts, "rate": 2048.0, "time_left_s": 3.2, "waits_for": None, "problem": None, **changes}


@pytest.fixture
def transfers() -> Iterator[tuple[Transfers, str, ServedAgent]]:
    listed = Transfers()
    with tempfile.TemporaryDirectory(prefix="rfg") as directory:
        agent = ServedAgent(Path(directory), listed.router)
        agent.publish(state_with("/data/pii"))
        with agent.serving(), open_door(agent.socket_path) as address:
            yield listed, address, agent


def test_transfers_are_followed_while_they_run(browser: Browser, transfers: tuple[Transfers, str, ServedAgent]) -> None:
    listed, address, _ = transfers
    listed.listed = [transfer("copying", 1)]
    browser.open(address)
    browser.await_(lambda: "1 of 4 files, 1.0 KiB of 4.0 KiB, 2.0 KiB/s, 4 s left" in browser.text("#transfers-rows"))
    assert "/data/<b>pii</b>" in browser.text("#transfers-rows")
    bar = "const bar = document.querySelector('#transfers progress'); return bar.value / bar.max"
    assert browser.run(bar) == 0.25
    listed.listed = [transfer("copying", 3, waits_for="an approval")]
    browser.await_(lambda: browser.run(bar) == 0.75)
    assert "an approval" in browser.text("#transfers-rows")
    problem = {"kind": "X", "message": "a digest differs", "hint": None, "command": "ringfence mv", "rule": None}
    listed.listed = [transfer("failed", 3, rate=None, time_left_s=None, problem=problem)]
    browser.await_(lambda: "a digest differs" in browser.text("#transfers-rows .muted"))
    assert "ringfence mv" in browser.text("#transfers-rows .command")
    listed.listed = []
    browser.await_(lambda: browser.text("#transfers-note") == "No transfer was asked for yet.")
    assert browser.complaints() == []


def test_whoever_may_not_follow_transfers_has_no_section_for_them(
    browser: Browser, transfers: tuple[Transfers, str, ServedAgent]
) -> None:
    listed, address, agent = transfers
    listed.status = 403
    browser.open(address)
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 1)
    browser.await_(lambda: browser.run("return document.querySelector('#transfers').hidden") is True)
    agent.publish(state_with("/data/pii", "/data/more"))
    browser.await_(lambda: len(browser.texts("#zones-rows tr")) == 2)
    assert browser.text("#status.trouble") == ""


def test_over_tls_a_token_as_the_password_opens_the_page_and_nothing_else_does(
    browser: Browser, certificates: Certificates
) -> None:
    files = certificates.server
    settings = f"listen: localhost:0\ntls: {{cert: {files.certificate}, key: {files.key}}}\n"
    with tempfile.TemporaryDirectory(prefix="rfg") as directory:
        agent = ServedAgent(Path(directory), settings=settings)
        agent.publish(state_with("/data/pii"))
        with agent.serving():
            token = agent.issue_token("viewer")
            for header, status in (("", 401), (f"Bearer {token}", 200), (f"Bearer {token}x", 401)):
                for target in ("/page/", "/v1/overview", "/v1/moves/refused", "/metrics"):
                    assert agent.ask_tls(certificates.client_context(), target, header)[0] == status
            basic = "Basic " + base64.b64encode(f"me:{token}".encode()).decode()
            # As a browser sends it after its own prompt; the certificate's authority is this test's.
            browser.driver.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
            browser.driver.execute_cdp_cmd("Network.enable", {})
            browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": basic}})
            try:
                browser.open(f"{agent.url}/page/")
                browser.await_(lambda: browser.texts("#zones-rows th") == ["/data/pii"])
                assert token not in browser.run("return document.documentElement.outerHTML + location.href")
                assert browser.complaints() == []
            finally:
                browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
