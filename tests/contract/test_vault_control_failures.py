"""The control plane while Vault fails in every way that the double can be made to: nodes, answers, tokens, time."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from canary import Canaries
from certificates import Certificates
from scripted_http import Seen, scripted_server
from vault_clusters import SECRET_ID, VaultCluster, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault
from vault_settings import make_settings, write_private

from ringfence_agent.vault import control, nodes
from ringfence_agent.vault.control import FixedToken, VaultControl
from ringfence_agent.vault.exchange import Patience
from ringfence_agent.vault.login import LOCKED_OUT, VaultLogin
from ringfence_agent.vault.nodes import Role
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.transit_wire import EncryptItem, OpenItem, TransitCiphertext
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError, RingfenceError
from ringfence_zones.secret import Secret


@pytest.fixture(scope="module")
def double() -> Iterator[VaultDouble]:
    with running_vault() as double:
        yield double


@pytest.fixture
def cluster(double: VaultDouble, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server_of(double), tmp_path) as cluster:
        yield cluster


@pytest.fixture
def three(tmp_path: Path) -> Iterator[VaultCluster]:
    """Three nodes; the standbys lag by 100 ms."""
    with running_vault(nodes=3) as vault, vault_cluster(server_of(vault), tmp_path) as cluster:
        yield cluster


def double_of(cluster: VaultCluster) -> VaultDouble:
    assert cluster.double is not None
    return cluster.double


def sealed_by(own: VaultControl) -> OpenItem:
    (sealed,) = own.batches.encrypt(WRAP_KEY, [EncryptItem(Secret(b"p" * 32), b"context", 1)])
    assert isinstance(sealed, TransitCiphertext)
    return OpenItem(sealed, b"context")


# Nodes


def test_everything_goes_to_the_active_node_so_that_a_write_is_read_back_at_once(three: VaultCluster) -> None:
    own = three.set_up_and_log_in()
    double_of(three).forget_requests()
    for number in range(20):
        path = f"ringfence/{three.name}/k-{number}"
        assert own.kv.write(path, {"n": number}, replaces=0) == 1
        found = own.kv.find(path)
        assert found is not None
        assert found.data == {"n": number}
    assert {seen["node"] for seen in double_of(three).requests() if "sys/health" not in seen["path"]} == {0}


def test_another_node_takes_over_between_two_calls(three: VaultCluster) -> None:
    own = three.set_up_and_log_in()
    double_of(three).step_down()
    assert own.transit.get(WRAP_KEY).latest_version == 1
    assert own.kv.write(f"ringfence/{three.name}/k", {}, replaces=0) == 1


def test_the_active_node_is_gone_and_what_only_opens_goes_on(three: VaultCluster) -> None:
    own = three.set_up_and_log_in()
    item = sealed_by(own)
    double_of(three).seal(0)
    assert own.batches.decrypt(WRAP_KEY, [item]) == [Secret(b"p" * 32)]


def test_without_an_active_node_standbys_open_and_nothing_else(three: VaultCluster) -> None:
    own = three.set_up_and_log_in()
    item = sealed_by(own)
    # Nobody says that it is active.
    with double_of(three).fault("status", path="sys/health", status=429, body={"standby": True, "sealed": False}):
        own.nodes.forget(three.addresses[0])
        assert own.batches.decrypt(WRAP_KEY, [item]) == [Secret(b"p" * 32)]
        with pytest.raises(ProtectorUnavailableError, match="no node of Vault is active") as caught:
            own.kv.write(f"ringfence/{three.name}/k", {}, replaces=0)
    assert not caught.value.may_have_changed
    assert caught.value.reason == "no_active_node"


def test_a_node_that_takes_requests_and_answers_none_is_left(
    three: VaultCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CALL", Patience(1.0, 0.3, 0.3))
    monkeypatch.setattr(nodes, "PROBE", Patience(1.0, 0.3, 0.3))
    own = three.set_up_and_log_in()
    item = sealed_by(own)
    with double_of(three).fault("hang", node=0):
        assert own.batches.decrypt(WRAP_KEY, [item]) == [Secret(b"p" * 32)]


def test_only_a_standby_is_named(three: VaultCluster, tmp_path: Path) -> None:
    settings = make_settings(three.addresses[1], tmp_path)
    with (
        VaultControl(settings, FixedToken(Secret(three.root_token.encode()))) as standby,
        pytest.raises(ProtectorUnavailableError, match="is a standby") as caught,
    ):
        standby.system.list_mounts()
    assert "name every node" in (caught.value.hint or "")


def test_sealed_is_said_and_over_when_it_is_over(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    double_of(cluster).seal()
    with pytest.raises(ProtectorUnavailableError, match="is sealed") as caught:
        own.transit.get(WRAP_KEY)
    assert caught.value.reason == "sealed"
    assert [health.role for health in own.nodes.probe_all()] == [Role.SEALED]
    double_of(cluster).unseal()
    assert own.transit.get(WRAP_KEY).latest_version == 1


def test_nobody_is_there(tmp_path: Path) -> None:
    with running_vault() as vault:
        address = vault.address
    with (
        VaultControl(make_settings(address, tmp_path), FixedToken()) as nobody,
        pytest.raises(ProtectorUnavailableError, match="is not answering") as caught,
    ):
        nobody.transit.create("k")
    assert not caught.value.may_have_changed


def test_tls_with_a_private_authority(certificates: Certificates, tmp_path: Path) -> None:
    with (
        running_vault(tls=certificates.server, ca_file=certificates.trusted) as vault,
        vault_cluster(server_of(vault), tmp_path) as cluster,
    ):
        assert cluster.set_up_and_log_in().transit.get(WRAP_KEY).latest_version == 1
        with (
            VaultControl(make_settings(vault.address, tmp_path), FixedToken()) as distrusting,
            pytest.raises(ProtectorUnavailableError, match="certificate is not trusted"),
        ):
            distrusting.system.list_mounts()


def test_through_an_agent_that_adds_the_token_everything_works_without_one(
    cluster: VaultCluster, tmp_path: Path
) -> None:
    token = cluster.set_up_and_log_in() and cluster.settings().token_file.read_text().strip()
    cluster.settings().token_file.unlink()

    def forward(seen: Seen) -> tuple[int, bytes]:
        """As a Vault Agent with use_auto_auth_token and require_request_header."""
        assert "x-vault-token" not in seen.headers
        assert seen.headers["x-vault-request"] == "true"
        answer = cluster.call(seen.method, seen.target.removeprefix("/v1/"), seen.body or None, token)
        return answer.status, b"" if answer.status == 204 else json.dumps(answer.body).encode()

    socket_path = tmp_path / "agent.sock"
    with scripted_server(forward, unix_socket=socket_path):
        auth = {"method": "agent", "socket": socket_path}
        own = cluster.own(make_settings([], tmp_path, cluster=cluster.name, kv_mount=cluster.kv_mount, auth=auth))
        assert own.batches.decrypt(WRAP_KEY, [sealed_by(own)]) == [Secret(b"p" * 32)]
        assert own.kv.write(f"ringfence/{cluster.name}/k", {"a": 1}, replaces=0) == 1
        assert own.kv.list_names(f"ringfence/{cluster.name}") == ["k"]
        assert own.tokens.renew_self().lease_s == 3600
    with pytest.raises(ProtectorUnavailableError, match="is not answering"):
        own.transit.get(WRAP_KEY)


def test_an_agent_that_passes_tokens_on_takes_an_administrator_s(tmp_path: Path) -> None:
    with running_vault(with_unix_socket=True) as vault:
        settings = make_settings([], tmp_path, auth={"method": "agent", "socket": vault.unix_socket})
        with VaultControl(settings, FixedToken(Secret(vault.root_token.encode()))) as server:
            assert "sys" in server.system.list_mounts()


# Answers


@pytest.mark.parametrize("action", ["execute_then_status", "execute_then_drop", "truncate"])
def test_a_rotation_whose_answer_was_lost_is_not_made_twice(action: str, cluster: VaultCluster) -> None:
    cluster.set_up()
    keys = cluster.administrator().transit
    with double_of(cluster).fault(action, path="/rotate$", method="POST") as rule:
        assert keys.rotate(WRAP_KEY, from_version=1).latest_version == 2
        assert double_of(cluster).met(rule) == 1
    assert keys.get(WRAP_KEY).latest_version == 2


def test_a_write_whose_answer_was_lost_says_that_it_may_have_been_made(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    path = f"ringfence/{cluster.name}/k"
    with (
        double_of(cluster).fault("execute_then_drop", path="/data/", method="POST"),
        pytest.raises(ProtectorUnavailableError) as caught,
    ):
        own.kv.write(path, {"a": 1}, replaces=0)
    assert caught.value.may_have_changed
    found = own.kv.find(path)
    assert found is not None
    assert found.data == {"a": 1}


def test_a_full_audit_device_looks_like_an_outage_and_passes(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    item = sealed_by(own)
    # Health goes on to say 200.
    with (
        double_of(cluster).fault("status", path="^(?!sys/health)", status=500),
        pytest.raises(ProtectorUnavailableError) as caught,
    ):
        own.batches.decrypt(WRAP_KEY, [item])
    assert "audit" in (caught.value.hint or "")
    assert own.batches.decrypt(WRAP_KEY, [item]) == [Secret(b"p" * 32)]


def test_a_throttled_call_is_repeated_after_what_the_server_asks_for(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    limited = {"errors": ["request path: rate limit quota exceeded"]}
    with double_of(cluster).fault(
        "status", path="/keys/", status=429, body=limited, headers={"Retry-After": "0"}, times=2
    ):
        assert own.transit.get(WRAP_KEY).latest_version == 1


def test_an_answer_that_is_no_json_is_none(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    with (
        double_of(cluster).fault("status", path="/keys/", status=200, body="<html>"),
        pytest.raises(ProtectorUnavailableError, match="is not Vault") as caught,
    ):
        own.transit.find(WRAP_KEY)
    assert "html" not in caught.value.message


# Logins


def test_five_wrong_secrets_lock_a_role_out_unless_setup_switched_that_off(cluster: VaultCluster) -> None:
    cluster.set_up()
    good = cluster.give_repeatable_secret_id()
    login = VaultLogin(cluster.repeatable_settings())

    def fail_five_times() -> None:
        write_private(cluster.directory / SECRET_ID, "00000000-0000-0000-0000-000000000000")
        for _ in range(5):
            with suppress(ProtectorRefusedError):
                login.log_in()
        write_private(cluster.directory / SECRET_ID, good)

    fail_five_times()
    assert login.log_in().lease_s == 3600, "setup switched the lockout off"
    tune = {"user_lockout_config": {"lockout_disable": False}}
    cluster.done("POST", f"sys/auth/{cluster.approle_mount}/tune", tune)
    fail_five_times()
    with pytest.raises(ProtectorRefusedError, match="locked out") as caught:
        login.log_in()
    assert caught.value.reason == LOCKED_OUT
    double_of(cluster).advance(15 * 60 + 1)
    assert login.log_in().lease_s == 3600


def test_what_came_out_of_a_wrapping_survives_an_outage_in_between(cluster: VaultCluster) -> None:
    cluster.issue(cluster.set_up())
    login = VaultLogin(cluster.settings())
    with double_of(cluster).fault("status", path="/login$", status=503), pytest.raises(ProtectorUnavailableError):
        login.log_in()
    assert login.log_in().lease_s == 3600


def test_a_wrapping_that_ran_out_is_an_alarm(cluster: VaultCluster) -> None:
    cluster.issue(cluster.set_up())
    double_of(cluster).advance(601)
    with pytest.raises(ProtectorRefusedError, match="it has run out"):
        VaultLogin(cluster.settings()).log_in()


def test_hashicorp_s_vault_is_set_up_and_logged_in_to_as_well(tmp_path: Path) -> None:
    with (
        running_vault(flavour="hashicorp") as vault,
        vault_cluster(server_of(vault), tmp_path) as cluster,
    ):
        own = cluster.set_up_and_log_in()
        assert own.batches.decrypt(WRAP_KEY, [sealed_by(own)]) == [Secret(b"p" * 32)]
        own.tokens.revoke_self()
        with pytest.raises(ProtectorUnavailableError, match="does not take the token"):
            own.transit.get(WRAP_KEY)


# Secrets


def test_nothing_secret_is_in_a_log_an_error_or_a_representation(
    cluster: VaultCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canaries, texts = Canaries(), dict[str, str]()
    canaries.add("root token", cluster.root_token)
    canaries.add("wrapping token", cluster.issue(cluster.set_up()))
    own = cluster.own()
    plain = b"canary plaintext of a zone's key"
    canaries.add("plaintext", plain)
    canaries.add("record", "canary record's value")
    settings = cluster.settings()
    login = VaultLogin(settings)
    got = login.log_in()
    canaries.add("token", got.token.reveal())
    write_private(settings.token_file, got.token.reveal())
    canaries.add("secret id", cluster.give_repeatable_secret_id())
    repeatable = VaultLogin(cluster.repeatable_settings())
    item = sealed_by(own)

    def everything() -> None:
        for name, call in {
            "encrypt": lambda: own.batches.encrypt(WRAP_KEY, [EncryptItem(Secret(plain), b"context", 1)]),
            "decrypt": lambda: own.batches.decrypt(WRAP_KEY, [item, OpenItem(item.ciphertext, b"another")]),
            "write": lambda: own.kv.write(f"ringfence/{cluster.name}/k", {"v": "canary record's value"}, replaces=0),
            "read": lambda: own.kv.find(f"ringfence/{cluster.name}/k"),
            "create": lambda: own.transit.create("z-one"),
            "log in": login.log_in,
            "log in again": repeatable.log_in,
            "renew": own.tokens.renew_self,
            "find self": own.tokens.find_self,
        }.items():
            try:
                texts[f"{name} {len(texts)}"] = repr(call())
            except RingfenceError as error:
                texts[f"{name} {len(texts)}"] = _all_of(error)

    everything()
    for action, status in (
        ("status", 400),
        ("status", 403),
        ("status", 500),
        ("execute_then_status", 400),
        ("execute_then_drop", 0),
        ("truncate", 0),
    ):
        with double_of(cluster).fault(action, path="^(?!sys/health)", status=status or 500):
            everything()
    texts["representations"] = repr([own, vars(own), login, vars(login), repeatable, vars(repeatable), got])
    texts["log"] = caplog.text
    assert canaries.find_in_texts(texts) == {}
    texts["planted"] = f"X-Vault-Token: {got.token.reveal().decode()}"
    assert canaries.find_in_texts(texts) == {"planted": {"token"}}


def _all_of(error: BaseException | None) -> str:
    parts = []
    while error is not None:
        parts += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def test_twenty_threads_share_one_control(cluster: VaultCluster) -> None:
    own = cluster.set_up_and_log_in()
    item = sealed_by(own)
    results: list[object] = []

    def work() -> None:
        for _ in range(5):
            results.append(own.batches.decrypt(WRAP_KEY, [item])[0])
            results.append(own.transit.get(WRAP_KEY).latest_version)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(Secret(b"p" * 32)) == results.count(1) == 100
