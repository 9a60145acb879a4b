"""The control plane against a scripted server: which node, how often, as whom, and what errors hold."""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from scripted_http import Answer, ScriptedServer, Seen, scripted_server
from vault_settings import make_settings, write_private

import ringfence_agent
from ringfence_agent.vault.control import FixedToken, TokenSource, VaultControl
from ringfence_agent.vault.refusal import Reason, VaultRefusedError
from ringfence_agent.vault.token_file import TokenFile
from ringfence_zones.errors import MissingExtraError, ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

TOKEN = "s.canary-token-0123456789"
HEALTH = b'{"initialized":true,"sealed":false,"standby":false,"version":"2.6.2"}'
KEY: dict[str, Any] = {
    "name": "k",
    "type": "aes256-gcm96",
    "derived": True,
    "exportable": False,
    "allow_plaintext_backup": False,
    "kdf": "hkdf_sha256",
    "latest_version": 1,
    "min_decryption_version": 1,
    "keys": {"1": 1700000000},
}

Handler = Callable[[Seen], Answer]


def data(value: Any) -> bytes:
    return json.dumps({"data": value}).encode()


def refusing(status: int, *errors: str) -> Answer:
    return status, json.dumps({"errors": list(errors)}).encode()


class Vault:
    """Scripted nodes; each answers `health` with its status and everything else with its handler."""

    def __init__(self, stack: ExitStack, *handlers: Handler, health: list[int] | None = None) -> None:
        self.health = health or [200] + [429] * (len(handlers) - 1)
        self.nodes: list[ScriptedServer] = [
            stack.enter_context(scripted_server(self._scripted(index, handler)))
            for index, handler in enumerate(handlers)
        ]

    def _scripted(self, index: int, handler: Handler) -> Handler:
        def script(seen: Seen) -> Answer:
            return (self.health[index], HEALTH) if seen.target == "/v1/sys/health" else handler(seen)

        return script

    def asked(self, node: int = 0) -> list[str]:
        return [f"{seen.method} {seen.target[4:]}" for seen in self.nodes[node].seen if "sys/health" not in seen.target]

    def control(self, directory: Path, tokens: TokenSource | None = None, **fields: Any) -> VaultControl:
        addresses = [f"http://127.0.0.1:{node.port}" for node in self.nodes]
        settings = make_settings(addresses, directory, **fields)
        return VaultControl(settings, tokens or FixedToken(Secret(TOKEN.encode())), sleep=lambda _: None)


@pytest.fixture
def stack() -> Any:
    with ExitStack() as stack:
        yield stack


def in_turn(*answers: Answer) -> Handler:
    """One after the other; the last for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_only_the_active_node_is_asked(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn((200, data(KEY))), in_turn((200, data(KEY))), health=[429, 200])
    assert vault.control(tmp_path).transit.get("k").latest_version == 1
    assert (vault.asked(0), vault.asked(1)) == ([], ["GET transit-c1/keys/k"])


def test_a_node_that_steps_down_meanwhile_is_left(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, lambda _: step_down(), in_turn((200, data(KEY))))

    def step_down() -> Answer:
        vault.health[:] = [429, 200]
        return 307, b"", {"Location": "http://127.0.0.1:1/"}

    assert vault.control(tmp_path).transit.create("k").name == "k"
    assert (vault.asked(0), vault.asked(1)) == (["POST transit-c1/keys/k"], ["POST transit-c1/keys/k"])


def test_a_node_that_died_is_left_at_once(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn((200, data(KEY)), None), in_turn((200, data(KEY))))
    control = vault.control(tmp_path)
    control.transit.get("k")
    vault.health[:] = [429, 200]
    assert control.transit.get("k").latest_version == 1
    assert (len(vault.asked(0)), len(vault.asked(1))) == (2, 1)


@pytest.mark.parametrize("status", [429, 473, 503, 472, 530, 307])
def test_a_change_that_was_not_carried_out_is_repeated(status: int, stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn(refusing(status, "no"), refusing(status, "no"), (200, data(KEY))))
    vault.control(tmp_path).transit.create("k")
    assert len(vault.asked()) == 3


@pytest.mark.parametrize("failure", [(500, b'{"errors":["internal error"]}'), (502, b""), None])
def test_a_change_that_may_have_been_carried_out_is_not(failure: Answer, stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn(failure))
    with pytest.raises(ProtectorUnavailableError) as caught:
        vault.control(tmp_path).transit.create("k")
    assert caught.value.may_have_changed
    assert len(vault.asked()) == 1


@pytest.mark.parametrize("failure", [(500, b'{"errors":["internal error"]}'), (502, b""), None])
def test_a_read_is_repeated_whatever_happened(failure: Answer, stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn(failure, (200, data(KEY))))
    assert vault.control(tmp_path).transit.find("k") is not None


def test_a_read_that_failed_changed_nothing(stack: ExitStack, tmp_path: Path) -> None:
    for failure in (None, (500, b'{"errors":["internal error"]}')):
        vault = Vault(stack, in_turn(failure))
        with pytest.raises(ProtectorUnavailableError) as caught:
            vault.control(tmp_path).transit.find("k")
        assert not caught.value.may_have_changed
        assert len(vault.asked()) == 4


def test_it_is_given_up_in_time_and_nothing_changed(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn(refusing(503, "Vault is sealed")))
    with pytest.raises(ProtectorUnavailableError, match="sealed") as caught:
        vault.control(tmp_path).transit.create("k")
    assert not caught.value.may_have_changed
    assert len(vault.asked()) <= 4


def test_retry_after_is_waited_for_and_not_beyond_the_deadline(stack: ExitStack, tmp_path: Path) -> None:
    waits: list[float] = []
    limited: Answer = (429, b"{}", {"Retry-After": "3"})
    vault = Vault(stack, in_turn(limited, (200, data(KEY))))
    settings = make_settings(f"http://127.0.0.1:{vault.nodes[0].port}", tmp_path)
    VaultControl(settings, FixedToken(), sleep=waits.append).transit.find("k")
    assert waits == [3.0]
    patient = Vault(stack, in_turn((429, b"{}", {"Retry-After": "3600"})))
    with pytest.raises(ProtectorUnavailableError, match="throttles"):
        patient.control(tmp_path).transit.find("k")
    assert len(patient.asked()) == 1


def test_every_redirect_ends_in_an_error(stack: ExitStack, tmp_path: Path) -> None:
    trap = stack.enter_context(scripted_server(lambda _: (200, data({"plaintext": "forged"}))))
    for status in (301, 302, 303, 307, 308):
        vault = Vault(stack, in_turn((status, b"", {"Location": f"http://127.0.0.1:{trap.port}/v1/x"})))
        with pytest.raises(ProtectorUnavailableError, match="redirect"):
            vault.control(tmp_path).transit.find("k")
    assert trap.seen == []


# Tokens


class Turning:
    """A token source that has another token when it reads again."""

    def __init__(self, first: str, second: str) -> None:
        self._tokens = [first, second]

    def current(self) -> Secret:
        return Secret(self._tokens[0].encode())

    def read_again(self) -> Secret:
        self._tokens = self._tokens[1:] or self._tokens
        return self.current()


def taking(good: str, answer: Answer) -> Handler:
    return lambda seen: answer if seen.headers.get("x-vault-token") == good else refusing(403, "permission denied")


def test_a_token_that_was_replaced_meanwhile_is_taken_up(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, taking("new", (200, data(KEY))))
    assert vault.control(tmp_path, Turning("old", "new")).transit.create("k").name == "k"
    assert vault.asked() == ["POST transit-c1/keys/k"] * 2


def test_a_dead_token_is_told_from_a_policy(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, taking("another", (200, data(KEY))))
    with pytest.raises(ProtectorUnavailableError, match="does not take the token: it expired") as dead:
        vault.control(tmp_path).transit.create("k")
    assert dead.value.reason == "token_dead"

    def forbidding(seen: Seen) -> Answer:
        return (200, data({"id": TOKEN})) if "lookup-self" in seen.target else refusing(403, "permission denied")

    with pytest.raises(VaultRefusedError, match="its policy does not allow it") as refused:
        Vault(stack, forbidding).control(tmp_path).transit.create("k")
    assert refused.value.status == 403


def test_an_empty_token_stays_empty(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "s.of-somebody-else")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".vault-token").write_text("s.of-somebody-else-again")
    vault = Vault(stack, in_turn((200, data(KEY))))
    vault.control(tmp_path, FixedToken()).transit.find("k")
    assert all("x-vault-token" not in seen.headers for seen in vault.nodes[0].seen)


def test_the_token_file_is_the_key_server_s(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, taking("first", (200, data(KEY))))
    path = write_private(tmp_path / "vault-token", "first\n")
    control = vault.control(tmp_path, TokenFile(path))
    assert control.transit.find("k") is not None
    path.unlink()
    write_private(path, "second\n")
    with pytest.raises(ProtectorUnavailableError, match="token"):
        control.as_identity(TokenFile(path)).transit.find("k")


def test_a_namespace_goes_with_every_call_but_health(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn((200, data(KEY))))
    vault.control(tmp_path, namespace="team1").transit.create("k")
    namespaces = {seen.target[4:]: seen.headers.get("x-vault-namespace") for seen in vault.nodes[0].seen}
    assert namespaces == {"sys/health": None, "transit-c1/keys/k": "team1"}


# Keys and records


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("derived", False, "bound to nothing"),
        ("exportable", True, "exported"),
        ("allow_plaintext_backup", True, "backed up"),
        ("type", "chacha20-poly1305", "type is chacha20-poly1305"),
        ("kdf", "hmac-sha256-counter", "derives with"),
    ],
)
def test_a_key_that_is_not_what_was_asked_for_is_refused(
    field: str, value: object, fault: str, stack: ExitStack, tmp_path: Path
) -> None:
    vault = Vault(stack, in_turn((200, data({**KEY, field: value}))))
    with pytest.raises(ProtectorRefusedError, match=fault):
        vault.control(tmp_path).transit.create("k")


@pytest.mark.parametrize("field", ["derived", "exportable", "allow_plaintext_backup", "kdf"])
def test_a_key_that_does_not_say_is_refused_too(field: str, stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn((200, data({name: value for name, value in KEY.items() if name != field}))))
    with pytest.raises(ProtectorRefusedError, match="must not be used"):
        vault.control(tmp_path).transit.create("k")


@pytest.mark.parametrize("change", [{"name": "other"}, {"latest_version": 0}, {"latest_version": "x"}, {"keys": []}])
def test_an_answer_about_another_key_or_none_is_refused(
    change: dict[str, Any], stack: ExitStack, tmp_path: Path
) -> None:
    vault = Vault(stack, in_turn((200, data({**KEY, **change}))))
    if change == {"keys": []}:
        assert vault.control(tmp_path).transit.get("k").created_s == {}
        return
    with pytest.raises(ProtectorRefusedError, match="no description"):
        vault.control(tmp_path).transit.create("k")


def test_a_create_whose_answer_has_no_key_is_looked_at(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn((204, b""), (200, data(KEY))))
    assert vault.control(tmp_path).transit.create("k").latest_version == 1
    assert vault.asked() == ["POST transit-c1/keys/k", "GET transit-c1/keys/k"]


def test_a_rotation_that_failed_is_looked_at_before_anything_else(stack: ExitStack, tmp_path: Path) -> None:
    done = Vault(stack, in_turn((500, b'{"errors":["internal error"]}'), (200, data({**KEY, "latest_version": 2}))))
    assert done.control(tmp_path).transit.rotate("k", from_version=1).latest_version == 2
    assert done.asked() == ["POST transit-c1/keys/k/rotate", "GET transit-c1/keys/k"]
    not_done = Vault(stack, in_turn((500, b'{"errors":["internal error"]}'), (200, data(KEY))))
    with pytest.raises(ProtectorUnavailableError):
        not_done.control(tmp_path).transit.rotate("k", from_version=1)


def test_a_missing_mount_is_not_taken_for_a_missing_key(stack: ExitStack, tmp_path: Path) -> None:
    vault = Vault(stack, in_turn(refusing(404), refusing(404, 'no handler for route "transit-c1/keys/k"')))
    control = vault.control(tmp_path)
    assert control.transit.find("k") is None
    with pytest.raises(VaultRefusedError) as caught:
        control.transit.find("k")
    assert caught.value.reason is Reason.NO_ROUTE


def test_a_record_that_somebody_deleted_is_not_taken_for_none(stack: ExitStack, tmp_path: Path) -> None:
    gone = json.dumps({"data": {"data": None, "metadata": {"version": 3, "deletion_time": "2026-01-01"}}}).encode()
    vault = Vault(stack, in_turn((404, gone), refusing(404)))
    control = vault.control(tmp_path)
    found = control.kv.find("ringfence/c1/k-abc")
    assert found is not None
    assert (found.version, found.data) == (3, None)
    assert control.kv.find("ringfence/c1/k-abc") is None


def test_a_lost_race_is_none_and_every_write_names_what_it_replaces(stack: ExitStack, tmp_path: Path) -> None:
    lost = refusing(400, "check-and-set parameter did not match the current version")
    vault = Vault(stack, in_turn((200, data({"version": 1})), lost))
    kv = vault.control(tmp_path).kv
    assert [kv.write("p", {"a": 1}, replaces=0), kv.write("p", {"a": 2}, replaces=0)] == [1, None]
    bodies = [json.loads(seen.body) for seen in vault.nodes[0].seen if seen.method == "POST"]
    assert [body["options"] for body in bodies] == [{"cas": 0}, {"cas": 0}]


# Secrets


@pytest.mark.parametrize("status", [200, 400, 403, 404, 413, 500, 503])
def test_no_error_log_or_repr_holds_a_token_or_a_body(
    status: int, stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"data": {"batch_results": [{"plaintext": "canary-body"}]}, "errors": ["canary-error"]}).encode()
    vault = Vault(stack, in_turn((status, body)))
    control = vault.control(tmp_path)
    texts = [repr(control), repr(vars(control))]
    for call in (
        lambda: control.transit.create("k"),
        lambda: control.kv.write("p", {"secret": "canary-record"}, 0),
        lambda: control.tokens.unwrap(Secret(b"canary-wrapping")),
        lambda: control.system.find_policy("p"),
        control.tokens.renew_self,
    ):
        try:
            texts.append(repr(call()))
        except (ProtectorRefusedError, ProtectorUnavailableError) as error:
            texts += [str(error), repr(error), repr(vars(error)), repr(error.__cause__), repr(error.__context__)]
    joined = "\n".join([*texts, caplog.text])
    assert "canary-token" not in joined
    if status != 200:
        assert "canary" not in joined


def test_hvac_is_imported_in_one_file() -> None:
    package = Path(ringfence_agent.__file__).parent
    importing = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if re.search(r"^\s*(import|from) hvac\b", file.read_text(), re.MULTILINE)
    }
    assert importing == {"vault/control.py"}


def test_without_hvac_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    monkeypatch.delitem(sys.modules, "ringfence_agent.vault.control")
    with pytest.raises(MissingExtraError) as caught:
        importlib.import_module("ringfence_agent.vault.control")
    assert caught.value.extra == "vault"
