"""The envelope, the errors, and what HTTP may look like: vault-measured sections 2, 3 and 5."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import pytest
from vault_contract import CONTEXT, DEK, DERIVED, ContractServer


@pytest.fixture(scope="module")
def key(server: ContractServer) -> str:
    return server.key()


def test_the_envelope(server: ContractServer, key: str) -> None:
    answer = server.encrypt(key)
    body = dict(answer.body)
    assert str(uuid.UUID(body.pop("request_id")))
    assert body.pop("data")
    assert body == {
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "wrap_info": None,
        "warnings": None,
        "auth": None,
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert "strict-transport-security" in answer.headers


def test_put_is_post(server: ContractServer, key: str) -> None:
    path = f"{server.transit}/encrypt/{key}"
    assert server.call("PUT", path, {"plaintext": DEK, "context": CONTEXT}).status == 200


def test_a_form_is_accepted(server: ContractServer, key: str) -> None:
    form = urlencode({"plaintext": DEK, "context": CONTEXT}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.call("POST", f"{server.transit}/encrypt/{key}", form, headers=headers).status == 200


def test_of_two_keys_the_last_wins(server: ContractServer, key: str) -> None:
    body = f'{{"plaintext": "?", "plaintext": "{DEK}", "context": "{CONTEXT}"}}'.encode()
    answer = server.call("POST", f"{server.transit}/encrypt/{key}", body)
    assert server.decrypt(key, answer.data["ciphertext"]).data["plaintext"] == DEK


def test_unknown_fields_are_ignored_with_a_warning(server: ContractServer, key: str) -> None:
    answer = server.encrypt(key, foo="bar")
    assert answer.status == 200
    assert answer.body["warnings"] == ["Endpoint ignored these unrecognized parameters: [foo]"]


def test_json_that_is_none(server: ContractServer, key: str) -> None:
    answer = server.call("POST", f"{server.transit}/encrypt/{key}", b'{"plaintext": ')
    assert answer.status == 400
    assert answer.errors[0].startswith("failed to decode JSON input")


def test_a_body_of_33_mib_is_too_large(server: ContractServer, key: str) -> None:
    body = json.dumps({"plaintext": "A" * (33 << 20)}).encode()
    try:
        answer = server.call("POST", f"{server.transit}/encrypt/{key}", body)
    except (BrokenPipeError, ConnectionResetError):
        return  # A server may close before it has read everything.
    assert (answer.status, answer.errors) == (413, ["http: request body too large"])


def test_a_double_slash_is_redirected(server: ContractServer, key: str) -> None:
    answer = server.call("POST", f"{server.transit}//encrypt/{key}", {"plaintext": DEK, "context": CONTEXT})
    assert answer.status == 307
    assert answer.headers["location"] == f"/v1/{server.transit}/encrypt/{key}"


def test_a_trailing_slash_cannot_be_written_to(server: ContractServer, key: str) -> None:
    answer = server.call("POST", f"{server.transit}/encrypt/{key}/", {"plaintext": DEK, "context": CONTEXT})
    assert (answer.status, answer.errors) == (400, ["cannot write to a path ending in '/'"])


def test_an_unknown_mount(server: ContractServer) -> None:
    path = f"{server.named('nowhere')}/keys/k"
    answer = server.call("GET", path)
    assert answer.status == 404
    assert answer.errors[0].startswith("no handler for route ")
    token = server.token_for('path "{transit}/keys/+" { capabilities = ["read"] }')
    assert server.call("GET", path, token=token).status == 403


@pytest.mark.parametrize(("words", "status"), [("1", 200), ("t", 200), ("x", 400)])
def test_a_list_by_query(server: ContractServer, key: str, words: str, status: int) -> None:
    answer = server.call("GET", f"{server.transit}/keys?list={words}")
    assert answer.status == status
    assert status != 200 or key in answer.data["keys"]


def test_a_name_cannot_be_listed(server: ContractServer, key: str) -> None:
    answer = server.call("LIST", f"{server.transit}/keys/{key}")
    assert (answer.status, answer.errors) == (404, ["1 error occurred:\n\t* unsupported path\n\n"])


def test_a_quota_of_a_mount_that_is_not_there(server: ContractServer) -> None:
    path = f"{server.named('nowhere')}/"
    answer = server.call("POST", f"sys/quotas/rate-limit/{server.named('quota')}", {"rate": 5, "path": path})
    assert (answer.status, answer.errors) == (400, [f'invalid mount path "{path}"'])


@pytest.mark.parametrize("above", ["sys", "auth"])
def test_a_mount_below_what_is_the_servers_own(server: ContractServer, above: str) -> None:
    path = f"{above}/{server.named('odd')}"
    answer = server.call("POST", f"sys/mounts/{path}", {"type": "transit"})
    assert (answer.status, answer.errors) == (400, [f'cannot mount "{path}/"'])


def test_health_of_an_active_node(server: ContractServer) -> None:
    answer = server.call("GET", "sys/health", token="", namespace="")
    assert answer.status == 200
    body = answer.body
    assert (body["initialized"], body["sealed"], body["standby"]) == (True, False, False)
    assert body["version"]
    assert "request_id" not in body


def test_health_by_head_has_no_body(server: ContractServer) -> None:
    parts = urlsplit(server.address)
    assert parts.hostname is not None
    if parts.scheme == "https":
        assert server.call("HEAD", "sys/health", token="", namespace="").status == 200
        return
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("HEAD", "/v1/sys/health")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    connection.close()


def test_seal_status(server: ContractServer) -> None:
    answer = server.call("GET", "sys/seal-status", token="", namespace="")
    assert (answer.status, answer.body["sealed"], answer.body["initialized"]) == (200, False, True)


def test_mounts_are_listed_with_their_options(server: ContractServer) -> None:
    answer = server.call("GET", "sys/mounts")
    mount = answer.data[f"{server.kv}/"]
    assert (mount["type"], mount["options"]) == ("kv", {"version": "2"})
    assert mount == answer.body[f"{server.kv}/"]
    assert answer.data[f"{server.transit}/"]["type"] == "transit"


def test_a_mount_in_use_is_refused(server: ContractServer) -> None:
    answer = server.call("POST", f"sys/mounts/{server.transit}", {"type": "transit"})
    assert answer.status == 400
    assert answer.errors[0].startswith("path is already in use at ")


def test_a_mount_that_is_not_there(server: ContractServer) -> None:
    path = server.named("nowhere")
    answer = server.call("GET", f"sys/mounts/{path}")
    assert (answer.status, answer.errors) == (400, [f"No secret engine mount at {path}/"])
    answer = server.call("GET", f"sys/mounts/{path}/tune")
    assert (answer.status, answer.errors) == (400, [f'cannot fetch sysview for path "{path}/"'])


def test_audit_devices_are_listed(server: ContractServer) -> None:
    answer = server.call("GET", "sys/audit")
    assert answer.status == 200
    assert isinstance(answer.data, dict)


def test_capabilities_of_no_path(server: ContractServer) -> None:
    answer = server.call("POST", "sys/capabilities-self", {})
    assert (answer.status, answer.errors) == (400, ["paths must be supplied"])


def test_an_unknown_kind_of_mount_is_refused(server: ContractServer) -> None:
    assert server.call("POST", f"sys/mounts/{server.named('odd')}", {"type": "no-such-engine"}).status == 400


def test_an_unmounted_engine_is_gone_with_its_keys(server: ContractServer) -> None:
    mount = server.mount(server.fresh("short"), {"type": "transit"})
    server.done("POST", f"{mount}/keys/k", DERIVED)
    assert server.call("DELETE", f"sys/mounts/{mount}").status == 204
    assert server.call("GET", f"{mount}/keys/k").status == 404
    server.done("POST", f"sys/mounts/{mount}", {"type": "transit"})
    answer = server.call("GET", f"{mount}/keys/k")
    assert (answer.status, answer.body) == (404, {"errors": []})


@pytest.fixture
def limited(server: ContractServer) -> Iterator[str]:
    """A mount that lets three requests an hour through, and blocks for a while whoever sends more."""
    mount = server.mount(server.fresh("limited"), {"type": "transit"})
    quota = f"sys/quotas/rate-limit/{server.named(server.fresh('quota'))}"
    server.done("POST", f"{mount}/keys/k", DERIVED)
    server.done("POST", quota, {"path": f"{mount}/", "rate": 3, "interval": "1h", "block_interval": "10s"})
    try:
        yield mount
    finally:
        server.done("DELETE", quota)


def test_a_rate_limit(server: ContractServer, limited: str) -> None:
    answers = [server.call("GET", f"{limited}/keys/k") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[4].errors == [f'request path "{limited}/keys/k": rate limit quota exceeded']
    # Nor does a block interval bring the header by itself: a setting of the whole server does.
    assert "retry-after" not in answers[4].headers
    assert server.call("GET", "sys/health", token="", namespace="").status == 200


@pytest.fixture(scope="module")
def team(server: ContractServer) -> Iterator[str]:
    """A namespace of the suite's own."""
    if not server.flavour.has_namespaces:
        pytest.fail("no namespaces on this flavour: select other tests")
    name = server.named("team")
    server.done("POST", f"sys/namespaces/{name}")
    try:
        yield name
    finally:
        server.done("DELETE", f"sys/namespaces/{name}")


def test_a_namespace_by_header_and_by_path(server: ContractServer, team: str) -> None:
    inside = f"{server.namespace}/{team}".strip("/")
    assert server.call("POST", "sys/mounts/t", {"type": "transit"}, namespace=inside).status == 204
    assert server.call("POST", "t/keys/k", DERIVED, namespace=inside).status == 200
    assert server.call("GET", f"{team}/t/keys/k").data["name"] == "k"
    assert server.call("GET", "t/keys/k").status == 404


def test_an_unknown_namespace(server: ContractServer, team: str) -> None:
    answer = server.call("GET", "sys/mounts", namespace=server.named("nowhere"))
    assert answer.status == 404
    assert "namespace not found" in answer.errors[0]


def test_health_refuses_a_namespace(server: ContractServer, team: str) -> None:
    answer = server.call("GET", "sys/health", token="", namespace=team)
    assert answer.status == 400
    assert "operation unavailable in namespaces" in answer.errors[0]
