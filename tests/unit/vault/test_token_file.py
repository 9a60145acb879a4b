"""The token file: what is read, what is refused, and when it is looked at again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ringfence_agent.vault import token_file
from ringfence_agent.vault.token_file import TokenFile
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError, RingfenceError
from ringfence_zones.secret import Secret

CANARY = b"hvs.canary-token"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault-token"


@pytest.fixture
def looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "_LOOK_EVERY_S", 0.0)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_token_is_the_file_without_its_last_line_break(path: Path, end: bytes) -> None:
    replace_file(path, CANARY + end)
    assert TokenFile(path).current() == Secret(CANARY)


@pytest.mark.usefixtures("looks_always")
def test_a_replaced_file_is_read_again_and_an_unchanged_one_is_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(path, CANARY)
    tokens = TokenFile(path)
    first = tokens.current()
    assert tokens.current() is first
    replace_file(path, b"hvs.next-canary!")
    assert tokens.current() == Secret(b"hvs.next-canary!")


def test_its_age_is_that_of_the_file(path: Path) -> None:
    replace_file(path, CANARY)
    os.utime(path, (0, time.time() - 100))
    tokens = TokenFile(path)
    tokens.current()
    assert 100 <= tokens.written_s_ago() < 110


def test_the_file_is_looked_at_once_a_second_at_most(path: Path) -> None:
    replace_file(path, CANARY)
    tokens = TokenFile(path)
    tokens.current()
    replace_file(path, b"hvs.next")
    assert tokens.current() == Secret(CANARY)
    assert tokens.read_again() == Secret(b"hvs.next")
    assert tokens.current() == Secret(b"hvs.next")


@pytest.mark.usefixtures("looks_always")
def test_a_file_that_is_gone_ends_the_use_of_what_was_in_it(path: Path) -> None:
    replace_file(path, CANARY)
    tokens = TokenFile(path)
    tokens.current()
    path.unlink()
    for _ in range(2):
        with pytest.raises(ProtectorUnavailableError, match="nobody is logged in") as caught:
            tokens.current()
        assert "`ringfence vault login`" in (caught.value.hint or "")
    replace_file(path, b"hvs.back")
    assert tokens.current() == Secret(b"hvs.back")


def test_a_token_that_could_not_be_read_again_is_not_used_for_another_second(path: Path) -> None:
    replace_file(path, CANARY)
    tokens = TokenFile(path)
    tokens.current()
    path.unlink()
    for read in (tokens.read_again, tokens.current):
        with pytest.raises(ProtectorUnavailableError):
            read()


@pytest.mark.usefixtures("looks_always")
def test_rights_taken_by_others_later_are_noticed(path: Path) -> None:
    replace_file(path, CANARY)
    tokens = TokenFile(path)
    tokens.current()
    path.chmod(0o640)
    with pytest.raises(ProtectorRefusedError, match="mode 0640") as caught:
        tokens.current()
    assert caught.value.command == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o610, 0o700, 0o666])
def test_a_file_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    replace_file(path, CANARY, mode)
    with pytest.raises(ProtectorRefusedError, match=f"mode {mode:04o}"):
        TokenFile(path).current()


def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(path, CANARY)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ProtectorRefusedError, match="belongs to uid"):
        TokenFile(path).current()


def test_a_link_a_directory_and_a_pipe_are_refused_and_hold_up_nobody(tmp_path: Path) -> None:
    replace_file(tmp_path / "real", CANARY)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "."):
        with pytest.raises(ProtectorRefusedError):
            TokenFile(tmp_path / name).current()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", CANARY + b"\r\n", CANARY + b"\nX-Vault-Namespace: other", b"two words", b"\xc3\xa9", b"x" * 9000],
)
def test_what_could_not_be_a_header_is_not_a_token_and_is_not_quoted(path: Path, content: bytes) -> None:
    replace_file(path, content)
    with pytest.raises(ProtectorRefusedError, match="does not hold a token") as caught:
        TokenFile(path).current()
    assert "canary" not in f"{caught.value!r} {caught.value.hint}"


def test_the_token_does_not_print(path: Path) -> None:
    replace_file(path, CANARY)
    tokens = TokenFile(path)
    printed = f"{tokens!r} {tokens} {tokens.current()!r} {tokens.current()}"
    assert "canary" not in printed
    assert str(path) in printed


def test_every_refusal_says_what_to_do(path: Path) -> None:
    with pytest.raises(RingfenceError) as caught:
        TokenFile(path).current()
    assert caught.value.hint
