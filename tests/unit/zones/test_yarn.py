"""What YARN's ResourceManager says of an application, and what is made of what it does not say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ringfence_zones.yarn import APPLICATION, Application, Life, find_life, find_tagged, resource_managers

APP = "application_1700000000000_0042"
_FORGOTTEN = {"RemoteException": {"exception": "NotFoundException", "message": "app with id: x not found"}}


class _Manager(ThreadingHTTPServer):
    daemon_threads = True
    status = 200
    body = b""
    asked = ""


class _Handler(BaseHTTPRequestHandler):
    server: _Manager

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked = self.path
        self.send_response(self.server.status)
        if self.server.status == 307:
            self.send_header("Location", "http://localhost:1/")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)


@pytest.fixture
def manager() -> Iterator[_Manager]:
    with _Manager(("localhost", 0), _Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield serving
        finally:
            serving.shutdown()
            thread.join()


def _life(manager: _Manager, status: int, document: Any) -> Life | None:
    manager.status = status
    manager.body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return find_life([f"http://localhost:{manager.server_port}"], APP)


@pytest.mark.parametrize(
    ("state", "life"),
    [
        ("NEW", Life.RUNNING),
        ("ACCEPTED", Life.RUNNING),
        ("RUNNING", Life.RUNNING),
        ("FINISHED", Life.ENDED),
        ("FAILED", Life.ENDED),
        ("KILLED", Life.ENDED),
    ],
)
def test_an_application_runs_until_it_ended(manager: _Manager, state: str, life: Life) -> None:
    assert _life(manager, 200, {"app": {"id": APP, "state": state}}) is life
    assert manager.asked == f"/ws/v1/cluster/apps/{APP}"


def test_one_that_is_not_known_is_forgotten(manager: _Manager) -> None:
    assert _life(manager, 404, _FORGOTTEN) is Life.FORGOTTEN


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (404, {}),
        (404, b"<html>no such page</html>"),
        (404, {"RemoteException": {"exception": "WebApplicationException"}}),
        (307, b"This is standby RM"),
        (500, {"app": {"id": APP, "state": "FINISHED"}}),
        (403, {"app": {"id": APP, "state": "FINISHED"}}),
        (200, b""),
        (200, []),
        (200, {"app": {"id": "application_1_1", "state": "FINISHED"}}),
        (200, {"app": {"id": APP}}),
    ],
)
def test_what_is_no_answer_ends_nothing(manager: _Manager, status: int, document: Any) -> None:
    assert _life(manager, status, document) is None


def test_the_next_one_is_asked_when_one_does_not_tell(manager: _Manager) -> None:
    manager.body = json.dumps({"app": {"id": APP, "state": "KILLED"}}).encode()
    managers = ["http://localhost:1", f"http://localhost:{manager.server_port}"]
    assert find_life(managers, APP) is Life.ENDED
    assert find_life(managers[:1], APP) is None
    assert find_life([], APP) is None


_WEB = "yarn.resourcemanager.webapp."


@pytest.mark.parametrize(
    ("conf", "managers"),
    [
        ({}, ()),
        ({"yarn.resourcemanager.hostname": "rm"}, ("http://rm:8088",)),
        ({_WEB + "address": "rm:1234", "yarn.resourcemanager.hostname": "no"}, ("http://rm:1234",)),
        ({"yarn.http.policy": "HTTPS_ONLY", "yarn.resourcemanager.hostname": "rm"}, ("https://rm:8090",)),
        (
            {
                "yarn.resourcemanager.ha.rm-ids": "rm1, rm2",
                _WEB + "address.rm1": "one:8088",
                "yarn.resourcemanager.hostname.rm2": "two",
            },
            ("http://one:8088", "http://two:8088"),
        ),
    ],
)
def test_every_resourcemanager_of_the_configuration_is_found(conf: dict[str, str], managers: tuple[str, ...]) -> None:
    assert resource_managers(conf) == managers


@pytest.mark.parametrize("name", ["application_1", "application_1_2_3", "application_1_2/..", "Application_1_2", ""])
def test_what_is_no_application_is_not_asked_for(name: str) -> None:
    assert APPLICATION.fullmatch(name) is None


TAG = "ringfence-transfer-0f"


def _tagged(manager: _Manager, document: Any, status: int = 200) -> list[Application] | None:
    manager.status, manager.body = status, json.dumps(document).encode()
    return find_tagged([f"http://localhost:{manager.server_port}"], TAG)


def _app(number: int, **values: str) -> dict[str, str]:
    app = {"id": f"application_1700000000000_{number:04}", "user": "masker", "name": "n", "state": "RUNNING"}
    return {**app, "finalStatus": "UNDEFINED", "diagnostics": "", **values}


def test_applications_with_a_tag_are_listed_by_id(manager: _Manager) -> None:
    found = _tagged(manager, {"apps": {"app": [_app(7), _app(3, user="mallory", more="x")]}})
    assert found is not None
    told = [(app.id[-4:], app.user, app.is_over) for app in found]
    assert told == [("0003", "mallory", False), ("0007", "masker", False)]
    assert manager.asked == f"/ws/v1/cluster/apps?applicationTags={TAG}"


@pytest.mark.parametrize("document", [{"apps": None}, {"apps": {}}, {"apps": {"app": []}}])
def test_no_application_is_an_answer_too(manager: _Manager, document: Any) -> None:
    assert _tagged(manager, document) == []


@pytest.mark.parametrize(
    ("state", "status", "is_over", "has_succeeded"),
    [
        ("NEW_SAVING", "UNDEFINED", False, False),
        ("RUNNING", "SUCCEEDED", False, False),
        ("FINISHED", "SUCCEEDED", True, True),
        ("FINISHED", "FAILED", True, False),
        ("FAILED", "FAILED", True, False),
        ("KILLED", "KILLED", True, False),
    ],
)
def test_an_application_succeeded_when_it_finished_and_says_so(
    manager: _Manager, state: str, status: str, is_over: bool, has_succeeded: bool
) -> None:
    [app] = _tagged(manager, {"apps": {"app": [_app(1, state=state, finalStatus=status)]}}) or []
    assert (app.is_over, app.has_succeeded) == (is_over, has_succeeded)


def test_what_yarn_tells_of_an_end_is_cut_and_printable(manager: _Manager) -> None:
    [app] = _tagged(manager, {"apps": {"app": [_app(1, diagnostics="Task failed\n\x1b[2J" + "x" * 5000)]}}) or []
    assert app.says.startswith("Task failed ?[2Jx")
    assert len(app.says) == 300


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (200, {}),
        (200, []),
        (200, {"apps": ["a"]}),
        (200, {"apps": {"app": [{}]}}),
        (200, {"apps": {"app": [_app(1, id="../../x")]}}),
        (307, {"apps": None}),
        (401, {"apps": None}),
        (200, {"apps": {"app": [_app(1, diagnostics="x" * (1 << 20))]}}),
    ],
)
def test_what_is_no_list_is_no_answer(manager: _Manager, status: int, document: Any) -> None:
    assert _tagged(manager, document, status) is None
