"""What only the double can show on order: sealing, standbys, redirects, hangs, torn answers. Not run on a real server.

The answers themselves were measured (vault-measured section 5); how to make a healthy server give them was not.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from certificates import Certificates
from vault_doubles import VaultDouble, running_vault

BODY = {"plaintext": "AAAA", "context": "AAAA"}
INTERNAL = {"errors": ["internal error"]}


@pytest.fixture(scope="module")
def shared() -> Iterator[VaultDouble]:
    """Three nodes with a key; each test clears its faults."""
    with running_vault(nodes=3) as running:
        running.call("POST", "sys/mounts/transit", {"type": "transit"})
        running.call("POST", "transit/keys/k", {"derived": True})
        _until(lambda: running.call("GET", "transit/keys/k", node=1).status == 200)
        yield running


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_sealed_server_refuses_everything_and_keeps_its_tokens(vault: VaultDouble) -> None:
    vault.call("POST", "sys/mounts/transit", {"type": "transit"})
    vault.call("POST", "transit/keys/k", {"derived": True})
    ciphertext = vault.call("POST", "transit/encrypt/k", BODY).data["ciphertext"]
    assert vault.call("PUT", "sys/seal").status == 204
    for method, path in (
        ("GET", "auth/token/lookup-self"),
        ("POST", "auth/approle/login"),
        ("POST", "transit/decrypt/k"),
        ("GET", "no/such/mount"),
    ):
        answer = vault.call(method, path)
        assert (answer.status, answer.body) == (503, {"errors": ["Vault is sealed"]})
    assert vault.call("GET", "sys/health", token="").status == 503
    status = vault.call("GET", "sys/seal-status", token="")
    assert (status.status, status.body["sealed"]) == (200, True)
    wrong = vault.call("PUT", "sys/unseal", {"key": "0" * 64}, token="")
    assert wrong.status == 400
    assert "cipher: message authentication failed" in wrong.errors[0]
    assert vault.call("PUT", "sys/unseal", {"key": vault.unseal_key}, token="").body["sealed"] is False
    opened = vault.call("POST", "transit/decrypt/k", {"ciphertext": ciphertext, "context": "AAAA"})
    assert opened.data["plaintext"] == "AAAA"


def test_health_overrides_are_honoured(vault: VaultDouble) -> None:
    """Which is why a client must never send them."""
    vault.seal()
    assert vault.call("GET", "sys/health?sealedcode=299", token="").status == 299


def test_a_server_that_is_not_initialized(vault: VaultDouble) -> None:
    vault.order("initialized", value=False)
    assert vault.call("GET", "sys/health", token="").status == 501
    assert vault.call("GET", "auth/token/lookup-self").status == 503


def test_a_standby_says_429_and_serves_reads(shared: VaultDouble) -> None:
    assert shared.call("GET", "sys/health", node=1, token="").status == 429
    assert shared.call("GET", "sys/health?standbyok=true", node=1, token="").status == 200
    assert shared.call("GET", "sys/health", node=1, token="").body["standby"] is True
    leader = shared.call("GET", "sys/leader", node=1, token="").body
    assert leader == {"ha_enabled": True, "leader_address": shared.addresses[0]}
    assert shared.call("GET", "sys/leader", token="").body["is_self"] is True
    ciphertext = shared.call("POST", "transit/encrypt/k", BODY, node=1).data["ciphertext"]
    for node in (0, 1, 2):
        body = {"ciphertext": ciphertext, "context": "AAAA"}
        assert shared.call("POST", "transit/decrypt/k", body, node=node).status == 200
        assert shared.call("POST", "transit/rewrap/k", body, node=node).status == 200


def test_a_standby_lags(shared: VaultDouble) -> None:
    """After a rotate it encrypts with the old version, and takes the new one's ciphertexts for too new."""
    before = shared.call("GET", "transit/keys/k").data["latest_version"]
    _until(lambda: shared.call("GET", "transit/keys/k", node=1).data["latest_version"] == before)
    with shared.frozen_standbys():
        assert shared.call("POST", "transit/keys/k/rotate").data["latest_version"] == before + 1
        fresh = shared.call("POST", "transit/encrypt/k", BODY).data["ciphertext"]
        body = {"ciphertext": fresh, "context": "AAAA"}
        behind = shared.call("POST", "transit/decrypt/k", body, node=1)
        assert (behind.status, behind.errors) == (400, ["invalid ciphertext: version is too new"])
        assert shared.call("POST", "transit/encrypt/k", BODY, node=1).data["key_version"] == before
        named = shared.call("POST", "transit/encrypt/k", {**BODY, "key_version": before + 1}, node=1)
        assert named.errors == ["requested version for encryption is higher than the latest key version"]
    _until(lambda: shared.call("POST", "transit/decrypt/k", body, node=1).status == 200)


def test_a_lag_may_be_set(shared: VaultDouble) -> None:
    shared.order("lag", seconds=0.5)
    try:
        shared.call("POST", "transit/keys/lagging", {"derived": True})
        _until(lambda: shared.call("GET", "transit/keys/lagging", node=2).status == 200)
        with pytest.raises(AssertionError, match="a lag is between"):
            shared.order("lag", seconds=-1.0)
    finally:
        shared.order("lag", seconds=0.1)


def test_a_write_through_a_standby_is_passed_on_or_redirected(shared: VaultDouble) -> None:
    before = shared.call("GET", "transit/keys/k").data["latest_version"]
    assert shared.call("POST", "transit/keys/k/rotate", node=1).data["latest_version"] == before + 1
    headers = {"X-Vault-No-Request-Forwarding": "true"}
    answer = shared.call("POST", "transit/keys/k/rotate", node=1, headers=headers)
    assert (answer.status, answer.body) == (307, {})
    assert answer.headers["location"] == f"{shared.addresses[0]}/v1/transit/keys/k/rotate"


def test_a_standby_is_sealed_alone(shared: VaultDouble) -> None:
    assert shared.call("PUT", "sys/seal", node=2).status == 204
    try:
        assert [shared.call("GET", "sys/health", node=node, token="").status for node in (0, 1, 2)] == [200, 429, 503]
        assert shared.call("POST", "transit/encrypt/k", BODY, node=2).body == {"errors": ["Vault is sealed"]}
    finally:
        shared.unseal(2)


def test_a_token_is_good_at_a_standby_at_once(shared: VaultDouble) -> None:
    """And dead there at once when it is revoked: tokens do not lag."""
    made = shared.call("POST", "auth/token/create", {"policies": ["default"], "num_uses": 2}).body["auth"]
    statuses = [
        shared.call("GET", "auth/token/lookup-self", token=made["client_token"], node=1).status for _ in range(3)
    ]
    assert statuses == [200, 200, 403]
    other = shared.call("POST", "auth/token/create", {"policies": ["default"]}).body["auth"]["client_token"]
    assert shared.call("POST", "auth/token/revoke-self", token=other).status == 204
    assert shared.call("GET", "auth/token/lookup-self", token=other, node=1).status == 403


def test_the_active_role_moves(shared: VaultDouble) -> None:
    shared.step_down()
    active = int(shared.order("active"))
    assert active != 0
    assert shared.call("GET", "sys/health", node=active, token="").status == 200
    assert shared.call("GET", "sys/health", node=0, token="").status == 429
    shared.seal(active)
    other = int(shared.order("active"))
    assert other != active
    assert shared.call("POST", "transit/encrypt/k", BODY, node=other).status == 200
    shared.unseal(active)
    while int(shared.order("active")) != 0:
        shared.step_down()


def test_an_audit_device_that_fails(shared: VaultDouble) -> None:
    """Every call with a token answers 500 and nothing is done; health stays 200."""
    before = shared.call("GET", "transit/keys/k").data["latest_version"]
    with shared.fault("status", path="^(?!sys/health)", status=500, body=INTERNAL):
        assert shared.call("GET", "sys/health", token="").status == 200
        for _ in range(3):
            answer = shared.call("POST", "transit/keys/k/rotate")
            assert (answer.status, answer.body) == (500, INTERNAL)
    assert shared.call("GET", "transit/keys/k").data["latest_version"] == before


def test_a_rotate_that_happened_and_answered_500(shared: VaultDouble) -> None:
    before = shared.call("GET", "transit/keys/k").data["latest_version"]
    with shared.fault("execute_then_status", path="/rotate$", times=1, status=500, body=INTERNAL) as rule:
        answer = shared.call("POST", "transit/keys/k/rotate")
        assert (answer.status, answer.body) == (500, INTERNAL)
        assert shared.call("GET", "transit/keys/k").data["latest_version"] == before + 1
        assert shared.met(rule) == 1


@pytest.mark.parametrize(("action", "is_done"), [("drop", False), ("execute_then_drop", True)])
def test_a_connection_that_closes_without_an_answer(shared: VaultDouble, action: str, is_done: bool) -> None:
    before = shared.call("GET", "transit/keys/k").data["latest_version"]
    with shared.fault(action, path="/rotate$", times=1), pytest.raises((http.client.HTTPException, OSError)):
        shared.call("POST", "transit/keys/k/rotate")
    assert shared.call("GET", "transit/keys/k").data["latest_version"] == before + is_done


def test_a_torn_answer(shared: VaultDouble) -> None:
    with shared.fault("truncate", path="/encrypt/"), pytest.raises(http.client.IncompleteRead):
        shared.call("POST", "transit/encrypt/k", BODY)


def test_a_hang_ends_with_the_fault(shared: VaultDouble) -> None:
    with ThreadPoolExecutor(1) as pool:
        with shared.fault("hang", path="/encrypt/") as rule:
            waiting = pool.submit(shared.call, "POST", "transit/encrypt/k", BODY)
            _until(lambda: shared.met(rule) == 1)
            assert shared.call("GET", "sys/health", token="").status == 200
            assert not waiting.done()
        assert isinstance(waiting.exception(10), http.client.HTTPException | OSError)


def test_a_hang_of_a_client_that_leaves(shared: VaultDouble) -> None:
    parts = urlsplit(shared.address)
    with shared.fault("hang", path="/encrypt/") as rule:
        connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
        connection.sendall(b"POST /v1/transit/encrypt/left HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        _until(lambda: shared.met(rule) == 1)
        connection.close()
        _until(lambda: shared.requests("encrypt/left")[0]["took_s"] > 0)


def test_latency(shared: VaultDouble) -> None:
    with shared.fault("delay", path="/encrypt/", seconds=0.2):
        began = time.monotonic()
        assert shared.call("POST", "transit/encrypt/k", BODY).status == 200
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3"}])
def test_throttling_on_order(shared: VaultDouble, headers: dict[str, str]) -> None:
    with shared.fault("status", path="/encrypt/", times=2, status=429, body={"errors": ["quota"]}, headers=headers):
        statuses = []
        for _ in range(3):
            answer = shared.call("POST", "transit/encrypt/k", BODY)
            statuses.append(answer.status)
            if answer.status == 429:
                assert answer.headers.get("retry-after") == headers.get("Retry-After")
    assert statuses == [429, 429, 200]


@pytest.mark.parametrize(
    ("quota", "retry_after"),
    [({"interval": "1s"}, {"0"}), ({"interval": "1h", "block_interval": "10s"}, {"9", "10"})],
)
def test_a_quota_says_when_to_come_back_where_the_server_is_set_so(
    vault: VaultDouble, quota: dict[str, str], retry_after: set[str]
) -> None:
    """A setting of the whole server, which the shared suite therefore leaves alone; rounded down, even to 0."""
    vault.call("POST", "sys/mounts/transit", {"type": "transit"})
    vault.call("POST", "sys/quotas/rate-limit/q", {"path": "transit/", "rate": 1, **quota})
    vault.call("POST", "sys/quotas/config", {"enable_rate_limit_response_headers": True})
    answers = [vault.call("LIST", "transit/keys") for _ in range(20)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert {answer.headers["retry-after"] for answer in refused} <= retry_after


def test_a_fresh_mount_of_kv_is_busy_with_itself(vault: VaultDouble) -> None:
    """Real servers answer so now and then, for some milliseconds, and standbys for a second."""
    vault.order("kv_upgrade", seconds=5.0)
    vault.call("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
    answer = vault.call("GET", "kv/config")
    assert answer.status == 400
    assert answer.errors[0].startswith("Upgrading from non-versioned to versioned data.")
    vault.advance(5.0)
    assert vault.call("GET", "kv/config").status == 200


def test_a_secret_id_is_swept_away_within_a_minute_of_its_end(vault: VaultDouble) -> None:
    vault.call("POST", "sys/auth/approle", {"type": "approle"})
    vault.call("POST", "auth/approle/role/r", {"secret_id_ttl": "10s"})
    role_id = vault.call("GET", "auth/approle/role/r/role-id").data["role_id"]
    body = {"role_id": role_id, "secret_id": vault.call("POST", "auth/approle/role/r/secret-id").data["secret_id"]}
    vault.advance(11)
    assert vault.call("POST", "auth/approle/login", body).status == 200
    vault.advance(60)
    assert vault.call("POST", "auth/approle/login", body).status == 400


def test_a_redirect_to_elsewhere(shared: VaultDouble) -> None:
    location = {"Location": "http://127.0.0.2:1/v1/transit/encrypt/k"}
    with shared.fault("status", path="/encrypt/", status=307, body=None, headers=location):
        answer = shared.call("POST", "transit/encrypt/k", BODY)
    assert (answer.status, answer.body, answer.headers["location"]) == (307, {}, location["Location"])


def test_a_body_that_is_no_json(shared: VaultDouble) -> None:
    with shared.fault("status", path="/encrypt/", status=200, body="<html>"), pytest.raises(json.JSONDecodeError):
        shared.call("POST", "transit/encrypt/k", BODY)


def test_a_fault_may_skip_and_may_name_a_node(shared: VaultDouble) -> None:
    with shared.fault("status", path="/encrypt/", skip=1, times=1, node=1, status=500):
        first = [shared.call("POST", "transit/encrypt/k", BODY, node=node).status for node in (0, 1, 0, 1, 1)]
    assert first == [200, 200, 200, 500, 200]


def test_a_fault_that_does_not_exist_is_refused(shared: VaultDouble) -> None:
    with pytest.raises(AssertionError, match="no such fault"), shared.fault("explode"):
        pass


def test_no_fault_can_be_ordered_through_the_api(shared: VaultDouble) -> None:
    for path in ("fault", "control", "sys/fault"):
        assert shared.call("POST", path, {"order": "fault", "action": "hang"}).status == 404


def test_requests_are_recorded_without_secrets(shared: VaultDouble) -> None:
    shared.forget_requests()
    items = [{"plaintext": "c2VjcmV0", "context": "AAAA"}] * 3
    shared.call("POST", "transit/encrypt/k", {"batch_input": items}, node=2)
    (seen,) = shared.requests("encrypt/")
    expected = {"node": 2, "method": "POST", "path": "transit/encrypt/k", "items": 3, "status": 200, "has_token": True}
    assert {name: seen[name] for name in expected} == expected
    everything = json.dumps(shared.requests())
    assert "c2VjcmV0" not in everything
    assert shared.root_token not in everything


def test_tls_with_a_private_authority(certificates: Certificates) -> None:
    with running_vault(tls=certificates.server, ca_file=certificates.trusted) as vault:
        assert vault.address.startswith("https://")
        assert vault.call("GET", "sys/health").status == 200
        parts = urlsplit(vault.address)
        stranger = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=10, context=ssl.create_default_context()
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.request("GET", "/v1/sys/health")
        stranger.close()


def test_a_unix_socket() -> None:
    with running_vault(with_unix_socket=True) as vault:
        assert vault.unix_socket is not None
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(vault.unix_socket))
            connection.sendall(b"GET /v1/sys/health HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
            with connection.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 200")


@pytest.mark.unconfirmed
def test_the_other_flavour_forwards_from_standbys_and_takes_more_strings() -> None:
    with running_vault(flavour="hashicorp", nodes=2, lag_s=5.0) as vault:
        vault.call("POST", "sys/mounts/transit", {"type": "transit"})
        vault.call("POST", "transit/keys/k", {"derived": True})
        items = [{"plaintext": "AAAA", "context": "AAAA"}] * 400
        assert vault.call("POST", "transit/encrypt/k", {"batch_input": items}, node=1).status == 200
        assert vault.call("DELETE", "transit/keys/k/soft-delete").status == 404


def test_the_double_ends_with_the_test_that_started_it() -> None:
    with running_vault() as vault:
        assert vault.process.stdin is not None
        vault.process.stdin.close()
        assert vault.process.wait(10) == 0
        vault.process.stdin = None
