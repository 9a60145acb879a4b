"""KV version 2 with check-and-set: vault-measured section 3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from vault_contract import ContractServer
from vault_doubles import VaultAnswer

MISMATCH = "check-and-set parameter did not match the current version"


@pytest.fixture
def path(server: ContractServer) -> str:
    """A secret's path that nobody else uses."""
    return server.fresh("ringfence/c1/secret")


def _put(server: ContractServer, path: str, cas: Any, **data: Any) -> VaultAnswer:
    return server.call("POST", f"{server.kv}/data/{path}", {"data": data, "options": {"cas": cas}})


def _get(server: ContractServer, path: str, version: int | None = None) -> VaultAnswer:
    return server.call("GET", f"{server.kv}/data/{path}" + ("" if version is None else f"?version={version}"))


def test_the_configuration_is_returned(server: ContractServer) -> None:
    config = server.call("GET", f"{server.kv}/config").data
    assert (config["cas_required"], config["max_versions"]) == (True, 20)


def test_a_write_without_check_and_set_is_refused(server: ContractServer, path: str) -> None:
    answer = server.call("POST", f"{server.kv}/data/{path}", {"data": {"a": 1}})
    assert (answer.status, answer.errors) == (400, ["check-and-set parameter required for this call"])


def test_a_write_with_0_creates(server: ContractServer, path: str) -> None:
    answer = _put(server, path, 0, a=1)
    assert answer.status == 200
    created = answer.data.pop("created_time")
    assert created.endswith("Z")
    assert answer.data == {
        "created_time": created,
        "custom_metadata": None,
        "deletion_time": "",
        "destroyed": False,
        "version": 1,
    }
    read = _get(server, path).data
    assert read["data"] == {"a": 1}
    assert read["metadata"]["version"] == 1


@pytest.mark.parametrize("cas", [0, 1, -1, 3])
def test_a_write_with_another_version_is_refused(server: ContractServer, path: str, cas: int) -> None:
    _put(server, path, 0, a=1)
    _put(server, path, 1, a=2)
    answer = _put(server, path, cas, a=3)
    assert (answer.status, answer.errors) == (400, [MISMATCH])
    assert _get(server, path).data["data"] == {"a": 2}


def test_the_version_may_be_a_string(server: ContractServer, path: str) -> None:
    assert _put(server, path, "0", a=1).status == 200
    assert _put(server, path, "1", a=2).status == 200


def test_a_null_version_is_0(server: ContractServer, path: str) -> None:
    assert _put(server, path, None, a=1).status == 200
    assert _put(server, path, None, a=2).errors == [MISMATCH]


@pytest.mark.parametrize("cas", ["x", 1.5])
def test_a_version_that_is_no_number(server: ContractServer, path: str, cas: Any) -> None:
    answer = _put(server, path, cas, a=1)
    assert (answer.status, answer.errors) == (400, ["error parsing check-and-set parameter"])


def test_a_secret_without_data(server: ContractServer, path: str) -> None:
    """Null is written; none is refused."""
    full, options = f"{server.kv}/data/{path}", {"cas": 0}
    answer = server.call("POST", full, {"options": options})
    assert (answer.status, answer.errors) == (400, ["no data provided"])
    assert server.call("POST", full, {"data": "text", "options": options}).status == 400
    assert server.call("POST", full, {"data": None, "options": options}).status == 200
    answer = _get(server, path)
    assert (answer.status, answer.data["data"], answer.data["metadata"]["destroyed"]) == (200, None, False)


def test_twenty_creators_have_one_winner(server: ContractServer, path: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: _put(server, path, 0, winner=number), range(20)))
    winners = [number for number, answer in enumerate(answers) if answer.status == 200]
    assert len(winners) == 1
    assert [answer.errors for answer in answers if answer.status != 200] == [[MISMATCH]] * 19
    assert _get(server, path).data["data"] == {"winner": winners[0]}


def test_older_versions_are_read_by_number(server: ContractServer, path: str) -> None:
    _put(server, path, 0, a=1)
    _put(server, path, 1, a=2)
    assert _get(server, path, 1).data["data"] == {"a": 1}
    assert _get(server, path, 9).status == 404


def test_a_missing_secret_is_a_404_without_words(server: ContractServer, path: str) -> None:
    answer = _get(server, path)
    assert (answer.status, answer.body) == (404, {"errors": []})


def test_a_deleted_version_is_a_404_with_an_envelope(server: ContractServer, path: str) -> None:
    """Deleting asks for no check-and-set, whatever the mount demands; the counter stays."""
    _put(server, path, 0, a=1)
    assert server.call("DELETE", f"{server.kv}/data/{path}").status == 204
    answer = _get(server, path)
    assert answer.status == 404
    assert answer.body["data"]["data"] is None
    assert answer.body["data"]["metadata"]["deletion_time"]
    assert _put(server, path, 0, a=2).errors == [MISMATCH]
    assert _put(server, path, 1, a=2).data["version"] == 2


def test_a_destroyed_version_is_a_404_with_an_envelope(server: ContractServer, path: str) -> None:
    _put(server, path, 0, a=1)
    assert server.call("POST", f"{server.kv}/destroy/{path}", {"versions": [1]}).status == 204
    answer = _get(server, path)
    assert answer.status == 404
    assert answer.body["data"]["data"] is None
    assert answer.body["data"]["metadata"]["destroyed"] is True


def test_an_undeleted_version_is_back(server: ContractServer, path: str) -> None:
    _put(server, path, 0, a=1)
    server.done("DELETE", f"{server.kv}/data/{path}")
    assert server.call("POST", f"{server.kv}/undelete/{path}", {"versions": [1]}).status == 204
    assert _get(server, path).data["data"] == {"a": 1}


def test_deleting_the_metadata_resets_the_counter(server: ContractServer, path: str) -> None:
    _put(server, path, 0, a=1)
    assert server.call("DELETE", f"{server.kv}/metadata/{path}").status == 204
    assert _get(server, path).body == {"errors": []}
    assert _put(server, path, 0, a=2).data["version"] == 1


def test_metadata(server: ContractServer, path: str) -> None:
    _put(server, path, 0, a=1)
    _put(server, path, 1, a=2)
    data = server.call("GET", f"{server.kv}/metadata/{path}").data
    assert data["current_version"] == 2
    assert sorted(data["versions"]) == ["1", "2"]


def test_only_so_many_versions_are_kept(server: ContractServer, path: str) -> None:
    for version in range(22):
        _put(server, path, version, a=version)
    assert _get(server, path, 2).status == 404
    assert _get(server, path, 3).data["data"] == {"a": 2}


def test_listing(server: ContractServer) -> None:
    base = server.fresh("listing")
    answer = server.call("LIST", f"{server.kv}/metadata/{base}")
    assert (answer.status, answer.body) == (404, {"errors": []})
    for name in ("b", "a", "deeper/c"):
        _put(server, f"{base}/{name}", 0, x=1)
    assert server.call("LIST", f"{server.kv}/metadata/{base}").data["keys"] == ["a", "b", "deeper/"]
    assert server.call("GET", f"{server.kv}/metadata/{base}?list=true").data["keys"] == ["a", "b", "deeper/"]


def test_a_listing_comes_in_pages(server: ContractServer) -> None:
    base = server.fresh("pages")
    for name in ("a", "b", "c", "d/e"):
        _put(server, f"{base}/{name}", 0, x=1)
    every = ["a", "b", "c", "d/"]

    def page(query: str) -> list[str]:
        return list(server.call("GET", f"{server.kv}/metadata/{base}/?list=true{query}").data["keys"])

    pages = server.flavour.has_pages
    assert page("&limit=2") == (every[:2] if pages else every)
    assert page("&limit=2&after=b") == (every[2:] if pages else every)
    assert page("&after=&limit=-1") == page("&limit=0") == every
    past = server.call("GET", f"{server.kv}/metadata/{base}/?list=true&after=d/&limit=2")
    assert past.status == (404 if pages else 200)


def test_a_secret_keeps_its_json(server: ContractServer, path: str) -> None:
    value = {"text": "ü", "number": 2**53, "list": [1, None, True], "nested": {"a": {"b": []}}}
    _put(server, path, 0, **value)
    assert _get(server, path).data["data"] == value


def test_create_and_update_are_told_apart(server: ContractServer, path: str) -> None:
    creator = server.token_for('path "{kv}/data/*" { capabilities = ["create"] }')
    updater = server.token_for('path "{kv}/data/*" { capabilities = ["update"] }')
    body = {"data": {"a": 1}, "options": {"cas": 0}}
    full = f"{server.kv}/data/{path}"
    assert server.call("POST", full, body, token=updater).status == 403
    assert server.call("POST", full, body, token=creator).status == 200
    body["options"] = {"cas": 1}
    assert server.call("POST", full, body, token=creator).status == 403
    assert server.call("POST", full, body, token=updater).status == 200
