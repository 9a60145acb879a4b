"""Logging in by each method, against a scripted Vault: what is shown, what is checked first, what refusals mean."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from scripted_http import Answer, ScriptedServer, Seen, scripted_server
from vault_settings import make_settings, write_private

from ringfence_agent.vault.login import (
    LOCKED_OUT,
    NEEDS_HUMAN,
    TAMPERING,
    VaultLogin,
    log_in_and_share,
    write_token,
)
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.errors import ConfigError, ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

ROLE_ID = "11111111-2222-3333-4444-555555555555"
WRAPPING = "s.canary-wrapping-token-0123456789"
SECRET_ID = "canary-secret-id-0123456789"
TOKEN = "s.canary-new-token-0123456789"
ORIGIN = "auth/approle/role/ringfence-kms-c1/secret-id"
HEALTH = b'{"initialized":true,"sealed":false,"standby":false,"version":"2.6.2"}'
AUTH = {
    "client_token": TOKEN,
    "accessor": "acc-1",
    "policies": ["ringfence-service-c1"],
    "lease_duration": 3600,
    "renewable": True,
}


class FakeVault:
    """Answers health, wrapping and logins as told."""

    def __init__(self, **overrides: Answer) -> None:
        self.creation_path = ORIGIN
        self.opened = False
        self.overrides = overrides
        self.logins: list[dict[str, Any]] = []

    def __call__(self, seen: Seen) -> Answer:
        path = seen.target.removeprefix("/v1/")
        for part, answer in self.overrides.items():
            if part in path.replace("/", "_"):
                return answer
        body = json.loads(seen.body) if seen.body else {}
        if path == "sys/health":
            return 200, HEALTH
        if path == "sys/wrapping/lookup":
            assert "x-vault-token" not in seen.headers
            assert body == {"token": WRAPPING}
            return self._wrapped({"creation_path": self.creation_path, "creation_ttl": 600})
        if path == "sys/wrapping/unwrap":
            assert seen.headers["x-vault-token"] == WRAPPING
            answer = self._wrapped({"secret_id": SECRET_ID})
            self.opened = True
            return answer
        assert "x-vault-token" not in seen.headers
        self.logins.append({"path": path, **body})
        return 200, json.dumps({"auth": AUTH}).encode()

    def _wrapped(self, data: dict[str, Any]) -> Answer:
        if self.opened:
            return 400, b'{"errors":["wrapping token is not valid or does not exist"]}'
        return 200, json.dumps({"data": data}).encode()


def approle(server: ScriptedServer, directory: Path, **auth: Any) -> VaultSettings:
    write_private(directory / "role-id", ROLE_ID + "\n")
    write_private(directory / "wrapped", WRAPPING + "\n")
    given = {"role_id_file": directory / "role-id", "wrapped_secret_id_file": directory / "wrapped", **auth}
    return make_settings(f"http://127.0.0.1:{server.port}", directory, auth=given)


def test_a_wrapped_secret_id_logs_in_once_and_the_token_is_shared(tmp_path: Path) -> None:
    vault = FakeVault()
    with scripted_server(vault) as server:
        settings = approle(server, tmp_path)
        login = log_in_and_share(settings, VaultLogin(settings))
    assert vault.logins == [{"path": "auth/approle/login", "role_id": ROLE_ID, "secret_id": SECRET_ID}]
    assert (login.accessor, login.lease_s, login.policies) == ("acc-1", 3600, ("ringfence-service-c1",))
    assert settings.token_file.read_text() == TOKEN + "\n"
    assert settings.token_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "path", ["sys/wrapping/wrap", "auth/approle/role/other/secret-id", "auth/other/role/ringfence-kms-c1/secret-id", ""]
)
def test_what_was_not_made_for_our_role_is_not_opened(path: str, tmp_path: Path) -> None:
    vault = FakeVault()
    vault.creation_path = path
    with scripted_server(vault) as server:
        login = VaultLogin(approle(server, tmp_path))
        with pytest.raises(ProtectorRefusedError, match="SOMEBODY PUT IT THERE") as caught:
            login.log_in()
    assert caught.value.reason == TAMPERING
    assert (vault.opened, vault.logins) == (False, [])


def test_one_that_somebody_opened_already_is_an_alarm(tmp_path: Path) -> None:
    vault = FakeVault()
    vault.opened = True
    with scripted_server(vault) as server:
        login = VaultLogin(approle(server, tmp_path))
        with pytest.raises(ProtectorRefusedError, match="SOMEBODY ELSE OPENED IT") as caught:
            login.log_in()
    assert caught.value.reason == TAMPERING
    assert "revoke its" in (caught.value.hint or "")
    assert vault.logins == []


def test_one_that_we_used_up_is_none_also_for_another_process(tmp_path: Path) -> None:
    vault = FakeVault()
    with scripted_server(vault) as server:
        settings = approle(server, tmp_path)
        VaultLogin(settings).log_in()
        with pytest.raises(ProtectorRefusedError, match="was used up by an earlier login of this key server") as caught:
            VaultLogin(settings).log_in()
        assert caught.value.reason == NEEDS_HUMAN
        write_private(tmp_path / "wrapped", "s.another-that-is-spent-0123456789")
        vault.overrides["sys_wrapping_lookup"] = (400, b'{"errors":["wrapping token is not valid"]}')
        with pytest.raises(ProtectorRefusedError, match="SOMEBODY ELSE OPENED IT"):
            VaultLogin(settings).log_in()
    kept = (tmp_path / "vault-token.opened").read_text()
    assert WRAPPING not in kept
    assert SECRET_ID not in kept


def test_one_that_somebody_opens_while_we_look_is_an_alarm(tmp_path: Path) -> None:
    spent: Answer = (400, b'{"errors":["wrapping token is not valid or does not exist"]}')
    with scripted_server(FakeVault(sys_wrapping_unwrap=spent)) as server:
        settings = approle(server, tmp_path)
        for _ in range(2):
            with pytest.raises(ProtectorRefusedError, match="SOMEBODY ELSE OPENED IT"):
                VaultLogin(settings).log_in()


def test_nothing_is_opened_where_the_token_could_not_be_written(tmp_path: Path) -> None:
    vault = FakeVault()
    with scripted_server(vault) as server:
        settings = dataclasses.replace(approle(server, tmp_path), token_file=tmp_path / "nowhere/token")
        with pytest.raises(ConfigError, match="nowhere"):
            VaultLogin(settings).log_in()
    assert not vault.opened


def test_what_was_opened_is_kept_while_vault_is_away(tmp_path: Path) -> None:
    vault = FakeVault(auth_approle_login=(503, b'{"errors":["Vault is sealed"]}'))
    with scripted_server(vault) as server:
        login = VaultLogin(approle(server, tmp_path))
        with pytest.raises(ProtectorUnavailableError):
            login.log_in()
        assert vault.opened
        vault.overrides.clear()
        assert login.log_in().accessor == "acc-1"
        # Used up now: the next one must be another.
        with pytest.raises(ProtectorRefusedError, match="used up"):
            login.log_in()


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        ((400, b'{"errors":["invalid role or secret ID"]}'), NEEDS_HUMAN, "wrong, spent or has run out"),
        ((400, b'{"errors":["something else"]}'), NEEDS_HUMAN, "does not take what was shown"),
        ((403, b'{"errors":["permission denied"]}'), LOCKED_OUT, "locked out"),
    ],
)
def test_a_refused_login_says_what_it_takes(answer: Answer, reason: str, words: str, tmp_path: Path) -> None:
    write_private(tmp_path / "secret-id", SECRET_ID)
    with scripted_server(FakeVault(auth_approle_login=answer)) as server:
        settings = approle(server, tmp_path, wrapped_secret_id_file=None, secret_id_file=tmp_path / "secret-id")
        login = VaultLogin(settings)
        assert login.is_repeatable
        with pytest.raises(ProtectorRefusedError, match=words) as caught:
            login.log_in()
    assert caught.value.reason == reason
    assert not settings.token_file.exists()


def test_a_plain_secret_id_and_another_mount_and_role(tmp_path: Path) -> None:
    write_private(tmp_path / "secret-id", SECRET_ID)
    vault = FakeVault()
    with scripted_server(vault) as server:
        auth = {"wrapped_secret_id_file": None, "secret_id_file": tmp_path / "secret-id", "mount": "kms/approle"}
        VaultLogin(approle(server, tmp_path, **auth)).log_in()
    assert vault.logins == [{"path": "auth/kms/approle/login", "role_id": ROLE_ID, "secret_id": SECRET_ID}]


def test_a_jwt_is_read_anew_for_each_login(tmp_path: Path) -> None:
    vault = FakeVault()
    auth = {"method": "jwt", "role": "kms", "jwt_file": write_private(tmp_path / "jwt", "canary.jwt.one")}
    with scripted_server(vault) as server:
        login = VaultLogin(make_settings(f"http://127.0.0.1:{server.port}", tmp_path, auth=auth))
        assert login.is_repeatable
        login.log_in()
        write_private(tmp_path / "jwt", "canary.jwt.two")
        login.log_in()
    assert vault.logins == [
        {"path": "auth/jwt/login", "role": "kms", "jwt": "canary.jwt.one"},
        {"path": "auth/jwt/login", "role": "kms", "jwt": "canary.jwt.two"},
    ]


@pytest.mark.parametrize("auth", [{"method": "token_file"}, {"method": "agent", "socket": Path("/run/x.sock")}])
def test_nobody_logs_in_where_somebody_else_does(auth: dict[str, Any], tmp_path: Path) -> None:
    settings = make_settings([] if auth["method"] == "agent" else "http://127.0.0.1:1", tmp_path, auth=auth)
    login = VaultLogin(settings)
    assert not login.is_repeatable
    with pytest.raises(ConfigError, match="somebody else logs in"):
        login.log_in()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: path.unlink(), "cannot be opened"),
        (lambda path: path.chmod(0o640), "others than its owner"),
        (lambda path: path.write_text(""), "one line"),
        (lambda path: path.write_text("two\nlines"), "one line"),
        (lambda path: path.write_bytes(b"x" * 20000), "one line"),
        (
            lambda path: (path.rename(path.with_name("real")), path.symlink_to(path.with_name("real"))),
            "cannot be opened",
        ),
    ],
)
def test_a_secret_in_an_unsafe_or_useless_file_is_not_read(prepare: Any, words: str, tmp_path: Path) -> None:
    vault = FakeVault()
    with scripted_server(vault) as server:
        settings = approle(server, tmp_path)
        prepare(tmp_path / "wrapped")
        with pytest.raises(ConfigError, match=words) as caught:
            VaultLogin(settings).log_in()
    assert str(tmp_path / "wrapped") in caught.value.message
    assert not vault.opened


def test_a_token_file_that_cannot_be_written_is_named_and_the_token_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere") as caught:
        write_token(tmp_path / "nowhere/token", Secret(TOKEN.encode()))
    assert TOKEN not in repr(vars(caught.value))


def test_a_root_token_is_an_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = json.dumps({"auth": {**AUTH, "policies": ["root"]}}).encode()
    with scripted_server(FakeVault(auth_approle_login=(200, root))) as server:
        VaultLogin(approle(server, tmp_path)).log_in()
    assert "root token" in caplog.text


@pytest.mark.parametrize("auth", [None, {}, {"client_token": ""}, {"client_token": 5}, []])
def test_an_answer_without_a_token_is_no_login(auth: Any, tmp_path: Path) -> None:
    with scripted_server(FakeVault(auth_approle_login=(200, json.dumps({"auth": auth}).encode()))) as server:
        settings = approle(server, tmp_path)
        with pytest.raises(ProtectorRefusedError, match="without a token"):
            log_in_and_share(settings, VaultLogin(settings))
    assert not settings.token_file.exists()


def test_nothing_of_a_login_shows_in_logs_errors_or_representations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    answers: list[Answer] = [
        (200, json.dumps({"auth": AUTH}).encode()),
        (400, f'{{"errors":["{SECRET_ID} {TOKEN}"]}}'.encode()),
        (403, f'{{"errors":["{SECRET_ID}"]}}'.encode()),
        (500, f'{{"errors":["{SECRET_ID}"]}}'.encode()),
        None,
    ]
    for answer in answers:
        with scripted_server(FakeVault(auth_approle_login=answer)) as server:
            login = VaultLogin(approle(server, tmp_path))
            try:
                texts.append(repr(login.log_in()))
            except (ProtectorRefusedError, ProtectorUnavailableError) as error:
                texts += [str(error), repr(vars(error)), repr(error.__context__)]
            texts += [repr(login), repr(vars(login))]
    assert "canary" not in "\n".join([*texts, caplog.text])
