"""Grants over the API: asked for by one, approved by another, kept by the KMS, ended by either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent_api import Accounts, Clock, ServedApi, serving_api

from ringfence_agent.api import documents, grant_routes
from ringfence_agent.api.applications import BoundGrants
from ringfence_agent.api.wishes import KEPT_S, WishBook
from ringfence_agent.client import AgentClient, AgentError
from ringfence_zones.errors import (
    AccessDeniedError,
    GrantNotFoundError,
    InputError,
    KmsUnavailableError,
    RingfenceError,
)
from ringfence_zones.grants import Grant, GrantRequest

SETTINGS = """
allowed_users: [masker]
operators: {users: [etl, eve]}
admins: {users: [boss, deputy]}
delegate_users: [boss]
"""
ZONES = {"source": "/data/pii", "target": "/data/masked"}


class _Kms:
    """As much of the KMS as grants take. `failure` is what it answers instead."""

    def __init__(self) -> None:
        self.grants: dict[str, Grant] = {}
        self.failure: RingfenceError | None = None
        self.clock = Clock()

    def create_grant(self, request: GrantRequest) -> Grant:
        self._fail()
        made = Grant(
            **{name: getattr(request, name) for name in ("id", "user", *ZONES, "token", "address", "real_user")},
            purpose=request.purpose,
            approver=request.approver,
            granted_by="hdfs",
            created_ms=1_000,
            not_after_ms=1_000 + int(request.lifetime_s * 1000),
        )
        return self.grants.setdefault(request.id, made)

    def end_grant(self, grant_id: str) -> Grant:
        self._fail()
        if grant_id not in self.grants:
            raise GrantNotFoundError(grant_id)
        self.grants[grant_id] = replace(self.grants[grant_id], ended_ms=2_000, ended_by="deleted")
        return self.grants[grant_id]

    def list_grants(self) -> Sequence[Grant]:
        self._fail()
        return list(self.grants.values())

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class _World:
    def __init__(self, api: ServedApi, kms: _Kms, bound: BoundGrants) -> None:
        self.api, self.kms, self.bound = api, kms, bound
        self.client = AgentClient(str(api.path))

    def as_user(self, name: str) -> AgentClient:
        self.api.accounts.name = name
        return self.client

    def wish(self, **changes: Any) -> Any:
        wanted = {"life_s": 600, "purpose": "backfill of November", "token": 7, **ZONES}
        return self.as_user("etl").request_grant(**{**wanted, **changes})

    def issue(self, by: str, user: str, paths: Sequence[str] | None = None) -> tuple[str, str]:
        """An administrator's token for a user."""
        token, _ = self.as_user(by).issue_token(user, "admin", 600, paths=paths)
        return user, token


def _with_token(world: _World, issued: tuple[str, str], directory: Path) -> AgentClient:
    user, token = issued
    file = directory / "token"
    file.write_text(token)
    file.chmod(0o600)
    client = AgentClient(str(world.api.path), token_file=str(file))
    world.as_user(user)
    return client


GRANTED: dict[str, Any] = {
    **ZONES,
    "id": "g-1",
    "user": "etl",
    "lifetime_s": 60,
    "purpose": "p",
    "approver": "boss",
    "token": 7,
}


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    directory, kms = tmp_path_factory.mktemp("g"), _Kms()
    book, bound = WishBook(directory / "wishes.json"), BoundGrants(directory / "bound.json")
    accounts = Accounts()
    accounts.groups = frozenset()
    api = ServedApi(
        directory,
        SETTINGS,
        routers=lambda view: [grant_routes.router(book, bound, view, lambda: kms)],
        accounts=accounts,
    )
    with serving_api(api) as running:
        yield _World(running, kms, bound)


def test_a_wish_is_no_grant_until_somebody_else_approves_it(world: _World) -> None:
    wish = world.wish()
    assert (wish.state, wish.user, wish.approver) == ("requested", "etl", None)
    assert world.kms.grants == {}
    with pytest.raises(AgentError) as caught:
        world.as_user("etl").approve_grant(wish.id)
    assert caught.value.status == 403
    grant = world.as_user("boss").approve_grant(wish.id)
    assert (grant.id, grant.state, grant.approver) == (wish.id, "active", "boss")
    kept = world.kms.grants[wish.id]
    assert (kept.user, kept.source, kept.target, kept.token, kept.purpose) == (
        "etl",
        "/data/pii",
        "/data/masked",
        7,
        "backfill of November",
    )
    assert [each.state for each in world.as_user("etl").grants()] == ["active"]
    with pytest.raises(AgentError) as caught:
        world.as_user("deputy").approve_grant(wish.id)
    assert caught.value.status == 404


def test_nobody_approves_what_they_asked_for_not_even_for_somebody_else(world: _World) -> None:
    own = world.as_user("boss").request_grant(**ZONES, life_s=600, purpose="p", token=7)
    for_etl = world.as_user("boss").request_grant(**ZONES, life_s=600, purpose="p", token=7, user="etl")
    for wish in (own, for_etl):
        with pytest.raises(AgentError, match="somebody else has to approve"):
            world.as_user("boss").approve_grant(wish.id)
    assert world.as_user("deputy").approve_grant(for_etl.id).user == "etl"


def test_who_would_get_a_grant_does_not_approve_it_either(world: _World) -> None:
    for_deputy = world.as_user("boss").request_grant(**ZONES, life_s=600, purpose="p", token=7, user="deputy")
    with pytest.raises(AgentError, match="deputy asked for this grant, or gets it"):
        world.as_user("deputy").approve_grant(for_deputy.id)


def test_a_token_that_the_requester_made_is_no_second_person(world: _World, tmp_path: Path) -> None:
    own = world.as_user("boss").request_grant(**ZONES, life_s=600, purpose="p", token=7)
    with pytest.raises(AgentError, match="boss asked for this grant, or gets it"):
        _with_token(world, world.issue("boss", "etl"), tmp_path).approve_grant(own.id)
    assert _with_token(world, world.issue("deputy", "etl"), tmp_path).approve_grant(own.id).approver == "etl"


def test_a_tokens_paths_bind_approving_seeing_and_ending(world: _World, tmp_path: Path) -> None:
    wish = world.wish()
    elsewhere = _with_token(world, world.issue("deputy", "eve", ["/data/pii"]), tmp_path)
    assert elsewhere.grants() == []
    for act in (elsewhere.approve_grant, elsewhere.end_grant):
        with pytest.raises(AgentError, match="is not good for /data/masked"):
            act(wish.id)
    world.kms.create_grant(GrantRequest(**GRANTED))
    with pytest.raises(AgentError, match="is not good for /data/masked"):
        elsewhere.end_grant("g-1")
    everywhere = _with_token(world, world.issue("deputy", "eve", ["/data"]), tmp_path)
    assert len(everywhere.grants()) == 2


def test_one_sees_and_ends_ones_own(world: _World) -> None:
    wish = world.wish()
    approved = world.wish(purpose="another")
    world.as_user("boss").approve_grant(approved.id)
    assert world.as_user("eve").grants() == []
    for grant_id in (wish.id, approved.id, "0" * 32):
        with pytest.raises(AgentError) as caught:
            world.as_user("eve").end_grant(grant_id)
        assert (caught.value.status, caught.value.type) == (404, "grant-not-found")
    assert {each.id for each in world.as_user("boss").grants()} == {wish.id, approved.id}
    world.as_user("etl").end_grant(wish.id)
    world.as_user("etl").end_grant(approved.id)
    assert world.kms.grants[approved.id].ended_by == "deleted"
    assert [(each.state, each.ended_by) for each in world.as_user("etl").grants()] == [("ended", "deleted")]


def test_a_viewer_has_nothing_to_do_with_grants(world: _World) -> None:
    viewer = world.as_user("masker")
    for refused in (viewer.grants, lambda: viewer.request_grant(**ZONES, life_s=60, purpose="p", token=1)):
        with pytest.raises(AgentError) as caught:
            refused()
        assert caught.value.status == 403


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"token": None}, "one session"),
        ({"address": "10.0.0.1"}, "one session"),
        ({"source": "/data/pii/x"}, "not the root"),
        ({"target": "/nowhere"}, "not the root"),
        ({"source": "data"}, "absolute"),
        ({"life_s": 0}, "life_s"),
        ({"life_s": 86401}, "life_s"),
        ({"purpose": ""}, "purpose"),
        ({"purpose": "a\nb"}, "one line"),
        ({"user": "hdfs"}, "on behalf of"),
    ],
)
def test_a_bad_wish_says_why(world: _World, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(AgentError, match=why) as caught:
        world.wish(**changes)
    assert caught.value.status in (400, 403)


def test_an_agent_that_the_kms_refuses_or_misses_gives_nothing(world: _World) -> None:
    wish = world.wish()
    for failure, status in (
        (KmsUnavailableError("the KMS is away"), 503),
        (AccessDeniedError("hdfs may not"), 502),
    ):
        world.kms.failure = failure
        with pytest.raises(AgentError) as caught:
            world.as_user("boss").approve_grant(wish.id)
        assert caught.value.status == status
    world.kms.failure = None
    assert world.kms.grants == {}
    assert world.as_user("boss").approve_grant(wish.id).state == "active"


def test_a_wish_sent_twice_is_one(world: _World) -> None:
    first = world.wish(idempotency_key="november")
    assert world.wish(idempotency_key="november").id == first.id
    assert len(world.as_user("etl").grants()) == 1


def test_a_grant_that_ends_with_an_application_is_watched_from_before_it_exists(world: _World) -> None:
    wish = world.wish(application="application_1_0007")
    world.kms.failure = KmsUnavailableError("the KMS is away")
    with pytest.raises(AgentError):
        world.as_user("boss").approve_grant(wish.id)
    assert world.bound.list_all() == {wish.id: "application_1_0007"}
    world.kms.failure = None
    assert world.as_user("boss").approve_grant(wish.id).application == "application_1_0007"
    assert [each.application for each in world.as_user("etl").grants()] == ["application_1_0007"]
    world.as_user("etl").end_grant(wish.id)
    assert world.bound.list_all() == {}
    with pytest.raises(AgentError, match="application"):
        world.wish(application="application_1_7/../../x")


def test_answers_match_their_description(world: _World) -> None:
    world.wish()
    by_address = world.wish(token=None, address="10.0.0.1")
    world.as_user("boss").approve_grant(by_address.id)
    status, answer = world.api.ask("GET", "/v1/grants")
    assert (status, len(answer["grants"])) == (200, 2)
    for each in answer["grants"]:
        documents.GrantDocument.model_validate(each)


def test_wishes_outlive_a_restart_and_end_after_a_day(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "wishes.json"
    fields = {"user": "etl", "life_s": 60, "purpose": "p", "token": 1, "address": None, "real_user": None, **ZONES}
    wish = WishBook(path, clock).add(**fields, requester="etl", requested_by="etl (uid 1)")
    book = WishBook(path, clock)
    assert book.get(wish.id) == wish
    assert path.stat().st_mode & 0o777 == 0o600
    clock.now += KEPT_S + 1
    with pytest.raises(GrantNotFoundError):
        book.get(wish.id)
    assert book.list_alive() == []


def test_wishes_are_bounded_and_a_damaged_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ringfence_agent.api.wishes.MAX_WISHES", 1)
    path = tmp_path / "wishes.json"
    path.write_text("{")
    book = WishBook(path)
    assert "cannot be read" in caplog.text
    fields = {"user": "etl", "life_s": 60, "purpose": "p", "token": 1, "address": None, "real_user": None, **ZONES}
    book.add(**fields, requester="etl", requested_by="etl")
    with pytest.raises(InputError, match="wait for an answer"):
        book.add(**fields, requester="etl", requested_by="etl")


def test_one_requester_leaves_room_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence_agent.api.wishes.MAX_WISHES_EACH", 2)
    book = WishBook(tmp_path / "wishes.json")
    fields = {"user": "etl", "life_s": 60, "purpose": "p", "token": 1, "address": None, "real_user": None, **ZONES}
    for _ in range(2):
        book.add(**fields, requester="eve", requested_by="eve")
    with pytest.raises(InputError, match="2 requests of eve wait"):
        book.add(**fields, requester="eve", requested_by="eve")
    assert book.add(**fields, requester="etl", requested_by="etl").requester == "etl"
