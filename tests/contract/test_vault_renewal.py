"""The token kept alive against the double, whose clock moves as told; turns are taken by hand."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vault_clusters import SECRET_ID, WRAPPED, VaultCluster, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault
from vault_settings import write_private

from ringfence_agent.vault.login import VaultLogin
from ringfence_agent.vault.renewal import TokenKeeper
from ringfence_agent.vault.settings import VaultSettings


@pytest.fixture(scope="module")
def double() -> Iterator[VaultDouble]:
    with running_vault() as double:
        yield double


@pytest.fixture
def cluster(double: VaultDouble, tmp_path: Path) -> Iterator[VaultCluster]:
    with vault_cluster(server_of(double), tmp_path) as cluster:
        cluster.set_up()
        double.forget_requests()
        yield cluster


@pytest.fixture
def repeatable(cluster: VaultCluster) -> VaultSettings:
    """With a secret id that is good for every login."""
    cluster.give_repeatable_secret_id()
    return cluster.repeatable_settings()


class Clock:
    """Ours, beside the server's."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def keeper_of(settings: VaultSettings, clock: Clock | None = None, **fields: Any) -> TokenKeeper:
    """Without chance: everything is due at exactly half of its time."""
    return TokenKeeper(settings, clock=clock or Clock(), jitter=lambda: 0.5, **fields)


def token_in(settings: VaultSettings) -> str:
    return settings.token_file.read_text().strip()


def calls(cluster: VaultCluster, path: str) -> int:
    assert cluster.double is not None
    return len(cluster.double.requests(path))


def pass_time(cluster: VaultCluster, seconds: float) -> None:
    assert cluster.double is not None
    cluster.double.advance(seconds)


def test_without_a_token_the_first_turn_logs_in(repeatable: VaultSettings) -> None:
    keeper = keeper_of(repeatable)
    assert keeper.turn() == 60.0, "looked at at least once a minute"
    assert (keeper.state.logged_in, keeper.state.ttl_s, keeper.state.problem) == (True, 3600, None)
    assert token_in(repeatable)


def test_a_token_is_left_alone_until_half_of_its_life_and_then_renewed(
    cluster: VaultCluster, repeatable: VaultSettings
) -> None:
    keeper = keeper_of(repeatable)
    keeper.turn()
    token = token_in(repeatable)
    for passed, renewals in ((1000, 0), (790, 0), (20, 1), (100, 1), (1750, 2)):
        pass_time(cluster, passed)
        keeper.turn()
        assert calls(cluster, "renew-self") == renewals
    assert token_in(repeatable) == token
    assert calls(cluster, "/login") == 1
    assert keeper.state.ttl_s == 3600


def test_the_moment_of_renewal_differs_between_servers(cluster: VaultCluster, repeatable: VaultSettings) -> None:
    early = TokenKeeper(repeatable, clock=Clock(), jitter=lambda: 1.0)
    early.turn()
    pass_time(cluster, 1630)
    early.turn()
    assert calls(cluster, "renew-self") == 1
    late = TokenKeeper(repeatable, clock=Clock(), jitter=lambda: 0.0)
    pass_time(cluster, 1900)
    late.turn()
    assert calls(cluster, "renew-self") == 1
    pass_time(cluster, 100)
    late.turn()
    assert calls(cluster, "renew-self") == 2


def test_the_next_turn_is_when_something_is_due(cluster: VaultCluster, repeatable: VaultSettings) -> None:
    keeper = keeper_of(repeatable)
    keeper.turn()
    pass_time(cluster, 1770)
    assert 28 <= keeper.turn() <= 30


def test_a_token_that_was_revoked_is_replaced(cluster: VaultCluster, repeatable: VaultSettings) -> None:
    keeper = keeper_of(repeatable)
    keeper.turn()
    first = token_in(repeatable)
    cluster.call("POST", "auth/token/revoke-self", token=first)
    keeper.turn()
    assert token_in(repeatable) != first
    assert keeper.state.logged_in


def test_a_token_that_ended_is_replaced(cluster: VaultCluster, repeatable: VaultSettings) -> None:
    keeper = keeper_of(repeatable)
    keeper.turn()
    first = token_in(repeatable)
    pass_time(cluster, 3700)
    keeper.turn()
    assert token_in(repeatable) != first
    assert keeper.state.logged_in


def test_a_token_with_an_end_is_replaced_before_its_last_tenth(cluster: VaultCluster) -> None:
    cluster.give_repeatable_secret_id(token_period=0, token_ttl=1000, token_explicit_max_ttl=1000)
    settings = cluster.repeatable_settings()
    keeper = keeper_of(settings)
    keeper.turn()
    first = token_in(settings)
    pass_time(cluster, 600)
    keeper.turn()
    assert token_in(settings) == first
    assert keeper.state.problem is None, "it logs in by itself when the time has come"
    pass_time(cluster, 310)
    keeper.turn()
    assert token_in(settings) != first
    assert calls(cluster, "/login") == 2


def test_a_person_is_told_in_time_when_a_token_with_an_end_cannot_be_replaced(
    cluster: VaultCluster, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = cluster.set_up()
    role = f"auth/{cluster.approle_mount}/role/{cluster.settings().role}"
    cluster.done("POST", role, {"token_period": 0, "token_ttl": 1000, "token_explicit_max_ttl": 1000})
    cluster.issue(prepared)
    keeper = keeper_of(cluster.settings())
    keeper.turn()
    assert not keeper.state.needs_human
    pass_time(cluster, 600)
    keeper.turn()
    assert keeper.state.logged_in
    assert keeper.state.needs_human
    assert "a person must log the key server in" in (keeper.state.problem or "")
    keeper.turn()
    told = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(told) == 1, "said once, not each minute"


def test_a_spent_secret_id_takes_a_person_and_vault_is_not_asked_again(cluster: VaultCluster) -> None:
    prepared = cluster.set_up()
    cluster.issue(prepared)
    settings, clock = cluster.settings(), Clock()
    keeper = keeper_of(settings, clock)
    keeper.turn()
    settings.token_file.unlink()
    keeper.turn()
    assert not keeper.state.logged_in
    assert keeper.state.needs_human
    assert "was used up" in (keeper.state.problem or "")
    asked = calls(cluster, "sys/wrapping")
    for _ in range(3):
        assert keeper.turn() == 60.0
    assert calls(cluster, "sys/wrapping") == asked
    clock.now += 17 * 60
    keeper.turn()
    assert calls(cluster, "sys/wrapping") == asked + 1, "somebody may have put it right in Vault"
    (cluster.directory / WRAPPED).unlink()
    cluster.issue(prepared)
    keeper.turn()
    assert keeper.state.logged_in
    assert keeper.state.problem is None


def test_a_wrapping_that_somebody_took_is_an_alarm_in_the_log(
    cluster: VaultCluster, caplog: pytest.LogCaptureFixture
) -> None:
    taken = cluster.issue(cluster.set_up())
    cluster.call("POST", "sys/wrapping/unwrap", token=taken)
    keeper = keeper_of(cluster.settings())
    for _ in range(3):
        keeper.turn()
    assert keeper.state.needs_human
    alarms = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(alarms) == 1
    assert "SOMEBODY ELSE OPENED IT" in alarms[0].getMessage()


def test_a_worker_whose_neighbour_opened_the_wrapping_raises_no_alarm(cluster: VaultCluster) -> None:
    cluster.issue(cluster.set_up())
    first, second = keeper_of(cluster.settings()), keeper_of(cluster.settings())
    assert cluster.double is not None
    with cluster.double.fault("status", path="/login$", status=503):
        first.turn()
        second.turn()
    assert "was used up" in (second.state.problem or "")
    first.turn()
    second.turn()
    assert first.state.logged_in
    assert (second.state.logged_in, second.state.problem) == (True, None)


def test_a_lockout_is_waited_out_and_no_attempt_made_meanwhile(
    cluster: VaultCluster, repeatable: VaultSettings
) -> None:
    clock = Clock()
    keeper = keeper_of(repeatable, clock)
    answer = {"errors": ["permission denied"]}
    assert cluster.double is not None
    with cluster.double.fault("status", path="/login$", status=403, body=answer):
        keeper.turn()
        assert "locked out" in (keeper.state.problem or "")
        assert not keeper.state.needs_human
        for _ in range(14):
            clock.now += 60
            keeper.turn()
        assert calls(cluster, "/login") == 1
    clock.now += 120
    keeper.turn()
    assert keeper.state.logged_in
    assert calls(cluster, "/login") == 2


def test_a_method_that_knows_no_lockout_tries_again_each_minute(cluster: VaultCluster) -> None:
    clock = Clock()
    jwt_file = write_private(cluster.directory / "jwt", "not.a.jwt")
    auth = {"method": "jwt", "mount": f"jwt-{cluster.name}", "role": "kms", "jwt_file": jwt_file}
    cluster.done("POST", f"sys/auth/jwt-{cluster.name}", {"type": "jwt"})
    keeper = keeper_of(cluster.settings(auth=auth), clock)
    for minute, attempts in enumerate((1, 1, 2)):
        clock.now += 40 * bool(minute)
        keeper.turn()
        assert calls(cluster, "/login") == attempts
    assert keeper.state.needs_human
    cluster.done("DELETE", f"sys/auth/jwt-{cluster.name}")


def test_a_vault_that_is_away_costs_no_token(cluster: VaultCluster, repeatable: VaultSettings) -> None:
    keeper = keeper_of(repeatable)
    keeper.turn()
    token = token_in(repeatable)
    assert cluster.double is not None
    cluster.double.seal()
    waits = [keeper.turn() for _ in range(3)]
    assert waits == sorted(waits)
    assert waits[-1] <= 60
    assert (keeper.state.logged_in, keeper.state.needs_human) == (True, False)
    assert "sealed" in (keeper.state.problem or "")
    cluster.double.unseal()
    keeper.turn()
    assert (keeper.state.logged_in, keeper.state.problem) == (True, None)
    assert token_in(repeatable) == token


def test_of_many_processes_one_logs_in(cluster: VaultCluster, repeatable: VaultSettings) -> None:
    keepers = [keeper_of(repeatable) for _ in range(6)]
    threads = [threading.Thread(target=keeper.turn) for keeper in keepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls(cluster, "/login") == 1
    for keeper in keepers:
        keeper.turn()
    assert all(keeper.state.logged_in for keeper in keepers)
    assert calls(cluster, "/login") == 1


def test_what_a_person_s_login_brought_is_taken_up(cluster: VaultCluster) -> None:
    prepared = cluster.set_up()
    settings = cluster.settings()
    write_private(cluster.directory / "vault-role-id", "x")
    write_private(cluster.directory / WRAPPED, "s.nothing")
    keeper = keeper_of(settings)
    keeper.turn()
    assert keeper.state.needs_human
    cluster.issue(prepared)
    token = VaultLogin(settings).log_in().token
    write_private(settings.token_file, token.reveal())
    keeper.turn()
    assert (keeper.state.logged_in, keeper.state.problem) == (True, None)


def test_somebody_else_s_token_is_renewed_and_never_replaced(cluster: VaultCluster) -> None:
    settings = cluster.settings(auth={"method": "token_file"})
    keeper = keeper_of(settings)
    keeper.turn()
    assert keeper.state.needs_human
    token = cluster.token_with(
        'path "auth/token/lookup-self" { capabilities = ["read"] }\n'
        'path "auth/token/renew-self" { capabilities = ["update"] }',
        period="1000s",
    )
    write_private(settings.token_file, token)
    keeper.turn()
    assert keeper.state.logged_in
    pass_time(cluster, 600)
    keeper.turn()
    assert (keeper.state.ttl_s, calls(cluster, "renew-self")) == (1000, 1)
    pass_time(cluster, 1100)
    keeper.turn()
    assert not keeper.state.logged_in
    assert "somebody else keeps" in (keeper.state.problem or "")


def test_a_token_without_end_is_left_alone(cluster: VaultCluster) -> None:
    settings = cluster.settings(auth={"method": "token_file"})
    write_private(settings.token_file, cluster.root_token)
    keeper = keeper_of(settings)
    assert keeper.turn() == 60.0
    assert keeper.state.logged_in
    assert calls(cluster, "renew-self") == 0


def test_a_login_s_file_that_is_not_private_is_a_person_s_business(
    cluster: VaultCluster, repeatable: VaultSettings
) -> None:
    (cluster.directory / SECRET_ID).chmod(0o644)
    keeper = keeper_of(repeatable)
    keeper.turn()
    assert keeper.state.needs_human
    assert SECRET_ID in (keeper.state.problem or "")
    (cluster.directory / SECRET_ID).chmod(0o600)
    keeper.turn()
    assert keeper.state.logged_in


def test_in_a_server_it_turns_by_itself_and_at_once_when_woken(
    cluster: VaultCluster, repeatable: VaultSettings
) -> None:
    keeper = keeper_of(repeatable)
    keeper.start()
    try:
        _until(lambda: keeper.state.logged_in)
        first = token_in(repeatable)
        cluster.call("POST", "auth/token/revoke-self", token=first)
        keeper.wake()
        _until(lambda: token_in(repeatable) != first)
    finally:
        keeper.stop()
    assert cluster.call("GET", "auth/token/lookup-self", token=token_in(repeatable)).status == 200


def test_the_thread_outlives_a_turn_that_breaks(
    repeatable: VaultSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, turn = keeper_of(repeatable), TokenKeeper.turn
    broken = iter([True])

    def break_once(self: TokenKeeper) -> float:
        if next(broken, False):
            raise OSError("canary of what an exception says")
        return turn(self)

    monkeypatch.setattr(TokenKeeper, "turn", break_once)
    keeper.start()
    try:
        _until(lambda: "OSError" in caplog.text)
        keeper.wake()
        _until(lambda: keeper.state.logged_in)
    finally:
        keeper.stop()
    assert "canary" not in caplog.text


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
