"""Bearer tokens: what is kept of them, what they are good for, and that they end."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from agent_api import Accounts
from canary import Canaries

from ringfence_agent.api.caller import Proof, Role, Verb
from ringfence_agent.api.tokens import MAX_LIFE_S, MAX_TOKENS, TokenBook, TokenWish
from ringfence_zones.errors import AccessDeniedError, AuthenticationError, ConfigError, InputError
from ringfence_zones.paths import HdfsPath

NOON = 1_700_000_000


class _Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api-tokens.json"


def _wish(role: Role = Role.OPERATOR, life_s: float = 600, **more: object) -> TokenWish:
    return TokenWish(user="etl", role=role, life_s=life_s, **more)  # type: ignore[arg-type]


def test_a_token_is_known_again_also_after_a_restart(path: Path, clock: _Clock) -> None:
    record, token = TokenBook(path, clock).issue(_wish(), "root (uid 0)")
    book = TokenBook(path, clock)
    assert book.find(token.reveal()) == record
    caller = book.find(token.reveal()).caller(Accounts())
    assert (caller.user, caller.proof, caller.token_id) == ("etl", Proof.TOKEN, record.name)
    assert caller.roles == Role.OPERATOR.included
    assert caller.verbs == Role.OPERATOR.verbs
    assert not caller.may_delegate


def test_only_its_hash_is_kept_in_a_file_that_is_ours_alone(path: Path, clock: _Clock) -> None:
    record, token = TokenBook(path, clock).issue(_wish(), "root")
    canaries = Canaries()
    canaries.add("the token", token.reveal())
    assert canaries.find(path.read_bytes()) == set()
    assert canaries.find(b"x" + token.reveal() + b"x") == {"the token"}
    assert json.loads(path.read_text())["tokens"][0]["digest"] == hashlib.sha256(token.reveal()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token.reveal().decode() not in repr((record, token))


def test_what_is_not_a_token_is_refused_with_the_same_words(path: Path, clock: _Clock) -> None:
    book = TokenBook(path, clock)
    record, token = book.issue(_wish(), "root")
    good = token.reveal()
    wrong = [
        b"",
        b"rfa-",
        good[:-1],
        good + b"x",
        good + b"\n",
        good[:-1] + (b"A" if good[-1:] != b"A" else b"B"),
        b"rfa-000000000000-" + good[17:],
        good.upper(),
        record.digest.encode(),
        bytes.fromhex(record.digest),
        b"rfa-" + record.name.encode() + b"-" + b"A" * 43,
        b"\xff" * 60,
    ]
    said = set()
    for presented in wrong:
        with pytest.raises(AuthenticationError) as caught:
            book.find(presented)
        said.add((caught.value.message, caught.value.hint))
    ((_, hint),) = said
    assert "ringfence agent token issue" in (hint or "")


def test_it_ends_by_time(path: Path, clock: _Clock) -> None:
    book = TokenBook(path, clock)
    _, token = book.issue(_wish(life_s=600), "root")
    clock.now += 599
    book.find(token.reveal())
    clock.now += 1
    with pytest.raises(AuthenticationError):
        book.find(token.reveal())
    assert book.list_alive() == []


def test_it_ends_at_once_when_it_is_revoked(path: Path, clock: _Clock) -> None:
    book = TokenBook(path, clock)
    record, token = book.issue(_wish(), "root")
    assert book.revoke(record.name)
    assert not book.revoke(record.name)
    for asked in (book, TokenBook(path, clock)):
        with pytest.raises(AuthenticationError):
            asked.find(token.reveal())


@pytest.mark.parametrize("life_s", [0, 59, MAX_LIFE_S + 1, float("inf"), float("nan")])
def test_a_life_is_between_a_minute_and_a_day(path: Path, clock: _Clock, life_s: float) -> None:
    with pytest.raises(InputError, match="24 h"):
        TokenBook(path, clock).issue(_wish(life_s=life_s), "root")


def test_a_scope_narrows_and_never_widens(path: Path, clock: _Clock) -> None:
    book = TokenBook(path, clock)
    record, _ = book.issue(
        _wish(verbs=frozenset({Verb.LOOK, Verb.TRANSFER}), paths=[HdfsPath.parse("/data/pii")]), "root"
    )
    caller = record.caller(Accounts())
    assert caller.verbs == {Verb.LOOK, Verb.TRANSFER}
    for verb in (Verb.GRANT, Verb.ADMINISTER):
        with pytest.raises(AccessDeniedError, match=verb.value):
            caller.require(verb)
    for inside in ("/data/pii", "/data/pii/x", "/.reserved/raw/data/pii/x", "/data/pii/.snapshot/s1/x"):
        caller.require_path(HdfsPath.parse(inside))
    for outside in ("/", "/data", "/data/pii2", "/.reserved/raw/data", "/data/.snapshot/s1/pii2"):
        with pytest.raises(AccessDeniedError, match="not good for"):
            caller.require_path(HdfsPath.parse(outside))
    with pytest.raises(InputError, match="does not entitle to administer"):
        book.issue(_wish(verbs=frozenset({Verb.ADMINISTER})), "root")
    with pytest.raises(InputError, match="nothing"):
        book.issue(_wish(verbs=frozenset()), "root")


def test_there_is_a_bound_and_ended_ones_make_room(path: Path, clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence_agent.api.tokens.MAX_TOKENS", 2)
    assert MAX_TOKENS == 1000
    book = TokenBook(path, clock)
    for _ in range(2):
        book.issue(_wish(life_s=600), "root")
    with pytest.raises(InputError, match="already"):
        book.issue(_wish(), "root")
    clock.now += 600
    book.issue(_wish(), "root")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schema_version": 1}', b'{"schema_version": 1, "tokens": [{"name": "x"}]}', b"\xff"],
)
def test_a_damaged_file_stops_the_start(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged"):
        TokenBook(path)


def test_a_file_of_another_version_or_of_everybody_stops_the_start(path: Path) -> None:
    path.write_text('{"schema_version": 2, "tokens": []}')
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="version 2"):
        TokenBook(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="by others"):
        TokenBook(path)
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="cannot read"):
        TokenBook(link)
